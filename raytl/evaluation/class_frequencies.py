"""How frequent the classes are among unlabelled images, from a model's predictions; labels need not be drawn fairly.

The estimates assume label shift: that images of a class look alike in both domains and only the classes' frequencies
differ. Where the images differ too they are wrong by any amount, so :func:`estimate_frequencies` also tests that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import log_softmax, logsumexp

_SMALLEST = 1e-12
_STEPS = 2000
_CHANGE = 1e-8
_CONTRADICTION = 3.0
"""Standard errors by which the labels' shares must differ from the images' before they are not believed."""


def em_frequencies(
    probabilities: np.ndarray, source_frequencies: np.ndarray, *, prior_counts: np.ndarray | None = None
) -> np.ndarray:
    """Class frequencies (k,) of unlabelled images that make their predictions most likely (Saerens et al., 2002).

    probabilities: (m, k) of a calibrated model, see :func:`fit_bias_correction`; source_frequencies: (k,) of the
    classes in the model's eyes: the mean of its calibrated predictions on held-out source images, or the shares of its
    training labels. prior_counts: (k,) >= 0, images of known class drawn as the unlabelled ones were (a Dirichlet
    prior). A class that the source does not have gets frequency 0. The likelihood is concave: the start is no matter.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    source = np.asarray(source_frequencies, dtype=np.float64)
    counts = np.zeros(p.shape[1]) if prior_counts is None else np.asarray(prior_counts, dtype=np.float64)
    if p.ndim != 2 or source.shape != p.shape[1:] or counts.shape != source.shape:
        raise ValueError(f"probabilities {p.shape}, frequencies {source.shape}, counts {counts.shape} do not fit")
    if (source < 0).any() or not source.any() or (counts < 0).any() or not len(p):
        raise ValueError("frequencies and counts must be at least 0 and not all 0, and there must be an image")
    known = source > 0
    ratio = np.where(known, p / np.where(known, source, 1.0), 0.0) + _SMALLEST * known
    frequencies = source / source.sum()
    for _ in range(_STEPS):
        posterior = ratio * frequencies
        posterior /= posterior.sum(axis=1, keepdims=True)
        renewed = (posterior.sum(axis=0) + counts) / (len(p) + counts.sum())
        change = np.abs(renewed - frequencies).max()
        frequencies = renewed
        if change < _CHANGE:
            break
    return np.asarray(frequencies)


def bbse_frequencies(
    confusion: np.ndarray, predicted: np.ndarray, *, regularisation: float | None = None
) -> np.ndarray:
    """Class frequencies (k,) that explain how often each class is predicted (Lipton et al., 2018).

    confusion: (k, k) on held-out source images, rows the true class and columns the predicted one, counts or shares;
    predicted: (k,) shares of the predictions on the unlabelled images. The class weights (target over source frequency)
    are pulled towards 1 by ``regularisation`` times their squared distance (Azizzadenesheli et al., 2019: RLLS), and
    kept at or above 0; by default by 1 / (k n) of the n counts, about the error that the confusion itself has.
    """
    table, shares = np.asarray(confusion, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    k = len(shares)
    if table.shape != (k, k) or table.sum() <= 0 or shares.sum() <= 0:
        raise ValueError(f"confusion {table.shape} and predicted shares {shares.shape} do not fit, or are empty")
    total = table.sum()
    pull = regularisation if regularisation is not None else 1.0 / (k * max(total, 1.0))
    joint, source = table.T / total, table.sum(axis=1) / total
    left = np.vstack([joint, math.sqrt(pull) * np.eye(k)])
    right = np.r_[shares / shares.sum(), np.full(k, math.sqrt(pull))]
    frequencies = nnls(left, right)[0] * source
    return np.asarray(frequencies / frequencies.sum()) if frequencies.sum() > 0 else source


@dataclass(frozen=True)
class BiasCorrection:
    """A temperature > 0 and a bias (k,) for each class's logit."""

    temperature: float
    bias: np.ndarray

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (m, k)."""
        return np.asarray(np.exp(log_softmax(_logs(probabilities) / self.temperature + self.bias, axis=1)))


def fit_bias_correction(probabilities: np.ndarray, labels: np.ndarray) -> BiasCorrection:
    """Bias-corrected temperature scaling (Alexandari et al., 2020) on items that did not train the model.

    probabilities: (n, k); labels: (n,). Temperature scaling alone leaves classes over- or understated, and that is
    just what frequencies are read from. A small pull (one item's worth) towards no correction keeps few items, or
    none of a class, from asking for an infinite one.
    """
    logs, n = _logs(probabilities), len(labels)
    k = logs.shape[1]
    hot = np.eye(k)[labels]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = logs * math.exp(x[0]) + x[1:]
        p = np.exp(log_softmax(z, axis=1))
        value = (logsumexp(z, axis=1) - (z * hot).sum(axis=1)).sum() + 0.5 * (x @ x)
        inner = ((p - hot) * logs).sum() * math.exp(x[0])
        return float(value) / n, (np.r_[inner, (p - hot).sum(axis=0)] + x) / n

    bounds = [(-3.0, 3.0)] + [(-8.0, 8.0)] * k
    best = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return BiasCorrection(math.exp(-best[0]), best[1:])


@dataclass(frozen=True)
class Frequencies:
    """Estimated class frequencies of the unlabelled images.

    frequencies, low, high: (k,), the range covering about 90 % where ``reliable``. reliable: the predictions look as
    label shift would have them, and the range is narrow enough to tell something. reasons: why not, one sentence each.
    labels_believed: whether the labels' shares went into the estimate.
    """

    frequencies: np.ndarray
    low: np.ndarray
    high: np.ndarray
    reliable: bool
    reasons: tuple[str, ...]
    labels_believed: bool


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(np.asarray(probabilities, dtype=np.float64), _SMALLEST, None))
