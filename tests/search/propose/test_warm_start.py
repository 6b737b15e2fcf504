"""Which earlier searches a new one begins with, and that it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import CLASSES, MODEL, data, shapes

from raytl.evaluation.intervals import Interval
from raytl.judging.verdict import Part, Tone
from raytl.runs import RunStore
from raytl.runs.earlier import earlier_runs
from raytl.search.propose.sampler import TpeSampler
from raytl.search.propose.warm_start import (
    MAX_DISTANCE,
    MOST_RUNS,
    MOST_STRATEGIES,
    EarlierRun,
    distance,
    embed,
    warm_starts,
)
from raytl.search.records import Candidate, ControlResult, SearchOutcome, TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem
from raytl.training import Strategy

SURE = Interval(0.8, 0.7, 0.9)
SPACE = f"""
space:
  source_model: [{MODEL}]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  adaptation: [none, mcc]
"""


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "warm.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data())


def of_space(bound: BoundSpace, count: int, seed: int) -> list[Strategy]:
    sampler = TpeSampler(bound, seed)
    return [sampler.ask()[1] for _ in range(count + 1)][1:]  # the first is the default, the same for every seed


def colourful(count: int, seed: int) -> TrainingData:
    rng = np.random.default_rng(seed)
    items = [PixelsItem(str(i), rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for i in range(count)]
    images = LabelledImages("noise", items, None, ("a", "b"), np.arange(count) % 2)
    return TrainingData("noise", images.classes, images, None, {}, 3)


def plain(images: LabelledImages) -> TrainingData:
    return TrainingData("x", images.classes, images, None, {}, 1)


class TestEmbedding:
    def test_is_json_and_the_same_each_time(self) -> None:
        first = embed(data())
        assert json.loads(json.dumps(first)) == first == embed(data())

    def test_other_images_of_the_task_are_near_and_other_tasks_far(self) -> None:
        here = embed(plain(shapes(8, 1)))
        same_kind = distance(here, embed(plain(shapes(8, 2))))
        brighter = distance(here, embed(plain(shapes(8, 1, contrast=0.8, light=20))))
        noise = distance(here, embed(colourful(24, 0)))
        assert 0 < same_kind < brighter < noise
        assert same_kind < 0.05 < MAX_DISTANCE < noise

    def test_distance_is_symmetric_and_zero_for_the_same(self) -> None:
        a, b = embed(plain(shapes(4, 1))), embed(colourful(40, 0))
        assert distance(a, a) == 0.0
        assert distance(a, b) == pytest.approx(distance(b, a))
        assert distance(a, b) <= 1.0

    def test_no_label_enters_it_beyond_the_number_of_classes(self) -> None:
        images = shapes(5, 1)
        swapped = LabelledImages(images.name, images.items, None, CLASSES, images.labels[::-1].copy())
        assert embed(plain(images)) == embed(plain(swapped))


class TestChoice:
    def runs(self, bound: BoundSpace, *descriptions: dict[str, Any]) -> list[EarlierRun]:
        return [
            EarlierRun(f"run-{i}", description, tuple(s.to_dict() for s in of_space(bound, 3, seed=i)))
            for i, description in enumerate(descriptions)
        ]

    def test_the_nearest_come_first_and_the_far_not_at_all(self, bound: BoundSpace) -> None:
        here = embed(bound.data)
        near = here | {"brightness": here["brightness"] + 0.1}
        nearer = here | {"brightness": here["brightness"] + 0.01}
        far = embed(colourful(30, 1))
        starts = warm_starts(here, self.runs(bound, near, far, nearer), bound)
        assert [start.run for start in starts] == ["run-2", "run-0"]
        assert starts[0].distance < starts[1].distance < MAX_DISTANCE

    def test_a_few_of_a_few_runs_and_none_twice(self, bound: BoundSpace) -> None:
        here = embed(bound.data)
        starts = warm_starts(here, self.runs(bound, *[here] * 6), bound)
        keys = [strategy.key for start in starts for strategy in start.strategies]
        assert len(starts) <= MOST_RUNS and len(keys) == len(set(keys)) == MOST_STRATEGIES
        twice = [EarlierRun(name, here, self.runs(bound, here)[0].strategies) for name in ("a", "b")]
        assert [start.run for start in warm_starts(here, twice, bound)] == ["a", "b"]
        assert len({s.key for start in warm_starts(here, twice, bound) for s in start.strategies}) == 3

    def test_only_what_the_space_has(self, bound: BoundSpace) -> None:
        here = embed(bound.data)
        inside = of_space(bound, 1, seed=5)[0].to_dict()
        foreign = [
            inside | {"source_model": "scratch:resnet-small"},
            inside | {"head_lr": 7.0},
            inside | {"augmentation": "flip"},
            inside | {"a setting of another version": 1},
        ]
        starts = warm_starts(here, [EarlierRun("r", here, (*foreign, inside))], bound)
        assert [strategy.to_dict() for start in starts for strategy in start.strategies] == [inside]
        assert warm_starts(here, [EarlierRun("r", here, tuple(foreign))], bound) == []

    def test_they_are_tried_before_the_spaces_own(self, bound: BoundSpace) -> None:
        first = of_space(bound, 2, seed=9)
        sampler = TpeSampler(bound, 0, first)
        assert [sampler.ask()[1] for _ in range(2)] == first
        assert sampler.has_first
        assert sampler.ask()[1] == TpeSampler(bound, 3).ask()[1]
        assert not sampler.has_first


class TestStore:
    def write(
        self,
        store: RunStore,
        name: str,
        bound: BoundSpace,
        *,
        ends: bool = True,
        worth: Interval | None = SURE,
        blind: Tone = Tone.HELPED,
        **settings: Any,
    ) -> list[str]:
        strategies = of_space(bound, 5, seed=len(name))
        with store.create(name, settings) as writer:
            for number, strategy in enumerate(strategies):
                kind = "control" if number == 3 else "search"
                status = TrialStatus.PRUNED if number == 2 else TrialStatus.COMPLETED
                score = 0.5 + 0.1 * number
                record = TrialRecord(number, kind, strategy.to_dict(), strategy.key, status=status, score=score)
                writer.on_trial(record)
            if ends:
                best = Candidate("best", strategies[1].to_dict(), strategies[1].key, [1], worth)
                outcome = SearchOutcome(writer.trials, best, [], "it led", 1.0)
                outcome.controls = [ControlResult("commonest-class", Part.CONSTANT, {}, "", tone=blind)]
                writer.finish(outcome)
        return [strategy.key for strategy in strategies]

    def test_tells_the_best_strategies_of_finished_runs(self, tmp_path: Path, bound: BoundSpace) -> None:
        """The winner first, then by score; a control is none of them however good."""
        store = RunStore(tmp_path)
        keys = self.write(store, "whole", bound, embedding=embed(bound.data))
        self.write(store, "cut-short", bound, ends=False, embedding=embed(bound.data))
        self.write(store, "old", bound)
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / "run.json").write_text("{")
        found = list(earlier_runs(RunStore(tmp_path)))
        assert [run.name for run in found] == ["whole"]
        assert [Strategy.from_dict(values).key for values in found[0].strategies] == [keys[1], keys[4], keys[0]]

    def test_a_run_that_nobody_measured_or_that_learned_nothing_is_none_to_begin_with(
        self, tmp_path: Path, bound: BoundSpace
    ) -> None:
        store, here = RunStore(tmp_path), embed(bound.data)
        self.write(store, "by-a-score", bound, worth=None, embedding=here)
        self.write(store, "no-better-than-blind", bound, blind=Tone.CANNOT_TELL, embedding=here)
        self.write(store, "measured", bound, embedding=here)
        assert [run.name for run in earlier_runs(RunStore(tmp_path))] == ["measured"]

    def test_an_empty_store_has_nothing_to_tell(self, tmp_path: Path) -> None:
        assert list(earlier_runs(RunStore(tmp_path / "nowhere"))) == []
