"""Strategies that somebody asks a running search to try next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raytl.core.errors import UserError
from raytl.search.jobs import LaneJob
from raytl.search.plan.exploration import Exploration
from raytl.search.records import SearchListener, TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

PHASE = "by-hand"
"""The phase under which the user is told what becomes of them."""


class ByHand:
    """Takes them in, and hands each out once, beyond the trials that the search was to make.

    records: all trials of the plan. allows: whether there is time for a strategy. closed: whether the winner is being
    held against its controls already.
    """

    def __init__(
        self,
        exploration: Exploration,
        records: list[TrialRecord],
        listener: SearchListener,
        allows: Callable[[Strategy], bool],
        closed: Callable[[], bool],
    ) -> None:
        self._exploration = exploration
        self._records = records
        self._listener = listener
        self._allows = allows
        self._closed = closed
        self._asked: set[str] = set()
        self._waiting: list[Strategy] = []

    def take(self, asked: Mapping[str, Mapping[str, Any]]) -> bool:
        """Take in strategies, by what tells one request from another; whether there was a new one."""
        new = [name for name in asked if name not in self._asked]
        for name in new:
            self._asked.add(name)
            try:
                self._waiting.append(Strategy.from_dict(asked[name]))
            except UserError as error:
                self._say(f"not tried: {error}")
        return bool(new)

    def next_job(self) -> LaneJob | None:
        """The next of them; of one that is not tried it is told why."""
        while self._waiting and self._exploration.begun:
            strategy = self._waiting.pop(0)
            words = f"{strategy.source_model}, cut {strategy.cut}"
            why_not = self._why_not(strategy)
            if why_not is None:
                self._say(f"tried next: {words}")
                return self._exploration.job_of(strategy)
            self._say(f"not tried: {words}: {why_not}")
        return None

    def _why_not(self, strategy: Strategy) -> str | None:
        known = (r for r in self._records if r.strategy_key == strategy.key and r.status != TrialStatus.INTERRUPTED)
        before = next(known, None)
        if before is not None:
            return f"trial {before.number} tries that or did"
        if not self._exploration.sampler.contains(strategy):
            return "it is not in what is searched over any more"
        if self._closed():
            return "the choice is made already; it is kept for when the search goes on"
        return None if self._allows(strategy) else "there is no time for it any more"

    def _say(self, what: str) -> None:
        self._listener.on_phase(PHASE, f"asked for by hand, {what}")
