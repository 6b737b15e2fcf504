"""Several classifiers' probabilities as one: how much of a say each has, by images that none of them trained on."""

from __future__ import annotations

import numpy as np

PULL = 3.0
"""Images' worth of a prior towards equal shares, for each classifier."""

_SMALLEST = 1e-6
_ROUNDS = 200
_CHANGE = 1e-6


def mixture_shares(
    probabilities: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    pull: float | np.ndarray = PULL,
) -> np.ndarray:
    """Shares (p,) >= 0, in sum 1, by which p classifiers' probabilities are averaged (stacking; Yao et al., 2018).

    probabilities: (p, n, k), of images that trained none of them; labels: (n,); weights: (n,) >= 0, by default one an
    image. Maximises the log-likelihood of the average, which is concave, with a Dirichlet prior that stands for
    ``pull`` images to each classifier, or of each its own (p,): choosing among them, which few images cannot, is what
    it is not. An image of which some classifier says nothing (NaN) is left out; without any they are the prior's.

    Where this fails: where the images that the model will meet are unlike these.
    """
    p, k = np.asarray(probabilities, dtype=np.float64), len(probabilities)
    prior = np.broadcast_to(np.asarray(pull, dtype=np.float64), k)
    usual = prior / prior.sum()
    usable = np.isfinite(p).all(axis=(0, 2))
    if k < 2 or not usable.any():
        return np.array(usual)
    y = np.asarray(labels, dtype=np.int64)[usable]
    likely = np.maximum(p[:, usable][:, np.arange(len(y)), y], _SMALLEST)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)[usable]
    shares = usual
    for _ in range(_ROUNDS):
        # Expectation-maximisation: what each classifier is responsible for.
        blamed = likely * shares[:, None]
        renewed = (blamed / blamed.sum(axis=0)) @ w + prior
        renewed /= renewed.sum()
        change = np.abs(renewed - shares).max()
        shares = renewed
        if change < _CHANGE:
            break
    return np.asarray(shares)
