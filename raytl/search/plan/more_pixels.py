"""The network that leads once more, where it is shown more of the images than the space asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from raytl.adaptation.propagation import PROPAGATION
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.durations import Durations
from raytl.search.plan.probing import Probing
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.uris import tiles_of
from raytl.training.strategy import Strategy

SHARE = 0.4
"""Of the time that is left, what one size may take."""


class MorePixels:
    """Asks for the leading probe at more pixels, whole images and pieces of them, on the folds that it was tried on.

    A network tells more apart in larger images, and by pieces that nobody resized what is no larger than a few pixels:
    noise, blur, scratches. Both cost a multiple of the time. Only where target labels tell whether it pays: without
    them the score says too little.

    numbers: of jobs, from which to take the next. records: of all trials, as they come in.
    """

    def __init__(
        self,
        probing: Probing,
        time: TimeBudget,
        durations: Durations,
        settings: PlanSettings,
        records: Sequence[TrialRecord],
        numbers: Iterator[int],
    ) -> None:
        self._probing = probing
        self._time = time
        self._durations = durations
        self._settings = settings
        self._records = records
        self._numbers = numbers
        self._begun = False
        self._uri = ""
        self._folds: list[int | None] = []
        self._steps: list[tuple[Strategy, float]] = []
        self._taught: Strategy | None = None
        self._times: dict[str, float] = {}
        self._last: dict[bool, str] = {}
        self._asked: list[tuple[Strategy, int | None]] = []
        self._due: list[tuple[Strategy, int | None]] = []

    def next_job(self) -> LaneJob | None:
        """The next probe; None while the one before decides whether there is one, and where there is none."""
        if not self._begun and not self._begin():
            return None
        while not self._due and not self._is_running() and (self._steps or self._taught):
            strategy, times = self._steps.pop(0) if self._steps else self._taught_closer()
            if strategy is not None and self._pays(strategy.source_model):
                self._try(strategy, times)
        if not self._due:
            return None
        strategy, fold = self._due.pop(0)
        return LaneJob(next(self._numbers), JobKind.PROBE, strategy.to_dict(), fold)

    def is_over(self) -> bool:
        """Whether it is known what more pixels come to."""
        return self._begun and not self._steps and self._taught is None and not self._is_running()

    def _begin(self) -> bool:
        """Try what there is time for of the sizes that the network was made for; False before the probes are over."""
        best = self._probing.best()
        if best is None:
            return False
        self._begun = True
        network = self._probing.best_network()
        if network is None or self._settings.folds < 2:
            return True
        self._uri = network.source_model
        tried = [r for r in self._probes() if r.strategy_key == best]
        self._folds = [record.fold for record in tried]
        leader = Strategy.from_dict(tried[0].strategy)
        same = leader.source_model == network.source_model
        self._taught = leader if same and leader.adaptation == PROPAGATION else None
        more = self._settings.closer(network.source_model)
        self._steps = [(replace(network, source_model=uri), times) for uri, times in more]
        for uri, times in self._settings.larger(network.source_model):
            if self._try(replace(network, source_model=uri), times):
                break
        return True

    def _taught_closer(self) -> tuple[Strategy | None, float]:
        """What led by what unlabelled images teach, at the size that leads: they pass once it is known to pay."""
        taught, self._taught = self._taught, None
        leader = self._probing.leading_head()
        if taught is None or leader is None or leader.source_model not in self._times:
            return None, 0.0
        return replace(taught, source_model=leader.source_model), self._times[leader.source_model]

    def _pays(self, uri: str) -> bool:
        """Whether more of the kind promises anything: not where the last of it was no better than all else."""
        last, leader = self._last.get(tiles_of(uri) > 1), self._probing.leading_head()
        return last is None or leader is None or leader.source_model == last

    def _try(self, strategy: Strategy, times: float) -> bool:
        """Ask for a strategy if there is time for it. times: how many times as many pixels it sees as were seen."""
        uri, seconds = strategy.source_model, self._seconds(strategy, times)
        known = {
            r.fold for r in self._records if r.strategy_key == strategy.key and r.status != TrialStatus.INTERRUPTED
        }
        if not known and not (seconds <= SHARE * self._time.left() and self._time.allows(seconds, self._records)):
            return False
        self._times[uri] = times
        self._last[tiles_of(uri) > 1] = uri
        self._asked = [(strategy, fold) for fold in self._folds]
        self._due = [(strategy, fold) for fold in self._folds if fold not in known]
        return True

    def _seconds(self, strategy: Strategy, times: float) -> float:
        """What a strategy takes at more pixels on all folds, by what it took: its images pass the network once."""
        network = replace(strategy, source_model=self._uri)
        alike = [
            record
            for record in self._probes()
            if record.strategy["source_model"] == self._uri and record.strategy["adaptation"] == strategy.adaptation
        ]
        took = max(record.seconds for record in alike)
        # Images are read and decoded once more, however many of their pixels the network sees then.
        passes_s = min(took, self._durations.of_passes(network)) or took
        again = [record.seconds for record in alike if record.strategy["head"] == strategy.head][1:]
        return took + (times - 1) * passes_s + sum(again)

    def _probes(self) -> list[TrialRecord]:
        return [r for r in self._records if r.kind == JobKind.PROBE and r.status == TrialStatus.COMPLETED]

    def _is_running(self) -> bool:
        ended = {(r.strategy_key, r.fold) for r in self._records if r.status != TrialStatus.RUNNING}
        return any((strategy.key, fold) not in ended for strategy, fold in self._asked)
