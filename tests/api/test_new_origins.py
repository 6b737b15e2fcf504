"""A search on images of a few cameras, for images of others: what it states is right on others."""

from __future__ import annotations

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
space: {source_model: [plain:pixels], head_lr: [0.1]}
"""


def lit(root: Path, cameras: str) -> Path:
    """Each camera took good and bad parts in another light, which is all that tells them apart."""
    rng = np.random.default_rng(list(cameras.encode()))
    for camera in cameras.split():
        for label, light in zip(("bad", "ok"), rng.uniform(40, 215, 2), strict=True):
            (root / label).mkdir(parents=True, exist_ok=True)
            for number in range(12):
                pixels = (light + rng.normal(0, 4, (16, 16))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / label / f"{camera}_{number}.png")
    return root


@pytest.mark.slow
def test_what_a_search_states_holds_on_new_cameras(tmp_path, monkeypatch):
    """Half of the answers are right there, and within the labelled cameras nearly all."""
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    lit(tmp_path / "parts", "ash bay cove")
    (tmp_path / "line").mkdir()
    for path in lit(tmp_path / "others", "elm fen").rglob("*.png"):
        path.rename(tmp_path / "line" / f"{path.stem.replace('_', f'_{path.parent.name}')}.png")
    (tmp_path / "mine.yaml").write_text(SPACE)
    with own_ray(2):
        task = raytl.Task(tmp_path / "parts", unlabelled=tmp_path / "line")
        run = raytl.search(task, space=str(tmp_path / "mine.yaml"), trials=1, lanes=1, storage=str(tmp_path / "runs"))
    assert task.data.target.groups is not None and len(np.unique(task.data.target.groups)) == 3
    stated = run.outcome["best"]["validation"]
    assert stated["low"] <= 0.5 <= stated["high"]
