"""How far a source domain is heard where the images that the model will meet are of another kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CLASSES, STAGES, pool, shapes, workspace

from raytl.evaluation.other_kind import FAVOURED, least_share
from raytl.tasks import LabelledImages, TrainingData
from raytl.training import Strategy
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob

WIDTH, KINDS = 12, 4
MEANS = 2.5 * np.random.default_rng(1).normal(size=(KINDS, WIDTH)) / np.sqrt(WIDTH)


def drawn(labels: np.ndarray, seed: int, light: float = 0.0) -> np.ndarray:
    """Features around the mean of each class; light: all that another camera sees differently."""
    rng = np.random.default_rng(seed)
    return MEANS[labels] + rng.normal(0, 0.5, (len(labels), WIDTH)) + light * np.eye(WIDTH)[0]


def share(
    *, per_class: int = 10, light: float = 6.0, moved: int = 0, met: int = 100, group_size: int | None = None
) -> float:
    """Of a domain whose labels are moved by so many classes; light: of the images that the model will meet."""
    mine, theirs = np.repeat(np.arange(KINDS), per_class), np.repeat(np.arange(KINDS), 30)
    there = np.arange(met) % KINDS
    features = np.concatenate([drawn(mine, 2), drawn(theirs, 3, 0.5)])
    groups = None if group_size is None else np.arange(len(mine)) // group_size
    return least_share(
        torch.as_tensor(features),
        np.concatenate([mine, (theirs + moved) % KINDS]),
        KINDS,
        torch.as_tensor(drawn(there, 4, light)),
        target=np.arange(len(features)) < len(mine),
        views=np.zeros(len(features), dtype=bool),
        groups=(groups, None),
    )


def test_a_domain_that_knows_the_labels_is_heard_more_among_images_of_another_kind() -> None:
    assert share() == FAVOURED
    assert share(group_size=2) == FAVOURED


def test_folds_decide_among_images_of_the_same_kind() -> None:
    assert share(light=0.0) == 0


def test_a_domain_of_other_labels_is_not_favoured() -> None:
    assert [share(moved=moved) for moved in (1, 2, 3)] == [0, 0, 0]


def test_augmented_versions_of_the_targets_images_tell_nothing() -> None:
    mine, theirs, there = np.repeat(np.arange(KINDS), 10), np.repeat(np.arange(KINDS), 30), np.arange(100) % KINDS
    moved = np.tile(mine, 9)
    features = np.concatenate([drawn(mine, 2), drawn(moved, 5, 6.0), drawn(theirs, 3, 0.5)])
    labels = np.concatenate([mine, moved, theirs])
    kinds = {"target": np.arange(len(labels)) < 10 * len(mine), "groups": (None, None)}
    given = (torch.as_tensor(features), labels, KINDS, torch.as_tensor(drawn(there, 4)))
    views = (np.arange(len(labels)) >= len(mine)) & kinds["target"]
    assert least_share(*given, views=views, **kinds) == 0
    assert least_share(*given, views=np.zeros_like(views), **kinds) == FAVOURED


@pytest.mark.parametrize("few", [{"per_class": 4}, {"met": 19}])
def test_of_few_images_nothing_is_told(few: dict[str, int]) -> None:
    assert share(**few) == 0


def test_images_of_one_group_alone_do_not_say_of_what_kind_the_others_are() -> None:
    assert share(group_size=40) == 0


class TestTrial:
    STRATEGY = Strategy("scratch:cnn-small", "bright", cut=STAGES, head="stages")

    @staticmethod
    def of_the_domain(root: Path, held: TrainingData) -> float:
        made = run_trial(workspace(root, held), TrialJob(TestTrial.STRATEGY, None, final=True), lambda metrics: None)
        head = made.model.head
        assert head.members == 2
        return float(head.shares[len(head.widths) :].sum())

    @staticmethod
    def task(unlabelled: LabelledImages, *, moved: int = 0) -> TrainingData:
        bright = shapes(20, 3, name="bright")
        bright = LabelledImages(bright.name, bright.items, None, CLASSES, (bright.labels + moved) % len(CLASSES))
        target = shapes(12, 1, name="target")
        return TrainingData("shapes", CLASSES, target, pool(unlabelled), {"bright": bright}, channels=1)

    def test_hears_the_domain_where_what_it_will_meet_is_of_another_kind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("raytl.evaluation.other_kind.FAVOURED", 0.97)
        there, here = shapes(20, 2, contrast=-0.6, light=200.0), shapes(20, 2)
        assert self.of_the_domain(tmp_path / "there", self.task(there)) == pytest.approx(0.97)
        assert self.of_the_domain(tmp_path / "here", self.task(here)) < 0.95

    def test_is_asked_of_whole_groups(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr(
            "raytl.training.convex.least_share", lambda *args, **named: asked.append(named["groups"]) or 0.0
        )
        task = self.task(shapes(20, 2))
        assert task.target is not None and task.unlabelled is not None
        mine, theirs = np.arange(len(task.target)) // 2, 100 + np.arange(len(task.unlabelled)) // 3
        grouped = replace(
            task, target=replace(task.target, groups=mine), unlabelled=replace(task.unlabelled, groups=theirs)
        )
        self.of_the_domain(tmp_path, grouped)
        ((of_target, of_unlabelled),) = asked
        assert (of_target == mine).all() and (of_unlabelled == theirs).all()

    def test_does_not_where_the_target_contradicts_it(self, tmp_path: Path) -> None:
        there = shapes(20, 2, contrast=-0.6, light=200.0)
        assert self.of_the_domain(tmp_path, self.task(there, moved=1)) < 0.2
