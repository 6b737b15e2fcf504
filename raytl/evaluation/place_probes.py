"""Heads that hear one place of an image: what speaks for a class anywhere in it speaks for the class.

A small thing in a large scene is lost in what is pooled over the scene, and its maxima are of different things. Here a
linear layer is asked at every place, and who is to be heard is learned with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raytl.core import stopping
from raytl.evaluation.probes import absent_bias, independent, most_probable, shared, usable_folds
from raytl.tasks.splits import spread_by_class

PLACE_STRENGTHS = (1e-2, 2e-3, 5e-4, 1e-4)
"""Penalties tried, the strongest first, for features whose mean square length at a place is 1."""
EXPECTED = 0.02
"""The strength expected before anything is measured, times the number of images."""
CELLS, COMPARED_CELLS = 50_000_000, 15_000_000
"""Images x channels x places x classes that a layer is solved for on, and that strengths are compared by. A step takes
a tenth of a second for some hundred million."""
FEW, COMPARED_FEW = 400, 150
"""Images of which so many are taken all the same, up to four times as many cells, or seven."""
STEPS, COMPARED_STEPS = 60, 20
_BATCH = 128


@dataclass(frozen=True)
class PlaceProbe:
    """Of a :class:`raytl.sources.heads.PlacesLayer` the weights, and what its making tells.

    weight: (k, c); bias: (k,). strength: the penalty chosen. out_of_fold: (n, k) probabilities of each image by layers
    that it did not train; NaN of those that were in every training part.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    out_of_fold: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits (m, k) of features (m, channels x places)."""
        weight, bias = torch.from_numpy(self.weight).float(), torch.from_numpy(self.bias).float()
        said = [said_anywhere(part, weight, bias) for part in torch.from_numpy(features).float().split(_BATCH)]
        return np.asarray(torch.cat(said).double().numpy())


def said_anywhere(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (n, k) of features (n, channels x places), or (n, channels, places): the log of the mean of exp."""
    channels = weight.shape[1]
    seen = features if features.ndim == 3 else features.unflatten(1, (channels, features.shape[1] // channels))
    return torch.logsumexp(weight @ seen, dim=2) - math.log(seen.shape[2]) + bias


@dataclass(frozen=True)
class Drawn:
    """Which images layers on places learn from, and which of these tell: of many, some of every class.

    weights: (n,), 0 of those that are left out; each role's sum is what it was. telling: bool (n,).
    """

    weights: np.ndarray
    telling: np.ndarray

    @property
    def all_teach(self) -> bool:
        """Whether none was left out."""
        return bool((self.weights > 0).all())


def draw(
    labels: np.ndarray, classes: int, weights: np.ndarray, telling: np.ndarray, width: int, roles: Sequence[np.ndarray]
) -> Drawn:
    """Images for layers on places of at most this width (channels x places).

    labels, weights: (n,); telling: bool (n,), those that may tell. roles: bool (n,) each, in the order in which they
    are taken: what is left of the room goes to the next.
    """
    cells = max(1, width * classes)
    room = max(2 * classes, CELLS // cells, min(FEW, 4 * CELLS // cells))
    taken = np.zeros(len(labels))
    for role in roles:
        rows = np.flatnonzero(role & (weights > 0))
        most = max(2 * len(np.unique(labels[rows])), room) if len(rows) else 0
        kept = rows[spread_by_class(labels[rows], most, least=2)]
        if len(kept):
            taken[kept] = weights[kept] * (weights[rows].sum() / weights[kept].sum())
        room = max(0, room - len(kept))
    may = np.flatnonzero(telling & (taken > 0))
    most = max(2 * classes, COMPARED_CELLS // cells, min(COMPARED_FEW, 7 * COMPARED_CELLS // cells))
    told = np.zeros(len(labels), dtype=bool)
    told[may[spread_by_class(labels[may], most, least=2)]] = True
    return Drawn(taken, told)


def fit_places(
    features: Tensor,
    labels: np.ndarray,
    classes: int,
    places: int,
    *,
    strengths: Sequence[float] = PLACE_STRENGTHS,
    sample_weight: np.ndarray,
    groups: np.ndarray | None = None,
    class_balanced: bool = False,
    seed: int = 0,
    max_folds: int = 3,
    telling: np.ndarray | None = None,
) -> PlaceProbe:
    """Logistic regression at every place of images, of which what is said anywhere is heard.

    features: (n, channels x places), finite; places: how many; the other arguments as of
    :func:`raytl.evaluation.probes.fit_logistic`.
    Minimises the weighted mean cross-entropy of :func:`said_anywhere` plus strength / 2 times the sum of the squared
    weights, on channels that are standardised over all places. That has more than one optimum: each strength begins
    where the next stronger one ended, the strongest at 0, where all places speak alike.

    Where this fails: where many places together make the class and each says nothing, as in textures' frequencies;
    beside layers on means and peaks it is heard less there.
    """
    y, weights = np.asarray(labels, dtype=np.int64), np.asarray(sample_weight, dtype=np.float64)
    used, channels = np.flatnonzero(weights > 0), features.shape[1] // places
    present, targets = np.unique(y[used], return_inverse=True)
    own = np.arange(len(y)) if groups is None else np.asarray(groups)
    own = np.unique(own[used], return_inverse=True)[1]
    w = shared(weights[used], targets, class_balanced)
    rows = torch.as_tensor(used, device=features.device)
    design = features[rows].float().reshape(len(used), channels, places)
    everything = torch.as_tensor(w, device=design.device).float()
    mean, scale = place_scales(design, everything)
    design = (design - mean[None, :, None]) / scale[None, :, None]
    wanted = torch.as_tensor(targets, device=design.device)

    asked = np.arange(len(used)) if telling is None else np.flatnonzero(telling[used])
    told_w = shared((weights if telling is None else telling)[used[asked]], targets[asked], class_balanced)
    several = len(np.unique(targets[asked])) > 1
    splits = usable_folds(targets[asked], own[asked], max_folds, seed) if several else []
    # What fewer images say stands against the same prior.
    share = independent(told_w, own[asked]) / independent(w, own) if len(asked) else 1.0
    logs = _out_of_fold(design, wanted, asked, told_w, splits, [each / share for each in strengths], len(present))
    losses, worth = -logs[:, np.arange(len(asked)), targets[asked]], max(independent(w, own), len(present))
    strength, _ = most_probable(losses, told_w, own[asked], worth, strengths, expected=EXPECTED)
    out_of_fold = np.full((len(y), classes), np.nan)
    chosen = np.exp(logs[list(strengths).index(strength)])
    out_of_fold[used[asked]] = np.where(np.isnan(chosen[:, :1]), np.nan, 0.0)
    out_of_fold[np.ix_(used[asked], present)] = chosen
    path = [everything.new_full((1,), each) for each in strengths if each >= strength]
    found = minimise_places(design, wanted, everything[None], len(present), path)[0]
    raw, bias = raw_places(found, mean, scale)
    weight, biases = np.zeros((classes, channels)), np.full(classes, absent_bias(bias.double().cpu().numpy()))
    weight[present], biases[present] = raw.double().cpu().numpy(), bias.double().cpu().numpy()
    return PlaceProbe(weight, biases, strength, out_of_fold)


def place_scales(seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Of the channels (c,) the mean and the scale, by which a place's features have a mean square length of 1.

    As if there were ten more images, in which each varies as the median one does.
    """
    mean = weights @ seen.mean(dim=2)
    deviation = (weights @ (seen - mean[None, :, None]).square().mean(dim=2)).sqrt()
    varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
    count, usual = 1 / weights.square().sum(), deviation[varies].median() if varies.any() else deviation.new_ones(())
    scale = torch.where(varies, ((count * deviation**2 + 10 * usual**2) / (count + 10)).sqrt(), torch.inf)
    length = (deviation / scale)[varies].square().sum().sqrt() if varies.any() else deviation.new_ones(())
    return mean, scale * length.clamp(min=1e-30)


def _out_of_fold(
    design: Tensor,
    targets: Tensor,
    asked: np.ndarray,
    weights: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    strengths: Sequence[float],
    classes: int,
) -> np.ndarray:
    """Log-probabilities (strengths, n, k) of the images asked about, a mean over repeats; NaN if never held."""
    labels = targets.cpu().numpy()[asked]
    totals = np.bincount(labels, weights=weights, minlength=classes)
    rows, shares, times = np.zeros((len(splits), len(asked))), np.ones(len(splits)), np.zeros(len(asked))
    for row, (training, validation) in enumerate(splits):
        # As for other heads: holding out an image does not make its class look rarer, and the penalty stands against
        # the sum over the images.
        kept = np.bincount(labels[training], weights=weights[training], minlength=classes)
        rows[row, training] = weights[training] * (totals / kept)[labels[training]]
        shares[row] = kept.sum()
        times[validation] += 1
    result, found = np.zeros((len(strengths), len(asked), classes)), None
    index = torch.as_tensor(asked, device=design.device)
    x, y = (design, targets) if len(index) == len(design) else (design[index], targets[index])
    own = torch.as_tensor(rows, device=design.device).float()
    for number, strength in enumerate(strengths if splits else ()):
        stopping.check()
        stopping.check_time()
        penalties = torch.as_tensor(strength / shares, device=design.device).float()
        found = minimise_places(x, y, own, classes, [penalties], found, COMPARED_STEPS)
        said = torch.cat([_said_by_each(part, found) for part in x.split(_BATCH)]).double().softmax(dim=2).cpu().numpy()
        for fold, (_, validation) in enumerate(splits):
            result[number, validation] += np.maximum(said[validation, fold], 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(result / np.where(times > 0, times, np.nan)[:, None])


def solve_places(
    features: Tensor, labels: Tensor, weights: Tensor, classes: int, places: int, path: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The weight (k, c) and bias (k,) of :func:`said_anywhere` for images (n, c x places), as of :func:`fit_places`.

    path: the strengths one after the other, the last of which is the one.
    """
    seen, share = features.float().reshape(len(features), -1, places), (weights / weights.sum()).float()
    mean, scale = place_scales(seen, share)
    seen = (seen - mean[None, :, None]) / scale[None, :, None]
    penalties = [share.new_full((1,), strength) for strength in path]
    return raw_places(minimise_places(seen, labels, share[None], classes, penalties)[0], mean, scale)


def raw_places(found: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias for channels as they are, of those for standardised ones."""
    weight = found[:, :-1] / scale
    return weight, found[:, -1] - weight @ mean


def minimise_places(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    classes: int,
    path: Sequence[Tensor],
    start: Tensor | None = None,
    steps: int = STEPS,
) -> Tensor:
    """Coefficients (b, k, c + 1) of b problems, the last column the biases, at optima near ``start``, by default 0.

    features: (n, c, places), of all; weights: (b, n), in sum about 1. path: the problems' strengths (b,), each of which
    begins where the one before ended. All problems take their steps together, so that a step is a product of large
    matrices.
    """
    found = features.new_zeros(len(weights), classes, features.shape[1] + 1) if start is None else start.clone()
    found.requires_grad_()
    for number, penalties in enumerate(path, start=1):
        most = steps if number == len(path) else COMPARED_STEPS
        optimizer = torch.optim.LBFGS(
            [found], max_iter=most, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def loss(optimizer: torch.optim.Optimizer = optimizer, penalties: Tensor = penalties) -> Tensor:
            optimizer.zero_grad()
            logits = _said_by_each(features, found).flatten(0, 1)
            losses = F.cross_entropy(logits, labels.repeat_interleave(len(weights)), reduction="none")
            value = (weights.T.flatten() * losses).sum()
            value = value + (penalties / 2 * found[..., :-1].square().sum(dim=(1, 2))).sum()
            value.backward()
            return value

        optimizer.step(loss)
    return found.detach()


def _said_by_each(features: Tensor, coefficients: Tensor) -> Tensor:
    """Logits (n, b, k) by b layers' coefficients (b, k, c + 1)."""
    together = coefficients.flatten(0, 1)
    said: Tensor = said_anywhere(features, together[:, :-1], together[:, -1]).unflatten(1, coefficients.shape[:2])
    return said
