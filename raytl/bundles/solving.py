"""A new head on kept features, and what images without labels have to say to it.

Where the old classes were learned from another domain, new images may be the only labelled ones of the target's: a head
that sees nothing else takes what the domain looks like for their class. Images of the target domain without labels,
with the old model's answers, show it what the old classes look like there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from raytl.bundles.additions import looks_the_same
from raytl.evaluation.calibration import apply_temperature, confidence_temperature
from raytl.evaluation.head_probes import SolvedHead, solve_parts
from raytl.evaluation.intervals.binomial import share_interval
from raytl.evaluation.near_probes import SolvedNear, solve_near
from raytl.evaluation.other_kind import least_share
from raytl.judging.kept_features import KeptFeatures
from raytl.sources import SourceModel
from raytl.sources.heads import StagesHead
from raytl.sources.near_heads import NearestMeanHead, NeighboursHead

FEW, FEW_A_CLASS = 20, 10
"""Labelled images of the target domain below which the old classes' loss there is not seen: of a network that was never
trained on them; one that was tells all of them apart whatever the head, and many are needed to hold their place. Of
those without labels as many are needed as of the first."""
_SEVERAL = 0.25
"""Share of the classes that may have fewer than that."""
_MOST_MOVED = 0.5
_TIMES_EVEN = 2.0
"""Times as many images as a class has on average may well be of a new one."""


@dataclass(frozen=True)
class Pool:
    """Images of the target domain without labels.

    features: float32 (m, d); answers: (m, k), the old model's probabilities.
    """

    features: np.ndarray
    answers: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    @property
    def labels(self) -> np.ndarray:
        """(m,), what the old model holds them for."""
        return np.asarray(self.answers.argmax(axis=1))

    def weights(self) -> np.ndarray:
        """(m,), in sum 1: the less sure the old model, the less is learned from it (Iscen et al., 2019)."""
        p = np.clip(self.answers, 1e-12, 1)
        certainty = np.maximum(1 + (p * np.log(p)).sum(axis=1) / np.log(max(2, p.shape[1])), 1e-6)
        return np.asarray(certainty / certainty.sum())


@dataclass(frozen=True)
class Solution:
    """A head and what heads like it say of images that did not teach them.

    head: to be put into the model by :func:`with_head`. out_of_fold: (n, k) of the labelled images, before the
    temperature, NaN if never held. unlabelled: (m, k) of the pool's, calibrated.
    """

    head: SolvedHead | SolvedNear
    out_of_fold: np.ndarray
    temperature: float
    unlabelled: np.ndarray


@dataclass(frozen=True)
class Moved:
    """Images without labels that the old model did not hold for one of the classes given, and the new one may.

    images: how many of them there are; moved: how many it does hold for such; most: the share that may well be of
    such classes.
    """

    images: int
    moved: int
    most: float

    @property
    def too_many(self) -> bool:
        """Whether more than may well be are, beyond doubt."""
        return bool(self.images) and share_interval(self.moved / self.images, self.images)[0] > self.most


def pool_of(model: SourceModel, temperature: float, kept: KeptFeatures, new: np.ndarray) -> Pool:
    """The images without labels that are not among those with features ``new`` (p, d), which have labels now."""
    known = np.zeros(len(kept.unlabelled), dtype=bool)
    for one in new:
        known |= looks_the_same(kept.unlabelled, one)
    features = kept.unlabelled[~known]
    return Pool(features, _answers(model.head, features, temperature))


def few_of_the_domain(kept: KeptFeatures, classes: int) -> bool:
    """Whether there are too few labelled images of the target domain, of all or of several old classes, to go by."""
    own = kept.labels[kept.target & (kept.labels < classes)]
    if len(own) == 0:
        return True
    if kept.frozen:
        return len(own) < FEW
    return bool(np.mean(np.bincount(own, minlength=classes) < FEW_A_CLASS) > _SEVERAL)


def moved(pool: Pool, said: np.ndarray, given: list[int]) -> Moved:
    """said: (m, k) what the new head holds them for; given: the numbers of the classes that got images."""
    others = ~np.isin(pool.labels, given)
    gone = others & np.isin(said.argmax(axis=1), given)
    most = min(_MOST_MOVED, _TIMES_EVEN * len(given) / said.shape[1])
    return Moved(int(others.sum()), int(gone.sum()), most)


def solve(model: SourceModel, kept: KeptFeatures, labels: tuple[str, ...], pool: Pool, *, learn: bool) -> Solution:
    """A head for the labelled images. learn: whether the pool's take part, as the old model answers them.

    So do those that show a new class, and hold it back: nothing tells them from the old ones that a new head would lose
    (tried were heads with less of a say for the pool, whose new answers were left out: as many were old classes').
    """
    if not learn or not len(pool):
        solved = _solve(model, kept, len(labels))
        return Solution(solved, solved.out_of_fold, solved.temperature, _said(model, labels, solved, pool))
    solved = _solve(model, _with(kept, pool), len(labels))
    own = solved.out_of_fold[len(kept) :]
    held = np.isfinite(own).all(axis=1)
    temperature = solved.temperature
    if held.any():
        # What the old model answered cannot tell how often it is right: the new one is as sure as the old one was.
        temperature = confidence_temperature(own[held], float(pool.answers[held].max(axis=1).mean()))
    if isinstance(solved, SolvedHead):
        solved = replace(solved, sharpness=float(np.float32(1.0 / temperature)), temperature=temperature)
    else:
        solved = replace(solved, temperature=temperature)
    said = _said(model, labels, solved, pool)
    said[held] = apply_temperature(own[held], temperature)
    return Solution(solved, solved.out_of_fold[: len(kept)], temperature, said)


def with_head(model: SourceModel, labels: tuple[str, ...], solved: SolvedHead | SolvedNear) -> SourceModel:
    """A copy of the model with another head, for these labels."""
    model = copy.deepcopy(model)
    if isinstance(solved, SolvedNear):
        model.head, model.labels = solved.head, labels
    elif isinstance(model.head, StagesHead):
        model.head = model.head.anew(len(labels), solved.members)
        model.labels = labels
    else:
        model.replace_head(len(labels), labels, "logistic")
    if isinstance(solved, SolvedHead):
        solved.put_into(model.head)
    return model


def temperature_beside(model: SourceModel, temperature: float) -> float:
    """The temperature that stands beside a model in its bundle: the sharpness of an average is in the head itself."""
    return 1.0 if isinstance(model.head, StagesHead) else temperature


def _said(model: SourceModel, labels: tuple[str, ...], solved: SolvedHead | SolvedNear, pool: Pool) -> np.ndarray:
    if not len(pool):
        return np.empty((0, len(labels)))
    head = with_head(model, labels, solved)
    return _answers(head.head, pool.features, temperature_beside(head, solved.temperature))


@torch.inference_mode()
def _answers(head: nn.Module, features: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (m, k) of features (m, d); nothing is asked of no images."""
    device = next(iter([*head.parameters(), *head.buffers()])).device
    logits = head(torch.from_numpy(features).to(device)).float()
    return np.asarray((logits / temperature).softmax(1).double().cpu().numpy())


def _with(kept: KeptFeatures, pool: Pool) -> KeptFeatures:
    """The labelled images and the pool's with the old model's answers as labels, which count as one role does."""
    n = len(pool)
    return kept.joined(
        replace(
            kept,
            features=pool.features,
            labels=pool.labels,
            weights=pool.weights(),
            target=np.ones(n, dtype=bool),
            groups=np.arange(n),
            digests=np.zeros((n, kept.digests.shape[1]), dtype=np.uint8),
            thumbnails=np.zeros((n, kept.thumbnails.shape[1]), dtype=np.float32),
            statistics=np.zeros((n, kept.statistics.shape[1]), dtype=np.float32),
        )
    )


def _solve(model: SourceModel, kept: KeptFeatures, classes: int) -> SolvedHead | SolvedNear:
    head = model.head
    if isinstance(head, NearestMeanHead | NeighboursHead):
        return solve_near(
            head, torch.from_numpy(kept.features), kept.labels, classes, kept.weights, kept.groups,
            balanced=kept.balanced, seed=0,
        )  # fmt: skip
    solve_it = partial(
        solve_parts, torch.from_numpy(kept.features), kept.labels, classes, kept.weights, kept.groups,
        balanced=kept.balanced, seed=0, target=kept.target,
    )  # fmt: skip
    if not isinstance(head, StagesHead):
        return solve_it(widths=None)
    at_least = _at_least(kept, head.widths[-1], classes)
    return solve_it(widths=head.widths, peaks=head.peaks, places=head.places, at_least=at_least)


def _at_least(kept: KeptFeatures, width: int, classes: int) -> float:
    """Share of the layers that learn from a source domain too, as :func:`least_share` has it of what was kept."""
    if kept.target.all() or not kept.target.any() or not len(kept.unlabelled):
        return 0.0
    return least_share(
        torch.from_numpy(kept.features[:, -width:]),
        kept.labels,
        classes,
        torch.from_numpy(kept.unlabelled[:, -width:]),
        target=kept.target,
        views=np.zeros(len(kept), dtype=bool),
        groups=(kept.groups[kept.target], None),
    )
