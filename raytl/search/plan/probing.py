"""The first rung: a convex head on every source model's features, tried before anything is trained.

A probe takes a second where a fine-tune takes minutes, and is hard to beat on few images. So it is the first model, the
measure of all that comes after it, and what tells which source model to go on with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from raytl.adaptation.propagation import PROPAGATION
from raytl.search.jobs import JobKind, LaneJob, Survey
from raytl.search.plan.contest import Contest
from raytl.search.plan.head_work import Takes, anything
from raytl.search.plan.kinds import on_target_alone
from raytl.search.plan.leading_heads import has_looked, labels_doubted_by, trails, usually_best
from raytl.search.records import TrialStatus
from raytl.sources.uris import split_size
from raytl.training.pretrain import parse_pretrain
from raytl.training.strategy import Strategy

EAGER = 2
"""Source models that are made from a domain before the search begins; others join in as it goes on."""
TURN = 4
"""Strategies of the search after which one more source model joins in."""
RACING = 3
"""Probes that are tried on all folds: more are hardly ever of interest."""
_JUDGES = 2  # probes that have to doubt a label for it to be said


class Probing:
    """Which probe is tried next, and what they tell.

    contest: the standing of all strategies. pretraining: source models that are not made yet. folds: of the validation.
    numbers: of jobs, from which to take the next. pretrain_s: seconds that making a source model is expected to take at
    most. has_sizes: whether a source model may see images at other sizes. given_up: why source models could not be
    made, by their URI.
    """

    def __init__(
        self,
        contest: Contest,
        pretraining: Sequence[str],
        folds: int,
        numbers: Iterator[int],
        *,
        pretrain_s: float = 0.0,
        has_sizes: Callable[[str], bool] = lambda uri: False,
    ) -> None:
        self.pretrain_s = pretrain_s
        self._contest = contest
        self._numbers = numbers
        self._unmade = list(pretraining)
        self._folds: tuple[int | None, ...] = tuple(range(folds)) or (None,)
        self._probes: dict[str, list[Strategy]] = {}
        self._eager: list[str] = []
        self._awaited: list[str] = []
        self._late: list[str] = []
        self.given_up: dict[str, str] = {}
        self._given: set[tuple[str, int]] = set()
        self._ended: set[tuple[str, int]] = set()
        self._joined_in = 0
        self._closed = False
        self._leader_goes_on = False
        self._has_sizes = has_sizes
        self._tells = folds > 1
        self._blind = not self._tells and contest.labels is None
        self._sized: list[str] = []
        self._held: set[str] = set()

    def begin(self, probes: dict[str, list[Strategy]], survey: Survey) -> None:
        """Settle which probes there are. Models of the domains that promise most come first, others when it is time."""
        self._contest.apart, self._contest.frequencies = survey.apart, survey.frequencies
        self._probes = dict(probes)
        place = {name: index for index, name in enumerate(survey.domains)}
        unmade = sorted(self._unmade, key=lambda uri: place.get((parse_pretrain(uri) or ("",))[0], len(place)))
        unmade = [uri for uri in unmade if uri in probes]
        self._late, self._unmade = unmade[EAGER:], unmade[:EAGER]
        self._eager = [uri for uri in self._probes if uri not in self._late]
        self._awaited = list(self._eager)
        self._sized = [uri for uri in self._probes if self._has_sizes(uri)] if self._tells or self._blind else []
        # What learns from many images waits until the few labelled ones have told at which size they are to be seen.
        every = (strategy for uri in self._sized for strategy in self._probes[uri])
        self._held = {strategy.key for strategy in every if self._tells and not on_target_alone(strategy)}

    def take_over(self) -> None:
        """Let probes that an earlier search ended count: they are not tried again."""
        ended = [r for r in self._contest.records if r.status in (TrialStatus.COMPLETED, TrialStatus.FAILED)]
        known = {(record.strategy_key, record.fold) for record in ended if record.kind == JobKind.PROBE}
        self._given |= known
        self._ended |= known

    # --- jobs out ---------------------------------------------------------------------------------------------------

    def next_job(self, being_made: Collection[str], takes: Takes = anything) -> LaneJob | None:
        """A source model to make, or a probe; None where none is due. being_made: models that a lane is making.

        takes: which probes the lane does that asks.
        """
        if self._unmade and not being_made:
            return self._make()
        job = self.next_probe(being_made, takes)
        # A second one beside it is made only where nothing else is left: till then what leads is known by one fold.
        return self._make() if job is None and self._unmade else job

    def next_probe(self, being_made: Collection[str], takes: Takes = anything) -> LaneJob | None:
        """A probe of what is made; arguments as of :meth:`next_job`."""
        made = [uri for uri in self._at_hand() if uri not in being_made]
        first = self._on_first_fold(made, takes)
        # On plain features a race would use up the probes' time before anything that learned had its turn.
        return first or (self._on_further_folds(takes) if self._has_learned() else None)

    def next_untried(self, *, begin: bool, takes: Takes = anything, being_made: Collection[str] = ()) -> LaneJob | None:
        """A probe of a source model that is at hand, on the first fold; begin: also of one that none was tried of.

        being_made, takes: as of :meth:`next_job`.
        """
        left_out = {*being_made, *(() if begin else self.waiting())}
        return self._on_first_fold([uri for uri in self._at_hand() if uri not in left_out], takes)

    def next_raced(self, allows: Callable[[Strategy], bool]) -> LaneJob | None:
        """A probe on a further fold, if there is time for it.

        Of what is not made yet nothing is to be had before there are lanes, and so plain features may race.
        """
        strategy, fold = self._further(self._racing())
        return self.give(strategy, fold) if strategy is not None and allows(strategy) else None

    def _has_learned(self) -> bool:
        """Whether something that learned has been tried, or nothing that did is waited for."""
        learned = [uri for uri in self._awaited if not uri.startswith("plain:")]
        given = {key for key, _ in self._given}
        return not learned or any(s.key in given for uri in learned for s in self._probes[uri])

    def _at_hand(self) -> list[str]:
        return [uri for uri in self._eager if uri not in self._unmade]

    def waiting(self) -> list[str]:
        """Source models that are at hand, and no probe of which was tried yet."""
        given = {key for key, _ in self._given}
        return [
            uri for uri in self._at_hand() if self._probes[uri] and given.isdisjoint(s.key for s in self._probes[uri])
        ]

    def _on_first_fold(self, models: Sequence[str], takes: Takes = anything) -> LaneJob | None:
        fold = self._folds[0]
        # What unlabelled images teach comes last: they take the longest, and a first model does not wait for them.
        every = sorted((s for uri in models for s in self._probes[uri]), key=_is_taught)
        due = (s for s in every if (s.key, fold or 0) not in self._given and s.key not in self._held)
        strategy = next((s for s in due if takes(JobKind.PROBE, s, fold)), None)
        return None if strategy is None else self.give(strategy, fold)

    def _on_further_folds(self, takes: Takes) -> LaneJob | None:
        leader = self.leader() if self._closed and self._leader_goes_on else None
        racing = self._racing() if not self._closed else [] if leader is None else [leader]
        strategy, fold = self._further(racing, takes)
        return None if strategy is None else self.give(strategy, fold)

    def _further(self, racing: Sequence[Strategy], takes: Takes = anything) -> tuple[Strategy | None, int | None]:
        """Of these: the next strategy and the fold that it was not given yet."""
        due = ((s, fold) for fold in self._folds[1:] for s in racing if (s.key, fold or 0) not in self._given)
        return next(((s, fold) for s, fold in due if takes(JobKind.PROBE, s, fold)), (None, None))

    def _make(self) -> LaneJob:
        return LaneJob(next(self._numbers), JobKind.PRETRAIN, source_model=self._unmade.pop(0))

    def close(self, *, leader: bool) -> None:
        """Try no further folds: the time is to go into what promises more.

        leader: but for the one that leads, so that what it is worth is told by more than a fold's few images.
        """
        self._closed, self._leader_goes_on = True, leader

    def leader(self) -> Strategy | None:
        """What would be chosen if the search ended now; None where that is no probe of this race, or more was tried."""
        if any(record.kind != JobKind.PROBE for record in self._contest.records):
            return None
        choice = self._contest.choice()
        every = (s for probes in self._probes.values() for s in probes)
        return None if choice is None else next((s for s in every if s.key == choice.key), None)

    def folds_given(self, strategy: Strategy) -> int:
        """How many folds a probe was given."""
        return sum((strategy.key, fold or 0) in self._given for fold in self._folds)

    def judged_by(self, strategy: Strategy) -> int:
        """How many images a fold of a probe that was tried has; 0 where no labels judge."""
        tried = self._contest.completed(strategy.key)
        return min((len(record.validated) for record in tried), default=0) if self._contest.labels is not None else 0

    def next_fold(self, strategy: Strategy, takes: Takes = anything) -> LaneJob | None:
        """A probe on one fold more; None where it had all, or the lane does not do it."""
        found, fold = self._further([strategy], takes)
        return None if found is None else self.give(found, fold)

    def next_left_over(self, allows: Callable[[Strategy], bool], takes: Takes = anything) -> LaneJob | None:
        """A probe on a fold that it was not given because the time was for something else, which has ended since."""
        strategy, fold = self._further(self._racing(), takes) if self._closed else (None, None)
        return self.give(strategy, fold) if strategy is not None and allows(strategy) else None

    def give(self, strategy: Strategy, fold: int | None) -> LaneJob:
        """A probe on a fold."""
        self._given.add((strategy.key, fold or 0))
        looks = self.looks(strategy)
        return LaneJob(next(self._numbers), JobKind.PROBE, strategy.to_dict(), fold, looks=looks)

    def looks(self, strategy: Strategy) -> bool:
        """Whether it is asked of images without labels: not where these would have to pass the network for that alone.

        At other sizes than the usual one that is most of what a head takes.
        """
        uri = strategy.source_model
        usual = split_size(uri)[1] is None or uri in self._probes
        return usual or not (strategy.convex and on_target_alone(strategy)) or has_looked(self._contest, uri)

    def _racing(self) -> list[Strategy]:
        """The probes that are worth the other folds: the best ones, as far as they do not trail beyond doubt.

        And of the others what usually is the best: a fold's few images hardly tell probes apart.
        """
        ranked = self._ranked()
        if not ranked:
            return []
        racing = [s for s in ranked[:RACING] if not trails(self._contest, s, ranked[0])]
        usual = usually_best(self._contest, ranked)
        return racing if usual in racing else [*racing, usual]

    def _ranked(self) -> list[Strategy]:
        """Probes with a score, best first."""
        probes = [s for strategies in self._probes.values() for s in strategies]
        if not probes:  # what all trials promise is asked for at every job
            return []
        promises = self._contest.promises()
        known = [s for s in probes if s.key in promises]
        return sorted(known, key=lambda s: promises[s.key], reverse=True)

    def doubted_labels(self) -> int:
        """How many labels all of the best probes doubt; each of another source model, so that they differ."""
        models: dict[str, Strategy] = {}
        for strategy in self._ranked():
            models.setdefault(self._model_of(strategy), strategy)
        return labels_doubted_by(self._contest, [strategy.key for strategy in list(models.values())[:_JUDGES]])

    # --- at which size images are seen ------------------------------------------------------------------------------

    def knows_plain(self) -> bool:
        """Whether each head on the target's labels alone (without any: each) of networks with sizes was tried."""
        first = self._folds[0] or 0
        return all((strategy.key, first) in self._ended for strategy in self._plain())

    def best_plain(self) -> Strategy | None:
        """What leads among these, or usually does; None where none was tried, or there are no other sizes."""
        plain = {strategy.key for strategy in self._plain()}
        ranked = [strategy for strategy in self._ranked() if strategy.key in plain]
        return usually_best(self._contest, ranked) if ranked else None

    def _plain(self) -> list[Strategy]:
        every = [s for uri in self._sized if uri in self._at_hand() for s in self._probes[uri]]
        return [s for s in every if s.head in ("stages", "logistic") and (self._blind or on_target_alone(s))]

    def release(self) -> None:
        """Try what waited for a size at the usual one."""
        self._held.clear()

    def show(self, network: Strategy, uri: str, has_room: Callable[[Strategy], bool]) -> None:
        """Try what waited of a network at another size, as far as there is room, and the head that told it there.

        network: that head at the usual size. uri: the source model at the other one.
        """
        every = self._probes[network.source_model]
        shown = [replace(strategy, source_model=uri) for strategy in every if strategy.key in self._held]
        kept = [s for s in every if s.key not in self._held or not has_room(replace(s, source_model=uri))]
        told = replace(network, source_model=uri)
        self._probes[network.source_model] = [*kept, *(s for s in (told, *shown) if s == told or has_room(s))]
        self._held.clear()

    def put_off(self) -> None:
        """Let the source models that are not made yet wait until there is time for them, which may be never."""
        self._late = [*self._unmade, *self._late]
        self._eager = [uri for uri in self._eager if uri not in self._unmade]
        self._awaited = [uri for uri in self._awaited if uri not in self._unmade]
        self._unmade = []

    def pass_over(self, allows: Callable[[Strategy], bool]) -> None:
        """Do without the probes that were not begun and that there is no time for any more."""
        first = self._folds[0] or 0
        for uri, strategies in self._probes.items():
            kept = [s for s in strategies if (s.key, first) in self._given or allows(s)]
            self._probes[uri] = kept

    def give_up(self, uri: str, reason: str) -> None:
        """Do without a source model that could not be made."""
        self.given_up[uri] = reason
        self._probes[uri] = []
        self._eager = [other for other in self._eager if other != uri]
        self._awaited = [other for other in self._awaited if other != uri]

    def due(self, tried: int) -> bool:
        """Whether one more source model is to join in, after so many strategies of the search."""
        return bool(self._late) and tried >= TURN * (self._joined_in + 1)

    def next_late(self) -> LaneJob | None:
        """The model that promises most of those that did not join in yet: it is made, and probed like the others."""
        uri = self._late.pop(0)
        self._joined_in += 1
        self._eager.append(uri)
        return LaneJob(next(self._numbers), JobKind.PRETRAIN, source_model=uri)

    # --- what they tell ---------------------------------------------------------------------------------------------

    def end(self, job: LaneJob) -> None:
        """Take in the end of a probe."""
        self._ended.add((Strategy.from_dict(job.strategy).key, job.fold or 0))

    def has_order(self) -> bool:
        """Whether every probe that the search waits for has been tried once."""
        first = self._folds[0] or 0
        waited = [s for uri in self._awaited for s in self._probes[uri]]
        return not self._unmade and all((s.key, first) in self._ended for s in waited)

    def is_over(self) -> bool:
        """Whether the probes have been tried on all folds that they are worth."""
        return self.has_order() and self._raced()

    def _raced(self) -> bool:
        """Whether those in front have been tried on all folds that they are worth."""
        given = ((s.key, fold or 0) for s in self._racing() for fold in self._folds)
        return all(which in self._ended for which in given if not self._closed or which in self._given)

    def best(self) -> str | None:
        """Key of the best probe, once they are over; None before, and where none succeeded."""
        return self.best_so_far() if self.is_over() else None

    def front(self, takes_long: Callable[[Strategy], bool]) -> str | None:
        """Key of what leads by the first fold, between two source models; None before one of them has learned.

        Neither what unlabelled images teach is waited for, nor what takes long where the same features had a probe.
        """
        first = self._folds[0] or 0

        def waited_for(strategy: Strategy, others: Sequence[Strategy]) -> bool:
            if (strategy.key, first) in self._ended:
                return True
            if strategy.key in self._held:
                return False
            probed = any((other.key, first) in self._ended for other in others)
            return not (_is_taught(strategy) or (probed and takes_long(strategy)))

        quick = {uri: [s for s in every if waited_for(s, every)] for uri, every in self._probes.items()}
        probes = {uri: strategies for uri, strategies in quick.items() if strategies}
        tried = [uri for uri, strategies in probes.items() if all((s.key, first) in self._ended for s in strategies)]
        begun = [uri for uri, strategies in probes.items() if any((s.key, first) in self._given for s in strategies)]
        alone = all(uri.startswith("plain:") for uri in probes)
        between = tried == begun and (alone or any(not uri.startswith("plain:") for uri in tried))
        ranked = self._ranked() if between else []
        return usually_best(self._contest, ranked).key if ranked else None

    def best_of_plain(self) -> str | None:
        """Key of what leads among plain features, which need no network; None before any was tried."""
        ranked = [strategy for strategy in self._ranked() if strategy.source_model.startswith("plain:")]
        return usually_best(self._contest, ranked).key if ranked else None

    def left(self) -> list[Strategy]:
        """Of the race: a probe for every fold that it was not given yet."""
        folds = () if self._closed else self._folds[1:]
        return [s for s in self._racing() for fold in folds if (s.key, fold or 0) not in self._given]

    def best_so_far(self) -> str | None:
        """Key of the best probe among those tried on the most folds, once the race between them is over."""
        racing = self._racing() if self._raced() else []
        if not racing:
            return None
        if self._contest.labels is not None:
            tried = [len(self._contest.completed(strategy.key)) for strategy in racing]
            racing = [strategy for strategy, folds in zip(racing, tried, strict=True) if folds == max(tried)]
        return (racing[0] if self._contest.labels is not None else usually_best(self._contest, racing)).key

    def order(self) -> list[str]:
        """Source models, the most promising first: by their probes, then those that did not join in yet."""
        tried = (self._model_of(strategy) for strategy in self._ranked())
        return list(dict.fromkeys([*tried, *self._eager, *self._late]))

    def _model_of(self, strategy: Strategy) -> str:
        """The source model of a probe, at whatever size it sees images."""
        return next(uri for uri, every in self._probes.items() if strategy in every)

    def late(self) -> list[str]:
        """Source models that did not join in yet."""
        return list(self._late)

    def not_at_hand(self) -> list[str]:
        """These, and those that could not be made."""
        return [*self._late, *self.given_up]


def _is_taught(strategy: Strategy) -> bool:
    return strategy.adaptation == PROPAGATION
