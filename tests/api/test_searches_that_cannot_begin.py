"""A search that cannot begin as it was asked for leaves no run: none could go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raytl import api
from raytl.core.errors import UserError
from tests.tasks.pictures import make_folder

SPACE = "image_size: 16\nspace:\n  source_model: ['plain:gradients']\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"at": "recall=0.95"}, "--at needs a task of two classes, and this one has 3"),
        ({"gpus_per_trial": 1.0}, "--gpus-per-trial 1, but the cluster has"),
    ],
)
def test_no_run_is_left(asked: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    make_folder(tmp_path / "photos", {"cat": 4, "dog": 4, "owl": 4})
    (tmp_path / "space.yaml").write_text(SPACE)
    task = api.Task(tmp_path / "photos")
    with pytest.raises(UserError, match=said):
        api.search(task, str(tmp_path / "space.yaml"), trials=1, storage=tmp_path / "runs", **asked)
    assert not list((tmp_path / "runs").glob("*"))
