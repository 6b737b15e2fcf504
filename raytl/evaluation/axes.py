"""Features made ready for a linear model: standardised, and turned to the principal axes that the items span."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

USUAL = 10.0
"""Items' worth of a prior for each feature's variance, towards that of the median feature.

Ten images make some features look as if they hardly varied, and what is divided by such a deviation shouts down all
others on new images. On six tasks (digits, emoji, icons, clip art, textures, terrain) logistic regression on the last
features of a network was right more often by 10 points with one or two labels a class, by 4 with five and by 1 with
fifteen. Anything between 3 and 30 would do as well.
"""
_SMALLEST_SCALE = 1e-100


@dataclass(frozen=True)
class Axes:
    """An affine map of raw features to ``design``, and the way back for a linear model on it.

    design: (n, r) coordinates along the principal axes, float64, r <= min(n, d); the mean square length of its rows
    is 1 (unless no feature varies), whatever the number of features, so that a penalty means the same at any width.
    """

    design: Tensor
    _directions: Tensor
    _unit: Tensor
    _mean: Tensor

    def to_raw(self, weight: Tensor, bias: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(k, d) weight and (k,) bias on raw features of a model (k, r), (k,) on the design."""
        relative = weight @ self._directions.T
        raw = torch.where(self._unit > 0, relative / self._unit.clamp_min(_SMALLEST_SCALE), 0.0)
        offset = bias - relative @ self._mean
        return raw.cpu().numpy(), offset.cpu().numpy()


def principal_axes(features: np.ndarray | Tensor, weights: Tensor) -> Axes:
    """Standardises features (n, d) by the mean and deviation of the items with weights (n,), then rotates them.

    A deviation is that of the items and of :data:`USUAL` more in which the feature varies as the median one does: the
    features are taken to be of one kind, and with hundreds of items each has its own say.
    Rotation changes nothing for a model with an L2 penalty, and where n < d the coordinates that no item reaches get
    no weight, so n of them hold everything. A feature that does not vary by more than rounding counts as constant and
    has no say. The deviation and not a rank statistic scales: no value is then further out than sqrt(n + 10), be it an
    outlier of any size. Raises ValueError for features that are not finite.
    """
    given = features if isinstance(features, Tensor) else torch.as_tensor(features, device=weights.device)
    precision = torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0
    x = given.to(weights.device, torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("features hold values that are not finite")
    shares = weights / weights.sum()
    # Divided by the largest value before anything is squared: nothing overflows, and nothing is lost below.
    largest = x.abs().amax(dim=0)
    usable = largest > _SMALLEST_SCALE
    x = torch.where(usable, x / largest.clamp_min(_SMALLEST_SCALE), 0.0)
    mean = shares @ x
    x = x - mean
    deviation = (shares @ x.square()).sqrt()
    varies = deviation > max(8 * precision, 1e-12) * mean.abs()
    expected, length = _expected(deviation, largest, varies, shares)
    scale = torch.where(varies, expected, 1.0) * length
    x = torch.where(varies, x / scale, 0.0)
    n, d = x.shape
    if n < d:
        squares, left = torch.linalg.eigh(x @ x.T)
        kept = _kept(squares, d)
        lengths, left = squares[kept].sqrt(), left[:, kept]
        design, directions = left * lengths, x.T @ (left / lengths)
    else:
        squares, right = torch.linalg.eigh(x.T @ x)
        directions = right[:, _kept(squares, n)]
        design = x @ directions
    unit = torch.where(varies, scale * largest, 0.0)
    return Axes(design, directions, unit, torch.where(varies, mean / scale, 0.0))


def _expected(deviation: Tensor, unit: Tensor, varies: Tensor, shares: Tensor) -> tuple[Tensor, float]:
    """Deviations (d,) with the prior heard, and the root mean square length of items that are divided by them.

    unit: (d,), what the deviations are multiples of. The median and not a mean is what is usual: a single feature of
    another size has no say in it.
    """
    if not bool(varies.any()):
        return deviation, 1.0
    n = float(1 / shares.square().sum())  # as many items of equal weight say as much (Kish, 1965)
    size = unit[varies] * deviation[varies]
    # In units of its own, in which nothing overflows that is squared.
    usual = torch.where(varies, size.median() / unit.clamp_min(_SMALLEST_SCALE), 0.0)
    expected = torch.hypot(deviation * (n / (n + USUAL)) ** 0.5, usual * (USUAL / (n + USUAL)) ** 0.5)
    relative = torch.where(varies, deviation / expected, 0.0)
    return expected, float(relative.square().sum().sqrt())


def _kept(squares: Tensor, size: int) -> Tensor:
    largest = float(squares.max()) if len(squares) else 0.0
    return squares > max(largest * size * 1e-15, 1e-200)
