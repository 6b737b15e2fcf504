"""Asynchronous successive halving (Li et al., 2020, "A System for Massively Parallel Hyperparameter Tuning")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SuccessiveHalving:
    """Decides after each epoch whether a trial goes on.

    grace: epochs before the first rung; factor: one trial in ``factor`` goes on at each rung; epochs: the full budget.
    Rungs stand at grace, grace * factor, grace * factor², … below ``epochs``. A trial that reaches a rung goes on if
    its score is among the best 1/factor of those of its kind that reached the rung so far, itself included; nobody
    waits. Kinds are told apart where their curves are known to cross: what starts from a solved head is ahead early,
    and an adaptation loss comes to its full weight late.
    """

    def __init__(self, grace: int, factor: int, epochs: int) -> None:
        self.rungs: dict[int, dict[str, list[float]]] = {}
        self.factor = factor
        rung = grace
        while rung < epochs:
            self.rungs[rung] = {}
            rung *= factor

    def goes_on(self, epoch: int, score: float, kind: str = "") -> bool:
        """Record a score (higher is better) and say whether its trial may continue. True between rungs."""
        if epoch not in self.rungs:
            return True
        scores = self.rungs[epoch].setdefault(kind, [])
        scores.append(score)
        if len(scores) < self.factor:
            return True
        survivors = max(1, len(scores) // self.factor)
        return score >= sorted(scores, reverse=True)[survivors - 1]

    def record(self, epoch: int, score: float, kind: str = "") -> None:
        """Let a trial that is never stopped (a baseline) count at its rungs."""
        if epoch in self.rungs:
            self.rungs[epoch].setdefault(kind, []).append(score)


def kind_of(strategy: Mapping[str, Any]) -> str:
    """Which strategies a strategy is held against while it trains. strategy: flat values."""
    adapts = "adapted" if strategy.get("adaptation", "none") != "none" else "plain"
    return f"{adapts}, {strategy.get('start', 'random')}"
