"""A search on a real network whose images are larger than the space asks for, in one process."""

from __future__ import annotations

from pathlib import Path

import lite0_wheel
import numpy as np
import pytest
from tiny import CLASSES, SIDE, shape

from raytl.evaluation.selection import INSIDE, INSIDE_IMAGES
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes.here import do_here
from raytl.search.lanes.sizing import Lanes
from raytl.search.plan.schedule import SearchPlan
from raytl.search.planning import SearchSettings, make_plan, make_workspace_settings
from raytl.search.records import TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem
from raytl.training.workspace import Workspace

URI, TIMES = f"package:{lite0_wheel.NAME}", 8
LANES = Lanes(1, 1.0, 0.0)


def large(per_class: int, seed: int, name: str) -> LabelledImages:
    """Shapes of 128 pixels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    drawn = [np.kron(shape(kind, rng), np.ones((TIMES, TIMES), dtype=np.uint8)) for kind in labels]
    items = [PixelsItem(f"{name} {number}", pixels) for number, pixels in enumerate(drawn)]
    return LabelledImages(name, items, None, CLASSES, labels.astype(np.int64))


class Silent:
    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        """Nothing."""


def begun(folder: Path, data: TrainingData) -> tuple[SearchPlan, Workspace]:
    file = folder / "space.yaml"
    file.write_text(f"image_size: 64\nlargest_image_size: 128\nepochs: 1\nspace:\n  source_model: ['{URI}']\n")
    bound = BoundSpace(load_space(str(file)), data)
    settings = SearchSettings()
    space = Workspace(data, make_workspace_settings(data, bound.space, settings, LANES), folder / "cache")
    return make_plan(bound, settings, space, LANES, folder, Silent(), test_images=0, started=0.0), space


def joins(record: TrialRecord) -> bool:
    """Whether a trial is the network's on the images of the domain too."""
    return record.strategy["source_domain"] is not None and "lite0" in record.strategy["source_model"]


def test_the_size_is_told_by_labelled_images_and_what_joins_a_domain_is_tried_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheel").mkdir()
    lite0_wheel.install(tmp_path / "wheel", monkeypatch)
    target, new, near = (large(4, seed, name) for seed, name in enumerate(("target", "new", "near")))
    side = TIMES * SIDE
    data = TrainingData(
        "shapes", CLASSES, target, new.without_labels(), {"near": near}, channels=1, target_side=side, piece_side=side
    )
    plan, space = begun(tmp_path, data)
    while not any(joins(record) for record in plan.records) and isinstance(job := plan.next_quick(), LaneJob):
        do_here(plan, space, job)
    probes = [record for record in plan.records if record.kind == JobKind.PROBE]
    at = {record.strategy["source_model"]: record for record in probes if INSIDE in record.metrics and not record.fold}
    assert {URI, f"{URI}@64px-squash"} <= at.keys()
    sized = {uri: record for uri, record in at.items() if "@" in uri}
    assert any(uri.startswith(f"{URI}@128px") for uri in sized)
    assert all(not record.answers and "unlabelled" not in record.metrics for record in sized.values())
    assert len(at[URI].answers) == len(CLASSES)
    assert {record.metrics[INSIDE_IMAGES] for record in at.values()} == {float(len(target))}
    joined = [record for record in probes if joins(record)]
    assert {record.strategy["source_model"] for record in joined} == {plan.contest.shown or URI}
    assert max(record.number for record in sized.values()) < min(record.number for record in joined)
