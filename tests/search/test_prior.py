"""What source models promise: the order it puts them in, at what cost, and that the search heeds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import MODEL, PRETRAINED, STAGES, data, workspace

from raytl.evaluation.transferability import h_score, log_me
from raytl.search.jobs import CutScore, JobKind, JobResult, LaneJob
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import PlanSettings, SearchPlan
from raytl.search.propose import prior as prior_module
from raytl.search.propose.prior import (
    SourcePrior,
    cuts_of_interest,
    labelled_images,
    pool_positions,
    pooled_features,
    rank_sources,
    score_cuts,
)
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import TrainingData
from raytl.training import Strategy
from raytl.training.workspace import Workspace

OTHER = f"pretrain:other/{MODEL}"
SPACE = f"""
epochs: 2
image_size: 16
space:
  source_model: [{OTHER}, {MODEL}, '{PRETRAINED}']
  cut: [0, 2]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
"""


@pytest.fixture
def bound(tmp_path: Path) -> BoundSpace:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data(8))


@pytest.fixture
def held(tmp_path: Path, bound: BoundSpace) -> Workspace:
    return workspace(tmp_path / "home", bound.data)


class Heard:
    def __init__(self) -> None:
        self.phases: list[tuple[str, str]] = []

    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None:
        self.phases.append((phase, detail))


class TestScores:
    def test_are_of_the_stages_outputs_averaged_over_positions(self, held: Workspace) -> None:
        images = labelled_images(held)
        assert images is not None
        model, _ = held.source_model(MODEL)
        pixels = images.tensor(model.preprocessing)
        with torch.no_grad():
            maps = model.eval().run(model.preprocessing.normalise(pixels), 0, 2)
        features = pooled_features(held, MODEL, images)
        assert len(features) == STAGES
        assert np.allclose(features[1], maps.mean(dim=(2, 3)).numpy(), atol=1e-5)
        score = score_cuts(held, MODEL, images, [2])[0]
        assert score == CutScore(2, log_me(features[1], images.labels), h_score(features[1], images.labels))

    def test_are_computed_once(self, held: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        images = labelled_images(held)
        assert images is not None
        first = score_cuts(held, MODEL, images, [1, STAGES])
        monkeypatch.setattr(prior_module, "_run_stages", None)  # a second computation would call it
        assert score_cuts(held, MODEL, images, [1, STAGES]) == first

    def test_of_features_that_are_not_finite_rank_last(self) -> None:
        nothing = CutScore(5, float("nan"), float("nan"))
        prior = SourcePrior({"a": [5], "b": [5]}, {"a": [nothing], "b": [CutScore(5, -9.0, 0.0)]})
        assert prior.order() == ["b", "a"]

    @pytest.mark.parametrize("shape", [(3, 7), (3, 7, 4, 4), (3, 4, 4, 7), (3, 16, 7)])
    def test_positions_are_averaged_wherever_the_channels_are(self, shape: tuple[int, ...]) -> None:
        assert pool_positions(torch.rand(shape)).shape == (3, 7)


class TestOrder:
    def test_a_model_of_the_task_comes_before_one_of_another(self, held: Workspace, bound: BoundSpace) -> None:
        """Ranked with intervals, costs, and nobody left out."""
        held = workspace(held.cache.root.parent, bound.data, pretrain=replace(held.settings.pretrain, steps=60))
        images = labelled_images(held)
        assert images is not None
        ranked = rank_sources(held, bound, images)
        assert [source.candidate.rank for source in ranked] == list(range(1, len(ranked) + 1))
        assert {(s.candidate.source_model, s.candidate.score.cut) for s in ranked} == {
            (PRETRAINED, 2), (PRETRAINED, STAGES), (OTHER, 2), (OTHER, STAGES), (MODEL, STAGES),
        }  # fmt: skip
        assert ranked[0].candidate.source_model == PRETRAINED
        for source in ranked:
            low, high = source.candidate.interval or (0, 0)
            assert 1 <= low <= high <= len(ranked)
            assert source.step_ms > 0 and source.seconds > 0
        trained = {source.candidate.score.cut: source.parameters for source in ranked}
        assert trained[2] > trained[STAGES] == 3 * (96 + 1)

    def test_all_stages_are_scored_beside_the_cuts_that_the_space_allows(self, bound: BoundSpace) -> None:
        assert cuts_of_interest(bound) == {PRETRAINED: [2, STAGES], OTHER: [2, STAGES], MODEL: [STAGES]}

    def test_two_scores_are_combined_by_ranks(self) -> None:
        scores = {"a": [CutScore(1, -3.0, 2.0)], "b": [CutScore(1, -1.0, 9.0)], "c": [CutScore(1, -2.0, 1.0)]}
        ranking = SourcePrior({uri: [1] for uri in scores}, scores).ranking()
        assert [(c.source_model, c.rank, c.log_me_rank, c.h_score_rank) for c in ranking] == [
            ("b", 1, 1, 1), ("a", 2, 3, 2), ("c", 3, 2, 3),
        ]  # fmt: skip


class TestImages:
    def test_are_the_targets(self, held: Workspace) -> None:
        images = labelled_images(held)
        assert images is not None and held.data.target is not None
        assert images.fingerprint == held.data.target.fingerprint

    def test_without_target_labels_are_held_out_ones_of_the_source_domain(self, tmp_path: Path) -> None:
        bright = data(None)
        many = TrainingData("x", bright.classes, None, bright.unlabelled, bright.source_domains, 1)
        held = workspace(tmp_path, many)
        images = labelled_images(held)
        assert images is not None
        train = many.source_domains["bright"].subset(held.source_split("bright")[0])
        assert not {item.name for item in images.items} & {item.name for item in train.items}

    def test_there_are_none_where_no_label_is_the_tasks(self, tmp_path: Path) -> None:
        known = data(None)
        other = TrainingData("x", known.classes, None, known.unlabelled, {"other": known.source_domains["other"]}, 1)
        assert labelled_images(workspace(tmp_path, other)) is None


class TestInTheSearch:
    def plan(self, bound: BoundSpace, pretraining: tuple[str, ...] = ()) -> tuple[SearchPlan, Heard]:
        heard = Heard()
        settings = PlanSettings(trials=6, folds=1, lanes=2, epochs=2, directory=Path())
        given = {"fine-tune": Strategy(PRETRAINED), "scratch": Strategy(MODEL)}
        prior = SourcePrior(cuts_of_interest(bound))
        halving = SuccessiveHalving(1, 3, 2)
        clock = iter(range(10**6)).__next__
        sampler = TpeSampler(bound, 0)
        return SearchPlan(settings, sampler, halving, given, list(pretraining), heard, clock, prior=prior), heard

    def job(self, plan: SearchPlan) -> LaneJob:
        job = plan.next_job()
        assert isinstance(job, LaneJob)
        return job

    def score(self, plan: SearchPlan, job: LaneJob, value: float) -> None:
        plan.on_end(job.number, JobResult(cut_scores=[CutScore(cut, value, value) for cut in job.cuts]))

    def test_the_default_recipe_is_under_way_before_anything_is_scored(self, bound: BoundSpace) -> None:
        plan, _ = self.plan(bound)
        assert [self.job(plan).kind for _ in range(5)] == [
            JobKind.BASELINE, JobKind.PRIOR, JobKind.PRIOR, JobKind.PRIOR, JobKind.BASELINE,
        ]  # fmt: skip

    def test_the_best_is_tried_first_and_the_worst_last_but_tried(self, bound: BoundSpace) -> None:
        plan, heard = self.plan(bound)
        self.job(plan)
        value = {PRETRAINED: 1.0, MODEL: 0.0, OTHER: 2.0}
        for job in [self.job(plan) for _ in range(3)]:
            self.score(plan, job, value[job.source_model])
        jobs = [self.job(plan) for _ in range(4)]
        assert [job.kind for job in jobs] == [JobKind.SEARCH, JobKind.BASELINE, JobKind.SEARCH, JobKind.SEARCH]
        tried = [job.strategy["source_model"] for job in jobs if job.kind == JobKind.SEARCH]
        assert tried == [OTHER, PRETRAINED, MODEL]
        assert ("prior", f"{OTHER}, {PRETRAINED}, {MODEL}") in heard.phases

    def test_a_model_that_is_still_being_made_is_scored_later(self, bound: BoundSpace) -> None:
        plan, _ = self.plan(bound, pretraining=(PRETRAINED,))
        making, _ = self.job(plan), self.job(plan)
        scored = {self.job(plan).source_model for _ in range(2)}
        assert scored == {OTHER, MODEL}
        assert self.job(plan).kind == JobKind.BASELINE
        plan.on_end(making.number, JobResult())
        assert self.job(plan).source_model == PRETRAINED

    def test_a_model_that_cannot_be_scored_is_tried_behind_the_others(self, bound: BoundSpace) -> None:
        plan, _ = self.plan(bound)
        self.job(plan)
        for job in [self.job(plan) for _ in range(3)]:
            if job.source_model == OTHER:
                plan.on_end(job.number, None, "its process died")
            else:
                self.score(plan, job, float(job.source_model == MODEL))
        self.job(plan)
        assert [self.job(plan).strategy["source_model"] for _ in range(3)] == [MODEL, PRETRAINED, OTHER]
