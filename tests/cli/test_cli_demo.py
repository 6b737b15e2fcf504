"""``raytl demo``: the promise of the README, kept."""

from __future__ import annotations

import pytest
from documented import undocumented

pytestmark = pytest.mark.slow


def test_the_demo_reaches_its_accuracy_through_the_endpoint(place):
    done = place.run("demo", "--json", "--name", "demo", timeout_s=1500)
    assert done.code == 0, done.err
    document = done.document
    assert undocumented("demo", document) == set()
    assert document["endpoint"]["images"] == 600
    assert document["endpoint"]["accuracy"] >= 0.95
    assert document["endpoint"]["accuracy"] == pytest.approx(document["best"]["test_metric"]["value"])
    assert set(document["baselines"]) >= {"fine-tune", "linear-probe", "scratch", "source-only"}
    for name in ("transfer_gain", "adaptation_gain"):
        assert document[name]["low"] <= document[name]["value"] <= document[name]["high"]
    assert (place.folder / "raytl-runs" / "demo" / "report.html").exists()
