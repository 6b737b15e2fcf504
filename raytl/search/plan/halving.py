"""Asynchronous successive halving (Li et al., 2020, "A System for Massively Parallel Hyperparameter Tuning")."""

from __future__ import annotations


class SuccessiveHalving:
    """Decides after each epoch whether a trial goes on.

    grace: epochs before the first rung; factor: one trial in ``factor`` goes on at each rung; epochs: the full budget.
    Rungs stand at grace, grace * factor, grace * factor², … below ``epochs``. A trial that reaches a rung goes on if
    its score is among the best 1/factor of those that reached the rung so far, itself included; nobody waits.
    """

    def __init__(self, grace: int, factor: int, epochs: int) -> None:
        self.rungs: dict[int, list[float]] = {}
        self.factor = factor
        rung = grace
        while rung < epochs:
            self.rungs[rung] = []
            rung *= factor

    def goes_on(self, epoch: int, score: float) -> bool:
        """Record a score (higher is better) and say whether its trial may continue. True between rungs."""
        if epoch not in self.rungs:
            return True
        scores = self.rungs[epoch]
        scores.append(score)
        if len(scores) < self.factor:
            return True
        survivors = max(1, len(scores) // self.factor)
        return score >= sorted(scores, reverse=True)[survivors - 1]

    def record(self, epoch: int, score: float) -> None:
        """Let a trial that is never stopped (a baseline) count at its rungs."""
        if epoch in self.rungs:
            self.rungs[epoch].append(score)
