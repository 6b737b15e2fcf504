"""Many multinomial logistic regressions on the same items at once, each solved to its optimum."""

from __future__ import annotations

import torch
from torch import Tensor

from raytl.core import stopping

_MEMORY = 8
_ITERATIONS = 500
_LINE_STEPS = 12
_FLAT = 0.03
"""Of the softmax's curvature where it only knows the shares of the classes: it is taken to have as much at least."""
_ROUNDING = 1e-6
"""Of a loss, what it may seem to rise by rounding alone."""
_TINY = 1e-37  # nothing, and yet its inverse can be had in single precision
TOLERANCE = 1e-9
"""Largest estimated distance to the least loss, in nats per item, of what is to be the optimum."""


def solve(
    design: Tensor, targets: Tensor, weights: Tensor, penalties: Tensor, *, tolerance: float = TOLERANCE
) -> Tensor:
    """Coefficients (b, k, r + 1) that minimise each problem's loss; the last column holds the biases.

    design: (n, r) features, all of one floating type; targets: (k, n) each item's class shares, columns summing to 1;
    weights: (b, n) of the items in each problem, rows summing to 1; penalties: (b,) > 0. The loss of a problem is the
    weighted mean cross-entropy plus penalty / 2 times the sum of the squared coefficients without the biases; it is
    strictly convex up to a constant added to all biases, which start at 0 and so keep the mean 0. tolerance: in nats
    per item, how far from the least loss an estimate may leave it.

    L-BFGS over all problems in step, so that every step is two products of large matrices whatever the number of
    problems. The features should be decorrelated (principal axes): the inverse Hessian it starts each step from is
    diagonal, each axis's variance times the mean curvature of the softmax plus the penalty. Along a step the logits
    are known without further products, so the length of the step costs little. Problems that are done drop out.
    """
    n, r = design.shape
    x = torch.cat([design, design.new_ones(n, 1)], dim=1)
    b, k = len(penalties), len(targets)
    result = x.new_zeros(b, k, r + 1)
    if k < 2:
        return result
    active = torch.arange(b, device=x.device)
    state = _State(x, targets, weights, penalties, tolerance)
    for _ in range(_ITERATIONS):
        stopping.check()
        stopping.check_time()
        running = state.step()
        if bool(running.all()):
            continue
        # Those that are done are written out; the rest is only copied together when it is worth it.
        result[active[~running]] = state.coefficients[~running]
        if not bool(running.any()):
            return result
        if int(running.sum()) <= 0.75 * len(active):
            active = active[running]
            state.keep(running)
    result[active] = state.coefficients
    return result


class _State:
    """The problems still being solved."""

    def __init__(self, x: Tensor, targets: Tensor, weights: Tensor, penalties: Tensor, tolerance: float) -> None:
        self.x, self.targets, self.tolerance = x, targets, tolerance
        self.weights = weights
        b, k, p = len(penalties), len(targets), x.shape[1]
        # No penalty on the biases, the last column.
        self.ridge = penalties[:, None].expand(b, p).clone()
        self.ridge[:, -1] = 0.0
        self.axes = (x.square().T @ weights.T).T
        self.coefficients = x.new_zeros(b, k, p)
        self.logits = x.new_zeros(b, k, len(x))
        self.probabilities = torch.full_like(self.logits, 1.0 / k)
        self.gradient = self._gradient()
        shares = weights @ targets.T
        self.least = _FLAT * shares * (1 - shares)
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(self, running: Tensor) -> None:
        """Drops the problems that are not ``running`` (b,)."""
        for name in ("least", "weights", "ridge", "axes", "coefficients", "logits", "probabilities", "gradient"):
            setattr(self, name, getattr(self, name)[running])
        self.steps = [(s[running], y[running], rho[running]) for s, y, rho in self.steps]

    def step(self) -> Tensor:
        """One step of every problem; which of them are worth another, (b,)."""
        scale = self._inverse_curvature()
        direction = self._direction(scale)
        slope = _dot(direction, self.gradient)
        # -slope / 2 is what a quadratic model expects to gain.
        running = -slope > 2 * self.tolerance
        if not bool(running.any()):
            return running
        along = (direction.flatten(0, 1) @ self.x.T).view_as(self.logits)
        length = self._line_search(direction, along, slope)[:, None, None] * running[:, None, None]
        moved = length * direction
        self.coefficients = self.coefficients + moved
        self.logits = self.logits + length * along
        self.probabilities = self.logits.softmax(dim=1)
        gradient = self._gradient()
        change = gradient - self.gradient
        self.gradient = gradient
        curvature = _dot(moved, change)
        rho = torch.where(curvature > _TINY, 1.0 / curvature.clamp_min(_TINY), torch.zeros_like(curvature))
        self.steps = [*self.steps[-(_MEMORY - 1) :], (moved, change, rho)]
        return running

    def _gradient(self) -> Tensor:
        residual = (self.probabilities - self.targets) * self.weights[:, None, :]
        data = (residual.flatten(0, 1) @ self.x).view_as(self.coefficients)
        return data + self.ridge[:, None, :] * self.coefficients

    def _inverse_curvature(self) -> Tensor:
        """Diagonal estimate of the inverse Hessian, (b, k, p).

        Where all answers are sure, right or wrong, the softmax has next to no curvature left, and its inverse would
        send the next step to where nothing is ever seen again.
        """
        p = self.probabilities
        spread = torch.einsum("bkn,bn->bk", p * (1 - p), self.weights)
        spread = torch.maximum(spread, self.least).clamp_min(1e-12)
        return 1.0 / (spread[:, :, None] * self.axes[:, None, :] + self.ridge[:, None, :] + _TINY)

    def _direction(self, scale: Tensor) -> Tensor:
        """Minus the estimated inverse Hessian times the gradient (Nocedal, 1980: the two-loop recursion)."""
        q = self.gradient
        shares = []
        for s, y, rho in reversed(self.steps):
            share = rho * _dot(s, q)
            q = q - share[:, None, None] * y
            shares.append(share)
        q = q * scale
        for (s, y, rho), share in zip(self.steps, reversed(shares), strict=True):
            q = q + (share - rho * _dot(y, q))[:, None, None] * s
        # The loss does not feel a constant added to all classes; without this, rounding would let it drift.
        return -(q - q.mean(dim=1, keepdim=True))

    def _line_search(self, direction: Tensor, along: Tensor, slope: Tensor) -> Tensor:
        """Step lengths (b,) at which the slope has at least halved and nothing is lost: safeguarded Newton.

        Without the second condition a step far beyond the least would do: there the loss of separated items rises as a
        straight line, be the slope small, and the softmax is so sure that its curvature says nothing any more.
        """
        ridge = self.ridge[:, None, :] * direction
        constant, growth = _dot(ridge, self.coefficients), _dot(ridge, direction)
        constant = constant - torch.einsum("bkn,kn,bn->b", along, self.targets, self.weights)
        total = self.logits.logsumexp(dim=1)
        slack = _ROUNDING * (total.abs() * self.weights).sum(dim=1)
        length, low = torch.ones_like(slope), torch.zeros_like(slope)
        high = torch.full_like(slope, torch.inf)
        best = torch.zeros_like(slope)
        done = torch.zeros_like(slope, dtype=torch.bool)
        for _ in range(_LINE_STEPS):
            logits = self.logits + length[:, None, None] * along
            moved = logits.logsumexp(dim=1)
            p = (logits - moved[:, None]).exp_() * along
            mean = p.sum(dim=1)
            at = (mean * self.weights).sum(dim=1) + constant + length * growth
            gain = -((moved - total) * self.weights).sum(dim=1) - length * constant - 0.5 * length.square() * growth
            curve = (((p * along).sum(dim=1) - mean.square()) * self.weights).sum(dim=1) + growth
            # The loss is convex: a slope below 0 means that the least lies further on, and that this is a gain.
            best = torch.where(done, best, length)
            done |= (at.abs() <= 0.5 * slope.abs()) & (gain >= -slack)
            if bool(done.all()):
                return best
            low, high = torch.where(at < 0, length, low), torch.where(at < 0, high, length)
            newton = length - at / curve.clamp_min(_TINY)
            bounded = torch.where(high.isinf(), torch.minimum(newton, 10 * length), newton)
            inside = (bounded > low) & (bounded < high)
            length = torch.where(inside, bounded, torch.where(high.isinf(), 2 * length, (low + high) / 2))
        return torch.where(done, best, low)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the problems' blocks, (b,)."""
    return (a * b).flatten(1).sum(dim=1)
