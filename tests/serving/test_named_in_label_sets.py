"""The labels that an image may have, and the one that is said of it, do not contradict each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import ENOUGH_S, data, shapes, workspace

from raytl.bundles import Bundle, export_bundle
from raytl.bundles.files import answer_files
from raytl.serving.service import doubts
from raytl.sources.manifest import Threshold
from raytl.tasks import LabelledImages
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.yardstick import gather_yardstick

TWO = ("bar", "cross")


def two_shapes(count: int, seed: int) -> LabelledImages:
    images = shapes(count, seed, name="two shapes")
    return replace(images.subset(np.flatnonzero(images.labels < 2)), classes=TWO)


@pytest.fixture(scope="module")
def screening(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that says cross of nearly everything: from a probability of 0.01 on."""
    task = replace(data(None, None, domains=False), classes=TWO, target=two_shapes(40, 1))
    space = workspace(tmp_path_factory.mktemp("w"), task)
    probe = Strategy.from_dict({"source_model": "plain:pixels", "cut": 1, "head": "logistic"})
    model = run_trial(space, TrialJob(probe, None, final=True), lambda report: None).model
    yardstick = gather_yardstick(space, probe, 1.0, lambda rows: np.where(rows[:, 1] >= 0.01, 1, 0), ENOUGH_S)
    point = Threshold(label="cross", value=0.01)
    folder = tmp_path_factory.mktemp("b") / "screening"
    return Bundle.load(export_bundle(folder, model, metrics={}, provenance={}, yardstick=yardstick, threshold=point))


def test_what_a_threshold_decides_is_among_the_labels_an_image_may_have(screening: Bundle, tmp_path: Path) -> None:
    images = [item.open() for item in two_shapes(30, 9).items]
    arrays = np.stack([screening.prepare(image) for image in images])
    rows = screening.compute(arrays)
    chosen, known = screening.decide(rows), screening.yardstick
    assert known is not None and known.set_threshold < 1
    likely = rows.argmax(axis=1)
    assert (chosen != likely).any()  # decided against the more probable
    served = doubts(screening, arrays, rows)
    assert all(TWO[said] in found["labels"] for said, found in zip(chosen, served, strict=True))
    assert all(TWO[said] in found["labels"] for said, found in zip(likely, served, strict=True))
    assert any(len(found["labels"]) == 1 for found in served)
    for number, image in enumerate(images):
        Image.fromarray(np.asarray(image)).save(tmp_path / f"{number:02}.png")
    answer = answer_files(screening, sorted(tmp_path.glob("*.png")))
    assert answer.sets is not None
    told = [TWO.index(label) for label in answer.frame["label"]]
    assert answer.sets[np.arange(len(told)), told].all()
