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
    # Several strategies are as good here; a winner tells nothing of a part that it does without.
    winner = document["best"]["strategy"]
    without = {
        "transfer_gain": winner["source_model"].startswith(("scratch:", "plain:")),
        "adaptation_gain": winner["adaptation"] == "none",
    }
    for name, missing in without.items():
        if missing:
            assert document[name] is None
        else:
            assert document[name]["low"] <= document[name]["value"] <= document[name]["high"]
    assert (place.folder / "raytl-runs" / "demo" / "report.html").exists()
