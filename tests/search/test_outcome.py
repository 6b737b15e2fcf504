"""From a finished plan to what it means: the choice, the gains, and a test split that is opened once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, MODEL, PRETRAINED, SIDE, data, shapes, workspace

from raytl import sources
from raytl.core.errors import UserError
from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.outcome import NO_ADAPTATION, choose, conclude
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import PlanSettings, SearchPlan
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.sources.checkpoint import write_checkpoint
from raytl.tasks import LabelledImages, SealedTest
from raytl.training import Strategy
from raytl.training.workspace import Workspace, WorkspaceSettings

EPOCHS = 2
TEST = shapes(10, 50, name="test")
BASELINES = {"scratch": Strategy(MODEL, head_lr=0.02), "fine-tune": Strategy(MODEL, head_lr=0.03)}
Right = Callable[[LaneJob], float]


class Silent:
    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None: ...


def make_plan(root: Path, *, trials: int = 4, folds: int = 2) -> SearchPlan:
    path = root / "small.yaml"
    rates = ", ".join(f"0.1{i}" for i in range(9))
    path.write_text(f"space: {{source_model: {MODEL}, head_lr: [{rates}], adaptation: [mcc, none]}}")
    space = BoundSpace(load_space(str(path)), data())
    settings = PlanSettings(trials, folds, 1, EPOCHS, root / "refits")
    halving = SuccessiveHalving(1, 3, EPOCHS)
    return SearchPlan(settings, TpeSampler(space, 0), halving, BASELINES, [], Silent(), lambda: 0.0)


def play(plan: SearchPlan, space: Workspace, right: Right, jobs: int = 10**6) -> None:
    """Do the plan's jobs, at most so many: each is right about the share ``right`` of validation and test images."""
    for _ in range(jobs):
        job = plan.next_job()
        if not isinstance(job, LaneJob):
            return
        if job.kind == JobKind.REFIT:
            write_checkpoint(Path(job.directory), model_that_is_right(right(job)), {})
            plan.on_end(job.number, JobResult())
            continue
        assert space.data.target is not None and job.fold is not None
        index = space.folds[job.fold][1]
        probabilities = answers(space.data.target.labels[index], right(job))
        metrics = {"score": right(job), "seconds": 1.0}
        goes_on = all(plan.on_epoch(job.number, {**metrics, "epoch": float(e + 1)}) for e in range(EPOCHS))
        result = JobResult(validation_index=index, validation_probabilities=probabilities)
        plan.on_end(job.number, result if goes_on else None)


def answers(labels: np.ndarray, right: float) -> np.ndarray:
    """Probabilities that name the label for the first ``right`` of the images and the next class for the others."""
    said = np.where(np.arange(len(labels)) < round(right * len(labels)), labels, (labels + 1) % 3)
    return np.asarray(0.1 + 0.7 * np.eye(3)[said], dtype=np.float32)


def model_that_is_right(share: float) -> sources.SourceModel:
    """A network that says one class of everything, the first of two or of three: right about a third, or about none.

    share: above 0.5 it is the class that occurs in the test split.
    """
    model = sources.load(MODEL, channels=1, image_size=SIDE)
    model.replace_head(len(CLASSES), CLASSES)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0] if share > 0.5 else [0.0, 0.0, 1.0]))
    return model


def sealed_test() -> SealedTest:
    """Eight bars, two crosses."""
    return SealedTest(TEST.subset([*range(8), 10, 11]))


def by_loss(job: LaneJob) -> float:
    """MCC helps: with it a strategy is right about 0.9, without about 0.4."""
    return 0.9 if job.strategy["adaptation"] == "mcc" else 0.4


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("outcome"), data())


@pytest.fixture
def plan(tmp_path: Path, space: Workspace) -> SearchPlan:
    plan = make_plan(tmp_path)
    play(plan, space, by_loss)
    assert plan.finished()
    return plan


def test_tells_what_the_lanes_were_told(plan: SearchPlan, space: Workspace) -> None:
    outcome = conclude(plan, space.data, None, space, 1.0, interrupted=False)
    assert outcome.workspace is not None
    told = WorkspaceSettings.from_json(json.loads(json.dumps(outcome.workspace)))
    assert told == space.settings
    plan.records[-1].strategy |= {"source_model": PRETRAINED}  # of which there is no model with all steps
    outcome = conclude(plan, space.data, None, space, 1.0, interrupted=False)
    assert outcome.workspace is not None and outcome.workspace["hurried"] == (PRETRAINED,)


class TestChoice:
    def test_is_by_validation_and_says_on_what_grounds(self, plan: SearchPlan, space: Workspace) -> None:
        best, others, why = choose(plan, space.data)
        assert best.label == "best" and best.strategy["adaptation"] == "mcc"
        assert [other.label for other in others] == ["scratch", "fine-tune", NO_ADAPTATION][: len(others)]
        assert all(other.strategy["adaptation"] == "none" for other in others)
        assert why.startswith("highest score (0.900: accuracy and log loss on 2 validation folds, ")
        assert best.test is None and best.test_probabilities is None

    def test_pools_the_folds_each_image_once(self, plan: SearchPlan, space: Workspace) -> None:
        best, _, _ = choose(plan, space.data)
        assert len(best.trials) == 2
        sizes = [len(space.folds[fold][1]) for fold in (0, 1)]
        expected = sum(round(0.9 * size) for size in sizes) / sum(sizes)
        assert best.validation is not None
        assert best.validation.value == pytest.approx(expected)
        assert best.validation.low <= expected <= best.validation.high

    def test_a_strategy_that_was_baseline_and_found_again_counts_once(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path)
        play(plan, space, by_loss)
        first = plan.records[0]
        plan.records.append(TrialRecord(**{**vars(first), "number": len(plan.records), "kind": "search"}))
        plan.results[plan.records[-1].number] = plan.results[first.number]
        _, others, _ = choose(plan, space.data)
        scratch = next(other for other in others if other.label == "scratch")
        assert len(scratch.trials) == len({plan.records[number].fold for number in scratch.trials})

    def test_is_made_of_what_there_is_after_an_early_interrupt(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path)
        play(plan, space, by_loss, jobs=1)  # one baseline done, nothing else begun
        plan.interrupt()
        best, others, _ = choose(plan, space.data)
        assert best.strategy_key == BASELINES["scratch"].key
        assert [other.label for other in others] == ["scratch"]

    def test_one_sentence_where_all_failed(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, trials=3)
        for reason in ("nan", "out of memory", "nan", "nan", "other"):
            job = plan.next_job()
            assert isinstance(job, LaneJob)
            plan.on_end(job.number, JobResult(reason=reason))
        with pytest.raises(UserError, match=r"no trial succeeded \(5 failed\); most often: nan"):
            choose(plan, space.data)

    def test_another_where_there_was_no_time(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path)
        plan.next_job()
        plan.interrupt()
        with pytest.raises(UserError, match="ended before any trial was complete: give it more time"):
            choose(plan, space.data)

    def test_and_where_no_refit_succeeded_their_reason(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path)
        while isinstance(job := plan.next_job(), LaneJob):
            if job.kind == JobKind.REFIT:
                plan.on_end(job.number, JobResult(reason="disk full"))
                continue
            plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": 0.5, "seconds": 1.0})
            plan.on_end(job.number, JobResult())
        with pytest.raises(UserError, match="most often: disk full"):
            choose(plan, space.data)


class TestTestSplit:
    def test_is_opened_once(self, plan: SearchPlan, space: Workspace) -> None:
        sealed = sealed_test()
        conclude(plan, space.data, sealed, space, 1.0, interrupted=False)
        with pytest.raises(RuntimeError, match="opened before"):
            conclude(plan, space.data, sealed, space, 1.0, interrupted=False)

    def test_stays_sealed_where_the_winner_was_not_refitted(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path)
        play(plan, space, by_loss, jobs=4)
        plan.interrupt()
        sealed = sealed_test()
        outcome = conclude(plan, space.data, sealed, space, 1.0, interrupted=True)
        assert outcome.best.test is None and outcome.gains == {} and outcome.interrupted
        assert len(sealed.open()) == 10

    def test_gives_every_candidate_its_accuracy_and_the_gains_between_them(
        self, plan: SearchPlan, space: Workspace
    ) -> None:
        outcome = conclude(plan, space.data, sealed_test(), space, 1.0, interrupted=False)
        # The winner says bar of everything, eight times right of ten; the others say disc, never right.
        assert outcome.best.test is not None and outcome.best.test.value == pytest.approx(0.8)
        for other in outcome.baselines:
            assert other.test is not None and other.test.value == 0.0
            assert outcome.gains[other.label].value == pytest.approx(0.8)
        assert outcome.transfer_gain == outcome.gains["scratch"]
        assert outcome.adaptation_gain is not None
        assert outcome.adaptation_gain.value == pytest.approx(0.8) and outcome.adaptation_gain.low > 0.0
        assert isinstance(outcome.test_images, LabelledImages)
        assert np.array_equal(outcome.test_labels, outcome.test_images.labels)  # type: ignore[arg-type]

    def test_there_is_no_adaptation_gain_where_the_winner_has_no_adaptation(
        self, tmp_path: Path, space: Workspace
    ) -> None:
        plan = make_plan(tmp_path)
        play(plan, space, lambda job: 0.4 if job.strategy["adaptation"] == "mcc" else 0.9)
        outcome = conclude(plan, space.data, sealed_test(), space, 1.0, interrupted=False)
        assert outcome.best.strategy["adaptation"] == "none"
        assert outcome.adaptation_gain is None and outcome.transfer_gain is not None

    def test_a_search_without_one_has_no_test_figures(self, plan: SearchPlan, space: Workspace) -> None:
        outcome = conclude(plan, space.data, None, space, 1.0, interrupted=False)
        figures: list[Any] = [outcome.best.test, outcome.test_labels, outcome.transfer_gain, outcome.adaptation_gain]
        assert figures == [None] * 4 and outcome.best.validation is not None

    def test_a_baseline_that_could_not_be_refitted_has_no_gain_and_the_others_do(
        self, plan: SearchPlan, space: Workspace
    ) -> None:
        del plan.refits.done[BASELINES["scratch"].key]
        outcome = conclude(plan, space.data, sealed_test(), space, 1.0, interrupted=False)
        assert "scratch" not in outcome.gains and "fine-tune" in outcome.gains
        assert outcome.transfer_gain is None
