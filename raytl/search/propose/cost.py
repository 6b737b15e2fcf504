"""Which of several promising strategies to try: the one with the most expected improvement per second.

The idea of Snoek et al. (2012, "Practical Bayesian optimization of machine learning algorithms", section 3.2): TPE
proposes, and small additive models of score and time, learned from the trials so far, choose among its proposals.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raytl.search.propose.sampler import Handle, SpaceExhaustedError, TpeSampler
from raytl.training.strategy import Strategy

PROPOSED = 4
"""Strategies to choose among that TPE proposes."""
DRAWN = 12
"""Others, drawn at random: TPE may propose nothing but what is good and slow."""
LEAST = 8
"""Complete trials before the choice is by anything but TPE."""
RIDGE = 1.0


class AdditiveModel:
    """Ridge regression of a figure on which settings a strategy has: each contributes its own amount.

    Numbers count by their order of magnitude, in steps of half a decade.
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[str, object], int] = {}
        self._rows: list[list[int]] = []
        self._values: list[float] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, strategy: Strategy, value: float) -> None:
        """Learn what a strategy came to."""
        self._rows.append([self._columns.setdefault(key, len(self._columns)) for key in _settings(strategy)])
        self._values.append(value)

    def predict(self, strategies: list[Strategy]) -> tuple[np.ndarray, np.ndarray]:
        """Expectation and standard deviation of each strategy's figure, (n,) and (n,). Needs one trial at least."""
        values = np.array(self._values)
        width = len(self._columns)
        known = self._matrix(self._rows, width)
        inverse = np.linalg.inv(known.T @ known + RIDGE * np.eye(width))
        weights = inverse @ known.T @ (values - values.mean())
        residual = values - values.mean() - known @ weights
        asked = [[self._columns[key] for key in _settings(s) if key in self._columns] for s in strategies]
        new = self._matrix(asked, width)
        unsure = np.sqrt(1 + np.einsum("ij,jk,ik->i", new, inverse, new))
        return values.mean() + new @ weights, max(float(residual.std()), 1e-6) * unsure

    def _matrix(self, rows: list[list[int]], width: int) -> np.ndarray:
        matrix = np.zeros((len(rows), width))
        for row, columns in enumerate(rows):
            matrix[row, columns] = 1.0
        return matrix


class CostAwareSampler(TpeSampler):
    """TPE that proposes several strategies at a time; of these and some drawn at random the most promising per second.

    What was not chosen is taken back: nothing is learned from it, and it may be proposed again.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._log_seconds = AdditiveModel()
        self._scores = AdditiveModel()
        self._best = -math.inf

    def ask(self) -> tuple[Handle, Strategy]:
        """As for TPE."""
        if self.has_first_now or len(self._scores) < LEAST:
            return super().ask()
        proposed = self._proposals()
        drawn = [self.space.suggest(self._random) for _ in range(DRAWN)]
        drawn = [strategy for strategy in drawn if self._is_new(strategy)]
        chosen = self._choose([*(strategy for _, strategy in proposed), *drawn])
        for index, (handle, strategy) in enumerate(proposed):
            if index != chosen:
                super().tell(handle, score=None)
                self._seen.discard(strategy.key)
        if chosen < len(proposed):
            return proposed[chosen]
        strategy = drawn[chosen - len(proposed)]
        return self.adopt(strategy), strategy

    def _proposals(self) -> list[tuple[Handle, Strategy]]:
        """TPE's, one at least. Raises SpaceExhaustedError where there is none."""
        proposed = [super().ask()]
        while len(proposed) < PROPOSED:
            try:
                proposed.append(super().ask())
            except SpaceExhaustedError:
                break
        return proposed

    def took(self, handle: Handle, epoch_s: float) -> None:
        """Learn what an epoch takes."""
        self._log_seconds.add(handle.strategy, math.log(max(epoch_s, 1e-3)))

    def tell(self, handle: Handle, *, score: float | None, pruned: bool = False) -> None:
        """As for TPE. Scores of trials that were stopped early are of another kind and left out of the model."""
        super().tell(handle, score=score, pruned=pruned)
        if score is not None and not pruned:
            self._scores.add(handle.strategy, score)
            self._best = max(self._best, score)

    def _choose(self, strategies: list[Strategy]) -> int:
        mean, deviation = self._scores.predict(strategies)
        log_seconds, _ = self._log_seconds.predict(strategies)
        gain = [_expected_improvement(m - self._best, d) for m, d in zip(mean, deviation, strict=True)]
        return int(np.argmax(np.log(np.maximum(gain, 1e-12)) - log_seconds))


def _expected_improvement(above_best: float, deviation: float) -> float:
    """E[max(0, x)] for x normal with this mean and deviation."""
    z = above_best / deviation
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return above_best * 0.5 * (1 + math.erf(z / math.sqrt(2))) + deviation * density


def _settings(strategy: Strategy) -> list[tuple[str, object]]:
    return [(key, _magnitude(value)) for key, value in strategy.to_dict().items()]


def _magnitude(value: object) -> object:
    if isinstance(value, float) and value > 0:
        return round(2 * math.log10(value))
    return value
