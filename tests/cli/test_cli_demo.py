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
    # What it is over each baseline adds up with the figures that stand beside it.
    for name, gain in document["gains"].items():
        lead = document["best"]["test_metric"]["value"] - document["baselines"][name]["test_metric"]["value"]
        assert gain["value"] == pytest.approx(lead)
    # Most of the gain is in the unlabelled images, as the demo's space says, and not in the pretrained weights.
    transfer, adaptation = document["transfer_gain"], document["adaptation_gain"]
    if transfer is not None and adaptation is not None:
        assert adaptation["value"] > 0
        assert adaptation["value"] >= transfer["value"]
    assert (place.folder / "raytl-runs" / "demo" / "report.html").exists()
