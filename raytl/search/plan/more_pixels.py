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
from raytl.sources.uris import at_size, is_squashed, split_size, tiles_of
from raytl.training.strategy import Strategy

SHARE, ALL_SHARE = 0.4, 0.6
"""Of the time that is left, what one size may take, and of what is left when the first is tried, what all may."""
LEAST_S = 60.0
"""What a size may take where time has no limit, or else as long as all that came before it."""


class MorePixels:
    """Asks for the leading probe at more pixels, whole images and pieces of them, on the folds that it was tried on.

    A network tells more apart in larger images, and by pieces that nobody resized what is no larger than a few pixels:
    noise, blur, scratches. Both cost a multiple of the time. Only where target labels tell whether it pays: without
    them the score says too little. Before either, and at no more pixels, a network that sees the middle of images is
    shown all of them; the sizes follow in whichever way was better.

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
        self._begun_s: float | None = None
        self._most_s = 0.0
        self._uri = ""
        self._network: Strategy | None = None
        self._folds: list[int] = []
        self._steps: list[tuple[Strategy, float]] = []
        self._taught: Strategy | None = None
        self._tried: dict[str, tuple[Strategy, float]] = {}
        self._last: dict[bool, str] = {}
        self._asked: list[tuple[Strategy, int]] = []
        self._due: list[tuple[Strategy, int]] = []

    def next_job(self) -> LaneJob | None:
        """The next probe; None while the one before decides whether there is one, and where there is none."""
        if self._begun_s is None and not self._begin():
            return None
        if self._has_failed():
            self._due, self._steps, self._taught, self._network = [], [], None, None
        while not self._due and not self._is_running() and (self._network or self._steps or self._taught):
            if self._network:
                self._begin_sizes(self._network)
            elif self._steps:
                strategy, times = self._steps.pop(0)
                if self._pays(strategy.source_model):
                    self._try(strategy, times)
            else:
                self._try_taught()
        if not self._due:
            return None
        strategy, fold = self._due.pop(0)
        return LaneJob(next(self._numbers), JobKind.PROBE, strategy.to_dict(), fold)

    def is_over(self) -> bool:
        """Whether it is known what more pixels come to."""
        waits = self._due or self._network or self._steps or self._taught or self._is_running()
        return self._begun_s is not None and not waits

    def _begin(self) -> bool:
        """Try all of the images in view, where a network sees but the middle; False before the probes are over."""
        best = self._probing.best()
        if best is None:
            return False
        self._begun_s, self._most_s = self._time.used(), ALL_SHARE * self._time.left()
        network = self._probing.best_network()
        if network is None or self._settings.folds < 2:
            return True
        self._uri, self._network = network.source_model, network
        self._tried[self._uri] = network, 1.0
        tried = [r for r in self._probes() if r.strategy_key == best]
        self._folds = [record.fold for record in tried]
        leader = Strategy.from_dict(tried[0].strategy)
        same = leader.source_model == self._uri
        self._taught = leader if same and leader.adaptation == PROPAGATION else None
        whole = self._settings.squashed(self._uri)
        if whole is not None:
            self._try(replace(network, source_model=whole), 1.0)
        return True

    def _begin_sizes(self, network: Strategy) -> None:
        """Try what there is time for of the sizes that the network was made for, with in view what was better there.

        Where labels do not tell that all of the images are better, it is as if they had not been shown.
        """
        self._network = None
        self._last.clear()
        squash = is_squashed(self._uri)
        uri = self._settings.squashed(self._uri)
        if uri in self._tried:
            squash = self._probing.outdoes(self._tried[uri][0].key, network.key)
            if not squash:
                del self._tried[uri]
        self._steps = [(_shown(network, uri, squash), times) for uri, times in self._settings.closer(self._uri)]
        for uri, times in self._settings.larger(self._uri):
            if self._try(_shown(network, uri, squash), times):
                break

    def _best(self) -> str:
        """The size that leads, of those tried: its source model. Its own size was not always tried on as many folds."""
        by_key = {strategy.key: uri for uri, (strategy, _) in self._tried.items()}
        return by_key.get(self._probing.most_promising(list(by_key)), self._uri)

    def _pays(self, uri: str) -> bool:
        """Whether more of the kind promises anything: not where the last of it was no better than the other sizes."""
        last = self._last.get(tiles_of(uri) > 1)
        return last is None or last == self._best()

    def _try_taught(self) -> None:
        """Try what led by what unlabelled images teach at the size that leads: they pass once it is known to pay."""
        taught, self._taught, best = self._taught, None, self._best()
        if taught is not None and best != self._uri:
            self._try(replace(taught, source_model=best), self._tried[best][1])

    def _try(self, strategy: Strategy, times: float) -> bool:
        """Ask for a strategy if there is time for it. times: how many times as many pixels it sees as were seen."""
        uri = strategy.source_model
        known = {
            r.fold for r in self._records if r.strategy_key == strategy.key and r.status != TrialStatus.INTERRUPTED
        }
        if not known and not self._has_time(self._seconds(strategy, times)):
            return False
        self._tried.setdefault(uri, (strategy, times))
        self._last[tiles_of(uri) > 1] = uri
        self._asked = [(strategy, fold) for fold in self._folds]
        self._due = [(strategy, fold) for fold in self._folds if fold not in known]
        return True

    def _has_time(self, seconds: float) -> bool:
        used_s = self._time.used()
        if not self._time.limited:
            return seconds <= max(LEAST_S, used_s)
        most_s = min(SHARE * self._time.left(), self._most_s - (used_s - (self._begun_s or 0.0)))
        return seconds <= most_s and self._time.allows(seconds)

    def _seconds(self, strategy: Strategy, times: float) -> float:
        """What a strategy takes at more pixels on all folds, by what it took: its images pass the network once."""
        alike = [
            record
            for record in self._probes()
            if record.strategy["source_model"] == self._uri and record.strategy["adaptation"] == strategy.adaptation
        ]
        same = {"head": strategy.head, "class_weights": strategy.class_weights}
        again = [record.seconds for record in alike if same.items() <= record.strategy.items()][1:]
        took = max(record.seconds for record in alike)
        return self._durations.at_more_pixels(replace(strategy, source_model=self._uri), times, took) + sum(again)

    def _probes(self) -> list[TrialRecord]:
        return [r for r in self._records if r.kind == JobKind.PROBE and r.status == TrialStatus.COMPLETED]

    def _has_failed(self) -> bool:
        """Whether what was asked for last failed: for want of memory more of it, and larger ones, would as well."""
        asked = {(strategy.key, fold) for strategy, fold in self._asked}
        return any(r.status == TrialStatus.FAILED and (r.strategy_key, r.fold) in asked for r in self._records)

    def _is_running(self) -> bool:
        """Whether something that was asked for has not ended. What an earlier search broke off counts no more."""
        last = {(r.strategy_key, r.fold): r.status for r in self._records}
        given = [which for which in self._asked if which not in self._due]
        return any(last.get((s.key, fold), TrialStatus.RUNNING) == TrialStatus.RUNNING for s, fold in given)


def _shown(network: Strategy, uri: str, squash: bool) -> Strategy:
    """A network at another size, or on pieces, which are of the whole image anyway."""
    side = split_size(uri)[1]
    return replace(network, source_model=at_size(uri, side, tiles_of(uri), squash=squash) if side else uri)
