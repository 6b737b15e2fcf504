"""From a finished plan to what it means: the choice, the controls, and a test split that is opened once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import FixedRecipes
from scipy.special import softmax
from tiny import CLASSES, MODEL, PRETRAINED, SIDE, STAGES, data, pool, shapes, workspace

from raytl import sources
from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.evaluation.calibration import HOTTEST, apply_temperature
from raytl.judging.choice import Choice
from raytl.judging.operating import parse_goal
from raytl.judging.verdict import Part
from raytl.runs.documents import outcome_document
from raytl.runs.gains import metric_of
from raytl.runs.unlabelled import agreement
from raytl.search.against_controls import hold_against_controls
from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.here import with_more
from raytl.search.lanes.work import do_job, keep_files
from raytl.search.means_of_judging import kept_features
from raytl.search.on_unlabelled import LEAST_SEEN, NotJudgedError, as_there_is_time, judged_on_unlabelled
from raytl.search.outcome import (
    _adopt,
    _calibrate,
    _why,
    best_so_far,
    candidate,
    conclude,
)
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.said import Labels
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.search.propose.recipes import Control
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import ControlResult, SearchOutcome, TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.search.test_split import TELLS_NOTHING, _refitted, probabilities_of
from raytl.sources.checkpoint import load_checkpoint, write_checkpoint
from raytl.tasks import Images, LabelledImages, SealedTest, TrainingData
from raytl.tasks.items import FileItem
from raytl.training import Strategy, pretrain
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob
from raytl.training.workspace import Workspace, WorkspaceSettings

EPOCHS = 2
TEST = shapes(10, 50, name="test")
BASELINES = {"scratch": Strategy(MODEL, head_lr=0.02), "fine-tune": Strategy(MODEL, head_lr=0.03)}
PROBE = Strategy(PRETRAINED, cut=STAGES, head="logistic")
BARE = Strategy(MODEL, head_lr=0.5)
UNTRAINED = Strategy(MODEL, head_lr=0.5, adaptation="mcc")
CONTROLS = (
    Control("without adaptation", "adaptation", BARE),
    Control("without pretrained weights", "source-model", UNTRAINED),
)
ACCURACY = metrics.get("accuracy")
Right = Callable[[LaneJob], float]


class Silent:
    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None: ...


class Recipes(FixedRecipes):
    """With the probe among the baselines."""

    def classical(self, order, survey):
        return {"linear-probe": PROBE} if self.probed else {}


def make_plan(
    root: Path,
    held: Workspace,
    *,
    trials: int = 4,
    tested: bool = True,
    probed: bool = False,
    controls: tuple[Control, ...] = CONTROLS,
    budget_s: float | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    test_images: int = 0,
) -> SearchPlan:
    path = root / "small.yaml"
    rates = ", ".join(f"0.1{i}" for i in range(9))
    path.write_text(f"space: {{source_model: {MODEL}, head_lr: [{rates}], adaptation: [mcc, none]}}")
    space = BoundSpace(load_space(str(path)), held.data)
    settings = PlanSettings(
        trials, 2, 1, EPOCHS, root / "refits", time_budget_s=budget_s, tested=tested, test_images=test_images
    )
    halving = SuccessiveHalving(1, 3, EPOCHS)
    recipes = Recipes(BASELINES, {PRETRAINED: [PROBE]} if probed else {}, controls)
    target = held.data.target
    labels = None if target is None else Labels(target.labels, target.groups, len(CLASSES), ACCURACY)
    return SearchPlan(settings, TpeSampler(space, 0), halving, recipes, [], Silent(), clock, labels=labels)


def play(plan: SearchPlan, space: Workspace, right: Right, jobs: int = 10**6, image_s: float = 0.0) -> None:
    """Do the plan's jobs, at most so many: each is right about the share ``right`` of validation and test images.

    image_s: seconds that an image takes through each probe's network.
    """
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
        metrics = {"score": right(job), "labelled": right(job), "seconds": 1.0}
        goes_on = all(plan.on_epoch(job.number, {**metrics, "epoch": float(e + 1)}) for e in range(EPOCHS))
        result = JobResult(validation_index=index, validation_probabilities=probabilities)
        if job.kind == JobKind.PROBE and image_s:
            result.forward_s = (image_s,)
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


ANSWERS = sources.SourceModel.answers


def sealed_test() -> SealedTest:
    """Eight bars, two crosses."""
    return SealedTest(TEST.subset([*range(8), 10, 11]))


def by_loss(job: LaneJob) -> float:
    """MCC helps: with it a strategy is right about 0.9, without about 0.4."""
    return 0.9 if job.strategy["adaptation"] == "mcc" else 0.4


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Sixteen labelled images of each class: enough to tell 0.9 from 0.4."""
    return workspace(tmp_path_factory.mktemp("outcome"), data(16))


@pytest.fixture
def plan(tmp_path: Path, space: Workspace) -> SearchPlan:
    plan = make_plan(tmp_path, space)
    play(plan, space, by_loss)
    assert plan.finished()
    return plan


def end(plan: SearchPlan, space: Workspace, sealed: SealedTest | None = None, **given: bool) -> SearchOutcome:
    return conclude(plan, space.data, sealed, space, 1.0, interrupted=given.get("interrupted", False))


def test_tells_what_the_lanes_were_told(plan: SearchPlan, space: Workspace) -> None:
    outcome = end(plan, space)
    assert outcome.workspace is not None
    told = WorkspaceSettings.from_json(json.loads(json.dumps(outcome.workspace)))
    assert told == space.settings
    plan.records[-1].strategy |= {"source_model": PRETRAINED}  # which a lane on another machine has made
    for hurried, named in ((False, ()), (True, (PRETRAINED,))):
        plan.hurried[PRETRAINED] = hurried
        outcome = end(plan, space)
        assert outcome.workspace is not None and outcome.workspace["hurried"] == named


class TestChoice:
    def test_is_by_validation_and_says_on_what_grounds(self, plan: SearchPlan, space: Workspace) -> None:
        outcome = end(plan, space)
        assert outcome.best.label == "best" and outcome.best.strategy["adaptation"] == "mcc"
        assert [other.label for other in outcome.baselines] == ["scratch", "fine-tune"]
        assert "accuracy" in outcome.why and outcome.why.endswith(
            "on 2 validation folds (48 images), of 3 strategies that were tried on so many"
        )
        assert outcome.best.test is None and outcome.best.test_probabilities is None
        assert outcome.metric == "accuracy"

    def test_the_least_loss_is_called_the_best_of_it(self, plan: SearchPlan, tmp_path: Path) -> None:
        outcome = end(plan, workspace(tmp_path, data(16), metric="log-loss"))
        assert "highest" not in outcome.why
        assert outcome.why.startswith(
            ("best log loss, by more than one standard error,", "log loss no worse than the best")
        )

    def test_a_lead_is_told_in_what_it_was_measured_in(self, plan: SearchPlan, space: Workspace) -> None:
        choice = Choice(plan.winner() or "", (), 0.01, "metric")
        told = _why(plan, choice, space.data, ACCURACY)
        assert told.startswith("best accuracy, by more than one standard error, on 2 validation folds")

    def test_what_overtook_others_is_not_called_the_only_one(self, plan: SearchPlan, space: Workspace) -> None:
        told = _why(plan, Choice(plan.winner() or "", (), 0.01, "overtook"), space.data, ACCURACY)
        assert told.startswith("ahead of what was tried on more folds, or not behind it") and "only" not in told

    def test_counts_each_validation_image_once(self, plan: SearchPlan, space: Workspace) -> None:
        outcome = end(plan, space)
        figure = candidate(plan, ACCURACY, "best", outcome.best.strategy_key)
        assert len(figure.trials) == 2
        sizes = [len(space.folds[fold][1]) for fold in (0, 1)]
        expected = sum(round(0.9 * size) for size in sizes) / sum(sizes)
        assert figure.validation is not None
        assert figure.validation.value == pytest.approx(expected)
        assert figure.validation.low <= expected <= figure.validation.high
        assert figure.validated == sum(sizes)

    def test_what_it_answers_for_many_unlabelled_images_is_told(self, plan: SearchPlan, space: Workspace) -> None:
        for record in plan.records:
            share = 0.5 if record.fold else 1.0
            record.answers = [share, 1 - share, 0.0] if record.strategy["adaptation"] == "mcc" else [0.0, 0.0, 1.0]
        many = space.data.target.without_labels()
        told = {}
        for count in (len(many), LEAST_SEEN - 1, 0):
            given = replace(space.data, unlabelled=many.subset(np.arange(count)) if count else None)
            told[count] = conclude(plan, given, None, space, 1.0, interrupted=False).answers
        assert told == {len(many): {"bar": 0.75, "cross": 0.25, "disc": 0.0}, LEAST_SEEN - 1: {}, 0: {}}

    def test_the_winners_figure_is_corrected_for_having_been_chosen(self, tmp_path: Path, space: Workspace) -> None:
        """All strategies answer at random; the best of many looks good, and is worth no more than the others."""
        plan = make_plan(tmp_path, space, trials=30)
        target, rng = space.data.target, np.random.default_rng(0)
        assert target is not None
        while isinstance(job := plan.next_job(), LaneJob):
            result = JobResult()
            if job.kind != JobKind.REFIT:
                index = result.validation_index = space.folds[job.fold or 0][1]
                said = result.validation_probabilities = rng.dirichlet(np.ones(3), len(index))
                right = float((said.argmax(1) == target.labels[index]).mean())
                plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": right, "labelled": right, "seconds": 1.0})
            plan.on_end(job.number, result)
        told = end(plan, space).best.validation
        keys = {record.strategy_key for record in plan.records if record.fold == 1}
        figures = [candidate(plan, ACCURACY, "", key).validation for key in keys]
        best = max(figure.value for figure in figures if figure is not None)
        assert told is not None and best > 0.4
        assert told.value < best - 0.05
        assert told.low < 1 / 3 < told.high

    def test_who_was_tried_on_more_repeats_is_held_against_the_winner_on_its_own_folds(self, plan: SearchPlan) -> None:
        """All answer at random there; what they say of the same images in further repeats is no matter."""
        labels, rng = plan.contest.labels, np.random.default_rng(0)
        assert labels is not None
        everything = np.arange(len(labels.labels))
        strategies = [Strategy("scratch:cnn-small", head_lr=0.01 * (i + 1)) for i in range(12)]
        plan.records.clear()

        def add(strategy: Strategy, fold: int, said: np.ndarray) -> None:
            record = TrialRecord(1000 + len(plan.records), "search", strategy.to_dict(), strategy.key, fold=fold)
            record.status, record.score, record.metrics = TrialStatus.COMPLETED, 0.5, {"labelled": 0.5}
            record.validated, record.predicted = everything.tolist(), said
            plan.records.append(record)

        for strategy in strategies:
            add(strategy, 0, rng.dirichlet(np.ones(3), len(everything)))
        figures = {s.key: candidate(plan, ACCURACY, "", s.key).validation for s in strategies}
        best = max(figures, key=lambda key: figures[key].value if figures[key] else 0.0)  # type: ignore[union-attr]
        alone = best_so_far(plan, ACCURACY, best).validation
        for strategy in strategies:
            if strategy.key != best:
                add(strategy, 1, np.eye(3)[labels.labels])
        told, own = best_so_far(plan, ACCURACY, best).validation, figures[best]
        assert told is not None and own is not None
        assert told.value < own.value - 0.05
        assert told == alone

    def test_the_figure_of_who_alone_was_tried_on_more_is_corrected_as_well(self, plan: SearchPlan) -> None:
        """All answer at random; it leads on the images that all were tried on, and so was tried on the others."""
        labels, rng = plan.contest.labels, np.random.default_rng(0)
        assert labels is not None
        parts = np.arange(0, len(labels.labels), 2), np.arange(1, len(labels.labels), 2)
        strategies = [Strategy("scratch:cnn-small", head_lr=0.01 * (i + 1)) for i in range(20)]
        plan.records.clear()

        def add(strategy: Strategy, fold: int) -> float:
            record = TrialRecord(1000 + len(plan.records), "search", strategy.to_dict(), strategy.key, fold=fold)
            said = rng.dirichlet(np.ones(3), len(parts[fold]))
            right = float((said.argmax(1) == labels.labels[parts[fold]]).mean())
            record.status, record.score, record.metrics = TrialStatus.COMPLETED, right, {"labelled": right}
            record.validated, record.predicted = parts[fold].tolist(), said
            plan.records.append(record)
            return right

        right = {strategy.key: add(strategy, 0) for strategy in strategies}
        best = max(strategies, key=lambda strategy: right[strategy.key])
        add(best, 1)
        told, own = best_so_far(plan, ACCURACY, best.key).validation, candidate(plan, ACCURACY, "", best.key).validation
        assert told is not None and own is not None
        assert told.value < own.value - 0.05

    def test_a_strategy_that_was_baseline_and_found_again_counts_once(self, plan: SearchPlan, space: Workspace) -> None:
        first = next(record for record in plan.records if record.baseline == "scratch")
        plan.records.append(TrialRecord(**{**vars(first), "number": len(plan.records), "kind": "search"}))
        scratch = next(other for other in end(plan, space).baselines if other.label == "scratch")
        assert len(scratch.trials) == len({plan.records[number].fold for number in scratch.trials})

    def test_is_made_of_what_there_is_after_an_early_interrupt(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space)
        play(plan, space, by_loss, jobs=1)  # one baseline done, nothing else begun
        plan.interrupt()
        outcome = end(plan, space, interrupted=True)
        assert outcome.best.strategy_key == BASELINES["scratch"].key
        assert [other.label for other in outcome.baselines] == ["scratch"]

    def test_of_an_interrupted_search_is_the_best_of_which_there_is_a_model(
        self, tmp_path: Path, space: Workspace
    ) -> None:
        plan = make_plan(tmp_path, space, probed=True)
        play(plan, space, by_loss, jobs=8)  # the probe on both folds, its model, and better ones without a model
        plan.interrupt()
        assert plan.winner() != PROBE.key
        outcome = end(plan, space, interrupted=True)
        assert outcome.best.strategy_key == PROBE.key and outcome.interrupted
        assert plan.refits.done.get(outcome.best.strategy_key) is not None

    def test_one_sentence_where_all_failed(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space, trials=3)
        for reason in ("nan", "out of memory", "nan", "nan", "other"):
            job = plan.next_job()
            assert isinstance(job, LaneJob)
            plan.on_end(job.number, JobResult(reason=reason))
        with pytest.raises(UserError, match=r"no trial succeeded \(5 failed\); most often: nan"):
            end(plan, space)

    def test_another_where_there_was_no_time(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space)
        plan.next_job()
        plan.interrupt()
        with pytest.raises(UserError, match="ended before any trial was complete: give it more time"):
            end(plan, space, interrupted=True)

    def test_and_where_no_refit_succeeded_their_reason(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space)
        while isinstance(job := plan.next_job(), LaneJob):
            if job.kind == JobKind.REFIT:
                plan.on_end(job.number, JobResult(reason="disk full"))
                continue
            plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": 0.5, "seconds": 1.0})
            plan.on_end(job.number, JobResult())
        with pytest.raises(UserError, match="most often: disk full"):
            end(plan, space)

    def test_what_was_chosen_for_another_reason_is_worth_no_more_than_its_own_figure(
        self, plan: SearchPlan, space: Workspace
    ) -> None:
        worse = next(record.strategy_key for record in plan.records if record.strategy["adaptation"] == "none")
        own = candidate(plan, ACCURACY, "", worse).validation
        told = best_so_far(plan, ACCURACY, worse).validation
        assert own is not None and told is not None and own.value < 0.5
        assert told.value == own.value and told.low == own.low


class TestPositiveClass:
    """Average precision of two classes is of one: the rarer among the training labels, and so on the test."""

    def two(self, bars: int, crosses: int, name: str) -> LabelledImages:
        return shapes(9, 1, name=name, classes=CLASSES[:2]).subset([*range(bars), *range(9, 9 + crosses)])

    @pytest.mark.parametrize(("learned", "found"), [((3, 6), "bar"), ((6, 6), "cross"), (None, "cross")])
    def test_is_known_before_the_test_is_opened(
        self, tmp_path: Path, learned: tuple[int, int] | None, found: str
    ) -> None:
        target = None if learned is None else self.two(*learned, "target")
        held = replace(data(domains=False), classes=CLASSES[:2], target=target, unlabelled=None)
        test = self.two(9, 2, "test")
        metric = workspace(tmp_path, held, metric="average-precision").metric
        assert metric.positive_name == (found if learned else "")
        assert metric.finding(metrics.rarer(test.labels), test.classes).positive_name == found
        assert workspace(tmp_path, held, metric="auroc").metric.positive is None

    def test_is_told(self, plan: SearchPlan, space: Workspace) -> None:
        outcome = end(plan, space)
        assert outcome.positive == "" and outcome_document(outcome)["positive"] is None
        outcome.metric, outcome.positive = "average-precision", "bar"
        assert metric_of(outcome_document(outcome)).title == "average precision of 'bar'"


class TestCalibration:
    def test_no_point_is_set_where_a_class_was_not_validated(self, plan: SearchPlan, space: Workspace) -> None:
        """As on the one fold of a search that was interrupted, where a class has few groups."""
        outcome = end(plan, space)
        assert plan.contest.labels is not None
        first = np.zeros_like(plan.contest.labels.labels)
        plan.contest.said.labels = replace(plan.contest.labels, labels=first)
        _calibrate(plan, outcome, ("fine", "broken"), ACCURACY, parse_goal("recall=0.9"))
        assert outcome.operating_point is None and outcome.calibration["before"] >= 0

    @pytest.mark.parametrize(("asked", "label"), [("recall=0.9", "broken"), ("fine:recall=0.9", "fine")])
    def test_which_class_is_looked_for_goes_by_all_labels(
        self, plan: SearchPlan, space: Workspace, asked: str, label: str
    ) -> None:
        """Of one class as many as of the other; of those that were validated one image more."""
        outcome = end(plan, space)
        assert plan.contest.labels is not None
        halves = np.arange(len(plan.contest.labels.labels)) % 2
        plan.contest.said.labels = replace(plan.contest.labels, labels=halves)
        validated = np.arange(1, len(halves))
        rows = np.full((len(validated), 2), 0.5)
        plan.contest.said.each = lambda key: (validated, rows)  # type: ignore[method-assign]
        _calibrate(plan, outcome, ("fine", "broken"), ACCURACY, parse_goal(asked))
        assert outcome.operating_point is not None and outcome.operating_point.label == label

    def test_the_temperature_is_fitted_on_images_that_the_winner_was_not_trained_on(
        self, plan: SearchPlan, space: Workspace
    ) -> None:
        """It says 0.8 and is right of 0.9: cooler than 1; after it the stated probability is nearer to the truth."""
        outcome = end(plan, space)
        assert outcome.best.temperature < 1.0
        assert outcome.calibration["after"] < outcome.calibration["before"]

    def test_a_loss_is_told_of_the_calibrated_model(self, tmp_path: Path) -> None:
        """On the folds as on the test: of what is too sure the figure was several times that of the model shipped."""
        by_loss = workspace(tmp_path, data(16), metric="log-loss")
        plan = make_plan(tmp_path, by_loss, tested=False)
        play(plan, by_loss, lambda job: 0.9 if job.strategy["adaptation"] == "mcc" else 0.6)
        for record in plan.records:  # as right as before, and sure of it beyond reason
            record.predicted = np.where(record.predicted < 0.5, 1e-6, 1 - 2e-6)
        plan.contest.said._kept.clear()  # no search changes what was said
        assert plan.contest.labels is not None
        labels = plan.contest.said.labels = replace(plan.contest.labels, metric=by_loss.metric)
        outcome = end(plan, by_loss)
        said = plan.contest.said.out_of_fold(outcome.best.strategy_key)
        assert said is not None and outcome.best.validation is not None
        loss, shipped = metrics.get("log-loss"), apply_temperature(said, outcome.best.temperature)
        assert loss(said, labels.labels) > 1.1 and outcome.best.temperature > 3
        assert outcome.best.validation.value == pytest.approx(loss(shipped, labels.labels), abs=0.1)
        bare = next(c for c in outcome.controls if c.name == "without adaptation").comparison
        assert bare is not None and 0.2 < bare.value < 1.0  # of calibrated models; as they are it was four nats

    def test_on_few_images_nothing_is_fitted(self, tmp_path: Path) -> None:
        few = workspace(tmp_path, data(6))
        plan = make_plan(tmp_path, few)
        play(plan, few, by_loss)
        outcome = end(plan, few)
        assert outcome.best.temperature == 1.0 and outcome.calibration == {}


class TestControls:
    def test_are_told_on_the_test_split_where_there_is_one(self, plan: SearchPlan, space: Workspace) -> None:
        outcome = end(plan, space, sealed_test())
        assert outcome.best.strategy["adaptation"] == "mcc"
        told = {control.name: control for control in outcome.controls}
        assert set(told) == {"without adaptation", "without pretrained weights", "commonest-class"}
        # The winner says bar of everything, right of eight in ten; without adaptation disc, never right.
        bare = told["without adaptation"]
        assert bare.measured_on == "test" and bare.comparison is not None
        assert bare.comparison.value == pytest.approx(0.8) and bare.tone == "helped"
        same = told["without pretrained weights"]  # mcc as well, and so bar of everything
        assert same.comparison is not None and same.comparison.value == 0.0 and same.tone != "helped"
        assert outcome.adaptation_gain is not None and outcome.adaptation_gain.value == pytest.approx(0.8)
        assert outcome.transfer_gain is not None and outcome.transfer_gain.value == 0.0

    def test_are_told_on_the_folds_where_there_is_none(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space, tested=False)
        play(plan, space, by_loss)
        outcome = end(plan, space)
        told = {control.name: control for control in outcome.controls}
        assert {control.measured_on for control in outcome.controls} == {"folds"}
        bare = told["without adaptation"]
        assert bare.comparison is not None and bare.tone == "helped"
        assert bare.comparison.value == pytest.approx(0.5, abs=0.05)
        assert outcome.adaptation_gain is not None and outcome.adaptation_gain.low > 0
        assert outcome.adaptation_gain.value == bare.comparison.value

    def test_gains_are_on_the_folds_where_there_is_no_test(self, tmp_path: Path, space: Workspace) -> None:
        """Over what was tried on all of the winner's images: on one fold of them a gain is not one to its figure."""
        scratch = Control("trained from scratch", "source-model", BASELINES["scratch"])
        plan = make_plan(tmp_path, space, tested=False, controls=(*CONTROLS, scratch))
        play(plan, space, by_loss)
        outcome = end(plan, space)
        assert outcome.baselines[1].label == "fine-tune" and outcome.baselines[1].validated < outcome.best.validated
        control = next(c.comparison for c in outcome.controls if c.name == "trained from scratch")
        assert control is not None and list(outcome.gains) == ["scratch"]
        gain = outcome.gains["scratch"]
        assert (gain.value, gain.low, gain.high) == (control.value, control.low, control.high)
        assert gain.value == pytest.approx(0.5, abs=0.05)

    def test_that_could_not_be_had_say_nothing(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space, tested=False)
        play(plan, space, by_loss)
        for record in plan.records:
            if record.kind == JobKind.CONTROL:
                record.status, record.reason = TrialStatus.FAILED, "no memory."
        outcome = end(plan, space)
        parts = [control for control in outcome.controls if control.part != "constant"]
        assert {(c.comparison, c.tone, c.measured_on) for c in parts} == {(None, "cannot-tell", "")}
        assert {c.why_not for c in parts} == {"what it would be held against failed: no memory"}
        assert outcome.transfer_gain is None and outcome.adaptation_gain is None

    @pytest.mark.parametrize(("seconds", "length"), [(0.0, ""), (41.2, " of about 41 s"), (300.0, " of about 5 min")])
    def test_for_want_of_time_say_how_much(
        self, tmp_path: Path, space: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: float, length: str
    ) -> None:
        plan = make_plan(tmp_path, space, tested=False)
        play(plan, space, by_loss)
        plan.records[:] = [record for record in plan.records if record.kind != JobKind.CONTROL]
        monkeypatch.setattr(plan, "expected_seconds", lambda strategy: seconds)
        told = {control.why_not for control in end(plan, space).controls if control.part != "constant"}
        assert told == {f"there was no time for what it would be held against, a training{length}"}

    def test_of_a_search_that_was_interrupted_say_that(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space, tested=False)
        play(plan, space, by_loss)
        plan.records[:] = [record for record in plan.records if record.kind != JobKind.CONTROL]
        outcome = end(plan, space, interrupted=True)
        parts = [control for control in outcome.controls if control.part != "constant"]
        assert {control.why_not for control in parts} == {"the search was interrupted before"}

    def test_the_classical_recipes_stand_beside_them(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space, tested=False, probed=True)
        play(plan, space, by_loss)
        found = {control.name: control for control in end(plan, space).controls}
        assert found["linear-probe"].part == "classical"
        assert found["linear-probe"].comparison is not None and found["linear-probe"].comparison.value > 0.3

    def test_what_was_in_the_race_owes_as_much_to_chance_as_the_winner(self, tmp_path: Path, space: Workspace) -> None:
        """Nearly equal figures hardly differ, though the one that was chosen is worth less than its figure."""
        plan = make_plan(tmp_path, space, tested=False, probed=True)
        play(plan, space, lambda job: 0.68 if job.strategy["head"] == "logistic" else 0.7)
        outcome = end(plan, space)
        probe = next(c for c in outcome.controls if c.name == "linear-probe")
        mine, theirs = (plan.contest.said.out_of_fold(key) for key in (outcome.best.strategy_key, probe.strategy_key))
        assert mine is not None and theirs is not None and probe.comparison is not None and plan.contest.labels
        known, y = ~np.isnan(mine[:, 0]) & ~np.isnan(theirs[:, 0]), plan.contest.labels.labels
        gap = ACCURACY(mine[known], y[known]) - ACCURACY(theirs[known], y[known])
        assert probe.comparison.value == pytest.approx(gap)
        stated = outcome.best.validation
        assert stated is not None and stated.value < ACCURACY(mine[~np.isnan(mine[:, 0])], y[~np.isnan(mine[:, 0])])

    def test_none_where_the_winner_is_the_classical_recipe(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space, tested=False, probed=True, controls=())
        play(plan, space, lambda job: 0.95 if job.strategy["head"] == "logistic" else 0.4)
        outcome = end(plan, space)
        assert outcome.best.strategy_key == PROBE.key
        assert [control.part for control in outcome.controls] == ["constant"]

    def test_one_answer_for_all_is_among_them(self, plan: SearchPlan, tmp_path: Path, space: Workspace) -> None:
        """On the test split the winner says bar of everything; on the folds it is right of nine in ten."""
        tested = end(plan, space, sealed_test()).controls[-1]
        assert (tested.part, tested.strategy, tested.measured_on) == ("constant", {"answer": "bar"}, "test")
        assert tested.comparison is not None and tested.comparison.value == 0 and tested.tone != "helped"
        folds = make_plan(tmp_path, space, tested=False)
        play(folds, space, by_loss)
        on_folds = end(folds, space).controls[-1]
        assert (on_folds.part, on_folds.measured_on, on_folds.tone) == ("constant", "folds", "helped")
        assert on_folds.comparison is not None and on_folds.comparison.value == pytest.approx(0.9 - 1 / 3, abs=0.05)

    def test_on_folds_they_are_less_what_the_winner_owes_to_having_been_chosen(
        self, tmp_path: Path, space: Workspace
    ) -> None:
        """What stands beside the stated figure differs from it by the gain that is told, for each control.

        Strategies are better on the odd folds or on the even ones: which is chosen depends on the images.
        """

        def right(job: LaneJob) -> float:
            odd = round(100 * job.strategy["head_lr"]) + (job.fold or 0)
            return 0.6 if job.strategy["adaptation"] == "none" else 0.8 if odd % 2 else 0.64

        plan = make_plan(tmp_path, space, tested=False)
        play(plan, space, right)
        outcome = end(plan, space)
        said, labels = plan.contest.said.out_of_fold(outcome.best.strategy_key), plan.contest.labels
        assert said is not None and labels is not None and outcome.best.validation is not None
        own = metrics.get("accuracy")(said, labels.labels)
        assert outcome.best.validation.value < own - 0.005  # it was chosen, and so looks better than it is
        commonest = np.bincount(labels.labels).max() / len(labels.labels)
        constant = outcome.controls[-1].comparison
        assert constant is not None and outcome.controls[-1].part == "constant"
        assert constant.value == pytest.approx(outcome.best.validation.value - commonest)
        other = next(c for c in outcome.controls if c.name == "without adaptation")
        theirs = plan.contest.said.out_of_fold(other.strategy_key)
        assert theirs is not None and other.comparison is not None
        worth = metrics.get("accuracy")(theirs, labels.labels)
        assert other.comparison.value == pytest.approx(outcome.best.validation.value - worth)

    def test_are_told_on_folds_where_the_metric_is_not_defined_on_the_test(
        self, plan: SearchPlan, tmp_path: Path
    ) -> None:
        """Of test images of one class alone no metric of ranking says anything, and a run keeps no figure of it."""
        by_rank = workspace(tmp_path, data(16), metric="auroc")
        images = sealed_test().open()
        alone = SealedTest(replace(images, labels=np.zeros_like(images.labels)))
        outcome = end(plan, by_rank, alone)
        why = "the test images are all 'bar', and area under the ROC curve is not defined on them"
        assert outcome.test_undefined == outcome_document(outcome)["test_undefined"] == why
        assert outcome.best.test is None and outcome.best.test_probabilities is not None and outcome.gains == {}
        constant = next(control for control in outcome.controls if control.part == "constant")
        assert constant.measured_on == "folds" and constant.comparison is not None and constant.comparison.value > 0.2
        # What was trained on all labelled images alone, to be compared on the test, can be held against nothing.
        others = [control for control in outcome.controls if control.part != "constant"]
        assert others and all((control.comparison, control.why_not) == (None, why) for control in others)

    def test_what_was_tried_on_folds_is_compared_there(self, tmp_path: Path) -> None:
        by_rank = workspace(tmp_path, data(16), metric="auroc")
        plan = make_plan(tmp_path, by_rank, probed=True)
        play(plan, by_rank, by_loss)
        images = sealed_test().open()
        outcome = end(plan, by_rank, SealedTest(replace(images, labels=np.zeros_like(images.labels))))
        probe = next(control for control in outcome.controls if control.name == "linear-probe")
        assert (probe.measured_on, probe.tone) == ("folds", "helped") and outcome.transfer_gain is None

    def test_a_single_test_image_settles_nothing(self, plan: SearchPlan, tmp_path: Path) -> None:
        by_loss = workspace(tmp_path, data(16), metric="log-loss")
        outcome = end(plan, by_loss, SealedTest(TEST.subset([0])))
        parts = [control for control in outcome.controls if control.part != "constant"]
        assert {control.why_not for control in parts if control.name not in outcome.gains} == {TELLS_NOTHING}
        assert outcome.best.test is not None and outcome.gains == {}

    def test_by_balanced_accuracy_no_gain_over_one_answer_is_larger_than_there_can_be(
        self, plan: SearchPlan, tmp_path: Path
    ) -> None:
        """One answer for all has a third of it by three classes, and a half by two, however few images there are."""
        balanced = workspace(tmp_path, data(16), metric="balanced-accuracy")
        few = TEST.subset([*range(8), 10])  # of the second class one image
        found = next(c for c in end(plan, balanced, SealedTest(few)).controls if c.part == "constant").comparison
        assert found is not None and -0.5 <= found.low <= found.value <= found.high <= 0.5
        by_accuracy = next(c for c in end(plan, workspace(tmp_path / "a", data(16)), SealedTest(few)).controls[-1:])
        assert by_accuracy.comparison is not None and by_accuracy.comparison.limits == (-1.0, 1.0)

    def test_by_macro_f1_guesses_are_not_better_than_an_answer_without_looking(
        self, tmp_path: Path, space: Workspace
    ) -> None:
        """One answer for all has hardly any of it; what is held against the winner are its own answers, at random."""
        by_f1 = workspace(tmp_path, data(16), metric="macro-f1")
        plan = make_plan(tmp_path, by_f1, tested=False, controls=())
        play(plan, by_f1, lambda job: 0.4)
        outcome = end(plan, by_f1)
        found = next(control for control in outcome.controls if control.part == "constant")
        assert found.comparison is not None and found.tone != "helped"
        assert found.strategy == {"answers": "its own, at random"}

    @pytest.mark.parametrize("name", ["macro-f1", "average-precision", "balanced-accuracy", "accuracy"])
    def test_what_was_not_chosen_owes_nothing_to_chance(self, plan: SearchPlan, name: str) -> None:
        """Of 50 classes with two images each, the figure of the only model there is is its own, and the gain the same.

        Macro F1 of a third of these images is lower by eight points, which made of any equal model a better one.
        """
        rng, k, metric = np.random.default_rng(0), 50, metrics.get(name)
        labels = np.repeat(np.arange(k), 2)
        seen = rng.standard_normal((len(labels), k)) + 2 * np.eye(k)[labels]
        winner, control = (softmax(1.5 * (seen + 0.15 * rng.standard_normal(seen.shape)), axis=1) for _ in range(2))
        plan.contest.said.labels = Labels(labels, None, k, metric)
        plan.records.clear()
        for number, (kind, strategy, said) in enumerate((("search", UNTRAINED, winner), ("control", BARE, control))):
            record = TrialRecord(
                1000 + number, kind, strategy.to_dict(), strategy.key, score=0.5, status=TrialStatus.COMPLETED
            )
            record.validated, record.predicted = list(range(len(labels))), said.tolist()
            plan.records.append(record)
        best = best_so_far(plan, metric, UNTRAINED.key)
        outcome = SearchOutcome(plan.records, best, [], "", 1.0)
        outcome.controls = [ControlResult("without adaptation", Part.ADAPTATION, BARE.to_dict(), BARE.key)]
        hold_against_controls(plan, outcome, metric, tuple(map(str, range(k))))
        found = outcome.controls[0]
        assert best.validation is not None and found.comparison is not None
        judged = [plan.contest.said.judged(strategy.key) for strategy in (UNTRAINED, BARE)]
        own, other = (metric(said, labels) for said in judged if said is not None)
        assert best.validation.value == pytest.approx(own, abs=1e-6)
        assert found.comparison.value == pytest.approx(own - other, abs=1e-6)
        assert found.tone != "harm"

    def test_the_verdicts_are_for_all_of_them_together(self, tmp_path: Path, space: Workspace) -> None:
        """The more was compared the surer each has to be; the interval that is shown is the pair's own."""

        def right(job: LaneJob) -> float:
            return 0.9 if job.strategy["adaptation"] == "mcc" or job.strategy["ema"] else 0.75

        more = tuple(Control(f"n{i}", "augmentation", replace(BARE, ema=0.1 * i)) for i in range(1, 9))
        told = []
        for controls in (CONTROLS[:1], (*CONTROLS[:1], *more)):
            plan = make_plan(tmp_path, space, tested=False, controls=controls)
            play(plan, space, right)
            told.append(next(c for c in end(plan, space).controls if c.name == "without adaptation"))
        assert [control.tone for control in told] == ["helped", "cannot-tell"]
        assert told[0].comparison == told[1].comparison


class TestTestSplit:
    def test_is_opened_once(self, plan: SearchPlan, space: Workspace) -> None:
        sealed = sealed_test()
        end(plan, space, sealed)
        with pytest.raises(RuntimeError, match="opened before"):
            end(plan, space, sealed)

    def test_stays_sealed_where_the_winner_was_not_refitted(self, tmp_path: Path, space: Workspace) -> None:
        plan = make_plan(tmp_path, space)
        play(plan, space, by_loss, jobs=4)
        plan.interrupt()
        sealed = sealed_test()
        outcome = end(plan, space, sealed, interrupted=True)
        assert outcome.best.test is None and outcome.gains == {} and outcome.interrupted
        assert len(sealed.open()) == 10

    def test_is_passed_through_a_network_once_however_many_heads_there_are_on_it(
        self, plan: SearchPlan, space: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed: list[int] = []

        def answers(model: sources.SourceModel, x: torch.Tensor, heads: Any) -> Any:
            passed.append(len(heads))
            return ANSWERS(model, x, heads)

        monkeypatch.setattr(sources.SourceModel, "answers", answers)
        outcome = end(plan, space, sealed_test())
        tested = {one.strategy_key for one in (outcome.best, *outcome.baselines, *outcome.controls)}
        assert passed == [len(tested & plan.refits.done.keys())] and passed[0] > 2

    def test_networks_without_weights_are_not_taken_for_one_another(self, plan: SearchPlan, space: Workspace) -> None:
        """Of plain features only the name tells which they are."""
        for uri, key in zip(("plain:pixels", "plain:gradients"), list(plan.refits.done)[:2], strict=True):
            model = sources.load(uri, channels=1, image_size=SIDE)
            model.replace_head(len(CLASSES), CLASSES)
            folder = Path(plan.refits.done[key]).with_name(uri.replace(":", "-"))
            write_checkpoint(folder, model, {})
            plan.refits.done[key] = str(folder)
        outcome = end(plan, space, sealed_test())
        entries = [outcome.best, *outcome.baselines]
        assert all(one.test_probabilities is not None for one in entries if one.strategy_key in plan.refits.done)

    def test_a_model_held_against_itself_brings_nothing_whatever_its_temperature(
        self, plan: SearchPlan, tmp_path: Path
    ) -> None:
        by_loss = workspace(tmp_path, data(16), metric="log-loss")
        winner = plan.winner()
        assert winner is not None
        for control in plan.controls:
            plan.refits.done[control.strategy.key] = plan.refits.done[winner]
        outcome = end(plan, by_loss, sealed_test())
        assert outcome.best.temperature != 1.0
        parts = [control for control in outcome.controls if control.part != "constant"]
        differences = [control.comparison for control in parts if control.comparison is not None]
        assert len(differences) == len(plan.controls) > 0
        assert all(comparison.value == 0 for comparison in differences)

    def test_a_control_is_no_worse_for_not_having_been_calibrated(self, plan: SearchPlan, tmp_path: Path) -> None:
        """It was validated on no images; it says what the winner says, and is four times as sure."""
        by_loss = workspace(tmp_path, data(16), metric="log-loss")
        winner = plan.winner()
        assert winner is not None and plan.contest.labels is not None
        plan.contest.said.labels = replace(plan.contest.labels, metric=by_loss.metric)
        surer = model_that_is_right(0.9)
        with torch.no_grad():
            surer.head.bias.mul_(4)
        write_checkpoint(tmp_path / "surer", surer, {})
        control = plan.controls[0].strategy.key
        plan.refits.done[control] = str(tmp_path / "surer")
        outcome = end(plan, by_loss, SealedTest(shapes(30, 50).subset([*range(24), *range(30, 36)])))
        found = next(c for c in outcome.controls if c.strategy_key == control)
        assert found.measured_on == "test" and found.comparison is not None and outcome.best.temperature != 1.0
        assert abs(found.comparison.value) < 0.02  # as they are 0.08

    def test_by_ranks_of_three_classes_a_control_is_compared_with_the_figure_that_is_told(
        self, plan: SearchPlan, tmp_path: Path
    ) -> None:
        by_rank = workspace(tmp_path, data(16), metric="auroc")
        winner, control = plan.winner(), plan.controls[0].strategy.key
        assert winner is not None and plan.contest.said.temperature(control) is None
        for seed, key in enumerate((winner, control)):
            torch.manual_seed(seed)
            model = sources.load(MODEL, channels=1, image_size=SIDE)
            model.replace_head(len(CLASSES), CLASSES)
            with torch.no_grad():
                model.head.weight.mul_(30)
            write_checkpoint(tmp_path / key, model, {})
            plan.refits.done[key] = str(tmp_path / key)
        sealed = SealedTest(shapes(30, 50, name="test"))
        outcome = end(plan, by_rank, sealed)
        assert outcome.best.test is not None and outcome.best.temperature != 1.0 and outcome.test_images is not None
        said = _refitted(plan, [winner, control], by_rank, outcome.test_images)
        raw, tempered = (
            [by_rank.metric(apply_temperature(said[key], t), outcome.test_images.labels) for key in (winner, control)]
            for t in (1.0, outcome.best.temperature)
        )
        found = next(c for c in outcome.controls if c.strategy_key == control).comparison
        assert found is not None and outcome.best.test.value == pytest.approx(tempered[0], abs=1e-9)
        assert found.value == pytest.approx(tempered[0] - tempered[1], abs=1e-9)
        assert found.value != pytest.approx(raw[0] - raw[1], abs=1e-4)  # as it was, for all that

    @pytest.mark.parametrize(("classes", "tempered"), [(2, False), (5, True)])
    def test_ranks_of_many_classes_are_judged_as_those_of_the_calibrated_model(
        self, plan: SearchPlan, classes: int, tempered: bool
    ) -> None:
        """Its temperature moves them a little, and the figure on the test is of the model with its temperature."""
        rng, labels = np.random.default_rng(0), np.repeat(np.arange(classes), 12)
        plan.contest.said.labels = Labels(labels, None, classes, metrics.get("auroc"))
        said = softmax(4 * rng.standard_normal((len(labels), classes)) + 2 * np.eye(classes)[labels], axis=1)
        record = TrialRecord(1000, "search", BARE.to_dict(), BARE.key, score=0.5, status=TrialStatus.COMPLETED)
        record.validated, record.predicted = list(range(len(labels))), said.tolist()
        plan.records[:] = [record]
        judged = plan.contest.said.judged(BARE.key)
        assert judged is not None and np.allclose(judged, said) != tempered

    def test_gives_every_candidate_its_accuracy_and_the_gains_between_them(
        self, plan: SearchPlan, space: Workspace
    ) -> None:
        outcome = end(plan, space, sealed_test())
        assert outcome.best.test is not None and outcome.best.test.value == pytest.approx(0.8)
        for other in outcome.baselines:
            assert other.test is not None and other.test.value == 0.0
            assert outcome.gains[other.label].value == pytest.approx(0.8)
        assert isinstance(outcome.test_images, LabelledImages)
        assert np.array_equal(outcome.test_labels, outcome.test_images.labels)  # type: ignore[arg-type]

    def test_a_search_without_one_has_no_test_figures(self, plan: SearchPlan, space: Workspace) -> None:
        outcome = end(plan, space)
        figures: list[Any] = [outcome.best.test, outcome.test_labels, outcome.test_images]
        assert figures == [None] * 3 and outcome.best.validation is not None

    def test_a_baseline_that_could_not_be_refitted_has_no_gain_and_the_others_do(
        self, plan: SearchPlan, space: Workspace
    ) -> None:
        del plan.refits.done[BASELINES["scratch"].key]
        outcome = end(plan, space, sealed_test())
        assert "scratch" not in outcome.gains and "fine-tune" in outcome.gains


class TestWithoutTargetLabels:
    PUBLISHED = Strategy("timm:resnet18", cut=5, head="stages", source_domain="bright", adaptation="moments")
    OWN = Strategy("pretrain:bright/scratch:cnn-small", cut=5, head="logistic", source_domain="bright")
    ALONE = Strategy("timm:resnet18", cut=5, head="logistic")
    NAMES = Strategy("timm:resnet18", cut=5, head="zero-shot")

    @pytest.fixture
    def held(self, tmp_path: Path) -> Workspace:
        return workspace(tmp_path, data(target=None), folds=(0, 0))

    @pytest.fixture
    def plan(self, tmp_path: Path, held: Workspace) -> SearchPlan:
        """Two strategies, of which one has a score of 0.1 and the other one of 0.01."""
        file = tmp_path / "uda.yaml"
        file.write_text(f"space: {{source_model: {MODEL}, head_lr: [0.01, 0.1]}}")
        space = BoundSpace(load_space(str(file)), held.data)
        settings = PlanSettings(2, 0, 1, EPOCHS, tmp_path / "refits", tested=False)
        sampler, halving = TpeSampler(space, 0), SuccessiveHalving(1, 3, EPOCHS)
        plan = SearchPlan(settings, sampler, halving, FixedRecipes(), [], Silent(), lambda: 0.0)
        while isinstance(job := plan.next_job(), LaneJob):
            score = float(job.strategy["head_lr"])
            told = {"epoch": float(EPOCHS), "score": score, "source-accuracy": 0.5, "unlabelled": score, "seconds": 1.0}
            plan.on_epoch(job.number, told)
            plan.on_end(job.number, JobResult())
        return plan

    def test_the_choice_rests_on_what_there_is(self, plan: SearchPlan, held: Workspace) -> None:
        outcome = end(plan, held)
        assert outcome.best.strategy["head_lr"] == 0.1 and outcome.best.validation is None
        for words in ("highest score (0.100", "held-out images of the source domain", "no target label was used"):
            assert words in outcome.why
        assert outcome.controls == [] and outcome.calibration == {}

    @pytest.mark.parametrize(
        ("chosen", "highest", "scores", "words"),
        [
            (PUBLISHED, OWN, (0.65, 0.7), " near the highest (0.700), and of a kind that usually does better, of 2 "),
            (
                PUBLISHED,
                ALONE,
                (0.3, 0.9),
                " behind the highest (0.900), and of a kind that is better whatever scores ",
            ),
            (NAMES, OWN, (0.3, 0.9), ", and as right on the source domain as what has learned it, of 2 strategies;"),
        ],
        ids=["near", "behind", "class names"],
    )
    def test_what_is_not_the_highest_score_is_not_said_to_be(
        self,
        plan: SearchPlan,
        held: Workspace,
        chosen: Strategy,
        highest: Strategy,
        scores: tuple[float, float],
        words: str,
    ) -> None:
        for record, strategy, score in zip(plan.records, (chosen, highest), scores, strict=True):
            record.strategy, record.strategy_key, record.score = strategy.to_dict(), strategy.key, score
        outcome = end(plan, held)
        assert outcome.best.strategy_key == chosen.key
        assert outcome.why.startswith(f"a score ({scores[0]:.3f}: ") and words in outcome.why
        assert "highest score" not in outcome.why

    def test_what_is_as_high_as_the_highest_is_not_said_to_be_near_it(self, plan: SearchPlan, held: Workspace) -> None:
        for record, strategy in zip(plan.records, (self.PUBLISHED, self.OWN), strict=True):
            record.strategy, record.strategy_key = strategy.to_dict(), strategy.key
            record.score = 0.7001 if strategy == self.OWN else 0.7
        why = end(plan, held).why
        assert why.startswith("the highest score (0.700: ") and " equal to another's, and of a kind that " in why


class TestYardstick:
    def kept(self, plan: SearchPlan, space: Workspace, seconds: float, **given: bool) -> SearchOutcome:
        """The outcome as it is when the model is kept."""
        seen: list[SearchOutcome] = []

        def keep(outcome: SearchOutcome, refit: Path) -> str:
            seen.append(outcome)
            return ""

        conclude(plan, space.data, None, space, seconds, interrupted=given.get("interrupted", False), keep=keep)
        return seen[0]

    def test_a_model_is_kept_with_what_it_will_be_judged_by(self, plan: SearchPlan, space: Workspace) -> None:
        yardstick = self.kept(plan, space, 60.0).yardstick
        assert yardstick is not None
        assert yardstick.correctness.images == len(yardstick.labels) >= 20
        assert yardstick.probabilities.shape[1] == len(CLASSES)

    def limited(
        self,
        folder: Path,
        space: Workspace,
        budget_s: float,
        used_s: float,
        image_s: float = 0.0,
        test_images: int = 0,
        right: Right = by_loss,
    ) -> SearchPlan:
        """A search that has used so many seconds of its time budget."""
        now = [0.0]
        folder.mkdir(exist_ok=True)
        plan = make_plan(
            folder, space, probed=True, budget_s=budget_s, clock=lambda: now[0], test_images=test_images
        )  # fmt: skip
        play(plan, space, right, image_s=image_s)
        assert plan.finished()
        now[0] = used_s
        return plan

    def test_what_no_time_helps_with_is_not_blamed_on_the_time(self, space: Workspace, tmp_path: Path) -> None:
        """A search of half a minute without labels said that a longer one would tell how often the model is right."""
        used = self.limited(tmp_path / "a", space, 20.0, 20.0)
        assert (
            self.kept(used, space, 20.0).no_yardstick
            == "of the 20 s that the time budget left the search, too few remained to train the model once more "
            "without a part of the labelled images"
        )
        unused = self.kept(self.limited(tmp_path / "b", space, 20.0, 5.0), space, 5.0)
        assert unused.yardstick is not None and unused.features is not None
        unlabelled = workspace(tmp_path, data(target=None), folds=(0, 0))
        assert self.kept(used, unlabelled, 20.0).no_yardstick.startswith("there are no labelled target images")

    def test_the_time_that_the_test_split_will_take_is_not_unused(self, space: Workspace, tmp_path: Path) -> None:
        told = [
            self.kept(self.limited(tmp_path / str(images), space, 20.0, 13.0, 0.01, images), space, 13.0)
            for images in (0, 400)
        ]
        assert [outcome.yardstick is not None for outcome in told] == [True, False]

    def test_images_whose_features_are_kept_pass_the_network_where_there_is_time(
        self, space: Workspace, tmp_path: Path
    ) -> None:
        told = self.kept(self.limited(tmp_path, space, 20.0, 5.0, image_s=0.1), space, 5.0)
        assert told.yardstick is not None and told.features is None

    def test_a_head_whose_features_another_machine_has_made_is_not_solved_for_anew(
        self, space: Workspace, tmp_path: Path
    ) -> None:
        space = workspace(tmp_path / "cache", space.data)
        plan = self.limited(
            tmp_path / "run", space, 400.0, 300.0, 2.0, right=lambda job: 0.9 if "pretrain" in str(job) else 0.4
        )
        first = self.kept(plan, space, 300.0)
        assert first.best.strategy_key == PROBE.key
        assert first.no_yardstick.endswith("takes 96 s, and 50 s were allowed") and first.features is None
        run_trial(space, TrialJob(PROBE, 0, final=True), lambda report: None)  # with the network that was made there
        again = self.kept(plan, space, 300.0)
        assert again.yardstick is not None and again.features is not None

    def test_but_not_where_training_it_once_more_takes_too_long_or_somebody_waits(
        self, plan: SearchPlan, space: Workspace, tmp_path: Path
    ) -> None:
        interrupted = self.kept(plan, space, 1.0, interrupted=True)
        assert interrupted.yardstick is None and interrupted.no_yardstick == "the search was interrupted"
        for record in plan.records:
            record.seconds = 100.0
        too_long = self.kept(plan, space, 200.0)
        assert too_long.yardstick is None
        assert too_long.no_yardstick.endswith("takes 100 s, and 30 s were allowed")
        late_plan = self.limited(tmp_path / "late", space, 200.0, 180.0)  # of which a tenth was kept
        for record in late_plan.records:
            record.seconds = 100.0
        late = self.kept(late_plan, space, 180.0)
        assert late.no_yardstick.endswith("takes 100 s, and 20 s were allowed")

    def test_nor_where_what_came_before_has_used_up_what_was_kept_for_it(
        self, space: Workspace, tmp_path: Path
    ) -> None:
        """A refit that takes longer than any training did: the budget is for everything."""
        told = []
        for used_s in (195.0, 210.0):
            plan = self.limited(tmp_path / str(used_s), space, 200.0, used_s)
            for record in plan.records:
                record.seconds = 100.0
            told.append(self.kept(plan, space, used_s).no_yardstick)
        assert told[0].endswith("takes 100 s, and 5 s were allowed")
        assert "too few remained" in told[1]


class TestOnUnlabelled:
    """What is said of the model on the images without labels, which may not be like those that its figure is of."""

    def told(self, folder: Path, seconds: float, budget_s: float | None, **shift: float) -> dict[str, Any] | None:
        held = replace(data(16), unlabelled=pool(shapes(30, 2, name="unlabelled", **shift)))
        space, now = workspace(folder / "space", held), [0.0]
        plan = make_plan(folder, space, budget_s=budget_s, clock=lambda: now[0])
        play(plan, space, by_loss)
        now[0] = seconds
        seen: list[SearchOutcome] = []
        conclude(plan, held, None, space, seconds, interrupted=False, keep=lambda out, _: seen.append(out) or "")
        told = seen[0].on_unlabelled
        assert bool(seen[0].why_not_on_unlabelled) == (told is None or told["accuracy"] is None)
        return told

    def test_how_often_it_is_right_is_estimated_and_whether_they_are_of_another_kind(self, tmp_path: Path) -> None:
        like, moved = self.told(tmp_path / "a", 60.0, None), self.told(tmp_path / "b", 60.0, None, contrast=0.3)
        assert like is not None and moved is not None
        assert (like["images"], like["drift"]["alarm"], moved["drift"]["alarm"]) == (90, False, True)
        assert moved["accuracy"]["value"] < like["accuracy"]["value"]
        assert set(like["shares"]) == set(CLASSES)

    def test_without_time_for_an_estimate_it_is_seen_whether_they_are_of_another_kind(
        self, plan: SearchPlan, space: Workspace, tmp_path: Path
    ) -> None:
        told = self.told(tmp_path, 20.0, 20.0, contrast=0.3)
        assert told is not None and told["accuracy"] is None and told["drift"]["alarm"]
        outcome = end(plan, space)
        refit = Path(plan.refits.done[outcome.best.strategy_key])
        model, target = load_checkpoint(refit)[1], space.data.target
        assert target is not None
        (said,) = probabilities_of(model, [model.head], space, target)
        like = judged_on_unlabelled(space, outcome, refit, said)
        assert like is not None and like["accuracy"] is None and not like["drift"]["alarm"]
        with pytest.raises(NotJudgedError, match="held out"):
            judged_on_unlabelled(space, outcome, refit, None)

    def test_all_images_that_are_decoded_or_pass_the_network_are_reckoned_with(
        self, plan: SearchPlan, space: Workspace, tmp_path: Path
    ) -> None:
        space, outcome, asked = workspace(tmp_path / "cache", space.data), end(plan, space), []
        assert space.data.target is not None and space.data.unlabelled is not None
        refit, known = Path(plan.refits.done[outcome.best.strategy_key]), np.full((48, 3), 1 / 3)

        def told(answer: bool) -> dict[str, Any] | None:
            def in_time(images: int, beside: int) -> int:
                asked.append(images + beside)
                return images if answer else 0

            return judged_on_unlabelled(space, outcome, refit, known, in_time)

        with pytest.raises(NotJudgedError, match="no time"):
            told(False)
        first = told(True)
        space.pixels(space.data.target, load_checkpoint(refit)[1].preprocessing)
        assert first is not None and told(True) == first
        many = len(space.data.unlabelled)
        assert asked == [many + 48, many + 48, many]
        few = judged_on_unlabelled(space, outcome, refit, known, lambda images, beside: LEAST_SEEN)
        assert few is not None and first["images"] == many > few["images"] == LEAST_SEEN

    def test_where_all_take_too_long_a_part_of_them_is_asked(
        self, plan: SearchPlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "image_seconds", lambda images, source_model: 0.1 * images)

        def in_time(images: int, beside: int = 0, networks: int = 1, seconds: float = 8.0) -> int:
            return as_there_is_time(plan, "plain:pixels", seconds, images, beside, networks=networks)

        assert [in_time(79), in_time(256), in_time(256, 17), in_time(256, networks=2)] == [79, 64, 32, 32]
        assert in_time(256, 50) == in_time(LEAST_SEEN + 1, 59) == LEAST_SEEN
        assert in_time(256, 60) == in_time(LEAST_SEEN - 1) == 0
        assert [in_time(LEAST_SEEN, seconds=s) for s in (0.0, 2.1)] == [0, LEAST_SEEN]
        monkeypatch.setattr(plan, "image_seconds", lambda images, source_model: 0.09 * images)
        assert in_time(256, seconds=0.0) == LEAST_SEEN  # a moment is always allowed

    def test_an_image_that_was_moved_during_the_search_does_not_lose_the_model(
        self, space: Workspace, tmp_path: Path
    ) -> None:
        """All that was found in the search was lost at its very end."""
        items = [FileItem(f"gone {i}", str(tmp_path / f"gone-{i}.png")) for i in range(30)]
        held = workspace(tmp_path / "cache", replace(space.data, unlabelled=Images("gone", items)))
        plan = make_plan(tmp_path, held)
        play(plan, held, by_loss)
        seen: list[SearchOutcome] = []
        conclude(plan, held.data, None, held, 60.0, interrupted=False, keep=lambda out, _: seen.append(out) or "")
        assert seen[0].on_unlabelled is None and seen[0].yardstick is None and seen[0].no_yardstick
        assert "gone 0: no such file" in seen[0].why_not_on_unlabelled


class TestAgreement:
    """A network that no label has judged is no surer than a head on frozen features agrees with it."""

    def ended(
        self,
        folder: Path,
        *,
        head: float,
        data_: TrainingData | None = None,
        sealed: SealedTest | None = None,
        answers_: tuple[float, ...] = (),
        image_s: float = 0.0,
    ) -> SearchOutcome:
        """A search in which a network has the highest score.

        head: the share of right answers of the best head, as of the network 0.9. answers_: the shares of the unlabelled
        images that the head names each class of, as the network names all alike. image_s: that an image takes through
        a network, in a search whose time is over.
        """
        held = data(None, 10) if data_ is None else data_
        space = workspace(folder / "space", held)
        now = [0.0]
        plan = make_plan(folder, space, probed=True, budget_s=1000.0 if image_s else None, clock=lambda: now[0])
        while isinstance(job := plan.next_job(), LaneJob):
            convex = Strategy.from_dict(job.strategy).convex
            if job.kind == JobKind.REFIT:
                write_checkpoint(Path(job.directory), model_that_is_right(head if convex else 0.9), {})
            else:
                score = 0.1 if convex else by_loss(job)
                for epoch in range(EPOCHS):
                    plan.on_epoch(job.number, {"score": score, "seconds": 1.0, "epoch": epoch + 1.0})
            shares = (answers_ if convex else (0.3, 0.3, 0.4)) if answers_ else ()
            plan.on_end(job.number, JobResult(answers=shares, forward_s=(image_s,) if convex and image_s else ()))
        now[0] = 1000.0 if image_s else 0.0
        seen: list[SearchOutcome] = []
        conclude(plan, held, sealed, space, 60.0, interrupted=False, keep=lambda out, _: seen.append(out) or "")
        return seen[0]

    def test_where_the_two_contradict_each_other_the_head_is_chosen(self, tmp_path: Path) -> None:
        """Of icons in another dress eight networks of ten were right for 7 %, some with the highest score."""
        outcome = self.ended(tmp_path, head=0.1)
        assert outcome.best.strategy_key == PROBE.key and outcome.agreement is None
        assert outcome.best.temperature == 1.0
        assert "the network with the highest (0.900) says the same for 0 % of the unlabelled images" in outcome.why

    def test_a_head_that_tells_nothing_apart_takes_nobodys_place(self, tmp_path: Path) -> None:
        outcome = self.ended(tmp_path, head=0.1, answers_=(1.0, 0.0, 0.0))
        assert not Strategy.from_dict(outcome.best.strategy).convex and outcome.agreement is not None

    def test_one_whose_controls_are_there_to_be_tested_stays_and_is_not_sure(self, tmp_path: Path) -> None:
        outcome = self.ended(tmp_path, head=0.1, sealed=sealed_test())
        assert not Strategy.from_dict(outcome.best.strategy).convex
        assert outcome.agreement == {"value": 0.0, "images": 30}
        assert outcome.best.temperature == pytest.approx(HOTTEST, rel=1e-3)
        assert (
            "for 0 % of the images without labels (30 looked at)" in agreement({"agreement": outcome.agreement})[0].text
        )

    def test_where_they_agree_it_is_as_sure_as_it_is(self, tmp_path: Path) -> None:
        outcome = self.ended(tmp_path, head=0.9)
        assert not Strategy.from_dict(outcome.best.strategy).convex
        assert outcome.agreement is not None and outcome.agreement["value"] == 1.0
        assert outcome.best.temperature == 1.0

    def test_where_time_is_over_a_slow_network_is_asked_of_fewer_images(self, tmp_path: Path) -> None:
        outcome = self.ended(tmp_path, head=0.9, data_=data(None, 20), image_s=0.02)
        assert outcome.agreement == {"value": 1.0, "images": 30}  # half of them

    def test_few_images_tell_nothing(self, tmp_path: Path) -> None:
        outcome = self.ended(tmp_path, head=0.1, data_=data(None, 6))
        assert outcome.agreement is None and outcome.best.temperature == 1.0
        assert agreement({"agreement": None}) == []

    def test_images_that_were_moved_lose_no_model(self, tmp_path: Path) -> None:
        items = [FileItem(f"gone {i}", str(tmp_path / f"gone-{i}.png")) for i in range(30)]
        outcome = self.ended(tmp_path, head=0.1, data_=replace(data(None, 10), unlabelled=Images("gone", items)))
        assert outcome.agreement is None and outcome.best.temperature == 1.0

    def test_where_labels_tell_it_is_not_asked(self, plan: SearchPlan, space: Workspace) -> None:
        seen: list[SearchOutcome] = []
        conclude(plan, space.data, None, space, 60.0, interrupted=False, keep=lambda out, _: seen.append(out) or "")
        assert seen[0].agreement is None


def test_what_a_pretrained_winner_is_judged_by_is_of_the_network_that_the_lane_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane's cache is another machine's: trained again here it would be another network, in hours perhaps."""
    strategy = Strategy(PRETRAINED, cut=STAGES, head="stages")
    lane, driver = workspace(tmp_path / "lane", data()), workspace(tmp_path / "driver", data())
    job = LaneJob(0, JobKind.REFIT, strategy.to_dict(), None, directory=str(tmp_path / "refit"))
    result = do_job(lane, job, lambda message: None)
    keep_files(tmp_path / "refit", result.model_files)
    monkeypatch.setattr(pretrain, "train_source_model", lambda *args, **kwargs: pytest.fail("trained again"))
    _adopt(driver, strategy, tmp_path / "refit")
    here = kept_features(driver, strategy.to_dict(), tmp_path / "refit")
    there = kept_features(lane, strategy.to_dict(), tmp_path / "refit")
    assert here is not None
    assert there is not None
    np.testing.assert_allclose(here.features, there.features, atol=1e-5)
    more = with_more(driver, shapes(2, seed=9))
    assert more.source_model(PRETRAINED)[1] == driver.source_model(PRETRAINED)[1]
