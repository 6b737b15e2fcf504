"""The numbers that trials are compared by while a search runs, higher is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import gammaln

LOG_LOSS_SHARE = 0.1
LOG_LOSS_CAP = 3.0
PSEUDO_COUNT = 20
"""How many labelled validation images weigh as much as the evidence without labels, in what decides who is stopped.

A figure on so many images is off by about a tenth; evidence without labels has been seen to be off by as much.
"""
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
) -> dict[str, float]:
    """``score``, and what it is made of: ``labelled`` and ``unlabelled``, as far as there is such evidence.

    metrics: the validators' scores. target: the metric on the validation fold, in [0, 1], None without one.
    validation_images: how many it has. predictions: probabilities (m, k) of the unlabelled images, None without.
    frequencies: of the classes, empty where nothing is known of them.

    *Labelled*: the metric less a tenth of the log loss (capped at 3 nats): on a few dozen images a metric takes so few
    values that most good strategies tie. *Unlabelled*: whether predictions hold under a small change of the image
    (chance-corrected: a model that says the same of all scores nothing), and whether they are sure, both as far as the
    mean prediction agrees with how frequent the classes are. That a sample never has them exactly is not held against
    it, so that models that were looked at on fewer images, and tasks of many classes, are not the worse for it.

    Who is stopped early is decided on a mixture, in which what needs no labels counts as much as ``PSEUDO_COUNT`` of
    them; it has no part in what labels can decide (:mod:`raytl.judging`). Without target labels the held-out images of
    the source domain, which every strategy is asked, take their place as a veto. Zero where nothing can be had.
    """
    found: dict[str, float] = {}
    if target is not None:
        loss = min(-metrics.get("target-log-loss", 0.0), LOG_LOSS_CAP)
        found["labelled"] = target - LOG_LOSS_SHARE * loss
    unlabelled = _unlabelled(metrics, predictions, frequencies)
    if unlabelled is not None:
        found["unlabelled"] = unlabelled
    return found | {"score": _mixed(found, metrics.get("source-accuracy"), validation_images)}


def _mixed(found: Mapping[str, float], source: float | None, validation_images: int) -> float:
    labelled, unlabelled = found.get("labelled"), found.get("unlabelled")
    if labelled is not None and unlabelled is not None:
        share = validation_images / (validation_images + PSEUDO_COUNT)
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
    p = np.clip(predictions.mean(0, dtype=np.float64), 1e-12, None)
    expected = np.asarray(frequencies if len(frequencies) else np.full(classes, 1 / classes), dtype=np.float64)
    expected = np.clip(expected, 1e-6, None) / np.clip(expected, 1e-6, None).sum()
    apart = float((p * np.log(p / expected)).sum()) - _by_chance(predictions, expected)
    match = math.exp(-max(0.0, apart - SLACK))
    # A predictor that knows nothing but the frequencies has their entropy in every answer.
    unsure = max(float(-(expected * np.log(expected)).sum()), 0.1)
    certainty = max(0.0, 1 + metrics["entropy"] / unsure)
    return match * (certainty + 2 * metrics["consistency"]) / 3


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
