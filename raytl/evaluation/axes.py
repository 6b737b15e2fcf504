"""Features made ready for a linear model: standardised, and turned to the principal axes that the items span."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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

    Rotation changes nothing for a model with an L2 penalty, and where n < d the coordinates that no item reaches get
    no weight, so n of them hold everything. A feature that does not vary by more than rounding counts as constant and
    has no say. The deviation and not a rank statistic scales: no value is then further out than sqrt(n), be it an
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
    count = max(1, int(varies.sum()))
    scale = torch.where(varies, deviation, 1.0) * count**0.5
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


def _kept(squares: Tensor, size: int) -> Tensor:
    largest = float(squares.max()) if len(squares) else 0.0
    return squares > max(largest * size * 1e-15, 1e-200)
