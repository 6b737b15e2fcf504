"""A source model: a network as an ordered list of stages that concatenate to it exactly, plus its head."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.sources.heads import READS, StagesHead, make_head
from raytl.sources.licences import UNKNOWN
from raytl.tasks.preprocessing import Preprocessing

Form = str | None
"""Of what a head reads: of all stages, one of :data:`raytl.sources.heads.READS`, or the last's output (None)."""
PLACED, COARSE = 3, 28
"""Stages of which every position is read, at most; pixels between two positions from which on a stage is coarse."""
MOST_PAIRS, MOST_READ_BYTES = 100_000_000, 4 * 2**30
"""Numbers of one stage's positions times the classes squared (two images of each class have to be seen at once), and
bytes of what is read of all images, beyond which positions are not read."""
MOST_PLACES, MOST_NUMBERS = 28, 201_000
"""A side, and channels times places, of what is read of one stage's positions. On animals of 20 to 60 pixels in scenes
of 900, of which 448 were seen, 28 places a side told 42 %, their means in 20 or 14 a side 25 and 28 %."""


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source model without loading its weights.

    uri: as the user writes it. stages: names, input side first. feature_dim: width of the head's input.
    parameters: count, head included. image_size: side of the input it was built for, pixels; fixed_size: whether it
    accepts only that. patch: side in pixels of the patches for each of which its weights hold a position, of which
    every side is a multiple, and weights that raytl saved fit one; None where they hold none.
    pretrained: whether it brings weights. labels: of the source task, where known.
    trainable: whether its stages hold anything to train; where not, every strategy has all of them frozen.
    licence: of the weights, as :mod:`raytl.sources.licences` has it.
    batch_norm_stages: those of the stages that keep statistics of batches; None where that is not known.
    text_tower: whether class names mean something to it, so that it can have a zero-shot head.
    crops: whether it is shown the middle square of an image, so that what lies at the edges is never seen.
    """

    uri: str
    stages: tuple[str, ...]
    feature_dim: int
    parameters: int
    image_size: int
    fixed_size: bool
    pretrained: bool
    labels: tuple[str, ...] | None = None
    trainable: bool = True
    licence: str = UNKNOWN
    batch_norm_stages: tuple[str, ...] | None = None
    text_tower: bool = False
    crops: bool = False
    patch: int | None = None


class SourceModel(nn.Module):
    """Stages in order, then a head.

    ``head(stages[-1](... stages[0](x)))`` equals the original network's output. The last stage yields the features,
    shape (n, feature_dim); every earlier boundary is a possible *cut*. A :class:`StagesHead` reads all stages.

    architecture: URI of the untrained architecture (``scratch:cnn-small``, ``torchvision:resnet18@none``), which with
        the state dict rebuilds the model.
    frozen: whether nothing of the stages is ever trained.
    notes: sentences for whoever named the model, about what was taken for granted when its weights were read.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        uri: str,
        architecture: str,
        stages: list[tuple[str, nn.Module]],
        head: nn.Module,
        feature_dim: int,
        preprocessing: Preprocessing,
        labels: tuple[str, ...] | None = None,
        pretrained: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.uri = uri
        self.architecture = architecture
        self.stages = nn.ModuleDict({name.replace(".", "_"): module for name, module in stages})
        self.head = head
        self.feature_dim = feature_dim
        self.preprocessing = preprocessing
        self.labels = labels
        self.pretrained = pretrained
        self.frozen = frozen
        self._parts = _SharedByCopies()

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, input side first."""
        return tuple(self.stages.keys())

    @property
    def trainable(self) -> bool:
        """Whether the stages hold anything to train, and are not frozen for good."""
        return not self.frozen and any(True for _ in self.stages.parameters())

    def stage_list(self) -> list[nn.Module]:
        """The stages, input side first."""
        return list(self.stages.values())

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Pass ``x`` through stages start (inclusive) to stop (exclusive, default all)."""
        for stage in self.stage_list()[start:stop]:
            x = stage(x)
        return x

    @property
    def reads_stages(self) -> bool:
        """Whether the head reads the outputs of all stages."""
        return isinstance(self.head, StagesHead)

    def all_stages(self, x: Tensor, *, reads: str = READS[0]) -> Tensor:
        """What a head reads of every stage for normalised images, one after another: (n, sum of the widths).

        The last :attr:`feature_dim` are the features. reads: one of :data:`raytl.sources.heads.READS`.
        """
        return self._seen(x, {reads})[reads]

    def _seen(self, x: Tensor, wanted: Collection[Form]) -> dict[Form, Tensor]:
        """What heads read of normalised images, in one pass."""
        found: dict[str, list[Tensor]] = {reads: [] for reads in wanted if reads is not None}
        placed = self.placed if "places" in found else ()
        for number, stage in enumerate(self.stage_list()):
            x = stage(x)
            for reads, outputs in found.items():
                outputs += read_stage(x, reads, placed=number in placed)
        joined: dict[Form, Tensor] = {reads: torch.cat(outputs, dim=1) for reads, outputs in found.items()}
        return {None: x, **joined}

    def stages_head(self, outputs: int, members: int = 1, *, reads: str = READS[0]) -> StagesHead:
        """A head for what :meth:`all_stages` comes to, its weights drawn from torch's generator."""
        widths, peaks, places = self.stage_parts(reads=reads)
        return StagesHead(widths, outputs, members, reads=reads, peaks=peaks, places=places)

    def stage_parts(self, *, reads: str = READS[0]) -> tuple[list[int], list[bool], list[int]]:
        """Of the parts in :meth:`all_stages` the widths, which are peaks, and how many positions they hold.

        A stage has one to three. One that was pooled over positions holds 1.
        """
        parts = self._known_parts(reads)
        return list(parts.widths), list(parts.peaks), list(parts.places)

    @property
    def placed(self) -> tuple[int, ...]:
        """The stages of which a head on all stages may read every position."""
        return self._known_parts("places").placed

    def reads_for(self, classes: int, images: int = 0) -> str:
        """What a head on all stages reads for so many classes, one of :data:`raytl.sources.heads.READS`.

        Every position only where that is affordable: of so many images in all, and for every class. images: 0 where
        nobody keeps what is read of them.
        """
        parts = self._known_parts("places")
        widest = max((width for width, count in zip(parts.widths, parts.places, strict=True) if count > 1), default=0)
        affordable = widest * classes**2 <= MOST_PAIRS and 4 * images * sum(parts.widths) <= MOST_READ_BYTES
        return "places" if affordable else "peaks"

    def _known_parts(self, reads: str) -> _Parts:
        key = self.preprocessing.channels, self.preprocessing.size, reads
        if key not in self._parts:  # an image passes all stages for it, and each trial has a copy of its own
            self._parts[key] = self._read_parts(reads)
        return self._parts[key]

    def _read_parts(self, reads: str) -> _Parts:
        size, mode = self.preprocessing, self.training
        device = next((tensor.device for tensor in self.state_dict().values()), None)
        x = torch.zeros(1, size.channels, size.size, size.size, device=device)
        outputs = []
        self.eval()
        with torch.inference_mode():
            for stage in self.stage_list():
                x = stage(x)
                outputs.append(x)
            placed = _placed(outputs, size.size)
            each = [read_stage(x, reads, placed=number in placed) for number, x in enumerate(outputs)]
        self.train(mode)
        places = ((1, 1, at_places(x).shape[2])[: len(parts)] for x, parts in zip(outputs, each, strict=True))
        return _Parts(
            tuple(part.shape[1] for parts in each for part in parts),
            tuple(number == 1 for parts in each for number in range(len(parts))),
            tuple(count for counts in places for count in counts),
            placed,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (n, channels, size, size) to logits (n, k)."""
        logits: Tensor = self.head(self.head_inputs(x))
        return logits

    def head_inputs(self, x: Tensor) -> Tensor:
        """What the head reads of normalised images."""
        return self._seen(x, {_form(self.head)})[_form(self.head)]

    def answers(self, x: Tensor, heads: Sequence[nn.Module]) -> list[Tensor]:
        """Normalised images to the logits of several heads on these stages, (n, k) each; the stages are run once."""
        seen = self._seen(x, {_form(head) for head in heads})
        return [head(seen[_form(head)]) for head in heads]

    def replace_head(
        self, num_classes: int, labels: tuple[str, ...], kind: str = "linear", *, reads: str | None = None
    ) -> None:
        """Put a fresh head for ``labels`` on the features. kind: one of :data:`raytl.sources.heads.HEADS`.

        reads: of a head on all stages, by default what :meth:`reads_for` says.
        """
        if kind == "stages":
            self.head = self.stages_head(num_classes, reads=reads or self.reads_for(num_classes))
        else:
            self.head = make_head(kind, self.feature_dim, num_classes)
        self.labels = labels

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of all stages."""
        return self.stages.parameters()


class _Parts(NamedTuple):
    """Of what a head on all stages reads; placed: the stages of which it reads every position."""

    widths: tuple[int, ...]
    peaks: tuple[bool, ...]
    places: tuple[int, ...]
    placed: tuple[int, ...]


class _SharedByCopies(dict[tuple[int, int, str], _Parts]):
    """What is known of a model's stages, and so of those of its copies."""

    def __deepcopy__(self, memo: dict[int, object]) -> _SharedByCopies:
        return self


def _form(head: nn.Module) -> Form:
    return head.reads if isinstance(head, StagesHead) else None


def _placed(outputs: Sequence[Tensor], size: int) -> tuple[int, ...]:
    """Of which stages every position is read, by what they make of an image of this side in pixels.

    The last :data:`PLACED` of those whose positions are nearer to each other than :data:`COARSE` pixels, and of the
    first that is coarser: what is behind it speaks of the whole image. On ten tasks the two stages of
    EfficientNet-Lite0 with 16 pixels and the first with 32 told 60 %, the last three 58, the last five 60.
    """
    counts = [_at_positions(x).shape[1] if x.ndim > 2 else 1 for x in outputs[:-1]]
    many = [number for number, count in enumerate(counts) if count > max(1, (size / COARSE) ** 2)]
    few = [number for number, count in enumerate(counts) if number not in many and count > 1]
    return tuple(sorted([*many, *few[:1]])[-PLACED:])


def read_stage(x: Tensor, reads: str, *, placed: bool = False) -> list[Tensor]:
    """What a head on all stages reads of one's output: means, peaks, and where ``placed`` all positions, each (n, d).

    Without positions it is the output itself. reads: one of :data:`raytl.sources.heads.READS`.
    """
    if reads == "whole":
        return [pool_positions(x)]
    positions = _at_positions(x).shape[1] if x.ndim > 2 else 1
    if positions == 1 or reads == "quarters":
        return [pool_quarters(x)]
    found = [pool_quarters(x), pool_peaks(x)]
    return [*found, at_places(x).flatten(1)] if placed and reads == "places" else found


def _has_channels_last(maps: Tensor) -> bool:
    return maps.shape[1] == maps.shape[2] != maps.shape[3]


def _at_positions(x: Tensor) -> Tensor:
    """Maps or tokens as (n, positions, channels)."""
    if x.ndim == 4:
        return (x if _has_channels_last(x) else x.permute(0, 2, 3, 1)).flatten(1, 2)
    return x


def pool_positions(x: Tensor) -> Tensor:
    """Mean over positions: of maps (n, c, h, w) or (n, h, w, c), of tokens (n, t, c); (n, c) from any of them."""
    if x.ndim == 4:
        return x.mean(dim=(1, 2) if _has_channels_last(x) else (2, 3))
    return x.mean(dim=1) if x.ndim == 3 else x.flatten(1)


def pool_quarters(x: Tensor) -> Tensor:
    """Mean over each quarter of maps (n, c, h, w) or (n, h, w, c): (n, 4 c), top left, top right, bottom left, right.

    Where something is counts for much on centred things such as signs and parts, and little is lost on others: the mean
    over all positions is the quarters' own. Sides of odd length share their middle. Maps of a single row or column, and
    tokens, are averaged as a whole.
    """
    if x.ndim != 4:
        return pool_positions(x)
    maps = x.permute(0, 3, 1, 2) if _has_channels_last(x) else x
    height, width = maps.shape[2:]
    if min(height, width) < 2:
        return pool_positions(x)
    halves = maps[:, :, : (height + 1) // 2], maps[:, :, height // 2 :]
    return torch.cat(
        [part.mean(dim=(2, 3)) for half in halves for part in (half[..., : (width + 1) // 2], half[..., width // 2 :])],
        dim=1,
    )


def pool_peaks(x: Tensor) -> Tensor:
    """Maximum, then standard deviation over positions: of maps (n, c, h, w) or (n, h, w, c), of tokens (n, t, c).

    (n, 2 c). What is small and anywhere is lost in a mean; how much a texture varies is not in one.
    """
    x = _at_positions(x)
    spread = (x - x.mean(dim=1, keepdim=True)).square().mean(dim=1).sqrt()
    return torch.cat([x.amax(dim=1), spread], dim=1)


def at_places(x: Tensor) -> Tensor:
    """What is at each place of maps (n, c, h, w) or (n, h, w, c), or of tokens (n, t, c): (n, c, places).

    Neighbouring positions are one place, their mean, where there would be more than :data:`MOST_PLACES` a side or
    :data:`MOST_NUMBERS` in all.
    """
    if x.ndim < 3:
        return x.flatten(1)[:, :, None]
    if x.ndim == 3:
        at_once = -(-x.shape[1] * x.shape[2] // MOST_NUMBERS)
        seen = x.transpose(1, 2)
        return F.avg_pool1d(seen, at_once, ceil_mode=True, count_include_pad=False) if at_once > 1 else seen
    maps = x.permute(0, 3, 1, 2) if _has_channels_last(x) else x
    side, most = max(maps.shape[2:]), max(1, min(MOST_PLACES, math.isqrt(MOST_NUMBERS // maps.shape[1])))
    return (
        F.avg_pool2d(maps, -(-side // most), ceil_mode=True, count_include_pad=False) if side > most else maps
    ).flatten(2)
