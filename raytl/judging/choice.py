"""The choice among candidates, by evidence: labels first, then what needs none, then what is simpler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from raytl.evaluation import metrics
from raytl.evaluation.intervals import Comparison, paired_metric_interval
from raytl.evaluation.metrics import Metric

UNSURE = 0.1
"""By how much evidence without labels has been seen to be off: differences below it say nothing."""
_DOUBT = 0.02
"""Two-sided: at one look, one in a hundred strategies that are as good as their rival is taken to trail it."""
ONE_IN_TWENTY = 1.645
"""Standard errors that a difference exceeds by chance in one of twenty cases."""
_LEAST_ITEMS = 6
"""On five items that all speak for one side a sign test says 1 in 16, whatever the metric."""
_TEMPERATURES = (math.log(0.05), math.log(20.0))
_PULL = 1e-4
"""What the square of a shift of a class's logits costs, in nats."""


@dataclass(frozen=True)
class Contestant:
    """What is known of one strategy.

    probabilities: (n, k), out-of-fold (repeats averaged), NaN rows where not validated. unlabelled: a score that needs
    no labels, higher is better, or None. cost: seconds. frozen: share of the stages that are frozen, 1 = head only.
    yields_to: keys of contestants of kinds that did better on other tasks.
    """

    key: str
    probabilities: np.ndarray
    unlabelled: float | None
    cost: float
    frozen: float
    yields_to: frozenset[str] = frozenset()

    @property
    def seen(self) -> np.ndarray:
        """Which items it was validated on, (n,)."""
        return np.asarray(np.isfinite(self.probabilities).all(axis=1))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    tied: keys within one standard error of the best, best first; the chosen is one of them. standard_error: of the
    paired difference between the best and the chosen, or where the best was chosen between it and the runner-up; NaN
    where there was no other. grounds: what decided: ``alone``, ``metric``, ``log-loss``, ``unlabelled``, ``frozen``,
    ``cost``, ``key`` (alike in everything: the first by name), ``usual`` (what the best yields to), ``overtook`` (the
    only one of those looked at less closely that takes the place of the best of the others) or ``agreement`` (a head
    that the network with the best score does not agree with).
    """

    key: str
    tied: tuple[str, ...]
    standard_error: float
    grounds: str


def _mean_over_classes(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    losses, k = metrics.log_losses(probabilities, labels), probabilities.shape[1]
    classes = np.eye(k)[labels]
    counts = weights @ classes
    means = np.divide(weights @ (classes * losses[:, None]), counts, out=np.zeros_like(counts), where=counts > 0)
    return np.asarray(means.sum(axis=1) / np.maximum((counts > 0).sum(axis=1), 1))


def _influence(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    losses, k = metrics.log_losses(probabilities, labels), probabilities.shape[1]
    counts = np.bincount(labels, weights, k)
    means = np.bincount(labels, weights * losses, k) / np.maximum(counts, 1e-300)
    counted = counts[labels] > 0
    gap = np.where(counted, (losses - means[labels]) / np.where(counted, counts[labels], 1.0), 0.0)
    return np.asarray(gap / np.count_nonzero(counts))


BALANCED_LOG_LOSS = Metric(
    "balanced-log-loss", "log loss on average over the classes", _mean_over_classes, _influence,
    higher_is_better=False, share=False, limits=(0.0, math.inf), by_class=True,
)  # fmt: skip
"""What is finer than a metric that counts the classes alike, and does so too."""


def choose(
    contestants: Sequence[Contestant],
    labels: np.ndarray,
    metric: Metric,
    groups: np.ndarray | None = None,
    *,
    apart: bool = False,
) -> Choice:
    """The contestant to take. labels: (n,); groups: (n,) or None, as for ``metric_interval``.

    apart: whether the unlabelled images are known to be of another kind than the labelled ones.

    The final is held among the contestants with the most validated items, on exactly these items (where different
    items are as many, those that most contestants have): who was tried on fewer was left behind by the race, or not
    confirmed. First goes who yields to a contestant of a kind that did better on other tasks, unless that one is behind
    it, or behind the best of all, in the metric by more than chance gives in one of twenty cases: ten images say less
    than what is known of the kinds, a hundred say more.

    Of those that are left the metric decides; where it is undefined for some of them, they are the worst, and where for
    all, log loss decides. Those that trail the best by no more than one standard error of the paired
    difference over items or groups (Breiman et al., 1984) are tied with it. Among the tied, in this order:

    1. log loss, after each contestant's own best temperature, sets aside those worse than the best in it by more than
       chance gives in one of twenty cases: labels still, but finer than a count of right answers. Where the metric is a
       mean over the classes it is one too: else it would be the largest class that decides. The temperature,
       which is fitted before a model is shipped anyway, keeps an overconfident model from losing to an unsure one that
       ranks worse. Where the metric goes by order alone, each has its own best shift of each class as well: how
       frequent a model takes a class to be moves none of its images past another. One image that is surely wrong is a
       difference of just over one standard error, however large: the same image that did not count against its model in
       the metric. Of such it takes three. apart: of images like the labelled ones alone, so that who is behind the best
       unlabelled evidence by more than that is off is set aside before.
    2. the unlabelled evidence, where all that are left have it: the highest. It never outvotes labels.
    3. the most frozen; of equally frozen ones the least log loss, however little less; then the cheapest, then the
       first by name.

    Where this fails: where the better one leads by less than one standard error, and the worse one is more frozen (or
    liked by the unlabelled evidence). On few items that is a real difference: the choice gives up what lies within the
    paired standard error, no more than that on average, against always taking the highest. It also fails where
    validated items are unlike those that the model will meet, and where unlabelled evidence and truth disagree among
    tied contestants. Raises ValueError without contestants, or where none was validated at all and none has unlabelled
    evidence.
    """
    final, items = _final(contestants)
    best, left = _usual(final, items, labels, metric, groups)
    found = _choose(left, items, labels, metric, groups, apart=apart)
    if best is None:
        return found
    kept = {one.key for one in left}
    chosen = next(one for one in left if one.key == found.key)

    def gap_of(ahead: Contestant, other: Contestant) -> Comparison:
        rows = ahead.probabilities[items], other.probabilities[items]
        return paired_metric_interval(metric, *rows, labels[items], None if groups is None else groups[items])

    if best.key not in kept:
        return Choice(found.key, (found.key, best.key), gap_of(best, chosen).standard_error, "usual")
    if found.grounds not in ("alone", "metric") or len(kept) == len(final):
        return found
    # It leads those that are left: whether it also leads who went before is another question.
    gaps = {one.key: gap_of(chosen, one) for one in final if one.key not in kept}
    nearest = min(gaps, key=lambda key: gaps[key].value)
    standard_error = gaps[nearest].standard_error
    if not _ties(gaps[nearest]):
        return replace(found, standard_error=standard_error, grounds="metric") if found.grounds == "alone" else found
    return Choice(found.key, (found.key, nearest), standard_error, "usual")


def _usual(
    final: Sequence[Contestant],
    items: np.ndarray,
    labels: np.ndarray,
    metric: Metric,
    groups: np.ndarray | None,
) -> tuple[Contestant | None, Sequence[Contestant]]:
    """The best in the metric, None where nothing tells; and who of the final yields to no other.

    If the best is not among these, they are the ones that it is not ahead of by more than chance. What is behind it
    takes nobody's place, so that yielding step by step leads no further down than yielding once.
    """
    if not items.any():
        return None, final
    y, g = labels[items], None if groups is None else groups[items]
    rows = {one.key: one.probabilities[items] for one in final}
    ranked = _ranked(final, rows, y, metric) or _ranked(final, rows, y, metrics.get("log-loss"))
    worth = {one.key: _worth(metric, rows[one.key], y) for one in final}

    def behind(one: Contestant, other: Contestant) -> bool:
        if worth[one.key] == -math.inf:
            return worth[other.key] > -math.inf
        gap = paired_metric_interval(metric, rows[other.key], rows[one.key], y, g)
        return bool(gap.value > ONE_IN_TWENTY * gap.standard_error)

    best = ranked[0]
    near = [one for one in final if one is best or not behind(one, best)]
    aside = {
        one.key
        for one in final
        if any(other.key in one.yields_to and not behind(other, one) for other in near if other is not one)
    }
    if best.key not in aside:
        return best, [one for one in final if one.key not in aside]
    return best, [one for one in near if one.key not in aside] or near


def _choose(
    final: Sequence[Contestant],
    items: np.ndarray,
    labels: np.ndarray,
    metric: Metric,
    groups: np.ndarray | None,
    *,
    apart: bool,
) -> Choice:
    ordered = sorted(final, key=lambda one: one.key)
    if not items.any():
        chosen, grounds = _by_the_rest(ordered)
        return Choice(chosen.key, tuple(one.key for one in ordered), math.nan, grounds)
    if len(ordered) == 1:
        return Choice(ordered[0].key, (ordered[0].key,), math.nan, "alone")
    y, g = labels[items], None if groups is None else groups[items]
    rows = {one.key: one.probabilities[items] for one in ordered}
    ranked = _ranked(ordered, rows, y, metric)
    decisive = "metric"
    if not ranked:  # one class only, say: the metric cannot be had of any, log loss can
        metric, decisive = metrics.get("log-loss"), "log-loss"
        ranked = _ranked(ordered, rows, y, metric)
    best = ranked[0]
    against = {one.key: paired_metric_interval(metric, rows[best.key], rows[one.key], y, g) for one in ranked[1:]}
    tied = [best, *(one for one in ranked[1:] if _ties(against[one.key]))]
    keys = tuple(one.key for one in tied)
    if len(tied) == 1:
        return Choice(best.key, keys, against[ranked[1].key].standard_error, decisive)
    believed = _by_other_images(tied) if apart else tied
    if len(believed) == 1:
        chosen = believed[0]
        other = against[(ranked[1] if chosen is best else chosen).key]
        return Choice(chosen.key, keys, other.standard_error, "unlabelled")
    finer = BALANCED_LOG_LOSS if metric.by_class else metrics.get("log-loss")
    fitted = _shifted if metric.by_order else _tempered
    losses = {one.key: fitted(rows[one.key], y, finer) for one in believed}
    left = _by_log_loss(believed, losses, y, g, finer)
    means = {key: round(finer(said, y), 9) for key, said in losses.items()}
    chosen, grounds = (left[0], "log-loss") if len(left) == 1 else _by_the_rest(left, means)
    other = against[(ranked[1] if chosen is best else chosen).key]
    return Choice(chosen.key, keys, other.standard_error, grounds)


def separates(
    a: Contestant, b: Contestant, labels: np.ndarray, metric: Metric, groups: np.ndarray | None = None
) -> bool:
    """Whether ``a`` trails ``b`` beyond doubt on the items that both have, so that it need not be tried on more.

    The paired difference's two-sided p value is below 0.02 and on ``b``'s side, on six items (or groups) at least.
    """
    both = a.seen & b.seen
    independent = int(both.sum()) if groups is None else len(np.unique(groups[both]))
    if independent < _LEAST_ITEMS:
        return False
    gap = paired_metric_interval(
        metric, b.probabilities[both], a.probabilities[both], labels[both], None if groups is None else groups[both]
    )
    return bool(gap.p < _DOUBT and gap.value > 0)


def _final(contestants: Sequence[Contestant]) -> tuple[list[Contestant], np.ndarray]:
    if not contestants:
        raise ValueError("a choice needs contestants")
    seen = {one.key: one.seen for one in contestants}
    patterns = {items.tobytes(): items for items in seen.values()}
    backed = {
        pattern: sum(bool((other >= items).all()) for other in seen.values()) for pattern, items in patterns.items()
    }
    pattern = max(patterns, key=lambda one: (int(patterns[one].sum()), backed[one], one))
    items = patterns[pattern]
    if not items.any() and all(one.unlabelled is None for one in contestants):
        raise ValueError("no contestant was validated, and none has unlabelled evidence")
    return [one for one in contestants if (seen[one.key] >= items).all()], items


def _ranked(
    final: Sequence[Contestant], rows: dict[str, np.ndarray], labels: np.ndarray, metric: Metric
) -> list[Contestant]:
    """Best first; equal ones by name. Empty where the metric is undefined for all."""
    scores = {one.key: _worth(metric, rows[one.key], labels) for one in final}
    if max(scores.values()) == -math.inf:
        return []
    return sorted(final, key=lambda one: (-scores[one.key], one.key))


def _worth(metric: Metric, probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The metric, higher is better. Where others have a figure and one has none, that is worse than any figure."""
    value = metric.oriented(metric(probabilities, labels))
    return value if math.isfinite(value) else -math.inf


def _ties(gap: Comparison, errors: float = 1.0) -> bool:
    return gap.value <= errors * gap.standard_error + 1e-12


def _by_other_images(tied: Sequence[Contestant]) -> Sequence[Contestant]:
    """Those whose unlabelled evidence is the best for all that is known; all where one has none."""
    seen = [one.unlabelled for one in tied if one.unlabelled is not None]
    if len(seen) < len(tied):
        return tied
    return [one for one, value in zip(tied, seen, strict=True) if value >= max(seen) - UNSURE]


def _by_log_loss(
    tied: Sequence[Contestant],
    tempered: dict[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray | None,
    loss: Metric,
) -> list[Contestant]:
    best = _ranked(tied, tempered, labels, loss)[0]
    return [
        one
        for one in tied
        if one is best
        or _ties(
            paired_metric_interval(loss, tempered[best.key], tempered[one.key], labels, groups), errors=ONE_IN_TWENTY
        )
    ]


def _tempered(probabilities: np.ndarray, labels: np.ndarray, of: Metric) -> np.ndarray:
    """The probabilities at the temperature that gives the least log loss on them (Guo et al., 2017)."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-7))

    def at(log_temperature: float) -> np.ndarray:
        scaled = logits / math.exp(log_temperature)
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def loss(log_temperature: float) -> float:
        return of(at(log_temperature), labels)

    return at(float(minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded").x))


def _shifted(probabilities: np.ndarray, labels: np.ndarray, of: Metric) -> np.ndarray:
    """The same as :func:`_tempered` with a constant for each class, too, added to its logits.

    A metric of order does not feel these constants: of two models that rank alike none is to lose for being trained as
    if the classes were equally frequent. The logits are taken from their mean in each class, so that a weak pull to no
    shift at all, for classes without an image and images that are all ranked right, is the same wherever they began.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-7))
    logits -= logits.mean(axis=0)
    n, k = logits.shape
    counts = np.bincount(labels, minlength=k)
    weights = 1 / (np.count_nonzero(counts) * counts[labels]) if of.by_class else np.full(n, 1 / n)
    truth = weights[:, None] * (labels[:, None] == np.arange(k))

    def at(x: np.ndarray) -> np.ndarray:
        scaled = x[0] * logits + x[1:]
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        said = at(x)
        gap = weights[:, None] * said - truth
        value = -float((truth * np.log(np.maximum(said, 1e-300))).sum()) + _PULL * float(x[1:] @ x[1:])
        return value, np.append((gap * logits).sum(), gap.sum(axis=0) + 2 * _PULL * x[1:])

    colder, hotter = (math.exp(-end) for end in reversed(_TEMPERATURES))
    start = np.append(1.0, np.zeros(k))
    bounds = [(colder, hotter), *[(None, None)] * k]
    return at(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def _by_the_rest(left: Sequence[Contestant], losses: Mapping[str, float] | None = None) -> tuple[Contestant, str]:
    """The one that is left, and the first merit that leaves one; each merit judges those that the last one left.

    losses: log losses by key, None where no image was validated.
    """
    merits: list[tuple[str, Callable[[Contestant], float | None]]] = [
        ("unlabelled", lambda one: one.unlabelled),
        ("frozen", lambda one: one.frozen),
        ("log-loss", lambda one: None if losses is None else -losses[one.key]),
        ("cost", lambda one: -one.cost),
    ]
    for grounds, merit in merits:
        values = [math.nan if (value := merit(one)) is None else value for one in left]
        if not all(math.isfinite(value) for value in values):
            continue
        left = [one for one, value in zip(left, values, strict=True) if value == max(values)]
        if len(left) == 1:
            return left[0], grounds
    return min(left, key=lambda one: one.key), "key"
