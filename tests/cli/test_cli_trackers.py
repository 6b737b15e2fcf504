"""A search that is told to trackers by the command's own switches, and what the command says of one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Place
from mlflow.tracking import MlflowClient
from photos import folder, space

pytestmark = pytest.mark.slow  # a search that starts Ray


@pytest.fixture(scope="module")
def place(make_place) -> Place:
    found = make_place("trackers")
    folder(Path(found.folder) / "photos")
    space(Path(found.folder))
    return found


def test_a_search_is_told_to_both_and_warns_of_neither(place, monkeypatch):
    switch = {"MLFLOW_ALLOW_FILE_STORE": "true"}  # making a database takes MLflow most of a minute
    uri = (Path(place.folder) / "mlruns").as_uri()
    asked = ["--target", "photos", "--space", "tiny.yaml", "--trials", "1", "--lanes", "1", "--name", "told"]
    done = place.run("search", *asked, "--log", "tensorboard", "--log", f"mlflow={uri}", "--json", **switch)
    assert done.code == 0 and "nothing more is written there" not in done.err, done.err
    run = Path(done.document["path"])
    trials = done.document["trials"]["count"]
    assert len(list((run / "tensorboard").glob("trial-*/events*"))) == trials
    monkeypatch.setenv(*next(iter(switch.items())))
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("raytl").experiment_id])
    (parent,) = (one for one in found if one.info.run_name == "told")
    assert len(found) == trials + 1 and parent.data.tags["raytl.run"] == str(run)
    assert parent.data.metrics["best_score"] == pytest.approx(done.document["best"]["score"])


def test_a_tracker_that_does_not_exist_is_told_before_anything_else(place):
    done = place.run("search", "--target", "photos", "--space", "tiny.yaml", "--log", "wandb")
    assert done.code == 2 and "--log wandb: there is no tracker 'wandb'; known are mlflow, tensorboard" in done.err
