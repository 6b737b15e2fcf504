"""A whole head solved for at once: one linear layer on the last features, or layers on each stage's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from raytl.evaluation.calibration import apply_temperature, fit_temperature
from raytl.evaluation.mixing import mixture_shares
from raytl.evaluation.place_probes import Drawn, PlaceProbe, draw, fit_places
from raytl.evaluation.probes import STRENGTHS, Probe, fit_logistic
from raytl.sources.heads import PlacesLayer, StagesHead
from raytl.tasks.splits import spread_by_class

STAGE_FOLDS = 3
"""By which the strength of each stage's head is chosen: their average forgives what five would do better."""
CLOSE = 1e-6
"""Nats an image from its optimum that is near enough for one of many layers."""
OF_MANY = STRENGTHS[1:-2]
"""Penalties tried where a source domain's images are there too: of hundreds, a weaker one is dear and brings little."""
SURER = 0.4
"""Power of the number of layers by which their average usually has to be made surer.

Members that fail on different images leave each other less sure than the average is right (Rahaman & Thiery, 2021). On
15 tasks (digits, letters, clothes, icons, emoji, textures, photographs) with 1 to 5 labels a class the temperatures
that fitted the truth lay around 0.75 for 2 layers, 0.45 for 7 and 0.38 for 14, most within a factor of 2. Layers on
peaks are not counted: they are of the same stages as those on means. With them counted one image a class came to 0.11
nats more on 12 tasks made by others (0.4 to -0.03), and to 0.1 to 0.2 less on digits and letters.
"""
BETWEEN = 1.0
"""Images' worth of a prior towards as much of a say for the target's own layers as for those with a source domain."""
KINDS = (0.7, 0.3, 0.3)
"""How layers on means, peaks and places stand to each other in what is usual, where no label tells. Of 29 pairs of a
source domain and a task without labels heads came out 2 points better on average for 0.3 of the say for peaks beside
means, 10 at best (test strips), 2 worse at worst (icons); half of it would have been 4 worse there. Places beside both
were worth 7 to digits and to turned icons, 1 to letters, and cost emoji 1; another share of them was not tried."""
BETWEEN_KINDS = 2.0
"""Images' worth of a prior towards these shares."""
CONTRADICTED, BORNE_OUT = 0.1, 0.2
"""Share of the layers with a source domain up to which the target's images contradict it, and from which on they do
not. Of 24 pairs of a domain and a task with 47 to 178 labelled images one was below the first and one between the two;
with every label of the domain exchanged for another it was 16 and 3, and the other 5 knew nothing of the target."""
DOUBT = 3.0
"""Images' worth of trust in what is usual."""
TELLING, TELLING_A_CLASS = 2500, 10
"""Images that tell how strong penalties are to be as well as more of them do, by how many classes there are."""
ON_CPU = 5000
"""Features of so many images are solved on the CPU: of the many small steps a GPU would only feel the starts."""
PLACES = 2


class Kinds:
    """What each of a member's layers reads: 0 means, 1 peaks, :data:`PLACES`.

    peaks: which parts are peaks, none unless said; places: how many positions each holds, 1 unless said. A kind is one
    beside others only: where all are peaks, these are what others have in means.
    """

    def __init__(self, layers: int, peaks: Sequence[bool] = (), places: Sequence[int] = ()) -> None:
        self.places = list(places) or [1] * layers
        placed = np.array(self.places) > 1
        self.each = np.where(placed, PLACES, np.array(list(peaks) or [False] * layers, dtype=int))
        if not (self.each == 0).any():
            self.each[self.each == 1] = 0
        self.usual = np.array(KINDS)

    @property
    def apart(self) -> int:
        """Layers that fail each in its own way: those on means, as others read the same stages again."""
        return int((self.each == 0).sum()) or len(self.each)

    def usual_shares(self) -> np.ndarray:
        """Of the layers in their average, where no image tells, (layers,)."""
        counts = np.bincount(self.each, minlength=len(KINDS))
        share = np.where(counts > 0, self.usual, 0.0)
        return np.asarray((share / share.sum() / np.maximum(counts, 1))[self.each])


@dataclass(frozen=True)
class SolvedHead:
    """Its layers, and how sure it is to be.

    probes: of each linear layer, those of one member after the other's; members: layers on each stage. shares: of the
    layers in their average. out_of_fold: (n, k) probabilities of each item by heads that it did not train, before any
    sharpness; NaN if never held. sharpness: of the average, 1 of a layer alone. temperature: by which the logarithms of
    ``out_of_fold`` are to be divided for calibrated probabilities. all_teach: whether layers on places learned from all
    of the images.
    """

    probes: tuple[Probe | PlaceProbe, ...]
    members: int
    shares: np.ndarray
    out_of_fold: np.ndarray
    sharpness: float
    temperature: float
    all_teach: bool = True

    @torch.no_grad()
    def put_into(self, head: nn.Module) -> None:
        """Make these a linear head's weights, or a :class:`StagesHead`'s of as many members, in place."""
        layers = head.parts if isinstance(head, StagesHead) else [head]
        for layer, probe in zip(layers, self.probes, strict=True):
            assert isinstance(layer, nn.Linear | PlacesLayer)
            layer.weight.copy_(torch.as_tensor(probe.weight))
            layer.bias.copy_(torch.as_tensor(probe.bias))
        if isinstance(head, StagesHead):
            head.shares.copy_(torch.as_tensor(self.shares))
            head.sharpness.fill_(self.sharpness)


def solve_parts(
    features: Tensor,
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray,
    groups: np.ndarray | None,
    *,
    widths: Sequence[int] | None,
    balanced: bool,
    seed: int,
    peaks: Sequence[bool] = (),
    places: Sequence[int] = (),
    target: np.ndarray | None = None,
    views: np.ndarray | None = None,
    domains: np.ndarray | None = None,
    at_least: float = 0.0,
) -> SolvedHead:
    """The best linear head for labelled features, or the best average of layers on each stage's.

    features: (n, d), finite; labels: (n,) in [0, classes); weights: (n,) of the images; groups: (n,) or None, never on
    two sides of a fold. widths: of the stages' features, which lie one after another; None for a single layer. peaks:
    which of these are peaks, and no means; places: how many positions each holds, 1 of those that were pooled (layers
    on others hear one place, :func:`raytl.evaluation.place_probes.fit_places`). How much of a say means, peaks and
    places have is told by fewer images than each layer's.
    balanced: whether every class weighs the same. target: bool (n,), which are of the domain that the model is for;
    None for all. views: bool (n,), which are augmented versions of others: heads learn from these as well, while
    strengths, shares and how sure to be are told by images as they are, of which there are no more for that.

    Where some are and some are not, and the target's have all classes, there are two members: the first one's layers
    are solved for on the target's images alone, the second one's on all. The target's images say, out of fold, which
    member and which of its layers have how much of a say, so that a source domain that is of no use is hardly heard.
    at_least: the share of the second member where they do not contradict it, whichever they prefer.

    domains: (n,), of which source domain each is, None for a single one or beside the target's images. Each has a
    member then, all with as much of a say: nothing tells which is right of the target, and where one is wrong others
    are unsure. Images of a class that a domain lacks it has from the others. How sure to be is told by images of one
    domain, of which the others' members speak too.
    """
    features = features.cpu() if len(features) <= ON_CPU else features
    own = np.ones(len(labels), dtype=bool) if target is None else np.asarray(target, dtype=bool)
    telling = _telling(labels, classes, weights, own, np.zeros(len(labels), dtype=bool) if views is None else views)
    solve = partial(fit_logistic, classes=classes, class_balanced=balanced, seed=seed)
    placed = partial(fit_places, classes=classes, class_balanced=balanced, seed=seed, max_folds=STAGE_FOLDS)
    if widths is None:
        alone = solve(features, labels, sample_weight=weights, groups=groups, telling=telling)
        return SolvedHead((alone,), 1, np.ones(1), alone.out_of_fold, 1.0, alone.temperature)
    kinds = Kinds(len(widths), peaks, places)
    everyone = np.ones(len(labels), dtype=bool)
    members = _members(labels, own, domains)
    probes, said = [], []
    asked = everyone if telling is None else telling > 0
    drawn = _drawn_for_places(labels, classes, weights, own, views, asked, widths, kinds)
    for member in members:
        rows, grouped = np.flatnonzero(member), None if groups is None else groups[member]
        index = torch.as_tensor(rows, device=features.device)
        for whole, count in zip(features.split(list(widths), dim=1), kinds.places, strict=True):
            part = whole if member.all() else whole[index]
            told = None if telling is None else telling[rows]
            probe: Probe | PlaceProbe
            if count > 1:
                tells = np.where(drawn.telling[rows], weights[rows] if told is None else told, 0.0)
                taught = drawn.weights[rows]
                probe = placed(part, labels[rows], places=count, sample_weight=taught, groups=grouped, telling=tells)
            else:
                probe = solve(
                    part,
                    labels[rows],
                    sample_weight=weights[rows],
                    groups=grouped,
                    max_folds=STAGE_FOLDS,
                    telling=told,
                    tolerance=CLOSE,
                    strengths=None if own[rows].all() else OF_MANY,
                )
            probes.append(probe)
            # Of another domain's images the target's own layers say nothing.
            everything = np.full((len(labels), classes), np.nan)
            if domains is not None:
                everything[~member] = softmax(probe.logits(whole.numpy(force=True)[~member]), axis=1)
            everything[rows] = probe.out_of_fold
            said.append(everything[asked])
    stacked = np.stack(said)
    judged, known = (own if own.any() else everyone)[asked], labels[asked]
    shares = np.tile(kinds.usual_shares(), len(members)) / len(members)
    if own.any():
        counts = np.bincount(known[judged], minlength=classes)
        even = counts.sum() / (np.count_nonzero(counts) * counts[known[judged]])
        weighed = even if balanced else None
        heard_places = drawn.telling[asked][judged]
        shares = _shares(stacked[:, judged], len(members), known[judged], weighed, at_least, kinds, heard_places)
    heard = shares[:, None] * np.isfinite(stacked).all(axis=2)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(heard[:, :, None] * stacked, axis=0) / heard.sum(axis=0)[:, None]
    # What less than half of the average says of an image tells little of how sure the whole is to be.
    told = judged & (heard.sum(axis=0) >= 0.5)
    if (told & drawn.telling[asked]).any():  # nor what layers on places were not asked of
        told &= drawn.telling[asked]
    apart = kinds.apart * len(members)
    temperature = _temperature(mean[told], known[told], weights[asked][told], apart**-SURER)
    out_of_fold = np.full((len(labels), classes), np.nan)
    out_of_fold[asked] = mean
    # As the head's buffer has it, so that what is recorded is what is used.
    sharpness = float(np.float32(1.0 / temperature))
    return SolvedHead(tuple(probes), len(members), shares, out_of_fold, sharpness, temperature, drawn.all_teach)


def _drawn_for_places(
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray,
    own: np.ndarray,
    views: np.ndarray | None,
    asked: np.ndarray,
    widths: Sequence[int],
    kinds: Kinds,
) -> Drawn:
    """The same for all of these layers, which cannot be compared by what one was asked of and another was not."""
    widest = max((width for width, count in zip(widths, kinds.places, strict=True) if count > 1), default=0)
    if not widest:
        return Drawn(weights, asked)
    seen = np.zeros(len(labels), dtype=bool) if views is None else views
    roles = (own & ~seen, own & seen, ~own & ~seen, ~own & seen)
    return draw(labels, classes, weights, asked & (own if own.any() else ~own) & ~seen, widest, roles)


def _members(labels: np.ndarray, own: np.ndarray, domains: np.ndarray | None) -> list[np.ndarray]:
    """Which images (n,) the layers of each member are solved for on."""
    everyone = np.ones(len(labels), dtype=bool)
    if domains is not None:
        # Without a class a member would be sure that its images are of another one.
        each = [domains == domain for domain in np.unique(domains)]
        return [own | ~np.isin(labels, labels[own]) for own in each]
    # Judged by the target's images, layers that know its classes alone would silence those that know the others.
    covered = bool(np.isin(labels, labels[own]).all())
    return [own, everyone] if covered and not own.all() else [everyone]


def _telling(
    labels: np.ndarray, classes: int, weights: np.ndarray, own: np.ndarray, views: np.ndarray
) -> np.ndarray | None:
    """Weights (n,) of the images that are divided into folds, 0 of the others; None for all as they are.

    own: bool (n,), the target's, which are some of them where they are many. views: bool (n,), none of which are. The
    same ones for all layers, which cannot be compared by what one was asked of and another was not.
    """
    many = np.flatnonzero((own if own.any() else ~own) & ~views)
    kept = many[spread_by_class(labels[many], max(TELLING, TELLING_A_CLASS * classes), least=2)]
    if len(kept) == len(many) and not views.any():
        return None
    telling = np.array(weights, dtype=np.float64)
    for role in (own, ~own):
        if (role & views).any():
            telling[role] *= np.where(views[role], 0.0, weights[role].sum() / weights[role & ~views].sum())
    if len(kept) == len(many):
        return telling
    telling[many] = 0.0
    all_of_them = weights[own if own.any() else ~own].sum()
    telling[kept] = weights[kept] * (all_of_them / weights[kept].sum())
    return telling


def _shares(
    said: np.ndarray,
    members: int,
    labels: np.ndarray,
    weights: np.ndarray | None,
    at_least: float,
    kinds: Kinds,
    placed: np.ndarray,
) -> np.ndarray:
    """Of the layers in their average: of each member's among themselves, then of the members.

    said: (p, n, k) out of fold, one member's layers after the other's. placed: bool (n,), what layers on places were
    asked of; kinds are compared by these alone. Two members are told apart by fewer images than a dozen layers: one
    image of each class begins to silence a domain that contradicts the target.
    """
    spoken = _spoken(said, np.tile(kinds.each == PLACES, members)[:, None] & ~placed)
    parts = [(own, _of_layers(own, labels, weights, kinds)) for own in np.split(spoken, members)]
    if members == 1:
        return parts[0][1]
    # On places wrong labels may be learned beside the target's, of what looks otherwise: pooled layers contradict them.
    pooled = kinds.each != PLACES
    told = [np.tensordot(shares[pooled] / shares[pooled].sum(), own[pooled], axes=1) for own, shares in parts]
    between = mixture_shares(np.stack(told), labels, weights, pull=BETWEEN)
    joined = at_least * float(np.clip((between[1] - CONTRADICTED) / (BORNE_OUT - CONTRADICTED), 0, 1))
    if joined > between[1]:
        between = np.array([1 - joined, joined])
    return np.concatenate([share * shares for share, (_, shares) in zip(between, parts, strict=True)])


def _of_layers(said: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, kinds: Kinds) -> np.ndarray:
    """Shares of one member's layers: of each kind's among themselves, then of the kinds. said: (p, n, k).

    Where a kind has few layers their average is surer than that of many, which is not more right. So the kinds are
    compared as they are, and each as sure as it is right, and have the mean of both shares.
    """
    present = [kind for kind in range(len(KINDS)) if (kinds.each == kind).any()]
    if len(present) == 1:
        return mixture_shares(said, labels, weights)
    shares = np.zeros(len(said))
    averages, sure = [], []
    counted = np.ones(len(labels)) if weights is None else weights
    for kind in present:
        own = kinds.each == kind
        shares[own] = mixture_shares(said[own], labels, weights)
        averages.append(np.tensordot(shares[own], said[own], axes=1))
        told = np.isfinite(averages[-1]).all(axis=1)
        temperature = _temperature(averages[-1][told], labels[told], counted[told], int(own.sum()) ** -SURER)
        sure.append(apply_temperature(averages[-1], temperature))
    usual = kinds.usual[present]
    pull = BETWEEN_KINDS * usual / usual.sum()
    between = np.mean([mixture_shares(np.stack(each), labels, weights, pull=pull) for each in (averages, sure)], axis=0)
    for kind, share in zip(present, between, strict=True):
        shares[kinds.each == kind] *= share
    return shares


def _spoken(said: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """The layers' probabilities (p, n, k), with chance for what a layer could not be asked of and another one was.

    left_out: bool (p, n), what a layer was not asked of for want of time: of that it says nothing.

    One image of a class tells nothing of the target's own layers. Of those that were solved for with a source domain it
    does: where they say less than chance, the domain contradicts the target, and is not to have half of the say.
    """
    silent = ~np.isfinite(said).all(axis=2)
    filled = said.copy()
    filled[silent & ~silent.all(axis=0) & ~left_out] = 1.0 / said.shape[2]
    return filled


def _temperature(mean: np.ndarray, labels: np.ndarray, weights: np.ndarray, usual: float) -> float:
    """Of averaged probabilities (n, k), by images that trained none of the layers, and by what is usual."""
    seen = np.isfinite(mean).all(axis=1)
    if not seen.any():
        return usual
    logs = np.log(np.clip(mean[seen], 1e-12, None))
    return fit_temperature(logs, labels[seen], weights[seen] / weights[seen].sum(), pull=DOUBT, usual=usual)
