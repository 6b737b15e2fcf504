"""How long jobs are expected to take, by what others took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.propose.effort import Passes
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.heads import CONVEX
from raytl.sources.uris import split_size
from raytl.tasks.task import TOGETHER
from raytl.training.pretrain import parse_pretrain
from raytl.training.strategy import Strategy

OVERHEAD = 1.3
"""Of a training over the bare passes through the network, before any was seen."""
BACKWARD = 3.0
"""Forward passes that a step of training takes the time of, where it was not measured."""
LEAST_SHARE = 0.15
"""Of a training, what has to be over before its time tells of the rest: its first step does what others need not."""
RECENT = 8


class Durations:
    """Learns from probes, which tell how long an image takes through a network, and from trainings as they go on.

    records: of all trials, as they come in. epochs: of the full budget. passes: of an image through the whole network
    that training a strategy comes to (:class:`raytl.search.propose.effort.Effort`).
    """

    def __init__(
        self, records: Sequence[TrialRecord], epochs: int, passes: Callable[[Strategy, float | None], Passes]
    ) -> None:
        self._records = records
        self._epochs = epochs
        self._passes = passes
        self._probes: list[float] = []
        self._forward_s: dict[str, float] = {}
        self._step_s: dict[str, float] = {}
        self._stages: dict[str, tuple[float, ...]] = {}
        self._needs_s: dict[str, float] = {}
        self._strategies: dict[str, Strategy] = {}

    def probed(self, job: LaneJob, result: JobResult) -> None:
        """Take in the end of a probe."""
        uri = job.strategy["source_model"]
        if result.needs_s:
            self._needs_s[uri] = result.seconds + result.needs_s
        self._measured(uri, result.seconds, result.forward_s, result.step_s)

    def _measured(self, uri: str, seconds: float, forward_s: Sequence[float], step_s: float) -> None:
        self._probes.append(seconds)
        if forward_s:
            known = self._forward_s.get(uri, math.inf)
            self._forward_s[uri] = min(sum(forward_s), known)
            self._stages[uri] = tuple(forward_s)
        if step_s:
            self._step_s[uri] = step_s

    def of(self, strategy: Strategy) -> float:
        """Seconds that a strategy is expected to take in full; 0 while nothing is known.

        By what its passes come to, times what trainings from the same source model took over that, or from others. A
        network that was not measured is taken to be as slow as the slowest that was; where none was, by what a pass
        took in others' trainings. Plain features and networks tell nothing of each other.
        """
        if strategy.convex:
            return self._convex(strategy)
        further = [record.seconds for record in self._completed(strategy)[1:]]
        if further and strategy.cut:
            return max(further)
        uri, factors = strategy.source_model, self._factors()
        measured = bool(self._forward(uri))
        alike = [
            factor
            for other, found in factors.items()
            for factor in found
            if bool(self._forward(other)) == measured and _is_plain(other) == _is_plain(uri)
        ]
        known = factors.get(uri) or alike or ([OVERHEAD] if measured else [])
        if known:
            return self._bare(strategy) * statistics.median(known)
        passes, rates = self._passes_of(strategy), self._rates(_is_plain(uri))
        return (passes.forward + BACKWARD * passes.trained) * max(rates, default=0.0)

    def of_new_probe(self) -> float:
        """Seconds that a probe of which nothing is known is expected to take."""
        return max(self._probes[-RECENT:], default=0.0)

    def restore(self, record: TrialRecord) -> None:
        """Take over what a probe of an earlier search measured."""
        if record.kind == JobKind.PROBE and record.status == TrialStatus.COMPLETED:
            self._measured(record.strategy["source_model"], record.seconds, record.forward_s, record.step_s)

    def of_images(self, count: int, networks: Collection[str] = ()) -> float:
        """Seconds in which so many images pass each of these networks, the slowest usual one at least.

        0 while nothing is known.
        """
        return count * max(self._slowest(), sum(self._forward(uri) for uri in networks if not _is_plain(uri)))

    def at_more_pixels(self, strategy: Strategy, times: float, took: float) -> float:
        """Seconds of a head that sees so many times as many pixels. strategy: at the size at which it took ``took``.

        Images are read and decoded once more, however many of their pixels the network sees then. What took less than
        its passes do had its features from an earlier search, and they are not there at another size.
        """
        passes_s = self._passes_of(strategy).forward * _alike(self._forward_s, strategy.source_model) or took
        return took + (times - 1 if passes_s <= took else times) * passes_s

    def _convex(self, strategy: Strategy) -> float:
        """On one fold more its features are there already, and only the head is solved for."""
        tried = self._completed(strategy)
        if len(tried) > 1:
            again_s = max(record.seconds for record in tried[1:])
        else:
            again_s = tried[0].again_s if tried else self._first(strategy)
        return again_s if strategy.source_domain is None else again_s + self.of_look(strategy)

    def of_look(self, strategy: Strategy) -> float:
        """At images without labels, where the heads of its source model that told its size did without."""
        uri = strategy.source_model
        alike = [r for r in self._records if r.status == TrialStatus.COMPLETED and r.strategy["source_model"] == uri]
        if not alike or any(len(record.answers) for record in alike):
            return 0.0
        return self._passes_of(strategy).looked * self._forward(uri)

    def _completed(self, strategy: Strategy) -> list[TrialRecord]:
        return [r for r in self._records if r.strategy_key == strategy.key and r.status == TrialStatus.COMPLETED]

    def _first(self, strategy: Strategy) -> float:
        """On images that other heads on the same features have not had pass the network, where there are such heads."""
        done = [r for r in self._records if r.status == TrialStatus.COMPLETED and r.strategy.get("head") in CONVEX]
        alike = [record for record in done if record.strategy["source_model"] == strategy.source_model]
        had = strategy
        if not any(_has_seen(record.strategy["source_domain"], strategy.source_domain) for record in alike):
            had = replace(had, source_domain=None)
        if not any(record.strategy["adaptation"] == strategy.adaptation for record in alike):
            had = replace(had, adaptation="none", adaptation_config=None)
        if not any(record.strategy["augmentation"] == strategy.augmentation for record in alike):
            had = replace(had, augmentation="none", cached_views=0)
        more = max(0.0, self._passes_of(strategy).forward - self._passes_of(had).forward)
        more_s = OVERHEAD * more * self._forward(strategy.source_model)
        new_s = max(self.of_new_probe(), self._needs_s.get(strategy.source_model, 0.0))
        return more_s + (self._solving(strategy, alike) if alike else new_s)

    def _solving(self, strategy: Strategy, alike: Sequence[TrialRecord]) -> float:
        """Seconds in which a head is solved for on features that are there, by what others on them took.

        The more images it learns from the longer, though not in proportion: layers on places learn from some of them.
        By those that learned from nearly as many.
        """
        own = self._passes_of(strategy).forward
        others = [self._passes_of(Strategy.from_dict(record.strategy)).forward for record in alike]
        times = [max(1.0, math.sqrt(own / count)) if count else 1.0 for count in others]
        took = [_again(record, strategy) for record, more in zip(alike, times, strict=True) if more == min(times)]
        return min(times) * max(took)

    def _passes_of(self, strategy: Strategy) -> Passes:
        """With the stages that are frozen counted by what they take, where that was measured."""
        times = next((times for uri, times in self._stages.items() if _is_of(uri, strategy.source_model)), ())
        frozen = sum(times[: strategy.cut]) / sum(times) if times and sum(times) else None
        return self._passes(strategy, frozen)

    def _rates(self, plain: bool) -> list[float]:
        """Seconds that trainings took for a forward pass of whatever network, or of whatever plain features."""
        found = []
        for record in self._telling():
            strategy = Strategy.from_dict(record.strategy)
            if strategy.convex or _is_plain(strategy.source_model) != plain:
                continue
            share, seconds = self._progress(record)
            passes = self._passes_of(strategy)
            bare = passes.forward + BACKWARD * passes.trained
            if share >= LEAST_SHARE and seconds and bare:
                found.append(seconds / share / bare)
        return found

    def _bare(self, strategy: Strategy) -> float:
        """Seconds of a strategy's passes alone; in units of an unknown pass where no pass was measured."""
        passes = self._passes_of(strategy)
        forward_s = self._forward(strategy.source_model)
        if not forward_s:
            return passes.forward + BACKWARD * passes.trained
        ratios = [step_s / self._forward_s[uri] for uri, step_s in self._step_s.items() if self._forward_s.get(uri)]
        usual = forward_s * (statistics.median(ratios) if ratios else BACKWARD)
        step_s = _alike(self._step_s, strategy.source_model) or usual
        return passes.forward * forward_s + passes.trained * step_s

    def _factors(self) -> dict[str, list[float]]:
        """By source model, what its trainings took over their bare passes, as far as they got."""
        found: dict[str, list[float]] = {}
        for record in self._telling():
            share, seconds = self._progress(record)
            if record.strategy_key not in self._strategies:  # asked for every proposal, of every trial
                self._strategies[record.strategy_key] = Strategy.from_dict(record.strategy)
            strategy = self._strategies[record.strategy_key]
            bare = 0.0 if strategy.convex else self._bare(strategy)
            if share >= LEAST_SHARE and seconds and bare:
                found.setdefault(strategy.source_model, []).append(seconds / share / bare)
        return found

    def _telling(self) -> Iterator[TrialRecord]:
        """Trials that may tell what passes take.

        On further folds a strategy finds what its frozen stages make of the images: those passes took it no time, and
        a training that has all of them to do was begun as if it took half as long as it does.
        """
        before = set()
        for record in self._records:
            if record.strategy_key not in before or not record.strategy["cut"]:
                yield record
            if record.status == TrialStatus.COMPLETED:
                before.add(record.strategy_key)

    def _progress(self, record: TrialRecord) -> tuple[float, float]:
        """How much of a training is over, and in how many seconds."""
        if record.status == TrialStatus.COMPLETED:
            return 1.0, record.seconds
        if record.status == TrialStatus.FAILED or not record.history:
            return 0.0, 0.0
        last = record.history[-1]
        return last["epoch"] / self._epochs, last.get("seconds", 0.0)

    def _forward(self, uri: str) -> float:
        """Of a network: its own, or one's of the same architecture, or the slowest's; 0 where none was measured.

        At another size where nothing else is known: what takes longer than there is time for must not be begun.
        """
        bare = {split_size(other)[0]: seconds for other, seconds in self._forward_s.items()}
        return _alike(self._forward_s, uri) or self._slowest() or _alike(bare, uri)

    def _slowest(self) -> float:
        usual = {other: s for other, s in self._forward_s.items() if split_size(other)[1] is None}
        return max([seconds for other, seconds in usual.items() if not _is_plain(other)], default=0.0)


def _again(record: TrialRecord, strategy: Strategy) -> float:
    """Seconds of a head on one fold more, by another one's on the same features, with or without views."""
    return record.again_s * slower(strategy) / slower(Strategy.from_dict(record.strategy))


def slower(strategy: Strategy) -> float:
    """Times that a head takes longer to be solved for than on images as they are, about: on all versions but once."""
    return math.sqrt(1 + strategy.cached_views) if strategy.augmentation != "none" else 1.0


def _alike(seconds: dict[str, float], uri: str) -> float:
    """Of a network of the same architecture, 0 where none is known."""
    return max([s for other, s in seconds.items() if _is_of(other, uri)], default=0.0)


def _is_plain(uri: str) -> bool:
    """Whether features are computed in next to no time: training their head takes thousands of times as long."""
    return uri.startswith("plain:")


def _is_of(other: str, uri: str) -> bool:
    """Whether a source model has the architecture of another: as published, untrained, or trained on a domain."""
    return _architecture(other) == _architecture(uri)


def _architecture(uri: str) -> str:
    parsed = parse_pretrain(uri)
    return (parsed[1] if parsed is not None else uri).removesuffix("@none")


def _has_seen(joined: str | None, wanted: str | None) -> bool:
    """Whether what joined a head, perhaps several domains, has the images of another head's among them."""
    return joined == wanted or (
        wanted is not None and set(wanted.split(TOGETHER)) <= set((joined or "").split(TOGETHER))
    )
