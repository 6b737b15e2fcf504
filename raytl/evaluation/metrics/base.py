"""What a metric is: one figure from probabilities, labels and multiplicities, quick enough to resample."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from raytl.core.errors import UserError, cause
from raytl.core.registry import Registry
from raytl.evaluation.metrics.tables import check

Values = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(probabilities (n, k), labels (n,), weights (b, n)) -> (b,)"""
Influence = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(probabilities (n, k), labels (n,), weights (n,)) -> (n,)"""
Reach = Callable[[np.ndarray, int], np.ndarray]
"""(labels (n,), number of classes) -> (n,)"""
Flattery = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]
"""(probabilities (n, k), labels (n,), groups (n,) or None) -> how much too good the figure is"""
_CHUNK = 2_000_000
"""Weights taken at a time, so that many resamples of many items do not fill the memory."""
_STEP = 1e-5
SKEWED = 3
"""Where the largest class has so many times the images of the smallest, accuracy mostly tells of the largest."""


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    title: for people. higher_is_better: false for losses. share: a share of 1, shown in percent. limits: the least and
    the greatest value that the metric can take.
    function: the values under rows of weights, NaN where undefined. gradient: the derivative of the value by each
    item's weight, or None to take differences. reach: for a metric that one item can change beyond all proportion (a
    mistake at the top of a ranking), how far each item counts where the metric is seen as a mean of right and wrong
    answers; intervals then go by these, not by what the worst item could do. places: for a metric whose items count by
    their places among the others, how far each can move it from one end to the other; intervals then go by how the
    places vary (DeLong et al., 1988). by_label: whether it goes by the label alone that is named, which is the most
    probable one unless a threshold decides. by_class: whether every class counts as much as any other. finds: whether
    of two classes it measures how one is found; then its functions take that one's index as ``positive``, by default
    the rarer among the labels. positive, positive_name: which it is (:meth:`finding`), None and empty where nothing but
    the labels measured on say so.
    by_order: whether it goes by the order alone that the probabilities of a class put the items in. flattery: for a
    metric that is better on few items than on many, about how much too good it may be, >= 0; the worse end of an
    interval goes so much further.
    """

    name: str
    title: str
    function: Values
    gradient: Influence | None = None
    higher_is_better: bool = True
    share: bool = True
    limits: tuple[float, float] = (0.0, 1.0)
    reach: Reach | None = None
    places: Reach | None = None
    by_label: bool = False
    by_class: bool = False
    finds: bool = False
    positive: int | None = None
    positive_name: str = ""
    by_order: bool = False
    flattery: Flattery | None = None

    def goes_by_certainty(self, classes: int) -> bool:
        """Whether it matters how sure a model is of what it says, so that one temperature for all of it changes it.

        A temperature leaves the order of two classes' probabilities as it is. Of more classes it moves ranks as well,
        by little: a figure of the calibrated model and one of the model as it was are not the same.
        """
        return not (self.by_label or (self.by_order and classes == 2))

    def __call__(self, probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
        """The figure, NaN where it is undefined (no item has weight, or as the metric's own text says).

        probabilities: (n, k), finite, rows summing to 1. labels: (n,), indices into the k columns. weights: (n,), how
        often each item counts, >= 0 (0: not at all); None: once each. Raises ValueError for shapes that do not fit.
        """
        weights = np.ones(len(labels)) if weights is None else np.asarray(weights)
        return float(self.values(probabilities, labels, weights[None])[0])

    def values(self, probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The figure under each row of ``weights`` (b, n), as from :meth:`__call__`: (b,).

        Raises UserError where a metric that is not built in raises, or gives other than a number for each row.
        """
        check(probabilities, labels)
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim != 2 or weights.shape[1] != len(labels) or not (weights >= 0).all():
            raise ValueError(f"weights {weights.shape} are not rows of {len(labels)} multiplicities of 0 or more")
        step = max(1, _CHUNK // len(labels))
        parts = [_asked(self, probabilities, labels, weights[i : i + step]) for i in range(0, len(weights), step)]
        return np.concatenate([np.empty(0), *parts])

    def influence(self, probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How the figure changes per unit of each item's weight, (n,): sums to zero under the weights.

        The item's empirical influence over the sum of weights (Efron, 1982); its squares sum to the figure's variance.
        """
        weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
        if self.gradient is not None:
            check(probabilities, labels)
            return self.gradient(probabilities, labels, weights)
        n, step = len(labels), _STEP * float(weights.mean())
        size = max(1, _CHUNK // n)
        moved = [
            self.values(probabilities, labels, weights + step * np.eye(min(size, n - start), n, start))
            for start in range(0, n, size)
        ]
        return (np.concatenate(moved) - self(probabilities, labels, weights)) / step

    def finding(self, positive: int, classes: Sequence[str]) -> Metric:
        """The metric of a task: of one that measures how one of two classes is found, which one it is.

        positive: its index into ``classes``, their names. As it is where it measures all classes, or is fixed already.
        """
        if not self.finds or self.positive is not None or len(classes) != 2:
            return self
        name = classes[positive]

        def of_it(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
            return None if function is None else partial(function, positive=positive)

        return replace(
            self,
            title=f"{self.title} of '{name}'",
            function=partial(self.function, positive=positive),  # type: ignore[call-arg]  # finds: it takes one
            gradient=of_it(self.gradient),
            reach=of_it(self.reach),
            places=of_it(self.places),
            flattery=of_it(self.flattery),
            positive=positive,
            positive_name=name,
        )

    def oriented(self, value: float) -> float:
        """``value`` turned so that higher is better."""
        return value if self.higher_is_better else -value

    def goodness(self, value: float) -> float:
        """``value`` as a share in [0, 1] of what can be reached, higher is better, whatever the metric's own limits.

        Between two limits the way from the worst to the best; where only one of them is known, exponentially in how far
        the value is from it (a loss of 0 is 1, one without end 0); without any, the logistic function. NaN stays NaN.
        """
        worst, best = self.limits if self.higher_is_better else self.limits[::-1]
        if math.isfinite(worst) and math.isfinite(best):
            return (value - worst) / (best - worst)
        if math.isfinite(best):
            return math.exp(-abs(best - value))
        if math.isfinite(worst):
            return 1.0 - math.exp(-abs(value - worst))
        return (1.0 + math.tanh(self.oriented(value) / 2)) / 2

    def share_of_best(self, value: float, labels: np.ndarray, classes: int) -> float:
        """:meth:`goodness` of a ``value`` on items with these labels (n,), where it is undefined too.

        One class alone tells no metric of ranking anything, whoever is asked: the middle. Where the right answers have
        a figure and a model has none, as one that says the same of everything, it is the worst.
        """
        if not math.isnan(value):
            return self.goodness(value)
        return 0.5 if math.isnan(self(np.eye(classes)[labels], labels)) else 0.0


def _asked(metric: Metric, probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    owner = registry.brought_by(metric.name)
    if owner is None:
        return metric.function(probabilities, labels, weights)
    try:
        found = np.asarray(metric.function(probabilities, labels, weights), dtype=np.float64)
    # Whatever somebody else's function may raise: the user can neither tell from a traceback nor mend it.
    except Exception as error:
        why = f"raised {type(error).__name__}: {cause(error)}"
        raise UserError(f"metric '{metric.name}' of {owner} {why}; mend it, or take another --metric") from error
    if found.shape != (len(weights),):
        why = f"gave an array of shape {found.shape} for {len(weights)} rows of weights, and not a number for each"
        raise UserError(f"metric '{metric.name}' of {owner} {why}; mend it, or take another --metric")
    return found


registry: Registry[Metric] = Registry("metric", "raytl.evaluation.metrics")


def metric(
    name: str,
    title: str,
    *,
    gradient: Influence | None = None,
    higher_is_better: bool = True,
    share: bool = True,
    limits: tuple[float, float] = (0.0, 1.0),
    reach: Reach | None = None,
    places: Reach | None = None,
    by_label: bool = False,
    by_class: bool = False,
    finds: bool = False,
    by_order: bool = False,
    flattery: Flattery | None = None,
) -> Callable[[Values], Values]:
    """Decorator that registers a function of probabilities, labels and rows of weights. Arguments as in Metric."""

    def register(function: Values) -> Values:
        found = Metric(
            name,
            title,
            function,
            gradient,
            higher_is_better,
            share,
            limits,
            reach,
            places,
            by_label,
            by_class,
            finds,
            by_order=by_order,
            flattery=flattery,
        )
        registry.add(name, found)
        return function

    return register


def rarer(labels: np.ndarray) -> int:
    """Of two classes the rarer among the labels (n,), the second of equal ones.

    Finding the common one takes no skill.
    """
    return int(2 * labels.sum() <= len(labels))


def names() -> list[str]:
    """The registered metrics."""
    return registry.names()


def get(name: str) -> Metric:
    """The metric called ``name``. Raises UserError that names the nearest known one."""
    return registry.get(name)


def recorded(name: str) -> Metric:
    """The metric that figures were recorded by; one that is not here can be told of by its name, and not be taken."""
    if name in names():
        return get(name)

    def not_here(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return get(name).function(probabilities, labels, weights)  # raises: it is unknown

    return Metric(name, name, not_here, share=False, limits=(-math.inf, math.inf))


def usual_metric(counts: Collection[int]) -> str:
    """The metric to go by where the user names none, from the number of images of each class.

    ``accuracy``, or ``balanced-accuracy`` where the largest class has at least three times the images of the smallest
    that has any: there, a model that forgets a small class loses hardly any accuracy.
    """
    occurring = [count for count in counts if count > 0]
    if occurring and max(occurring) >= SKEWED * min(occurring):
        return "balanced-accuracy"
    return "accuracy"


def mean_of(defined: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean along the last axis over the entries that are ``defined``; NaN where none is. Shapes (b, k) -> (b,)."""
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``above / below``, NaN where ``below`` is zero."""
    below = np.asarray(below, dtype=np.float64)
    return np.asarray(np.divide(above, below, out=np.full(np.shape(below), math.nan), where=below > 0))
