"""Heads that go by what is near: their sharpness, and how many neighbours have a say, by labelled images left out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.evaluation.calibration import fit_temperature
from raytl.sources.near_heads import USUAL_SHARPNESS, NearestMeanHead, NeighboursHead
from raytl.tasks.splits import folds, spread_by_class

MOST_IMAGES, MOST_NUMBERS = 4000, 8 * 2**20
"""Labelled images that neighbours are sought among, and numbers in their features (32 MiB): all of them are shipped."""
MOST_ASKED = 2000
"""Of these, those that are left out to tell how many neighbours are to be heard."""
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
SHARPNESSES = (5.0, 10.0, 20.0, 50.0)
DOUBTS = (0.03, 0.1, 0.3)
_FOLDS = 5
_DOUBT = 3.0
"""Images' worth of trust in the usual sharpness."""


@dataclass(frozen=True)
class SolvedNear:
    """A head in place.

    out_of_fold: (n, k) probabilities of each item without the items of its group, NaN of those that were not asked.
    temperature: 1: how sure it is to be is in the head.
    """

    head: NearestMeanHead | NeighboursHead
    out_of_fold: np.ndarray
    temperature: float = 1.0


def solve_near(
    kind: nn.Module, features: Tensor, labels: np.ndarray, classes: int, weights: np.ndarray,
    groups: np.ndarray | None, *, balanced: bool, seed: int,
) -> SolvedNear:  # fmt: skip
    """A head of the same kind as one of these for labelled images; arguments as of :func:`solve_nearest_mean`."""
    solve = solve_nearest_mean if isinstance(kind, NearestMeanHead) else solve_neighbours
    return solve(features, labels, classes, weights, groups, balanced=balanced, seed=seed)


def solve_nearest_mean(
    features: Tensor, labels: np.ndarray, classes: int, weights: np.ndarray, groups: np.ndarray | None, *,
    balanced: bool, seed: int,
) -> SolvedNear:  # fmt: skip
    """The nearest class mean; its sharpness fits the images of each fold by the means of the others.

    features: (n, d), finite; labels: (n,) in [0, classes); weights: (n,) > 0; groups: (n,) or None, never on two sides
    of a fold. balanced: whether every class weighs the same in the mean of all.
    """
    x, y, w = _ready(features, labels, weights, balanced)
    cosines = np.full((len(labels), classes), np.nan)
    for train, held in folds(labels, groups, _FOLDS, 1, seed):
        head = NearestMeanHead(x.shape[1], classes).to(x.device)
        head.sharpness.fill_(1.0)
        rows = torch.as_tensor(train, device=x.device)
        head.place(x[rows], y[rows], w[rows])
        cosines[held] = head(x[torch.as_tensor(held, device=x.device)]).double().cpu().numpy()
    asked = np.isfinite(cosines[:, 0])
    head = NearestMeanHead(x.shape[1], classes).to(x.device)
    head.place(x, y, w)
    if asked.any():
        shares = _told(weights, labels, balanced)[asked]
        logits = cosines[asked] * USUAL_SHARPNESS
        head.sharpness.fill_(USUAL_SHARPNESS / fit_temperature(logits, labels[asked], shares, pull=_DOUBT))
    return SolvedNear(head, _softmax(cosines * float(head.sharpness)))


def solve_neighbours(
    features: Tensor, labels: np.ndarray, classes: int, weights: np.ndarray, groups: np.ndarray | None, *,
    balanced: bool, seed: int,
) -> SolvedNear:  # fmt: skip
    """The nearest labelled images; how many, and how sure, by what those of other groups say of each image.

    Arguments as of :func:`solve_nearest_mean`. An image whose class has no other group tells nothing. Where none does,
    all images have a say, as much as they have for the nearest mean. Of more than :data:`MOST_IMAGES`, or features of
    more than :data:`MOST_NUMBERS` numbers, some are taken; every class keeps its share.
    """
    kept = spread_by_class(labels, max(classes, min(MOST_IMAGES, MOST_NUMBERS // max(1, features.shape[1]))), seed=seed)
    out_of_fold = np.full((len(labels), classes), np.nan)
    rows = torch.as_tensor(kept, device=features.device)
    own = np.arange(len(labels)) if groups is None else np.asarray(groups)
    known, group, weight = labels[kept], own[kept], weights[kept]
    x, y, w = _ready(features[rows], known, weight, balanced)

    whole = NeighboursHead(x.shape[1], classes, len(kept)).to(x.device)
    whole.place(x, y, w)
    pairs = np.unique(np.stack([group, known]), axis=1)
    several = np.bincount(pairs[1], minlength=classes) > 1
    asked = np.flatnonzero(several[known])
    asked = asked[spread_by_class(known[asked], MOST_ASKED, seed=seed)]
    if not len(asked):
        return SolvedNear(whole.like(len(kept), USUAL_SHARPNESS, DOUBTS[1]), out_of_fold)
    cosines = F.linear(whole.images[torch.as_tensor(asked, device=x.device)], whole.images)
    same = torch.as_tensor(group[asked][:, None] == group[None], device=x.device)
    cosines = cosines.masked_fill(same, float("-inf"))
    shares = _told(weight, known, balanced)[asked]
    best: tuple[float, NeighboursHead, np.ndarray] | None = None
    # More neighbours than half of the images are hardly any choice; the fewest images have three all the same.
    counts = [count for count in NEIGHBOURS if count <= max(3, len(kept) // 2)]
    nearest, index = cosines.topk(min(counts[-1], len(kept)), dim=1)
    for count, sharpness, doubt in product(counts, SHARPNESSES, DOUBTS):
        head = whole.like(count, sharpness, doubt)
        said = head.vote(nearest[:, :count], index[:, :count]).double().cpu().numpy()
        loss = float(-(said[np.arange(len(asked)), known[asked]] @ shares) / shares.sum())
        if best is None or loss < best[0] - 1e-9:
            best = loss, head, said
    assert best is not None
    out_of_fold[kept[asked]] = np.exp(best[2])
    return SolvedNear(best[1], out_of_fold)


def _ready(features: Tensor, labels: np.ndarray, weights: np.ndarray, balanced: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and weights where the features are."""
    told = _told(weights, labels, balanced)
    where = features.device
    return features.float(), torch.as_tensor(labels, device=where), torch.as_tensor(told, device=where).float()


def _told(weights: np.ndarray, labels: np.ndarray, balanced: bool) -> np.ndarray:
    """How much each image counts (n,), in sum 1; balanced: of every class as much."""
    told = weights / np.bincount(labels, weights=weights)[labels] if balanced else weights
    return np.asarray(told / told.sum())


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
