"""At which size a network is to see images: told by the labelled ones alone, before anything else is tried there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from raytl.evaluation.selection import INSIDE, INSIDE_IMAGES, SPREAD
from raytl.judging.choice import ONE_IN_TWENTY, UNSURE
from raytl.search.jobs import LaneJob
from raytl.search.plan.contest import Contest
from raytl.search.plan.durations import Durations
from raytl.search.plan.left_over import PassedOver
from raytl.search.plan.probing import Probing
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.uris import at_size, is_squashed, split_size, tiles_of
from raytl.training.strategy import Strategy

SHARE, CLOSER_SHARE, ALL_SHARE = 0.5, 0.25, 0.75
"""Of the time that is left, what a size may take that the network was made for, and another way to see images, which
pays less often; of what is left when the first is tried, what all may."""
LEAST_S = 60.0
"""What a size may take where time has no limit, or else as long as all that came before it."""
LEAST_A_CLASS = 3
"""Labels of each class on average, with which a larger size is usually better: with one as good, and slower.

Heads on EfficientNet-Lite0 at 224 pixels instead of 96, 19 to 21 tasks, points on average: with 12 to 270 labels 6.7
(-5 to 33), with three a class 3.3 (-10 to 24), with one 0.1 (-13 to 13). Without target labels, by a source domain and
unlabelled images, 4.6 on 10 tasks (-6 to 11)."""
SOLVING = 0.75
"""How the seconds grow in which a head is solved for: as the pixels to this power."""
FOLD = 0
"""On which sizes are held against each other: the first, on which all strategies are tried."""


class MorePixels:
    """Asks for the head that leads on the target's labels alone, at more pixels than the space asks for.

    A network tells more apart in larger images, and by pieces that nobody resized what is no larger than a few pixels:
    noise, blur, scratches. Both cost a multiple of the time, and most of it goes into images without labels and those
    of source domains, of which there are many. So the few labelled ones tell first which size is worth it, and whatever
    learns from the others too is tried there (:meth:`Probing.show`). One fold tells: also of the images that a head is
    solved for on it is known what it says without having seen them (:attr:`raytl.training.convex.Solved.out_of_fold`).
    Before any size, at no more pixels, a network that sees the middle of images is shown all of them; the sizes follow
    in whichever way was better. Without target labels, which the score does not replace, what leads is tried at a size
    that its network was made for, and is trusted more there.

    records: of all trials, as they come in.
    """

    def __init__(
        self,
        probing: Probing,
        contest: Contest,
        time: TimeBudget,
        durations: Durations,
        settings: PlanSettings,
        records: Sequence[TrialRecord],
    ) -> None:
        self._probing = probing
        self._contest = contest
        self._time = time
        self._durations = durations
        self._settings = settings
        self._records = records
        self._blind = contest.labels is None and settings.folds < 2
        self._over = settings.folds < 2 and not self._blind
        self._begun_s: float | None = None
        self._took_s = self._most_s = 0.0
        self._uri = self._own_key = ""
        self._network: Strategy | None = None
        self._steps: list[tuple[Strategy, float]] = []
        self._tried: dict[str, Strategy] = {}
        self._usual: set[str] = set()
        self._last: dict[bool, str] = {}
        self._refused: list[PassedOver] = []
        self._asked: Strategy | None = None
        self._is_due = False

    def next_job(self) -> LaneJob | None:
        """The next probe; None while the one before decides whether there is one, and where there is none."""
        if self.is_over():
            return None
        if self._has_failed():
            self._steps, self._network = [], None
        while not self._is_due and not self._is_running() and (self._network or self._steps):
            if self._network:
                self._begin_sizes(self._network)
            else:
                strategy, times = self._steps.pop(0)
                if self._pays(strategy.source_model):
                    self._try(strategy, times, CLOSER_SHARE)
        if self._is_due and self._asked is not None:
            self._is_due = False
            return self._probing.give(self._asked, self._settings.first_fold)
        if self._begun_s is not None and not self._is_running():
            self._end()
        return None

    def is_over(self) -> bool:
        """Whether it is known at which size images are to be seen."""
        if not self._over and self._begun_s is None:
            self._begin()
        return self._over

    @property
    def took_s(self) -> float:
        """Seconds since it began, or that it took."""
        return self._took_s if self._over or self._begun_s is None else self._time.used() - self._begun_s

    def passed_over(self) -> PassedOver | None:
        """The least of the sizes above those tried that there was no time for; None where there was for all."""
        tried = max((split_size(uri)[1] or 0 for uri in self._tried), default=0)
        return min((one for one in self._refused if one.side > tried), key=lambda one: one.side, default=None)

    def asked_for(self, record: TrialRecord) -> bool:
        """Whether a trial was asked for here."""
        asked = self._tried.get(record.strategy["source_model"])
        return asked is not None and record.fold == FOLD and record.strategy_key == asked.key != self._own_key

    def _begin(self) -> None:
        """Ask for the network as it is, once the plain heads are known, and go on from there."""
        if not self._probing.knows_plain():
            return
        self._begun_s, self._most_s = self._time.used(), ALL_SHARE * self._time.left()
        network = self._probing.best_plain()
        if network is None:
            self._end()
            return
        self._uri, self._network, self._own_key = network.source_model, network, network.key
        self._ask(network)

    def _begin_sizes(self, network: Strategy) -> None:
        """Try all of the images in view, then what there is time for of the sizes that the network was made for.

        Where labels do not tell that all of the images are better, it is as if they had not been shown.
        """
        whole = None if self._blind else self._settings.squashed(self._uri)
        if (
            whole is not None
            and whole not in self._tried
            and self._try(replace(network, source_model=whole), 1.0, CLOSER_SHARE)
        ):
            return
        self._network = None
        self._last.clear()
        squash = is_squashed(self._uri)
        if whole is not None and whole in self._tried:
            squash = self._figure(whole) - self._figure(self._uri) > ONE_IN_TWENTY * self._standard_error()
            if not squash:
                del self._tried[whole]
        closer = [] if self._blind else self._settings.closer(self._uri)
        self._steps = [(_shown(network, uri, squash), times) for uri, times in closer]
        for uri, times in self._settings.larger(self._uri):
            shown = _shown(network, uri, squash)
            if self._try(shown, times, SHARE):
                self._usual.add(shown.source_model)
                break

    def _end(self) -> None:
        """Have all other heads of the network tried at the size that leads, as far as there is time."""
        self._took_s, self._over = self.took_s, True
        best = self._best() if self._tried else self._uri
        if best == self._uri:
            self._probing.release()
        else:
            self._contest.shown = best
            self._probing.show(self._tried[self._uri], best, self._has_room)

    def _best(self) -> str:
        """The size that leads, of those tried: its source model.

        One that the network was made for need not be ahead where there are labels enough: it usually is better.
        """
        best, labels = self._uri, self._contest.labels
        many = labels is not None and len(labels.labels) >= LEAST_A_CLASS * labels.classes
        for uri in self._tried:
            doubt = 0.0
            if uri in self._usual and (many or self._blind) and self._figure(uri) > -math.inf:
                doubt = math.inf if self._blind else self._standard_error()
            if self._figure(uri) > self._figure(best) - doubt:
                best = uri
        return best

    def _figure(self, uri: str) -> float:
        """What labels say of a size, by all that its head was asked of; as low as can be where it was not tried.

        By the validation fold where the usual size was tried by an earlier raytl, which did not ask of more.
        """
        record, own = self._trial_at(uri), self._trial_at(self._uri)
        if record is None or record.score is None:
            return -math.inf
        figure = "labelled" if own is not None and INSIDE not in own.metrics else INSIDE
        return record.metrics.get(figure, record.score)

    def _standard_error(self) -> float:
        """Of the difference of two figures. Of a class with a single label nothing is asked."""
        labels, record = self._contest.labels, self._trial_at(self._uri)
        if labels is None or record is None:
            return UNSURE
        return SPREAD / math.sqrt(record.metrics.get(INSIDE_IMAGES, len(labels.labels)))

    def _trial_at(self, uri: str) -> TrialRecord | None:
        """The trial that tells of a size."""
        records = self._contest.completed(self._tried[uri].key)
        return next((record for record in records if record.fold == FOLD), None)

    def _pays(self, uri: str) -> bool:
        """Whether more of the kind promises anything: not where the last of it was no better than the other sizes."""
        last = self._last.get(tiles_of(uri) > 1)
        return last is None or last == self._best()

    def _try(self, strategy: Strategy, times: float, share: float) -> bool:
        """Ask for a strategy if there is time for it.

        times: how many times as many pixels it sees as were seen. share: of the time that is left, what it may take.
        """
        seconds = self._seconds(times)
        if not self._statuses(strategy) and not self._has_time(seconds, share):
            side = split_size(strategy.source_model)[1]
            if side and times > 1 and tiles_of(strategy.source_model) == 1 and self._time.limited:
                more_s = max(seconds / share - self._time.left(), seconds / 2)
                self._refused.append(PassedOver(side, seconds, more_s))
            return False
        self._last[tiles_of(strategy.source_model) > 1] = strategy.source_model
        self._ask(strategy)
        return True

    def _ask(self, strategy: Strategy) -> None:
        self._tried[strategy.source_model] = self._asked = strategy
        self._is_due = self._statuses(strategy)[-1:] in ([], [TrialStatus.INTERRUPTED])

    def _has_time(self, seconds: float, share: float) -> bool:
        used_s = self._time.used()
        if not self._time.limited:
            return seconds <= max(LEAST_S, used_s)
        most_s = min(share * self._time.left(), self._most_s - (used_s - (self._begun_s or 0.0)))
        return seconds <= most_s and self._time.allows(seconds)

    def _has_room(self, strategy: Strategy) -> bool:
        """Whether another head may be tried at a size on the first fold, for which its images pass the network."""
        seconds = self._durations.of(strategy)
        if not self._time.limited:
            return seconds <= max(LEAST_S, self._time.used())
        return seconds <= SHARE * self._time.left() and self._time.allows(seconds)

    def _seconds(self, times: float) -> float:
        """What a size takes, by what the network took at its own when its images passed it."""
        network = self._tried[self._uri]
        first = max(self._contest.completed(network.key), key=lambda record: record.seconds)
        solving_s = first.again_s * (float(times**SOLVING) - 1)
        return self._durations.at_more_pixels(network, times, first.seconds) + solving_s

    def _statuses(self, strategy: Strategy) -> list[TrialStatus]:
        """Of its trials here, in the order in which they began."""
        return [r.status for r in self._records if r.strategy_key == strategy.key and r.fold == FOLD]

    def _has_failed(self) -> bool:
        """Whether what was asked for last failed: for want of memory larger ones would as well."""
        return self._asked is not None and self._statuses(self._asked)[-1:] == [TrialStatus.FAILED]

    def _is_running(self) -> bool:
        """Whether what was asked for last has not ended. What an earlier search broke off counts no more."""
        if self._asked is None or self._is_due:
            return False
        return self._statuses(self._asked)[-1:] == [TrialStatus.RUNNING]


def _shown(network: Strategy, uri: str, squash: bool) -> Strategy:
    """A network at another size, or on pieces, which are of the whole image anyway."""
    side = split_size(uri)[1]
    return replace(network, source_model=at_size(uri, side, tiles_of(uri), squash=squash) if side else uri)
