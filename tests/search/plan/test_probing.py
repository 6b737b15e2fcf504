"""The ladder's first rung: in which order probes are tried, on how many folds, and who joins in when."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded import FixedRecipes
from tiny import MODEL, STAGES, data, shapes
from virtual import BASELINES, EPOCHS, Curves, Search, key, rising

from raytl.evaluation import metrics
from raytl.evaluation.selection import INSIDE
from raytl.search.jobs import JobKind, JobResult, LaneJob, Survey
from raytl.search.plan.contest import Contest
from raytl.search.plan.leading_heads import leading_head
from raytl.search.plan.left_over import not_learned_from
from raytl.search.plan.probing import EAGER, RACING, TURN
from raytl.search.plan.said import Labels
from raytl.search.plan.schedule import TIME
from raytl.search.plan.settings import Wait
from raytl.search.plan.simulation import Curve
from raytl.search.propose.effort import Passes
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import TrainingData
from raytl.training import Strategy

DOMAINS = ("a", "b", "c", "d")
MADE = [f"pretrain:{name}/{MODEL}" for name in DOMAINS]


def probe(uri: str) -> Strategy:
    return Strategy(uri, cut=STAGES, head="logistic")


PROBES_OF_ONE = {uri: [probe(uri)] for uri in (MADE[0], "plain:pixels")}
PROBES = {uri: [probe(uri)] for uri in (*MADE, "plain:pixels")}


def bind(folder: Path, settings: str = "head_lr: {low: 0.001, high: 1.0, log: true}") -> BoundSpace:
    file = folder / "probing.yaml"
    file.write_text(f"epochs: {EPOCHS}\nspace: {{source_model: ['pretrain:*/{MODEL}', {MODEL}], {settings}}}")
    held = data()
    domains = {name: shapes(4, number, name=name) for number, name in enumerate(DOMAINS)}
    return BoundSpace(load_space(str(file)), TrainingData(**{**vars(held), "source_domains": domains}))


@pytest.fixture
def space(tmp_path: Path) -> BoundSpace:
    return bind(tmp_path)


def by_name(job: LaneJob) -> Curve:
    """The models of the domains in the order b, d, a, c; pixels last. Making one takes 50 s."""
    if job.kind == JobKind.PRETRAIN:
        return Curve(seconds=50.0)
    if job.kind == JobKind.SURVEY:
        return Curve(seconds=1.0)
    if job.strategy["head"] != "logistic":
        return rising(job)
    if "@" in job.strategy["source_model"]:
        return Curve(((0.2, 1.0),))
    place = [*(MADE[i] for i in (1, 3, 0, 2)), "plain:pixels"].index(job.strategy["source_model"])
    return Curve(((0.25 - 0.01 * place, 1.0),))


def surveyed(search: Search, *domains: str) -> None:
    """Let the survey come back with the domains in this order of promise."""
    job = search.plan.next_job()
    assert isinstance(job, LaneJob) and job.kind == JobKind.SURVEY
    search.plan.on_end(job.number, JobResult(survey=Survey(domains)))


class TestOrder:
    def test_what_needs_no_making_is_probed_while_the_first_models_are_made(self, space: BoundSpace) -> None:
        search = Search(space, pretraining=MADE, recipes=FixedRecipes(BASELINES, PROBES), surveys=True)
        surveyed(search, "c", "a", "d", "b")
        jobs = [search.plan.next_job() for _ in range(3)]
        assert [job.kind for job in jobs if isinstance(job, LaneJob)][:2] == [JobKind.PRETRAIN, JobKind.PROBE]
        assert isinstance(jobs[0], LaneJob) and jobs[0].source_model == MADE[2]
        assert isinstance(jobs[1], LaneJob) and jobs[1].strategy["source_model"] == "plain:pixels"
        # Nothing else is ready: the second model is made meanwhile.
        assert isinstance(jobs[2], LaneJob) and jobs[2].source_model == MADE[0]
        assert isinstance(search.plan.next_job(), Wait)

    def test_the_search_waits_for_the_first_probes_only(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1, pretraining=MADE, recipes=FixedRecipes(BASELINES, PROBES), surveys=True)
        surveyed(search, *DOMAINS)
        search.play(by_name)
        kinds = [job.kind for job in search.jobs]
        before = search.jobs[: kinds.index(JobKind.BASELINE)]
        assert [job.source_model for job in before if job.kind == JobKind.PRETRAIN] == MADE[:EAGER]
        probed = {job.strategy["source_model"] for job in before if job.kind == JobKind.PROBE}
        assert probed == {*MADE[:EAGER], "plain:pixels"}

    def test_tells_the_search_which_source_model_to_begin_with(self, tmp_path: Path) -> None:
        space = bind(tmp_path, "optimizer: [sgd, adamw]")
        search = Search(space, lanes=1, recipes=FixedRecipes({}, PROBES), trials=4, folds=1)
        search.play(by_name)
        order = [job.strategy["source_model"] for job in search.given(JobKind.SEARCH)]
        assert order == [MADE[1], MADE[3], MADE[0], MADE[2]]

    def test_what_unlabelled_images_teach_comes_last_and_the_first_model_before_it(self, space: BoundSpace) -> None:
        taught = {uri: replace(probe(uri), adaptation="propagation") for uri in PROBES_OF_ONE}
        probes = {uri: [probe(uri), taught[uri]] for uri in PROBES_OF_ONE}
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, probes), folds=1)
        search.play(by_name)
        kinds = [(job.kind, job.strategy["adaptation"]) for job in search.jobs if job.strategy]
        begun = kinds[: next(i for i, (kind, _) in enumerate(kinds) if kind == JobKind.BASELINE)]
        plain, later = (JobKind.PROBE, "none"), (JobKind.PROBE, "propagation")
        assert [each for each in begun if each[0] == JobKind.PROBE] == [plain, plain, later, later]
        assert begun.index((JobKind.REFIT, "none")) < begun.index(later)

    @pytest.mark.parametrize(("seconds", "before"), [(1.0, 2), (4.0, 1)])
    def test_the_first_model_waits_for_no_second_head_that_takes_long(
        self, space: BoundSpace, seconds: float, before: int
    ) -> None:
        """Joined with a domain a head's features take as long again, and more."""
        joined = {uri: [probe(uri), replace(probe(uri), source_domain="a")] for uri in PROBES_OF_ONE}
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, joined), folds=1)
        search.play(lambda job: Curve(((0.2, seconds),)) if job.kind == JobKind.PROBE else by_name(job))
        kinds = [job.kind for job in search.jobs]
        assert kinds[:before] == [JobKind.PROBE] * before and kinds[before] == JobKind.REFIT
        assert kinds.count(JobKind.PROBE) == 4

    def test_is_the_order_of_the_baselines_too(self, space: BoundSpace) -> None:
        asked: list[list[str]] = []

        class Noting(FixedRecipes):
            def baselines(self, order, survey):
                asked.append(list(order))
                return {}

        search = Search(space, recipes=Noting({}, PROBES))
        search.play(by_name)
        assert asked == [[MADE[1], MADE[3], MADE[0], MADE[2], "plain:pixels"]]


class TestRacing:
    def test_the_best_few_are_tried_on_all_folds(self, space: BoundSpace) -> None:
        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES), folds=4)
        search.play(by_name)
        folds = {uri: [] for uri in PROBES}
        for job in search.given(JobKind.PROBE):
            folds[job.strategy["source_model"]].append(job.fold)
        assert {uri: len(found) for uri, found in folds.items()} == {
            MADE[1]: 4, MADE[3]: 4, MADE[0]: 4, MADE[2]: 1, "plain:pixels": 1
        }  # fmt: skip
        assert RACING == 3
        assert search.plan.winner() is not None

    def test_an_easy_first_fold_brings_nobody_into_the_race_nor_to_its_end(self, space: BoundSpace) -> None:
        """The best ones fall on the other folds, as all would."""
        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES), folds=4)

        def easy(job: LaneJob) -> Curve:
            usual = by_name(job)
            harder = 0.1 * bool(job.fold)
            return replace(usual, epochs=tuple((score - harder, seconds) for score, seconds in usual.epochs))

        search.play(easy)
        folds = [job.strategy["source_model"] for job in search.given(JobKind.PROBE) if job.fold]
        assert {uri: folds.count(uri) for uri in PROBES} == {
            MADE[1]: 3, MADE[3]: 3, MADE[0]: 3, MADE[2]: 0, "plain:pixels": 0
        }  # fmt: skip

    def test_who_trails_beyond_doubt_is_tried_on_no_further_fold(self, space: BoundSpace) -> None:
        """By what was said of each validation image: one is right of all, one of half, one nearly of all."""
        truth = np.tile(np.arange(3), 20)
        labels = Labels(truth, None, 3, metrics.get("accuracy"))
        right = {MADE[1]: 1.0, MADE[3]: 0.95, MADE[0]: 0.5}
        probes = {uri: [probe(uri)] for uri in right}
        search = Search(space, recipes=FixedRecipes({}, probes), labels=labels, trials=0)
        tried: dict[str, list[int | None]] = {uri: [] for uri in right}
        while isinstance(job := search.plan.next_job(), LaneJob):
            if job.kind == JobKind.PROBE:
                uri = job.strategy["source_model"]
                tried[uri].append(job.fold)
                index = np.arange(job.fold or 0, 60, 3)
                said = np.where(np.arange(20) < right[uri] * 20, truth[index], (truth[index] + 1) % 3)
                search.plan.on_epoch(job.number, {"epoch": 1.0, "score": right[uri], "seconds": 1.0})
                sure = 0.1 + 0.7 * np.eye(3)[said]
                ended = JobResult(seconds=1.0, validation_index=index, validation_probabilities=sure)
                search.plan.on_end(job.number, ended)
            else:
                search.plan.on_end(job.number, JobResult())
        assert tried == {MADE[1]: [0, 1, 2], MADE[3]: [0, 1, 2], MADE[0]: [0]}

    def test_plain_features_race_no_further_before_a_network_had_its_turn(self, space: BoundSpace) -> None:
        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES), folds=4)
        first = search.plan.next_quick()
        assert isinstance(first, LaneJob)
        search.plan.on_end(first.number, JobResult(seconds=1.0))
        assert search.plan.next_quick(begin=False) is None  # nor are they made a model
        assert search.plan.next_quick() is not None

    def test_once_there_are_lanes_what_learns_from_many_images_is_left_to_them(self, space: BoundSpace) -> None:
        """This process went on with it, and two lanes waited for sixteen seconds of a minute."""
        joined = replace(probe(MADE[1]), source_domain=DOMAINS[1])
        search = Search(space, recipes=FixedRecipes({}, {MADE[1]: [probe(MADE[1]), joined]}), trials=0)

        first = search.plan.next_quick()
        assert isinstance(first, LaneJob) and first.strategy == probe(MADE[1]).to_dict()
        search.plan.on_epoch(first.number, {"epoch": 1.0, "score": 0.5, "seconds": 1.0})
        search.plan.on_end(first.number, JobResult(seconds=1.0))
        while isinstance(job := search.plan.next_quick(begin=False), LaneJob):
            assert job.kind != JobKind.PROBE
            search.plan.on_end(job.number, JobResult(seconds=1.0))
        due = search.plan.next_job()
        assert isinstance(due, LaneJob) and due.strategy == joined.to_dict()

    def test_beside_the_first_model_in_the_making_what_leads_is_tried_further_before_a_second_is_made(
        self, space: BoundSpace
    ) -> None:
        here = {uri: [probe(uri)] for uri in (*MADE[:2], "plain:pixels", MODEL)}
        search = Search(space, pretraining=MADE[:2], recipes=FixedRecipes(BASELINES, here), folds=4)
        plan = search.plan
        making = plan.next_job()
        assert isinstance(making, LaneJob) and making.kind == JobKind.PRETRAIN
        given = []
        while isinstance(job := plan.next_job(), LaneJob) and job.kind != JobKind.PRETRAIN:
            if job.kind == JobKind.PROBE:
                given.append((job.strategy["source_model"], job.fold))
                plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5, "seconds": 1.0})
            plan.on_end(job.number, JobResult(seconds=1.0))  # of a first model as well
        assert {(MODEL, fold) for fold in range(4)} <= set(given)
        assert isinstance(job, LaneJob) and job.source_model == MADE[1]  # nothing else is left

    def test_before_there_are_lanes_they_race_whatever_share_of_the_time_it_takes(self, space: BoundSpace) -> None:
        """There is nothing else that the time could go into; once a lane is up only what was begun is finished."""
        here = {uri: [probe(uri)] for uri in ("plain:pixels", MODEL)}
        search = Search(space, recipes=FixedRecipes(BASELINES, here), folds=4, time_budget_s=20.0)
        plan, folds = search.plan, []
        for _ in range(6):
            job = plan.next_quick()
            assert isinstance(job, LaneJob)
            if job.kind == JobKind.PROBE:
                folds.append(job.fold)
                search.clock.now += 3.0
                plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5, "seconds": 3.0})
            plan.on_end(job.number, JobResult(seconds=3.0))
        assert len(set(folds)) > 1 and search.clock.now >= 12.0
        assert plan.next_quick(begin=False) is None
        search.clock.now = 18.0
        assert plan.next_quick() is None  # it would end after the search

    @pytest.mark.parametrize(("again_s", "images", "folds"), [(0.5, 2, 3), (3.0, 2, 1), (0.5, 6, 1)])
    @pytest.mark.parametrize("quick", [False, True])
    def test_what_leads_is_judged_by_some_images_though_the_time_is_over(
        self, space: BoundSpace, again_s: float, images: int, folds: int, quick: bool
    ) -> None:
        """Of ten labels a fold has two, by which a model was "right for 0 %, 0 to 80" after half a minute."""
        truth = np.arange(5 * images) % 2
        labels = Labels(truth, None, 2, metrics.get("accuracy"))
        here = {uri: [probe(uri)] for uri in ("plain:pixels", MODEL)}
        settings = {"folds": 5, "folds_once": 5, "time_budget_s": 20.0, "lanes": 1, "trials": 0}
        search = Search(space, recipes=FixedRecipes({}, here), labels=labels, **settings)
        plan, tried = search.plan, dict.fromkeys(here, 0)
        while isinstance(job := plan.next_quick() if quick else plan.next_job(), LaneJob):
            if job.kind != JobKind.PROBE:
                plan.on_end(job.number, JobResult(seconds=0.1))
                continue
            uri = job.strategy["source_model"]
            tried[uri] += 1
            made_s = 18.0 * (uri == MODEL and job.fold == 0)  # its features, of many unlabelled images
            search.clock.now += made_s + again_s
            index = np.arange(job.fold or 0, len(truth), 5)
            said = 0.1 + 0.8 * np.eye(2)[truth[index] if uri == MODEL else 1 - truth[index]]
            plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5 + 0.4 * (uri == MODEL), "seconds": 1.0})
            plan.on_end(job.number, JobResult(
                seconds=made_s + again_s, made_s=made_s, validation_index=index, validation_probabilities=said
            ))  # fmt: skip
        assert tried[MODEL] == folds

    def test_what_leads_when_the_time_is_over_is_made_a_model_before_there_are_lanes(self, space: BoundSpace) -> None:
        here = {uri: [probe(uri)] for uri in ("plain:pixels", MODEL, MADE[0])}
        recipes = FixedRecipes(BASELINES, here)
        search = Search(space, pretraining=MADE[:1], recipes=recipes, folds=4, time_budget_s=20.0)
        plan, refitted = search.plan, []
        while isinstance(job := plan.next_quick(), LaneJob):
            if job.kind == JobKind.PROBE:
                search.clock.now += 3.0
                score = 0.5 if job.strategy["source_model"] != MODEL else 0.9 if job.fold else 0.4
                plan.on_epoch(job.number, {"epoch": 1.0, "score": score, "seconds": 3.0})
            else:
                refitted.append(job.strategy["source_model"])
            plan.on_end(job.number, JobResult(seconds=1.0))
        assert search.clock.now < 20.0 and plan.winner() in plan.refits.done
        assert len(refitted) == len(set(refitted))

    def test_none_is_begun_once_there_is_no_time_for_it(self, space: BoundSpace) -> None:
        """A source model may be made later than was thought; what leads wins then, and the search ends in time."""
        here = {uri: [probe(uri)] for uri in (MADE[0], "plain:pixels", MODEL)}
        search = Search(space, lanes=1, pretraining=MADE[:1], recipes=FixedRecipes({}, here), folds=2, time_budget_s=30)

        def late(job: LaneJob) -> Curve:
            return Curve(seconds=25.0) if job.kind == JobKind.PRETRAIN else Curve(((0.5, 1.0),), seconds=1.0)

        for _ in range(2):
            quick = search.plan.next_quick()
            assert isinstance(quick, LaneJob)
            search.clock.now += 1.0
            search.plan.on_epoch(quick.number, {"epoch": 1.0, "score": 0.5, "seconds": 1.0})
            search.plan.on_end(quick.number, JobResult(seconds=1.0))
        search.play(late)
        assert search.given(JobKind.PRETRAIN)
        assert MADE[0] not in {job.strategy.get("source_model") for job in search.given(JobKind.PROBE)}
        assert search.given(JobKind.REFIT) and search.clock.now <= 33

    def test_nor_in_the_lanes_while_all_that_learn_are_still_to_be_made(self, space: BoundSpace) -> None:
        search = Search(space, lanes=2, pretraining=MADE[:1], recipes=FixedRecipes(BASELINES, PROBES_OF_ONE), folds=4)
        plan = search.plan
        making, plain = plan.next_job(), plan.next_job()
        assert isinstance(making, LaneJob) and making.kind == JobKind.PRETRAIN
        assert isinstance(plain, LaneJob) and plain.strategy["source_model"] == "plain:pixels"
        plan.on_epoch(plain.number, {"epoch": 1.0, "score": 0.5, "seconds": 1.0})
        plan.on_end(plain.number, JobResult(seconds=1.0))
        assert isinstance(plan.next_job(), Wait)
        plan.on_end(making.number, JobResult(seconds=50.0))
        learned = plan.next_job()
        assert isinstance(learned, LaneJob) and learned.strategy["source_model"] == MADE[0] and learned.fold == 0
        further = plan.next_job()
        assert isinstance(further, LaneJob) and further.fold == 1

    @pytest.mark.parametrize("lane_died", [False, True])
    def test_of_a_model_that_could_not_be_made_nothing_is_tried(self, space: BoundSpace, lane_died: bool) -> None:
        """Each trial would have tried to make it again, and would have cost its lane again."""
        search = Search(space, lanes=1, pretraining=MADE, recipes=FixedRecipes(BASELINES, PROBES), surveys=True)
        surveyed(search, *DOMAINS)
        job = search.plan.next_job()
        assert isinstance(job, LaneJob) and job.kind == JobKind.PRETRAIN
        why = "a: too slow to be learned"
        search.plan.on_end(job.number, None if lane_died else JobResult(reason=why), why if lane_died else None)
        search.play(by_name)
        tried = {job.strategy["source_model"] for job in search.jobs if job.strategy}
        assert job.source_model not in tried and len(tried) > 2
        assert search.plan.given_up == {job.source_model: why}
        assert JobKind.PRETRAIN in search.heard.phases

    def test_what_lanes_made_in_fewer_steps_is_known_wherever_they_made_it(self, space: BoundSpace) -> None:
        def curves(job: LaneJob) -> Curve:
            uri = job.source_model or job.strategy["source_model"]
            return replace(by_name(job), result=JobResult(hurried=uri == MADE[0]))

        search = Search(space, lanes=1, pretraining=MADE, recipes=FixedRecipes(BASELINES, PROBES))
        search.play(curves)
        assert search.plan.hurried[MADE[0]] and not any(search.plan.hurried[uri] for uri in (MADE[1], "plain:pixels"))

    def test_what_was_given_up_for_time_has_not_failed(self, space: BoundSpace) -> None:
        """A search that goes on with more time tries it again."""
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, PROBES))
        job = search.plan.next_job()
        assert isinstance(job, LaneJob) and job.kind == JobKind.PROBE
        search.plan.on_end(job.number, JobResult(seconds=9.0, reason="too slow", needs_s=300.0))
        record = search.plan.records[0]
        assert (record.status, record.reason, record.score) == (TrialStatus.INTERRUPTED, "too slow", None)
        search.play(by_name)
        assert [r.strategy_key for r in search.plan.records].count(record.strategy_key) == 1
        again = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, PROBES))
        again.plan.restore(search.plan.records[:1])
        again.play(by_name)
        assert [r.strategy_key for r in again.plan.records].count(record.strategy_key) > 1

    def test_a_probe_that_fails_holds_up_nothing(self, space: BoundSpace) -> None:
        def curves(job: LaneJob) -> Curve:
            bad = job.kind == JobKind.PROBE and job.strategy["source_model"] in MADE
            return Curve(seconds=1.0, reason="its features are not finite") if bad else by_name(job)

        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES))
        search.play(curves)
        assert search.plan.finished()
        failed = [record for record in search.plan.records if record.status == TrialStatus.FAILED]
        assert len(failed) == len(MADE)
        assert [job.fold for job in search.given(JobKind.PROBE) if job.strategy["source_model"] == "plain:pixels"] == [
            0, 1, 2
        ]  # fmt: skip


class TestOnLargeSets:
    """Where thousands of images pass a network for most of a minute there is something to use in the meantime."""

    @staticmethod
    def begun(space: BoundSpace, pixels_s: float, *, failing: bool = False) -> list[tuple[JobKind, str]]:
        """What is done before there are lanes: kinds and source models, in order. failing: no refit succeeds."""
        here = {uri: [probe(uri)] for uri in ("plain:pixels", MODEL)}
        search = Search(space, recipes=FixedRecipes(BASELINES, here), folds=4, time_budget_s=120.0)
        plan, done = search.plan, []
        while isinstance(job := plan.next_quick(), LaneJob):
            uri = job.strategy["source_model"]
            done.append((job.kind, uri))
            seconds = pixels_s if uri == "plain:pixels" else 5 * pixels_s
            if job.kind == JobKind.PROBE:
                search.clock.now += seconds
                score = 0.5 if uri == "plain:pixels" else 0.9
                plan.on_epoch(job.number, {"epoch": 1.0, "score": score, "seconds": seconds})
            reason = "disk full" if failing and job.kind == JobKind.REFIT else None
            plan.on_end(job.number, JobResult(seconds=seconds, made_s=0.9 * seconds, reason=reason))
        return done

    def test_plain_features_are_the_first_model_until_the_first_network_takes_its_place(
        self, space: BoundSpace
    ) -> None:
        pixels, network = "plain:pixels", MODEL
        assert self.begun(space, 8.0)[:4] == [
            (JobKind.PROBE, pixels),
            (JobKind.REFIT, pixels),
            (JobKind.PROBE, network),
            (JobKind.REFIT, network),
        ]

    def test_on_others_the_first_model_is_what_leads(self, space: BoundSpace) -> None:
        done = self.begun(space, 0.5)
        assert done[:2] == [(JobKind.PROBE, "plain:pixels"), (JobKind.PROBE, MODEL)]
        assert [uri for kind, uri in done if kind == JobKind.REFIT] == [MODEL]

    def test_where_it_cannot_be_made_the_network_is_not_waited_for_any_less(self, space: BoundSpace) -> None:
        done = self.begun(space, 8.0, failing=True)
        assert [uri for kind, uri in done if kind == JobKind.REFIT] == ["plain:pixels", MODEL]


class TestLateModels:
    def played(self, space: BoundSpace, **settings: object) -> Search:
        search = Search(space, lanes=1, pretraining=MADE, recipes=FixedRecipes(BASELINES, PROBES), **settings)
        search.play(by_name)
        return search

    def test_join_in_one_after_every_few_strategies_and_are_probed(self, space: BoundSpace) -> None:
        search = self.played(space, trials=20)
        tried = 0
        made_after, used_after = {}, {}
        for job in search.jobs:
            if job.kind == JobKind.PRETRAIN:
                made_after[job.source_model] = tried
            elif job.kind == JobKind.SEARCH:
                tried += 1
                used_after.setdefault(job.strategy["source_model"], tried)
        assert made_after == {MADE[0]: 0, MADE[1]: 0, MADE[2]: TURN, MADE[3]: 2 * TURN}
        assert used_after[MADE[2]] > TURN and used_after[MADE[3]] > 2 * TURN
        assert {job.strategy["source_model"] for job in search.given(JobKind.PROBE)} == set(PROBES)

    def test_do_not_join_a_search_that_is_over(self, space: BoundSpace) -> None:
        search = self.played(space, trials=TURN)
        assert [job.source_model for job in search.given(JobKind.PRETRAIN)] == MADE[:EAGER]

    def test_join_where_nothing_else_is_left_to_try(self, tmp_path: Path) -> None:
        search = self.played(bind(tmp_path, "cut: 0, optimizer: [sgd]"), trials=20)
        assert {job.strategy["source_model"] for job in search.given(JobKind.SEARCH)} == {*MADE, MODEL}

    def test_are_not_made_where_there_is_no_time_for_it(self, space: BoundSpace) -> None:
        """Nor by the probe that would follow."""
        late = set(MADE[EAGER:])
        search = self.played(space, trials=1000, time_budget_s=340.0, pretrain_s=200.0)
        assert search.records(JobKind.SEARCH)
        assert not late & {job.source_model or job.strategy.get("source_model") for job in search.jobs}
        assert self.played(space, trials=1000, time_budget_s=340.0, pretrain_s=20.0).given(JobKind.PRETRAIN)[EAGER:]

    def test_nor_are_the_first_ones(self, space: BoundSpace) -> None:
        """Where probes of what is at hand took the time, the search ends with these."""
        search = self.played(space, trials=1000, time_budget_s=4.0, pretrain_s=5.0)
        assert not search.given(JobKind.PRETRAIN)
        assert search.plan.winner() == probe("plain:pixels").key
        assert [said for phase, said in search.heard.said if phase == TIME and "no source models" in said] == [
            not_learned_from(DOMAINS)
        ]

    def test_nothing_is_said_of_them_where_it_was_not_the_time(self, space: BoundSpace) -> None:
        search = self.played(space, trials=TURN)
        assert not [said for phase, said in search.heard.said if phase == TIME]


class TestMorePixels:
    """At which size a network is to see images, which the head on the target's labels alone tells for all others.

    Sizes are tried on the first fold, and what leads is then on the others as well.
    """

    JOINED = replace(probe(MADE[1]), source_domain=DOMAINS[1])
    TAUGHT = replace(probe(MADE[1]), adaptation="propagation")

    def played(self, space: BoundSpace, seconds: float | None, **settings: object) -> Search:
        def larger(uri: str) -> list[tuple[str, float]]:
            return [(f"{uri}@224px", 50.0), (f"{uri}@128px", 5.0)] if uri == MADE[1] else []

        recipes = FixedRecipes(BASELINES, PROBES)
        search = Search(space, lanes=1, recipes=recipes, larger=larger, time_budget_s=seconds, **settings)
        search.play(by_name)
        return search

    def seen(self, search: Search) -> list[tuple[str, int | None]]:
        probes = [job for job in search.given(JobKind.PROBE) if "@" in job.strategy["source_model"]]
        return [(job.strategy["source_model"].rpartition("@")[2], job.fold) for job in probes]

    @pytest.mark.parametrize(("seconds", "size"), [(None, "128px"), (1000.0, "224px"), (60.0, "128px"), (15.0, None)])
    def test_it_is_tried_at_as_many_as_there_is_time_for(
        self, space: BoundSpace, seconds: float | None, size: str | None
    ) -> None:
        search = self.played(space, seconds)
        assert self.seen(search) == [(size, 0)] * bool(size)
        over, least = search.plan._turns.size_passed_over, {60.0: 224, 15.0: 128}.get(seconds or 0.0)
        assert (over is None) if least is None else (over is not None and over.side == least and over.more_s > 0)

    def test_before_the_race_and_anything_that_is_trained(self, space: BoundSpace) -> None:
        jobs = self.played(space, None).jobs
        sized = [number for number, job in enumerate(jobs) if "@" in str(job.strategy.get("source_model"))]
        later = [n for n, job in enumerate(jobs) if job.fold or job.kind in (JobKind.BASELINE, JobKind.SEARCH)]
        assert sized and max(sized) < min(later)

    def test_looking_at_nothing_but_labelled_images_which_at_many_pixels_would_take_most_of_the_time(
        self, space: BoundSpace
    ) -> None:
        jobs = self.shown(space, by_name).given(JobKind.PROBE)
        at = {job.looks for job in jobs if "@" in job.strategy["source_model"] and not job.strategy["source_domain"]}
        assert at == {False} and all(job.looks for job in jobs if "@" not in job.strategy["source_model"])

    def test_not_without_folds_to_tell_whether_it_pays(self, space: BoundSpace) -> None:
        labels = Labels(np.arange(3), None, 3, metrics.get("accuracy"))
        assert not self.seen(self.played(space, None, folds=0, labels=labels))
        assert not self.seen(self.played(space, None, folds=1, labels=labels))

    @pytest.mark.parametrize("lanes", [1, 2])
    @pytest.mark.parametrize(("level", "wins"), [(0.9, True), (0.1, True), (None, False)])
    def test_without_target_labels_what_leads_is_trusted_more_at_a_size_that_the_network_was_made_for(
        self, space: BoundSpace, level: float | None, wins: bool, lanes: int
    ) -> None:
        """Whatever the score, which does not tell; unless there is no memory for it."""
        joined = replace(self.JOINED, adaptation="moments")

        def curve(job: LaneJob) -> Curve:
            if job.kind != JobKind.PROBE:
                return by_name(job)
            if "@" in job.strategy["source_model"]:
                return Curve(reason="memory ran out") if level is None else Curve(((level, 1.0),))
            return Curve(((0.6 if job.strategy == joined.to_dict() else 0.4, 1.0),))

        probes = FixedRecipes({}, {MADE[1]: [self.JOINED, joined]})
        sizes = {"larger": [("224px", 5.0), ("128px", 2.0)], "closer": [("320px", 10.0)]}
        given = {
            name: lambda uri, found=found: [(f"{uri}@{size}", times) for size, times in found]
            for name, found in sizes.items()
        }
        search = Search(
            space, folds=0, trials=0, recipes=probes, lanes=lanes, squashed=lambda uri: f"{uri}@96px-squash", **given
        )
        search.play(curve)
        assert self.seen(search) == [("224px", None)]
        large = replace(joined, source_model=f"{MADE[1]}@224px")
        assert search.plan.winner() == (large if wins else joined).key and search.plan.finished()
        assert large.key in search.plan.refits.done if wins else joined.key in search.plan.refits.done

    @pytest.mark.parametrize(
        ("leads", "expected"),
        [
            ("", ["224px", "3x96px"]),
            ("@224px", ["224px", "3x96px", "320px"]),
            ("@3x96px", ["224px", "3x96px", "3x128px"]),
            ("@224px @320px", ["224px", "3x96px", "320px", "448px"]),
        ],
    )
    def test_what_shows_more_is_tried_as_long_as_the_last_of_its_kind_led(
        self, space: BoundSpace, leads: str, expected: list[str]
    ) -> None:
        """Whole images at more pixels than the network was made for, and pieces of them; then on, what led."""

        def closer(uri: str) -> list[tuple[str, float]]:
            return [(f"{uri}@{size}", 1.5) for size in ("3x96px", "320px", "3x128px", "448px")]

        def curve(job: LaneJob) -> Curve:
            _, at, size = str(job.strategy.get("source_model")).rpartition("@")
            if not at:
                return by_name(job)
            level = 0.9 + 0.01 * leads.split().index(f"@{size}") if f"@{size}" in leads.split() else 0.1
            return Curve(((level, 1.0),))

        def larger(uri: str) -> list[tuple[str, float]]:
            return [(f"{uri}@224px", 5.0)] if uri == MADE[1] else []

        search = Search(
            space,
            lanes=1,
            recipes=FixedRecipes(BASELINES, PROBES),
            larger=larger,
            closer=lambda uri: closer(uri) if uri == MADE[1] else [],
        )
        search.play(curve)
        raced = [(leads.split()[-1][1:], fold) for fold in (1, 2)] if leads else []
        assert self.seen(search) == [(size, 0) for size in expected] + raced

    @pytest.mark.parametrize(
        ("leads", "expected"),
        [
            (0.1, ["96px-squash", "224px", "3x96px", "320px"]),
            (0.3, ["96px-squash", "224px", "3x96px", "320px"]),
            (0.8, ["96px-squash", "224px-squash", "3x96px", "320px-squash"]),
        ],
    )
    def test_all_of_an_image_is_put_in_view_before_more_pixels_are_and_stays_where_it_led(
        self, space: BoundSpace, leads: float, expected: list[str]
    ) -> None:
        """A little better than the middle, of 0.25, is not better for all that is known."""

        def curve(job: LaneJob) -> Curve:
            _, at, size = str(job.strategy.get("source_model")).rpartition("@")
            return Curve(((leads if size == "96px-squash" else 0.9, 1.0),)) if at else by_name(job)

        uri = MADE[1]
        search = Search(
            space,
            lanes=1,
            recipes=FixedRecipes(BASELINES, PROBES),
            squashed=lambda asked: f"{asked}@96px-squash" if asked == uri else None,
            larger=lambda asked: [(f"{asked}@224px", 5.0)] if asked == uri else [],
            closer=lambda asked: [(f"{asked}@{size}", 9.0) for size in ("3x96px", "320px")] if asked == uri else [],
        )
        search.play(curve)
        assert [at for at, fold in self.seen(search) if not fold] == expected

    def shown(self, space: BoundSpace, curve: Curves, **settings: object) -> Search:
        """What is learned from other images waits for two sizes of the network, without a limit unless it is said."""
        probes = {**PROBES, MADE[1]: [probe(MADE[1]), self.JOINED, self.TAUGHT]}
        closer = [(f"{MADE[1]}@{size}", 2.0) for size in ("320px", "3x96px")]
        given = {"lanes": 1, "closer": lambda uri: closer if uri == MADE[1] else []} | settings
        search = Search(space, recipes=FixedRecipes(BASELINES, probes), **given)
        search.play(curve)
        return search

    def others(self, search: Search) -> list[str]:
        """At which sizes what learns from other images than the labelled ones was begun; its own is none."""
        jobs = [job for job in search.given(JobKind.PROBE) if not job.fold]
        found = [job for job in jobs if job.strategy["source_domain"] or job.strategy["adaptation"] != "none"]
        return [job.strategy["source_model"].removeprefix(MADE[1]).removeprefix("@") for job in found]

    @pytest.mark.parametrize("lanes", [1, 2])
    @pytest.mark.parametrize(
        ("levels", "expected"),
        [
            ({"320px": 0.5, "3x96px": 0.6}, "3x96px"),
            ({"320px": 0.6, "3x96px": 0.5}, "320px"),
            ({"320px": 0.1, "3x96px": 0.1}, ""),
        ],
    )
    def test_what_learns_from_other_images_waits_and_is_tried_at_the_size_that_leads(
        self, space: BoundSpace, levels: dict[str, float], expected: str, lanes: int
    ) -> None:
        """And there alone, in the race with the head that told it."""

        def curve(job: LaneJob) -> Curve:
            if job.kind != JobKind.PROBE:
                return by_name(job)
            _, at, size = job.strategy["source_model"].rpartition("@")
            level = levels[size] if at else 0.25 if size == MADE[1] else 0.2
            return Curve(((level + 0.1 * (job.strategy["source_domain"] is not None), 1.0),))

        search = self.shown(space, curve, lanes=lanes)
        assert self.others(search) == [expected, expected]
        others = [n for n, job in enumerate(search.jobs) if job.strategy.get("source_domain")]
        alone = [probe(f"{MADE[1]}@{size}").to_dict() for size in levels]
        told = [n for n, job in enumerate(search.jobs) if job.strategy in alone and not job.fold]
        assert len(told) == len(levels) and max(told) < min(others)
        at = MADE[1] + f"@{expected}" * bool(expected)
        tried = [job.fold for job in search.given(JobKind.PROBE) if job.strategy == self.at(self.JOINED, at)]
        assert sorted(tried) == [0, 1, 2]

    def at(self, strategy: Strategy, uri: str) -> dict[str, object]:
        return replace(strategy, source_model=uri).to_dict()

    def test_at_the_usual_size_where_there_is_no_time_for_it_at_the_other(self, space: BoundSpace) -> None:
        """Of the few labelled images a size takes 2 seconds, of the domain's and those without labels 150."""

        def passes(strategy: Strategy, frozen: float | None) -> Passes:
            more = strategy.source_domain is not None or strategy.adaptation != "none"
            return Passes(10.0 + 30.0 * more, 0.0)

        def curve(job: LaneJob) -> Curve:
            if job.kind != JobKind.PROBE:
                return by_name(job)
            large = "@" in job.strategy["source_model"]
            told = JobResult(forward_s=(4.0,) if large else (0.02,))
            return Curve(((0.9 if large else 0.3, 2.0),), result=told)

        search = self.shown(space, curve, time_budget_s=120.0, passes=passes, trials=0)
        assert {size for size, _ in self.seen(search)} >= {"320px"}
        assert self.others(search) == ["", ""]

    @pytest.mark.parametrize(
        ("labels", "level", "led"),
        [(30, 0.6, True), (30, 0.45, True), (30, 0.3, False), (6, 0.45, False), (6, 0.51, True)],
    )
    def test_a_size_that_the_network_was_made_for_need_not_be_ahead_where_there_are_labels_enough(
        self, space: BoundSpace, labels: int, level: float, led: bool
    ) -> None:
        """Usually it is better: of three classes with ten labels each, a standard error behind; with two not."""
        truth = np.arange(labels) % 3
        held = Labels(truth, None, 3, metrics.get("accuracy"))

        def curve(job: LaneJob) -> Curve:
            if job.kind != JobKind.PROBE:
                return by_name(job)
            index = np.arange(job.fold or 0, labels, 3)
            said = JobResult(validation_index=index, validation_probabilities=np.full((len(index), 3), 1 / 3))
            uri = job.strategy["source_model"]
            return Curve(((level if "@" in uri else 0.5 if uri == MADE[1] else 0.2, 1.0),), result=said)

        probes = FixedRecipes({}, {MADE[1]: [probe(MADE[1]), self.JOINED]})
        larger = [(f"{MADE[1]}@224px", 5.0)]
        search = Search(space, lanes=1, recipes=probes, larger=lambda uri: larger, labels=held, trials=0)
        search.play(curve)
        assert self.others(search) == ["224px" if led else ""]

    @pytest.mark.parametrize("quick", [True, False])
    def test_what_waited_comes_before_the_race_where_no_size_could_be_tried(
        self, space: BoundSpace, quick: bool
    ) -> None:
        recipes = FixedRecipes({}, {MADE[1]: [probe(MADE[1]), self.JOINED]})
        given = {"closer": lambda uri: [(f"{uri}@320px", 1e6)], "time_budget_s": 100.0, "trials": 0, "lanes": 1}
        search = Search(space, recipes=recipes, **given)
        tried = []
        while isinstance(job := search.plan.next_quick() if quick else search.plan.next_job(), LaneJob):
            if job.kind == JobKind.PROBE:
                tried.append((job.strategy["source_domain"], job.fold))
                search.plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5, "seconds": 1.0})
            search.clock.now += 1.0
            search.plan.on_end(job.number, JobResult(seconds=1.0))
        assert tried[:2] == [(None, 0), (DOMAINS[1], 0)] and len(tried) > 2

    def test_what_an_earlier_raytl_tried_is_held_against_by_the_fold_that_both_were_asked_on(
        self, space: BoundSpace
    ) -> None:
        """It told nothing of the other images, and the two figures are not alike."""
        uri = f"{MADE[1]}@320px"
        recipes = FixedRecipes({}, {MADE[1]: [probe(MADE[1]), self.JOINED]})
        search = Search(space, recipes=recipes, closer=lambda asked: [(uri, 2.0)], trials=0, lanes=1)
        while isinstance(job := search.plan.next_job(), LaneJob):
            if job.kind == JobKind.PROBE:
                figures = {"labelled": 0.4, INSIDE: 0.9} if job.strategy["source_model"] == uri else {"labelled": 0.5}
                search.plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.6, "seconds": 1.0, **figures})
            search.plan.on_end(job.number, JobResult(seconds=1.0))
        joined = [r.strategy["source_model"] for r in search.records(JobKind.PROBE) if r.strategy["source_domain"]]
        assert set(joined) == {MADE[1]}

    def test_of_networks_that_have_no_other_size_nothing_waits(self, space: BoundSpace) -> None:
        search = self.shown(space, by_name, closer=lambda uri: [])
        assert self.others(search) == ["", ""] and not self.seen(search)

    def test_the_network_at_another_size_is_no_further_source_model(self, space: BoundSpace) -> None:
        """Neither to train from, nor in who else doubts a label."""
        search = self.shown(space, lambda job: Curve(((0.9, 1.0),)) if "@" in str(job.strategy.get("source_model"))
                            else by_name(job))  # fmt: skip
        trained = {r.strategy["source_model"] for r in search.records(JobKind.SEARCH, JobKind.BASELINE)}
        assert trained and not any("@" in uri for uri in trained)

    @pytest.mark.parametrize("lanes", [1, 2, 3])
    def test_no_fold_is_tried_twice(self, space: BoundSpace, lanes: int) -> None:
        """What tells the size and what races are given out side by side."""
        search = self.shown(space, by_name, lanes=lanes)
        tried = [(key(job), job.fold) for job in search.given(JobKind.PROBE)]
        assert len(tried) == len(set(tried))

    def test_other_lanes_do_something_else_while_a_size_is_tried(self, space: BoundSpace) -> None:
        search = self.shown(space, by_name, lanes=3)
        sized = [r for r in search.records(JobKind.PROBE) if "@" in r.strategy["source_model"]]
        assert len(sized) == 2 and sized[0].ended <= sized[1].ended - sized[1].seconds
        raced = [r for r in search.records(JobKind.PROBE) if r.fold and r.ended <= sized[1].ended]
        assert raced and not any(r.strategy["source_domain"] for r in raced)

    @pytest.mark.parametrize("lanes", [1, 2])
    def test_where_a_search_was_broken_off_it_goes_on_with_them(self, space: BoundSpace, lanes: int) -> None:
        """With a size that is still to be told, not with those of before."""
        recipes = FixedRecipes({}, {MADE[0]: [probe(MADE[0])]})

        def began() -> Search:
            closer = [(f"{MADE[0]}@3x96px", 2.0), (f"{MADE[0]}@3x128px", 2.0)]
            return Search(space, lanes=lanes, recipes=recipes, closer=lambda uri: closer, trials=0)

        def end(search: Search, job: LaneJob) -> None:
            if job.kind == JobKind.PROBE:
                score = {"3x96px": 0.8, "3x128px": 0.9}.get(job.strategy["source_model"].rpartition("@")[2], 0.5)
                search.plan.on_epoch(job.number, {"epoch": 1.0, "score": score, "seconds": 0.1})
            search.plan.on_end(job.number, JobResult(seconds=0.1))

        search = began()
        while isinstance(job := search.plan.next_job(), LaneJob):
            if "3x128px" in str(job.strategy.get("source_model")):
                break
            end(search, job)
        search.plan.interrupt()
        again, seen, running = began(), [], []
        again.plan.restore(copy.deepcopy(search.plan.records))
        for _ in range(40):
            job = again.plan.next_job()
            if isinstance(job, LaneJob):
                running.append(job)
                seen += [job] if "@" in str(job.strategy.get("source_model")) and job.kind == JobKind.PROBE else []
            if running and (not isinstance(job, LaneJob) or len(running) == lanes):
                end(again, running.pop(0))
        found = [(job.strategy["source_model"].rpartition("@")[2], job.fold) for job in seen]
        assert found == [("3x128px", fold) for fold in range(3)]

    def test_nothing_more_of_what_failed(self, space: BoundSpace) -> None:
        """Where memory ran out, another fold would run out of it too, and so would more pixels."""
        recipes = FixedRecipes({}, {MADE[0]: [probe(MADE[0])]})
        closer = [(f"{MADE[0]}@{size}", 2.0) for size in ("3x96px", "320px")]
        search = Search(space, lanes=1, recipes=recipes, closer=lambda uri: closer, trials=0)

        def curve(job: LaneJob) -> Curve:
            return Curve(reason="memory ran out") if "@" in str(job.strategy.get("source_model")) else by_name(job)

        search.play(curve)
        assert self.seen(search) == [("3x96px", 0)] and search.plan.winner() == probe(MADE[0]).key

    def test_a_network_that_failed_itself_is_waited_for_by_nobody(self, space: BoundSpace) -> None:
        def curve(job: LaneJob) -> Curve:
            plain = job.strategy == probe(MADE[1]).to_dict()
            return Curve(reason="memory ran out") if plain else by_name(job)

        search = self.shown(space, curve)
        assert self.others(search) == ["", ""] and not self.seen(search) and search.plan.finished()

    def test_without_a_limit_a_size_takes_no_longer_than_all_before(self, space: BoundSpace) -> None:
        recipes = FixedRecipes({}, {MADE[0]: [probe(MADE[0])]})
        closer = [(f"{MADE[0]}@3x96px", 40.0), (f"{MADE[0]}@320px", 5000.0)]
        search = Search(space, lanes=1, recipes=recipes, closer=lambda uri: closer, trials=0)
        search.play(by_name)
        assert {size for size, _ in self.seen(search)} == {"3x96px"}

    @pytest.mark.parametrize(("forward_s", "tried"), [(0.01, True), (0.7, False)])
    def test_large_images_are_decoded_once_whatever_the_network_sees(
        self, space: BoundSpace, forward_s: float, tried: bool
    ) -> None:
        """Of the 8 seconds on 10 images, the network takes 0.1 or 7, and ten times as much at more pixels."""
        recipes = FixedRecipes({}, {MADE[0]: [probe(MADE[0])]})
        settings = {"trials": 0, "time_budget_s": 80.0, "passes": lambda strategy, frozen: Passes(10.0, 0.0)}
        search = Search(space, lanes=1, recipes=recipes, larger=lambda uri: [(f"{uri}@224px", 10.0)], **settings)
        plan, seen = search.plan, []
        while isinstance(job := plan.next_job(), LaneJob):
            seen.append(str(job.strategy.get("source_model")))
            if job.kind == JobKind.PROBE:
                plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5, "seconds": 0.1})
            seconds = 0.1 if job.fold else 8.0
            search.clock.now += seconds
            plan.on_end(job.number, JobResult(seconds=seconds, made_s=seconds - 0.1, forward_s=(forward_s,)))
        assert (f"{MADE[0]}@224px" in seen) == tried

    def test_of_the_network_that_leads_where_plain_features_lead(self, space: BoundSpace) -> None:
        def curve(job: LaneJob) -> Curve:
            plain = job.strategy.get("source_model") == "plain:pixels"
            return Curve(((0.99, 1.0),)) if plain else by_name(job)

        search = Search(
            space,
            lanes=1,
            recipes=FixedRecipes(BASELINES, PROBES),
            closer=lambda uri: [(f"{uri}@3x96px", 9.0)] if uri != "plain:pixels" else [],
        )
        search.play(curve)
        assert {
            job.strategy["source_model"] for job in search.jobs if "@" in str(job.strategy.get("source_model"))
        } == {f"{MADE[1]}@3x96px"}


class TestViews:
    """What leads learns from augmented views too, where the space augments and there is time."""

    def played(self, space: BoundSpace, seconds: float | None = None, **settings: object) -> Search:
        policies = settings.pop("head_augmentations", ["crop", "crop-flip"])
        recipes = FixedRecipes(BASELINES, PROBES)
        search = Search(space, recipes=recipes, head_augmentations=policies, time_budget_s=seconds, **settings)
        search.play(by_name)
        return search

    def seen(self, search: Search) -> list[tuple[str, str, int | None]]:
        probes = [job for job in search.given(JobKind.PROBE) if job.strategy["cached_views"]]
        return [(job.strategy["source_model"], job.strategy["augmentation"], job.fold) for job in probes]

    def test_by_each_policy_of_the_space_on_the_folds_that_it_had(self, space: BoundSpace) -> None:
        leader = self.played(space, head_augmentations=[]).plan.winner()
        assert leader is not None
        expected = [(MADE[1], policy, fold) for policy in ("crop", "crop-flip") for fold in range(3)]
        assert self.seen(self.played(space, lanes=1)) == expected
        assert not self.seen(self.played(space, head_augmentations=[]))

    def test_of_what_leads_at_more_pixels(self, space: BoundSpace) -> None:
        def larger(uri: str) -> list[tuple[str, float]]:
            return [(f"{uri}@224px", 5.0)] if uri == MADE[1] else []

        def curve(job: LaneJob) -> Curve:
            return Curve(((0.9, 1.0),)) if "@" in str(job.strategy.get("source_model")) else by_name(job)

        recipes = FixedRecipes(BASELINES, PROBES)
        search = Search(space, lanes=1, recipes=recipes, larger=larger, head_augmentations=["crop"])
        search.play(curve)
        assert self.seen(search) == [(f"{MADE[1]}@224px", "crop", fold) for fold in range(3)]

    def test_of_what_is_seen_at_the_size_that_labels_told_though_others_had_more_folds(self, space: BoundSpace) -> None:
        """A minute of five went into views of the head at the usual size, which had raced while sizes were tried."""
        usual, large = probe(MADE[1]), probe(f"{MADE[1]}@224px")
        records = [
            TrialRecord(number, "probe", one.to_dict(), one.key, fold, status=TrialStatus.COMPLETED, score=level)
            for number, (one, fold, level) in enumerate([(usual, 0, 0.5), (usual, 1, 0.5), (large, 0, 0.6)])
        ]
        contest = Contest(records, None)
        assert leading_head(contest) == usual
        contest.shown = large.source_model
        assert leading_head(contest) == large

    @pytest.mark.parametrize(("leads", "shown"), [(0.3, ""), (0.9, "@96px-squash")])
    def test_of_all_of_the_images_only_where_labels_tell_that_it_is_better(
        self, space: BoundSpace, leads: float, shown: str
    ) -> None:
        """The middle, of 0.25, is as good for all that is known as what leads it by little."""
        search = Search(
            space,
            lanes=1,
            recipes=FixedRecipes({}, {MADE[1]: PROBES[MADE[1]]}),
            squashed=lambda asked: f"{asked}@96px-squash" if asked == MADE[1] else None,
            head_augmentations=["crop"],
        )
        search.play(lambda job: Curve(((leads, 1.0),)) if "squash" in job.strategy["source_model"] else by_name(job))
        assert sorted(self.seen(search)) == [(f"{MADE[1]}{shown}", "crop", fold) for fold in range(3)]

    def test_not_where_there_is_no_time_or_no_fold_to_tell_whether_it_pays(self, space: BoundSpace) -> None:
        assert not self.seen(self.played(space, 10.0))
        assert not self.seen(self.played(space, folds=0))

    def test_before_anything_is_trained(self, space: BoundSpace) -> None:
        jobs = self.played(space, lanes=1).jobs
        last = max(number for number, job in enumerate(jobs) if job.strategy.get("cached_views"))
        trained = [number for number, job in enumerate(jobs) if job.kind in (JobKind.BASELINE, JobKind.SEARCH)]
        assert trained and last < trained[0]


class TestResumed:
    @pytest.mark.parametrize("surveys", [False, True])
    def test_probes_that_ended_are_not_run_again(self, space: BoundSpace, surveys: bool) -> None:
        recipes = FixedRecipes(BASELINES, PROBES)
        first = Search(space, recipes=recipes, surveys=surveys)
        first.play(by_name)
        records = copy.deepcopy(first.records(JobKind.PROBE))
        for number, record in enumerate(records):
            record.number = number
        records[-1].status = TrialStatus.RUNNING
        again = Search(space, recipes=recipes, surveys=surveys)
        again.plan.restore(records)
        again.play(by_name)
        cut_off = [(records[-1].strategy_key, records[-1].fold)]
        assert [(key(job), job.fold) for job in again.given(JobKind.PROBE)] == cut_off
        assert again.plan.winner() == first.plan.winner()


@pytest.mark.parametrize(("forward_s", "trained"), [(0.5, False), (0.01, True)])
def test_what_training_will_take_is_reckoned_from_a_forward_pass(
    space: BoundSpace, forward_s: float, trained: bool
) -> None:
    """Before anything was trained: what would not end in time is not, and not refitted for comparison."""

    def passes(strategy: Strategy, frozen: float | None) -> Passes:
        return Passes(100.0, 300.0)

    recipes = FixedRecipes({"fine-tune": Strategy(MADE[0])}, {MADE[0]: [probe(MADE[0])]})
    search = Search(space, lanes=1, recipes=recipes, trials=0, folds=1, time_budget_s=100.0, passes=passes)
    plan, given = search.plan, []
    while isinstance(job := plan.next_job(), LaneJob):
        given.append((job.kind, job.strategy["head"]))
        if job.kind != JobKind.REFIT:
            plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": 0.5, "seconds": 1.0})
        plan.on_end(job.number, JobResult(seconds=1.0, forward_s=(forward_s,)))
    assert given[:2] == [(JobKind.PROBE, "logistic"), (JobKind.REFIT, "logistic")]
    assert given[2:] == ([(JobKind.BASELINE, "linear"), (JobKind.REFIT, "linear")] if trained else [])
