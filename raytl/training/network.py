"""The network under training: a source model's stages with a head for the task, entered at any stage."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from raytl import sources
from raytl.core.errors import UserError
from raytl.finetuning.freezing import freeze, training_mode
from raytl.sources import SourceModel
from raytl.sources.heads import READS, ZERO_SHOT
from raytl.sources.precision import full_precision
from raytl.tasks.preprocessing import Preprocessing


class Network:
    """A source model made ready for a task.

    inherits_head: whether the head is the source model's, which knows the same labels. cut: stages frozen. entry: the
    first stage that inputs still have to pass; 0 for pixels, ``cut`` for cached activations. head: its kind. images:
    how many there are in all. reads: what is read of all stages, where heads do.
    """

    def __init__(
        self,
        model: SourceModel,
        classes: tuple[str, ...],
        cut: int,
        *,
        device: torch.device,
        head: str = "linear",
        images: int = 0,
    ) -> None:
        count = len(model.stage_names)
        if not 0 <= cut <= count:
            raise UserError(f"{model.uri}: cut {cut} is outside 0 to {count}, its number of stages")
        self.reads = model.reads_for(len(classes), images) if cut == count else READS[0]
        self.inherits_head = fit_head(model, classes, head, self.reads)
        self.model = model.to(device)
        self.device = device
        self.cut = cut
        self.entry = 0
        freeze(model.stage_list(), cut)

    @property
    def preprocessing(self) -> Preprocessing:
        """Of the source model."""
        return self.model.preprocessing

    @cached_property
    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, shift) that normalise uint8 pixels; made once, as each copy to a device would make the step wait."""
        return self.preprocessing.affine(torch.empty(0, device=self.device))

    @property
    def stages(self) -> list[nn.Module]:
        """All stages, frozen ones included."""
        return self.model.stage_list()

    def train(self) -> None:
        """Training mode above the cut, eval mode below (batch norm and dropout included)."""
        training_mode(self.stages, self.cut)
        self.model.head.train()

    def eval(self) -> None:
        """Eval mode everywhere."""
        self.model.eval()

    def features(self, inputs: Tensor) -> Tensor:
        """Inputs of the entry stage to the features (n, d) that the head reads."""
        return (
            self.model.all_stages(inputs, reads=self.reads)
            if self._reads_from_pixels
            else self.model.run(inputs, start=self.entry)
        )

    @property
    def _reads_from_pixels(self) -> bool:
        """Whether the head reads all stages, and these have not been run beforehand."""
        return self.model.reads_stages and self.entry == 0

    def head(self, features: Tensor) -> Tensor:
        """Features (n, d) to logits (n, k), in full precision, as it is served.

        Weights that were solved for on many features cancel each other, which half precision loses.
        """
        with full_precision(features.device):
            logits: Tensor = self.model.head(features.float())
        return logits

    def trainable(self) -> list[nn.Parameter]:
        """Parameters above the cut, the head's included."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def fit_head(model: SourceModel, classes: tuple[str, ...], kind: str = "linear", reads: str | None = None) -> bool:
    """Give the model a head for ``classes``.

    Where a linear one is wanted and its own knows all of these labels by name, their rows are taken over: a model of
    the same task from another domain starts from what it knows. Otherwise the head is new, from the global torch seed.
    A zero-shot one is made of the classes' names. reads: of one on all stages. Returns whether it was taken over.
    """
    if kind == ZERO_SHOT:
        model.head, model.labels = sources.zero_shot_head(model.uri, classes), classes
        return False
    old, known = model.head, model.labels or ()
    model.replace_head(len(classes), classes, kind, reads=reads)
    fits = isinstance(old, nn.Linear) and old.in_features == model.feature_dim
    inherits = kind in ("linear", "logistic") and fits and set(classes) <= set(known)
    if inherits and isinstance(old, nn.Linear):
        rows = [known.index(name) for name in classes]
        bias = old.bias[rows] if old.bias is not None else torch.zeros(len(rows))
        model.head.load_state_dict({"weight": old.weight[rows].detach(), "bias": bias.detach()})
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return inherits
