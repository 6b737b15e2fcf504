"""A whole small search in this process, whose space names heads that go by what is near, and two models joined."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import SIDE, data

from raytl.search.jobs import LaneJob
from raytl.search.lanes.here import do_here
from raytl.search.lanes.sizing import Lanes
from raytl.search.outcome import conclude
from raytl.search.planning import SearchSettings, make_plan, make_workspace_settings
from raytl.search.records import TrialStatus
from raytl.search.rehearsal import Silent
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.sources.heads import NEAR
from raytl.training.workspace import Workspace

BOTH = "joined:plain:gradients+plain:pixels"
SPACE = f"""
image_size: {SIDE}
space:
  source_model: ['plain:gradients', '{BOTH}']
  head: [nearest-mean, k-nn]
"""


@pytest.mark.parametrize("labels", [1, 8])
def test_they_are_strategies_like_any_other(labels: int, tmp_path: Path) -> None:
    file = tmp_path / "near.yaml"
    file.write_text(SPACE)
    held = data(labels, unlabelled=None if labels > 1 else 9, domains=False)
    bound = BoundSpace(load_space(str(file)), held)
    lanes, settings = Lanes(1, 1.0, 0.0), SearchSettings(trials=4)
    workspace = Workspace(held, make_workspace_settings(held, bound.space, settings, lanes), tmp_path / "cache")
    plan = make_plan(bound, settings, workspace, lanes, tmp_path, Silent(), test_images=0, started=0.0)
    while isinstance(job := plan.next_job(), LaneJob):
        do_here(plan, workspace, job)
    outcome = conclude(plan, held, None, workspace, 1.0, interrupted=False)
    tried = [record for record in plan.records if record.status == TrialStatus.COMPLETED]
    assert all(record.score is not None for record in tried)
    for uri in ("plain:gradients", BOTH):
        assert {*NEAR, "logistic"} <= {r.strategy["head"] for r in tried if r.strategy["source_model"] == uri}
    assert outcome.best is not None
