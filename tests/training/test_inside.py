"""What labels say of a head by the images that it was solved for on, and heads that look at nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import CLASSES, PRETRAINED, STAGES, data, workspace

from raytl.evaluation.calibration import apply_temperature
from raytl.evaluation.probes import fit_logistic
from raytl.evaluation.selection import INSIDE, INSIDE_IMAGES, labelled
from raytl.training import Strategy
from raytl.training.convex import features_of
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob, TrialResult, prepare, trial_seed
from raytl.training.workspace import Workspace

HEAD = Strategy(PRETRAINED, cut=STAGES, head="logistic")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("inside"), data(8))


def trained(space: Workspace, strategy: Strategy, fold: int | None = 0, *, looks: bool = True) -> TrialResult:
    return run_trial(space, TrialJob(strategy, fold, looks=looks), lambda metrics: None)


def test_is_by_what_was_said_of_each_image_unseen_and_of_the_validation_fold(space: Workspace) -> None:
    job = TrialJob(HEAD, 0)
    result, trial = trained(space, HEAD), prepare(space, job)
    target, (own, held) = space.data.target, space.folds[0]
    assert target is not None
    f = features_of(trial.network, trial.roles.training["target"]).numpy()
    probe = fit_logistic(f, target.labels[own], len(CLASSES), seed=trial_seed(space, job))
    said = np.concatenate([apply_temperature(probe.out_of_fold, probe.temperature), result.validation_probabilities])
    truth = np.concatenate([target.labels[own], target.labels[held]])
    known = np.isfinite(said).all(axis=1)
    assert known.sum() > len(held)
    right = float((said[known].argmax(1) == truth[known]).mean())
    loss = float(-np.log(said[known][np.arange(known.sum()), truth[known]]).mean())
    assert result.metrics[INSIDE] == pytest.approx(labelled({}, right, int(known.sum()), loss), abs=0.01)
    assert result.metrics[INSIDE_IMAGES] == known.sum()


@pytest.mark.parametrize(
    "strategy",
    [
        replace(HEAD, source_domain="bright"),
        replace(HEAD, head="stages", adaptation="propagation"),
        replace(HEAD, augmentation="shift", cached_views=2),
        replace(HEAD, head="nearest-mean"),
        Strategy(PRETRAINED, head_lr=0.01),
    ],
)
def test_is_told_of_heads_on_the_targets_images_as_they_are(space: Workspace, strategy: Strategy) -> None:
    assert INSIDE not in trained(space, strategy).metrics


def test_a_head_that_looks_at_nothing_else_passes_no_image_without_a_label(space: Workspace) -> None:
    alone, looking = trained(space, HEAD, looks=False), trained(space, HEAD)
    assert len(looking.answers) == len(CLASSES) and "unlabelled" in looking.metrics
    assert not len(alone.answers) and "unlabelled" not in alone.metrics
    assert alone.metrics["score"] == alone.metrics["labelled"] == looking.metrics["labelled"]
    np.testing.assert_array_equal(alone.validation_probabilities, looking.validation_probabilities)
    roles = prepare(space, TrialJob(HEAD, 0, looks=False)).roles
    assert roles.sample is roles.quick_sample is roles.taught is None and roles.validation is not None


def test_what_learns_from_a_source_domain_looks_all_the_same(space: Workspace) -> None:
    """Its features take on the target's moments, of which most images have no label."""
    joined = replace(HEAD, head="stages", source_domain="bright", adaptation="moments")
    one, other = trained(space, joined, looks=False), trained(space, joined)
    assert len(one.answers) and one.metrics["score"] == other.metrics["score"]
