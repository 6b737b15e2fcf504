"""Convex heads on frozen features: multinomial logistic regression, its strength chosen by cross-validation.

On a few hundred images they take a second, have one optimum, and are hard to beat; a fine-tuned network should be
asked whether it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from raytl.evaluation.axes import principal_axes
from raytl.evaluation.calibration import fit_temperature
from raytl.evaluation.multinomial import TOLERANCE, solve
from raytl.tasks.splits import folds

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties tried where none are given, for features whose mean square length is 1."""

_EXPECTED = 0.3
"""The strength expected before anything is measured, times the number of items: a prior's weight against theirs."""

_PULL = 16.0
"""Items' worth of doubt that a temperature mends anything: the strength was chosen for the log loss already."""

_ABSENT = 1000.0
"""How far below the others' mean the logit of a class without images lies: nothing even at the highest temperature."""
_COMPARED = 1e-5
"""Nats from the optimum that strengths are compared at: they differ by hundreds of times as much, and it takes half."""
_NEAR = 1e-6
"""Nats an item from the optimum that is near enough where there are thousands of items."""
_CELLS = 10_000_000
"""Probabilities (problems x classes x items) held at once; more problems than that are solved in turns."""


@dataclass(frozen=True)
class Probe:
    """A linear classifier on raw features, and what its making tells.

    weight: (k, d); bias: (k,), both float64: logits are ``features @ weight.T + bias``.
    strength: the penalty chosen; log_losses: of each strength tried, out of fold, in nats (empty without folds).
    out_of_fold: (n, k) probabilities of each item by models that it did not train, before any temperature; rows of
    NaN for items that were in every training part. temperature: fitted on them, 1.0 where there are none.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    out_of_fold: np.ndarray
    temperature: float
    log_losses: dict[float, float]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits (m, k) of raw features (m, d), before the temperature."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (m, k) of raw features (m, d)."""
        return np.asarray(np.exp(log_softmax(self.logits(features) / self.temperature, axis=1)))


def fit_logistic(
    features: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    classes: int,
    *,
    strengths: Sequence[float] | None = None,
    sample_weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    class_balanced: bool = False,
    seed: int = 0,
    max_folds: int = 5,
    telling: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    device: torch.device | str | None = None,
) -> Probe:
    """Multinomial logistic regression with an L2 penalty on standardised features, solved to its optimum.

    features: (n, d), of one kind, at any scale; labels: (n,) in [0, classes); sample_weight: (n,) >= 0, items of weight
    0 count as absent; groups: (n,), never on two sides of a fold; class_balanced: every class weighs the same in sum.
    Minimises the weighted mean cross-entropy plus strength / 2 times the sum of the squared weights, on features
    standardised and scaled to a mean square length of 1 (:func:`raytl.evaluation.axes.principal_axes`): scikit-learn's
    LogisticRegression there with C = 1 / (n strength).

    strengths: tried by stratified (group-aware) cross-validation of at most ``max_folds`` folds, twice with under a
    hundred items; a single one is only measured. Within a fold the classes keep the shares they have in all items.
    A class with a single group is in every training part. Where no class has two groups there are no folds, and the
    strength is the nearest to 0.3 / n, around which those of small sets of many kinds were found to be.
    telling: (n,) weights of the items that are divided into folds to tell the strength, 0 for those that are not, None
    for all as they weigh: of thousands of items some are enough, each for several. The classifier itself is solved for
    on all, then to within 1e-6 nats an item.
    Classes without an item get a probability of about 0. tolerance: nats an item from the optimum. device: where to
    compute; by default where the features are.
    Raises ValueError for features that are not finite and arguments that do not fit together.
    """
    where = device if device is not None else features.device if isinstance(features, Tensor) else "cpu"
    y = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels, dtype=np.int64)
    weights = np.ones(len(y)) if sample_weight is None else np.array(sample_weight, dtype=np.float64)
    grid = sorted({float(s) for s in (STRENGTHS if strengths is None else strengths)}, reverse=True)
    _check(features, y, weights, classes, grid)
    used = np.flatnonzero(weights > 0)
    present, targets = np.unique(y[used], return_inverse=True)
    own = np.arange(len(used)) if groups is None else np.unique(np.asarray(groups)[used], return_inverse=True)[1]
    w = shared(weights[used], targets, class_balanced)
    rows = torch.as_tensor(used, device=where)
    chosen = features.to(where)[rows] if isinstance(features, Tensor) else features[used]
    axes = principal_axes(chosen, torch.as_tensor(w, device=where))
    one_hot = torch.as_tensor(np.eye(len(present))[:, targets], device=where)

    some = np.arange(len(used)) if telling is None else np.flatnonzero(telling[used])
    told, theirs = targets[some], own[some]
    told_w = w if telling is None else shared(telling[used[some]], told, class_balanced)
    splits = usable_folds(told, theirs, max_folds, seed) if len(np.unique(told)) > 1 else []
    design, wanted = (axes.design, one_hot) if telling is None else (axes.design[some], one_hot[:, some])
    # What fewer items say stands against the same prior.
    share = independent(told_w, theirs) / independent(w, own)
    predicted = _cross_validate(design, wanted, told_w, told, splits, [strength / share for strength in grid])
    losses, worth = -predicted[:, np.arange(len(some)), told], max(independent(w, own), len(present))
    strength, log_losses = most_probable(losses, told_w, theirs, worth, grid)
    logs = predicted[grid.index(strength)]
    out_of_fold = np.full((len(y), classes), np.nan)
    out_of_fold[used[some]] = np.where(np.isnan(logs[:, :1]), np.nan, 0.0)
    out_of_fold[np.ix_(used[some], present)] = np.exp(logs)
    # What thousands of items leave open is far more than single precision does.
    kind, near = (torch.float64, tolerance) if telling is None else (torch.float32, max(tolerance, _NEAR))
    penalty = torch.tensor([strength], dtype=kind, device=where)
    everything = torch.as_tensor(w, dtype=kind, device=where)[None]
    fitted = solve(axes.design.to(kind), one_hot.to(kind), everything, penalty, tolerance=near)[0].double()
    raw_weight, raw_bias = axes.to_raw(fitted[:, :-1], fitted[:, -1])
    weight, bias = np.zeros((classes, raw_weight.shape[1])), np.full(classes, absent_bias(raw_bias))
    weight[present], bias[present] = raw_weight, raw_bias
    return Probe(weight, bias, strength, out_of_fold, fit_temperature(logs, told, told_w, pull=_PULL), log_losses)


def shared(weights: np.ndarray, labels: np.ndarray, class_balanced: bool) -> np.ndarray:
    """Weights (n,) in sum 1, of every class the same sum where that is asked for."""
    if class_balanced:
        weights = weights / np.bincount(labels, weights=weights)[labels]
    return np.asarray(weights / weights.sum())


def _check(
    features: np.ndarray | Tensor, labels: np.ndarray, weights: np.ndarray, classes: int, grid: Sequence[float]
) -> None:
    if features.ndim != 2 or labels.shape != tuple(features.shape[:1]) or weights.shape != labels.shape:
        raise ValueError(
            f"features {tuple(features.shape)}, labels {labels.shape} and weights {weights.shape} do not fit together"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError("sample weights must be finite, at least 0, and not all 0")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, there are {classes} classes")
    if not grid or min(grid) <= 0 or not np.isfinite(max(grid)):
        raise ValueError("strengths must be finite and above 0")


def usable_folds(labels: np.ndarray, groups: np.ndarray, most: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training, validation) pairs, none of them empty; [] where no class has a group to spare.

    As many folds as allowed even where a class has fewer images than that: each is then missing from some validation
    parts, but the training parts stay near the whole in size, where two folds would halve them.
    """
    if most < 2:
        return []
    repeats = 2 if len(labels) < 100 else 1
    return folds(labels, groups, most, repeats, seed)


def _cross_validate(
    design: Tensor,
    one_hot: Tensor,
    weights: np.ndarray,
    labels: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
    grid: Sequence[float],
) -> np.ndarray:
    """Log-probabilities (strengths, n, k) out of fold, averaged over repeats as probabilities; NaN if never held."""
    n, k = len(labels), len(one_hot)
    totals = np.bincount(labels, weights=weights, minlength=k)
    fold_weights, shares = np.zeros((len(splits), n)), np.zeros(len(splits))
    for row, (training, _) in enumerate(splits):
        # Holding out an item must not make its class look rarer than it is: with two images of a class it would
        # count as half as frequent exactly where it is asked for.
        kept = np.bincount(labels[training], weights=weights[training], minlength=k)
        fold_weights[row, training] = weights[training] * (totals / kept)[labels[training]]
        shares[row] = kept.sum()
    result = np.zeros((len(grid), n, k))
    times = np.zeros(n)
    for _, validation in splits:
        times[validation] += 1
    problems = [(s, f) for s in range(len(grid)) for f in range(len(splits))]
    # Single precision is finer than what strengths are compared at, and takes half the time.
    single, wanted = design.float(), one_hot.float()
    step = max(1, _CELLS // (n * k))
    for start in range(0, len(problems), step):
        some = problems[start : start + step]
        # The penalty stands against the sum over the items, as a prior does, and a fold has fewer of them.
        penalties = torch.tensor([grid[s] / shares[f] for s, f in some], dtype=torch.float32, device=design.device)
        rows = torch.as_tensor(fold_weights[[f for _, f in some]], dtype=torch.float32, device=design.device)
        fitted = solve(single, wanted, rows, penalties, tolerance=_COMPARED)
        for (s, f), model in zip(some, fitted, strict=True):
            validation = splits[f][1]
            held = single[torch.as_tensor(validation, device=design.device)]
            logits = held @ model[:, :-1].T + model[:, -1]
            result[s, validation] += logits.double().softmax(dim=1).clamp_min(1e-300).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(result / np.where(times > 0, times, np.nan)[:, None])


def absent_bias(others: np.ndarray) -> float:
    """The bias of a class without an image, beside those of the others."""
    return float(others.mean() - _ABSENT)


def most_probable(
    losses: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    worth: float,
    grid: Sequence[float],
    *,
    expected: float = _EXPECTED,
) -> tuple[float, dict[float, float]]:
    """The strength to take, and the weighted mean loss of each; losses: (strengths, items), nats, NaN if never held.

    Chosen is what is most probable after seeing the items out of fold (Geisser & Eddy, 1979), the logarithm of the
    strength being normal around ``expected`` / n with a deviation of one decade before. With a few items the least mean
    loss is mostly luck; with many the prior has no say; with none it is all there is. Groups and unequal weights count
    for as many items as they are worth, though never for fewer than there are classes: one group may hold an item of
    each. worth: of all items, be these only some of them.
    """
    doubt = 0.5 * np.log10(np.array(grid) * worth / expected) ** 2
    held = ~np.isnan(losses[0])
    if not held.any():
        return grid[int(doubt.argmin())], {}
    means = losses[:, held] @ (weights[held] / weights[held].sum())
    evidence = independent(weights[held], groups[held]) * means
    return grid[int((evidence + doubt).argmin())], dict(zip(grid, means.tolist(), strict=True))


def independent(weights: np.ndarray, groups: np.ndarray) -> float:
    """How many groups of equal weight would say as much (Kish, 1965)."""
    sums = np.bincount(groups, weights=weights)
    return float(sums.sum() ** 2 / (sums**2).sum())
