"""Heads that are trained along with another's: which ones, on which lane, and what they count for."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_binding import FULL, SETTINGS, bind
from test_plan import EPOCHS, Search, rising
from tiny import PRETRAINED, STAGES, data

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.plan.companions import Companions
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.training.heads import TOGETHER, common_settings
from raytl.training.trial import trains_linear_head

PROBES = f"""
epochs: {EPOCHS}
space:
  source_model: ['{PRETRAINED}']
  cut: [all, 1]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  weight_decay: {{low: 0.00001, high: 0.1, log: true}}
  adaptation: [none, mcc]
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    return bind(tmp_path_factory.mktemp("space"), PROBES, data())


def is_head(job: LaneJob) -> bool:
    return job.strategy["cut"] == STAGES and job.strategy["adaptation"] == "none"


def play_falling(search: Search) -> int:
    """Play a plan on one lane, each strategy worse than all before; returns how many were no one's companion."""
    plan, due, leaders = search.plan, 0, 0
    job = plan.next_job()
    while isinstance(job, LaneJob):
        if job.kind != JobKind.SEARCH:
            plan.on_end(job.number, JobResult({}, 1.0))
        else:
            companion = not job.together and due > 0
            due += len(job.together) - companion
            leaders += not companion
            known = companion or bool(job.together)
            score = 1.0 / (2 + job.number)
            on = all(plan.on_epoch(job.number, {"epoch": float(e), "score": score}, known=known) for e in (1, 2, 3))
            assert on or not known
            plan.on_end(job.number, JobResult({}, 1.0) if on else None)
        job = plan.next_job()
    return leaders


class TestSampler:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_proposes_heads_of_the_same_features(self, tmp_path: Path, setting: str) -> None:
        held = SETTINGS[setting]
        models = "[pretrain:*/scratch:cnn-small]" if held.source_domains else "[scratch:cnn-small]"
        space = bind(tmp_path, FULL, held, f"source_model={models}", "cut=all", "adaptation=[none, adabn]")
        sampler = TpeSampler(space, 0)
        keys: list[str] = []
        for number in range(30):
            handle, strategy = sampler.ask()
            others = sampler.ask_alongside(strategy, 5)
            stages = space.stages[strategy.source_model]
            assert bool(others) == trains_linear_head(strategy, stages)
            assert len(others) <= 5
            for own, other in others:
                assert common_settings(other) == common_settings(strategy)
                assert space.suggest(own.trial) == other
                sampler.tell(own, score=other.head_lr)
            keys += [strategy.key, *(other.key for _, other in others)]
            sampler.tell(handle, score=float(number))
        assert len(set(keys)) == len(keys)
        assert len(keys) > 30 or not held.source_domains

    def test_has_none_where_all_heads_were_tried(self, tmp_path: Path) -> None:
        space = bind(tmp_path, PROBES, data(), "cut=all", "adaptation=none", "head_lr=[0.1, 0.2]", "weight_decay=0.001")
        sampler = TpeSampler(space, 0)
        first = sampler.ask()[1]
        (_, second), *rest = sampler.ask_alongside(first, 7)
        assert {first.head_lr, second.head_lr} == {0.1, 0.2} and not rest


class TestPlan:
    @pytest.mark.parametrize("lanes", [1, 3])
    def test_gives_them_to_the_lane_that_trained_them(self, space: BoundSpace, lanes: int) -> None:
        search = Search(space, trials=80, lanes=lanes, folds=1, together=TOGETHER)
        events = search.play(rising)
        started = {e.job.number: e for e in events if e.what == "start" and e.job.kind == JobKind.SEARCH}
        assert len(started) == 80
        leaders = [event for event in started.values() if event.job.together]
        assert leaders
        for leader in leaders:
            assert is_head(leader.job)
            assert len(leader.job.together) < TOGETHER
            followers = [started[leader.job.number + place + 1] for place in range(len(leader.job.together))]
            assert [event.job.strategy for event in followers] == list(leader.job.together)
            assert {event.lane for event in followers} == {leader.lane}
            ended = next(e.time_s for e in events if e.job is leader.job and e.what in ("end", "stop"))
            assert all(event.time_s >= ended for event in followers)

    def test_leaves_most_of_the_trials_to_the_sampler(self, space: BoundSpace) -> None:
        search = Search(space, trials=16, lanes=1, folds=1, together=TOGETHER)
        events = search.play(rising)
        jobs = [event.job for event in events if event.what == "start" and event.job.kind == JobKind.SEARCH]
        assert len(jobs) == 16
        assert all(len(job.together) <= 2 for job in jobs)
        assert 0 < sum(len(job.together) for job in jobs) <= 5

    def test_stops_none_that_is_over_and_lets_only_the_leader_count_at_the_rungs(self, space: BoundSpace) -> None:
        search = Search(space, trials=400, lanes=1, folds=1, together=TOGETHER)
        leaders = play_falling(search)
        assert len(search.halving.rungs[1]) == leaders < 400
        assert {record.status for record in search.records(JobKind.SEARCH)} == {
            TrialStatus.COMPLETED,
            TrialStatus.PRUNED,
        }

    def test_are_still_told_apart_when_the_search_is_resumed(self, space: BoundSpace) -> None:
        before, after = (Search(space, trials=60, lanes=1, folds=1, together=TOGETHER) for _ in range(2))
        play_falling(before)
        after.plan.restore(before.plan.records)
        companions = [record for record in before.plan.records if record.companion]
        assert companions and all(record.kind == JobKind.SEARCH for record in companions)
        assert {epoch: sorted(seen) for epoch, seen in after.halving.rungs.items()} == {
            epoch: sorted(seen) for epoch, seen in before.halving.rungs.items()
        }

    def test_does_not_lose_patience_over_them(self, space: BoundSpace) -> None:
        def flat(job: LaneJob):
            return rising(LaneJob(job.number, job.kind, {**job.strategy, "head_lr": 0.1, "adaptation": "none"}))

        tried = {}
        for together in (1, TOGETHER):
            search = Search(space, trials=200, lanes=1, folds=1, patience=6, together=together)
            events = search.play(flat)
            jobs = [event.job for event in events if event.what == "start" and event.job.kind == JobKind.SEARCH]
            companions = sum(len(job.together) for job in jobs)
            assert bool(companions) == (together > 1)
            tried[together] = len(jobs) - companions
        assert tried == {1: 7, TOGETHER: 7}


class TestLeftBehind:
    """A lane that was lost never comes for what it trained."""

    def jobs(self) -> list[LaneJob]:
        return [LaneJob(number, JobKind.SEARCH) for number in range(3)]

    def test_goes_to_another_lane_once_its_leader_has_ended(self) -> None:
        leader, *others = self.jobs()
        companions = Companions()
        companions.add(0, leader, others)
        assert companions.next_of(1) is None
        assert companions.next_left([leader.number]) is None
        assert companions.next_left([]) is others[0]
        assert companions.next_of(0) is others[1]
        assert companions.next_of(0) is None and companions.next_left([]) is None
        assert companions.numbers == {1, 2}

    def test_is_not_forgotten_by_the_plan(self, space: BoundSpace) -> None:
        search = Search(space, trials=60, lanes=2, folds=1, together=TOGETHER)
        plan, started, companions = search.plan, 0, 0
        job = plan.next_job(lane := 0)
        while isinstance(job, LaneJob):
            started += job.kind == JobKind.SEARCH
            companions += len(job.together)
            plan.on_end(job.number, JobResult({}, 1.0))
            lane += 1  # as if every lane were lost after its job
            job = plan.next_job(lane)
        assert started == 60 > companions > 0
        assert plan.finished()
