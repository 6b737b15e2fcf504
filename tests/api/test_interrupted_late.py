"""Ctrl-C after the search, while the winner is judged, tested or trained once more: it and its figures stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from own_ray import own_ray
from PIL import Image

import raytl

SPACE = """\
image_size: 16
epochs: 2
grace_epochs: 1
batch_size: 16
space: {source_model: [scratch:cnn-small], head_lr: [0.03, 0.1], backbone_ratio: [1.0]}
"""


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        with own_ray(2):
            yield


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> raytl.Task:
    root, rng = tmp_path_factory.mktemp("late"), np.random.default_rng(0)
    for name, colour in {"red": (200, 40, 40), "green": (40, 200, 40)}.items():
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.array(colour) + rng.normal(0, 25, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return raytl.Task(target=root, holdout=0.3)


def interrupted(*arguments: object, **named: object) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def searched(task: raytl.Task, folder: Path, **settings: str) -> raytl.Run:
    (folder / "tiny.yaml").write_text(SPACE)
    space, runs = str(folder / "tiny.yaml"), str(folder / "runs")
    return raytl.search(task, space, trials=1, lanes=1, name="late", storage=runs, **settings)


@pytest.mark.parametrize("moment", ["add_means_of_judging", "open_test"])
def test_what_was_found_is_kept(moment: str, task: raytl.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("raytl.search.outcome"), moment, interrupted)
    run = searched(task, tmp_path)
    assert run.status == "interrupted" and run.outcome is not None and run.outcome["interrupted"]
    best = run.best
    assert best.validation is not None and best.test is None
    card = json.loads((run.bundle_path / "model.json").read_text())
    assert card["provenance"]["strategy"] == run.outcome["best"]["strategy"]
    assert not card["metrics"].get("going_on") and run.best.load().labels == ("green", "red")


def test_while_it_is_trained_on_all_labels_the_tested_one_stays_with_what_the_test_said(
    task: raytl.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("raytl.search.driver"), "refit_on_all", interrupted)
    run = searched(task, tmp_path, ship="all")
    assert run.status == "finished" and run.best.test is not None
    assert run.outcome is not None and run.outcome["trained_on"] == "target"
