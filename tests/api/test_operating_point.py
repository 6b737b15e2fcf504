"""A search for a model of two classes that is to find nearly all of one: what it decides is what is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import raytl
from raytl.api.promotion import Condition
from raytl.evaluation import metrics
from raytl.runs.sentences import sentences

pytestmark = pytest.mark.slow  # a search on Ray
SPACE = "{image_size: 8, epochs: 1, grace_epochs: 1, space: {source_model: [plain:pixels], cut: [1]}}"


def part(broken: bool, number: int) -> Image.Image:
    """Brighter where it is broken, and noisy: one in four could be either."""
    rng = np.random.default_rng(number)
    pixels = rng.normal(125 if broken else 100, 20) + rng.normal(0, 3, (8, 8))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_figures_matrix_and_deployment_are_of_what_the_threshold_decides(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    for name, count in (("broken", 120), ("fine", 180)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for number in range(count):
            part(name == "broken", number + 1000 * count).save(tmp_path / "parts" / name / f"{number}.png")
    (tmp_path / "space.yaml").write_text(SPACE)
    task = raytl.Task(tmp_path / "parts", holdout=0.4)
    run = raytl.search(
        task, str(tmp_path / "space.yaml"), trials=1, lanes=1, storage=tmp_path / "runs", at="recall=0.95"
    )
    summary, said = run.summary(), run.predictions()
    point, labels = summary["operating_point"], said["label"].to_numpy()
    named = said["predicted.best"].to_numpy()
    positive = run.classes.index("broken")
    assert point["label"] == "broken" and point["reached"] and point["recall"]["value"] >= 0.95

    chosen = (said[f"probability.{positive}"] >= point["value"]).to_numpy()
    assert (chosen == (named == positive)).all() and chosen.mean() > (said[f"probability.{positive}"] > 0.5).mean()
    assert point["test"]["recall"]["value"] == pytest.approx(chosen[labels == positive].mean())
    assert point["test"]["precision"]["value"] == pytest.approx((labels == positive)[chosen].mean())
    right = metrics.get("accuracy")(np.eye(2)[named], labels)
    assert point["test"]["metric"]["value"] == pytest.approx(right) != summary["best"]["test_metric"]["value"]

    (told,) = [v.text for v in sentences(summary, len(labels)) if "It says 'broken'" in v.text]
    assert f"accuracy {100 * right:.1f} %" in told and "on the test images" in told
    bound = (point["test"]["metric"]["low"] + summary["best"]["test_metric"]["low"]) / 2
    refused = Condition.parse(f"accuracy>={bound:.4f}").refusal(summary)
    assert refused is not None and f"accuracy {100 * right:.1f} %" in refused

    threshold = run.best.load().manifest.threshold
    assert threshold is not None and (threshold.label, threshold.value) == ("broken", point["value"])
