"""The numbers that trials are compared by while a search runs, higher is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import gammaln

MADE_OF = frozenset({"consistency", "entropy", "source-accuracy", "target-log-loss"})
"""Validators that the score goes by; the others are told, and decide nothing."""
INSIDE = "labelled-inside"
"""Metric of a trial: what the labelled images say by which a head was solved for, none of which told its own answer."""
INSIDE_IMAGES = "images-inside"
"""Metric of a trial: how many images these are."""
LOG_LOSS_CAP = 3.0
SPREAD = math.sqrt(0.5)
"""Standard deviation of the difference of two right or wrong answers, half of which are right; that of their means over
n images is it over root n."""
SLACK = 0.05
"""Nats that the mean prediction may lie from the class frequencies at no cost: both are estimates."""
_COUNTED = 1500
"""Draws up to which every count has its probability."""
_LEAST_SURE = 1e-6


def scores(
    metrics: Mapping[str, float],
    target: float | None,
    validation_images: int,
    predictions: np.ndarray | None,
    frequencies: Sequence[float] = (),
    log_loss: float | None = None,
) -> dict[str, float]:
    """``score``, and what it is made of: ``labelled`` and ``unlabelled``, as far as there is such evidence.

    metrics: the validators' scores. target: the metric on the validation fold, in [0, 1], None without one.
    validation_images: how many it has. predictions: probabilities (m, k) of the unlabelled images, None without.
    frequencies: of the classes, empty where nothing is known of them. log_loss: on the fold, in nats, as the metric
    counts its images; None for the validators' own, which counts them alike.

    *Labelled*: the metric, and for ties the log loss: on a few dozen images a metric takes so few values that most good
    strategies tie. All of the loss, capped at 3 nats, counts for one standard error of the difference between two
    strategies on so many images. *Unlabelled*: whether predictions hold under a small change of the image
    (chance-corrected: a model that says the same of all scores nothing), and whether they are sure, both as far as the
    mean prediction, and how often each class is the answer, agree with how frequent the classes are: what agrees less
    of the two. That a sample never has them exactly is not held against it, so that models that were looked at on fewer
    images, and tasks of many classes, are not the worse for it.

    All that ranks trials while a search runs goes by the score: what is proposed, who is stopped, when it is enough.
    With target labels it is what these say. All that evidence without labels can be worth, from 0 to 1, counts for one
    such standard error (:func:`labelled_share`): it tells strategies apart that tie by the rule that the winner is
    chosen by (:mod:`raytl.judging.choice`), and never outvotes labels. Without target labels the held-out images of the
    source domain, which every strategy is asked, take their place as a veto. Zero where nothing can be had.

    Where this fails: where the labelled images are a handful and those without labels know better, as digits of a new
    hand that a model is surer of the more of them it gets right; and where the labelled ones lie in groups, whose
    figures are further off than their number says.
    """
    found: dict[str, float] = {}
    if target is not None:
        found["labelled"] = labelled(metrics, target, validation_images, log_loss)
    unlabelled = _unlabelled(metrics, predictions, frequencies)
    if unlabelled is not None:
        found["unlabelled"] = unlabelled
    return found | {"score": _mixed(found, metrics.get("source-accuracy"), validation_images)}


def scores_again(
    metrics: Mapping[str, float], target: float, validation_images: int, log_loss: float | None = None
) -> dict[str, float]:
    """``score`` and ``labelled`` of a trial that was scored before, by another version perhaps.

    metrics: all that it was told of, ``unlabelled`` included. The rest as in :func:`scores`.
    """
    found = {"labelled": labelled(metrics, target, validation_images, log_loss)}
    known = found | {name: value for name, value in metrics.items() if name == "unlabelled"}
    return found | {"score": _mixed(known, metrics.get("source-accuracy"), validation_images)}


def labelled_share(images: int) -> float:
    """What labels count for in the score, beside evidence from 0 to 1 that needs none, where so many images have some.

    The evidence is added in units of the standard error of a difference on so many images; both are then brought to a
    scale that ends at 1.
    """
    return 1 / (1 + _standard_error(images))


def labelled(metrics: Mapping[str, float], target: float, images: int, log_loss: float | None) -> float:
    """What labels say: as ``labelled`` of :func:`scores`, and of its arguments."""
    loss = min(-metrics.get("target-log-loss", 0.0) if log_loss is None else log_loss, LOG_LOSS_CAP)
    return target - _standard_error(images) * loss / LOG_LOSS_CAP


def _standard_error(images: int) -> float:
    return SPREAD / math.sqrt(max(1, images))


def _mixed(found: Mapping[str, float], source: float | None, validation_images: int) -> float:
    labelled, unlabelled = found.get("labelled"), found.get("unlabelled")
    if labelled is not None and unlabelled is not None:
        share = labelled_share(validation_images)
        return share * labelled + (1 - share) * unlabelled
    if labelled is not None:
        return labelled
    if source is not None and unlabelled is not None:
        return (source + 3 * unlabelled) / 4
    return next((value for value in (unlabelled, source) if value is not None), 0.0)


def _unlabelled(
    metrics: Mapping[str, float], predictions: np.ndarray | None, frequencies: Sequence[float]
) -> float | None:
    if predictions is None or not {"consistency", "entropy"} <= set(metrics):
        return None
    classes = max(2, predictions.shape[1])
    expected = np.asarray(frequencies if len(frequencies) else np.full(classes, 1 / classes), dtype=np.float64)
    expected = np.clip(expected, 1e-6, None) / np.clip(expected, 1e-6, None).sum()
    # A model that is hardly surer of one class than of another has a perfect mean, whatever it says.
    answers = np.eye(predictions.shape[1])[predictions.argmax(1)]
    match = math.exp(-max(0.0, max(_away(said, expected) for said in (predictions, answers)) - SLACK))
    # A predictor that knows nothing but the frequencies has their entropy in every answer.
    unsure = max(float(-(expected * np.log(expected)).sum()), 0.1)
    certainty = max(0.0, 1 + metrics["entropy"] / unsure)
    return match * (certainty + 2 * metrics["consistency"]) / 3


def _away(predictions: np.ndarray, expected: np.ndarray) -> float:
    """Nats that the mean of predictions (m, k) is further from the frequencies (k,) than chance has it."""
    p = np.clip(predictions.mean(0, dtype=np.float64), 1e-12, None)
    return float((p * np.log(p / expected)).sum()) - _by_chance(predictions, expected)


def _by_chance(predictions: np.ndarray, expected: np.ndarray) -> float:
    """Nats that the mean of so many predictions is away from the frequencies (k,) even if they are those of the images.

    predictions: (m, k). Sure ones are counts of m draws; the less images' predictions differ from each other, the more
    draws they are worth. Of counts the expectation is exact, where most classes have none or one as well; of many draws
    it is half of the number of classes less one over theirs.
    """
    mean = predictions.mean(0, dtype=np.float64)
    whole = float((mean * (1 - mean)).sum())
    between = float(predictions.var(0, dtype=np.float64).sum())
    sure = min(1.0, between / whole) if whole > 0 else 1.0
    draws = len(predictions) / max(sure, _LEAST_SURE)
    if draws > _COUNTED:
        return (len(expected) - 1) / (2 * draws)
    total = round(draws)
    shares, often = np.unique(expected, return_counts=True)
    counts = np.arange(1, total + 1)[:, None]
    nats = counts / total * np.log(counts / (total * shares))
    ways = gammaln(total + 1) - gammaln(counts + 1) - gammaln(total - counts + 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # where a class has all of the frequencies
        rest = np.where(counts < total, (total - counts) * np.log1p(-shares), 0.0)
    return float((np.exp(ways + counts * np.log(shares) + rest) * nats).sum(0) @ often)
