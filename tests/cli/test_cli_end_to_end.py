"""The whole way with the installed command: search, report, export, predict, deploy, HTTP, undeploy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from documented import undocumented
from mlflow.tracking import MlflowClient
from photos import COLOURS, folder, picture, space
from PIL import Image

from raytl.runs import Run
from raytl.runs.sentences import cautions
from raytl.serving.ports import free_port
from raytl.sources.checkpoint import write_metrics
from raytl.sources.manifest import read_manifest

pytestmark = pytest.mark.slow  # every command imports Ray and torch, and some start Ray
FILE_STORE = {"MLFLOW_ALLOW_FILE_STORE": "true"}  # making a database takes MLflow most of a minute


@pytest.fixture(scope="module")
def place(make_place):
    here = make_place("newcomer")
    folder(here.folder / "photos")
    folder(here.folder / "camera", 4, first=50, flat=True)
    (here.folder / "photos" / "daisy" / "cut short.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    space(here.folder)
    return here


@pytest.fixture(scope="module")
def searched(place):
    """A search that trackers are told of as well."""
    done = place.run(
        *("search", "--target", "photos", "--space", "tiny.yaml", "--trials", "4", "--lanes", "1"),
        *("--holdout", "0.2", "--name", "flowers", "--json"),
        *("--log", "tensorboard", "--log", f"mlflow={(place.folder / 'mlruns').as_uri()}"),
        **FILE_STORE,
    )
    assert done.code == 0, done.err
    return done


def clover(folder: Path, count: int, *, first: int = 0) -> None:
    """So many green pictures, of a class that no search has seen."""
    folder.mkdir()
    for number in range(first, first + count):
        noise = np.random.default_rng([number, 4]).normal(0, 30, (16, 16, 3))
        Image.fromarray((np.array([40, 200, 60]) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def settings_of(place, run: str) -> dict[str, Any]:
    return json.loads((place.folder / "raytl-runs" / run / "run.json").read_text())["settings"]


def processes_of(place) -> dict[int, str]:
    """Everything that was started in a place and still runs: told by RAYTL_HOME in its environment."""
    mark = f"RAYTL_HOME={place.environment['RAYTL_HOME']}\0".encode()
    found = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, OSError):
            if mark in (process / "environ").read_bytes() + b"\0":
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def nothing_is_left_running(place, seconds: float = 120) -> None:
    """Soon: agents of Ray whose raylet was interrupted before them notice it within a minute."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(place)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == {}


class TestSearch:
    def test_the_document_has_what_is_documented(self, searched):
        assert undocumented("search", searched.document) == set()
        document = searched.document
        assert (document["run"], document["status"], document["interrupted"]) == ("flowers", "finished", False)
        assert document["trials"]["count"] >= 4
        assert document["best"]["validation_metric"]["low"] <= document["best"]["validation_metric"]["high"]
        assert set(document["baselines"]) == {"scratch", "pixels"}

    def test_colours_are_told_apart(self, searched):
        assert searched.document["best"]["test_metric"]["value"] >= 5 / 6

    def test_a_damaged_image_is_named_and_left_out(self, searched, place):
        assert "warning: photos/daisy/cut short.png: " in searched.err
        problems = json.loads((place.folder / "raytl-runs/flowers/run.json").read_text())["settings"]["data"][
            "problems"
        ]
        assert any(problem["where"] == "photos/daisy/cut short.png" for problem in problems)

    def test_nothing_of_ray_is_on_the_terminal(self, searched):
        lines = searched.err.splitlines()
        assert not [line for line in lines if "Traceback" in line or "(pid=" in line or "WARNING" in line], searched.err
        assert len(lines) < 60

    def test_trackers_are_told_of_it_and_neither_fails(self, searched, place, monkeypatch):
        assert "nothing more is written there" not in searched.err, searched.err
        run, trials = Path(searched.document["path"]), searched.document["trials"]["count"]
        assert len(list((run / "tensorboard").glob("trial-*/events*"))) == trials
        monkeypatch.setenv(*next(iter(FILE_STORE.items())))
        client = MlflowClient((place.folder / "mlruns").as_uri())
        found = client.search_runs([client.get_experiment_by_name("raytl").experiment_id])
        (parent,) = (one for one in found if one.info.run_name == "flowers")
        assert len(found) == trials + 1 and parent.data.tags["raytl.run"] == str(run)
        assert parent.data.metrics["best_score"] == pytest.approx(searched.document["best"]["score"])

    def test_nothing_is_left_running(self, searched, place):
        nothing_is_left_running(place)

    def test_a_name_that_is_taken(self, searched, raytl):
        done = raytl("search", "--target", "photos", "--space", "tiny.yaml", "--name", "flowers")
        assert done.code == 2 and "raytl: run 'flowers' exists already" in done.err

    def test_without_target_labels_and_with_weights_that_cannot_be_had(self, place):
        """The default kind of space: models without weights are named before the search, and it goes on."""
        folder(place.folder / "catalogue", brightness=0.8)
        text = (place.folder / "tiny.yaml").read_text()
        models = "[torchvision:resnet18, 'pretrain:*/scratch:cnn-small']"
        mine = text.replace("[scratch:cnn-small]", models) + "  adaptation: [none, mcc]\n"
        (place.folder / "mine.yaml").write_text(mine + "pretrain: {steps: 30}\n")
        done = place.run(
            *("search", "--source-domain", "catalogue", "--unlabelled", "camera", "--space", "mine.yaml"),
            *("--trials", "3", "--lanes", "1", "--name", "unsupervised"),
        )
        assert done.code == 0, done.err
        left_out = [
            line for line in done.err.splitlines() if line.startswith("warning: torchvision:resnet18: left out")
        ]
        assert len(left_out) == 1
        settings = json.loads((place.folder / "raytl-runs/unsupervised/run.json").read_text())["settings"]
        assert settings["setting"] == "unsupervised adaptation"
        told = json.loads((place.folder / "raytl-runs/unsupervised/model/model.json").read_text())["provenance"]
        assert told["trained_on"] == "labels of the source domain catalogue; none of the target"
        assert [p["where"] for p in settings["data"]["problems"]] == ["torchvision:resnet18"]
        rows = [line for line in done.out.splitlines() if line.lstrip()[:1].isdigit()]
        assert rows and max(map(len, done.out.split("\n\n")[0].splitlines())) <= 80


class TestOneImagePerClass:
    """Nothing can be held out, and no image without a label tells more: the model is chosen by its kind."""

    def test_a_model_is_made_and_nothing_is_claimed_of_it(self, place):
        folder(place.folder / "shots", 1)
        done = place.run(
            *("search", "--target", "shots", "--space", "tiny.yaml", "--lanes", "1", "--name", "shots", "--json"),
            *("--trials", "2"),
        )
        assert done.code == 0, done.err
        document = done.document
        assert (document["trials"]["scored"], document["trials"]["trained"]) == (False, 0)
        assert "shots/: class 'daisy' has 1 image, so none can be held out" in done.err
        assert "nothing is trained, whatever --trials says" in done.err
        assert "nothing to score by" in document["why"] and document["best"]["validation_metric"] is None
        page = (place.folder / "raytl-runs" / "shots" / "report.html").read_text()
        assert "No network was trained to do better, for nothing would have told whether it does" in page
        assert (place.folder / "raytl-runs" / "shots" / "model" / "model.json").exists()


class TestAfterwards:
    def test_runs_and_report(self, searched, place, raytl):
        listed = raytl("runs", "list", "--json")
        assert undocumented("runs list", listed.document) == set()
        assert "flowers" in [run["name"] for run in listed.document["runs"]]
        shown = raytl("runs", "show", "flowers", "--json")
        assert shown.document | {"deployment": None} == searched.document
        page = Path(raytl("report", "flowers", "--json").document["report"])
        assert page == place.folder / "raytl-runs/flowers/report.html"
        assert "Leaderboard" in page.read_text() and "The best model has accuracy" in page.read_text()
        human = raytl("runs", "show", "flowers")
        assert human.code == 0 and "next: raytl deploy" in human.out

    def test_a_trial_can_be_had_again_bit_for_bit(self, searched, place, raytl):
        """Trained in a lane then, and in the process of the command now."""
        trials = pd.read_parquet(place.folder / "raytl-runs/flowers/trials.parquet")
        pruned = trials.loc[trials["status"] == "pruned", "number"]
        for number in (0, searched.document["best"]["trial"], *pruned.head(1)):
            done = raytl("runs", "replay", "flowers", "--trial", str(number), "--json")
            assert undocumented("runs replay", done.document) == set()
            assert done.code == 0 and done.document["same"], done.document
            assert (done.document["changed"], done.document["trial"]) == ({}, number)

    def test_export_and_predict(self, searched, place, raytl):
        (place.folder / "flowers" / "images").mkdir(parents=True)  # a folder of the run's name is not in its way
        exported = raytl("export", "flowers", "model", "--json")
        assert undocumented("export", exported.document) == set()
        assert Path(exported.document["path"]) == place.folder / "model"
        shipped = raytl("export", "flowers", "shipped", "--int8", "--json")
        assert undocumented("export", shipped.document) == set()
        onnx = shipped.document["onnx"]
        assert shipped.code == (0 if onnx["int8"]["kept"] else 3)
        measured = onnx["measured"]
        assert measured["on"] == "test" and set(measured["accuracy"]) >= {"bundle", "model.onnx"}
        card = json.loads((place.folder / "shipped" / "model.json").read_text())["metrics"]["onnx"]
        assert (card["measured"], card["difference"]) == (measured, onnx["difference"])
        told = raytl("predict", "model", "camera", "tiny.yaml", "--json")
        assert undocumented("predict", told.document) == set()
        predictions = told.document["predictions"]
        right = [Path(p["file"]).name.startswith(p["label"]) for p in predictions if p["error"] is None]
        assert len(right) == 12 and sum(right) >= 10
        assert [p["file"] for p in predictions if p["error"]] == ["tiny.yaml"]
        for name, read in (("p.csv", pd.read_csv), ("p.parquet", pd.read_parquet)):
            assert raytl("predict", "flowers", "camera", "--out", name).code == 0
            assert list(read(place.folder / name)["label"]) == [p["label"] for p in predictions[:12]]

    def test_extend_by_a_class_and_swap_it_in(self, searched, place, raytl):
        clover(place.folder / "clovers", 6)
        extended = raytl("extend", "flowers", "--class", "clover", "clovers", "--json")
        assert extended.code == 0, extended.err
        assert undocumented("extend", extended.document) == set()
        assert Path(extended.document["path"]) == place.folder / "flowers-extended"
        assert extended.document["old"]["images"] >= 18 and not extended.document["old"]["worse"]
        clover(place.folder / "more", 10, first=50)
        named = raytl("predict", "flowers-extended", "more", "camera", "--json").document["predictions"]
        assert sum(p["label"] == "clover" for p in named[:10]) >= 8
        assert sum(p["label"] == "clover" for p in named[10:]) <= 2
        private = raytl("export", "flowers", "private", "--no-images", "--json")
        assert private.code == 0 and not (place.folder / "private" / "features.safetensors").exists()
        none = raytl("extend", "private", "--class", "clover", "clovers")
        assert none.code == 2 and "holds no features of its training images" in none.err

    def test_deploy_ask_undeploy(self, searched, place):
        port, told = free_port(), "For 95.0 % of the unlabelled images its answer is 'daisy'."
        run = Run(place.folder / "raytl-runs" / "flowers")
        known = read_manifest(run.bundle_path).metrics
        assert known["cautions"] == [one.text for one in cautions(run.summary())]
        write_metrics(run.bundle_path, {**known, "cautions": [told]})
        try:
            deployed = place.run("deploy", "flowers", "--port", str(port), "--max-replicas", "1", "--json")
            assert deployed.code == 0, deployed.err
            assert undocumented("deploy", deployed.document) == set() and told in deployed.err
            url = deployed.document["url"]
            for name in COLOURS:
                body = place.folder / f"one-{name}.png"
                picture(name, 99).save(body)
                asked = httpx.post(f"{url}/v1/predict", content=body.read_bytes(), trust_env=False, timeout=60)
                answer = asked.json()
                assert answer["predictions"][0]["label"] == name
            asked = ("deploy", "flowers-extended", "--port", str(port), "--max-replicas", "1")
            assert "deploy with --new-labels" in place.run(*asked).err
            assert place.run(*asked, "--new-labels").code == 0
            body = (place.folder / "more" / "50.png").read_bytes()
            answer = httpx.post(f"{url}/v1/predict", content=body, trust_env=False, timeout=60).json()
            assert answer["predictions"][0]["label"] == "clover"
        finally:
            down = place.run("undeploy", "--json")
        assert undocumented("undeploy", down.document) == set()
        assert down.code == 0
        nothing_is_left_running(place, 45)  # an HAProxy that was forgotten would end by itself in a minute

    def test_a_port_that_is_taken(self, searched, place):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            done = place.run("deploy", "flowers", "--port", str(port), "--json")
        assert done.code == 2
        assert f"{port}" in done.document["error"] and "--port" in done.document["error"]
        assert done.err.count("\n") == 1
        nothing_is_left_running(place)


class TestInterrupt:
    @pytest.mark.parametrize("after", ["searching", "trial 2"])
    def test_ctrl_c_ends_the_search_and_leaves_a_run_to_read(self, place, raytl, after):
        """Ctrl-C reaches every process of the terminal's group, Ray's too."""
        name = f"stopped-{after.replace(' ', '-')}"
        command = ["search", "--target", "photos", "--space", "tiny.yaml", "--set", "epochs=30", "--trials", "200"]
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("raytl")), *command, "--lanes", "1", "--name", name, "--json"],
            cwd=place.folder,
            env=place.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        said = []
        for line in process.stderr:
            said.append(line)
            if after in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        out, rest = process.communicate(timeout=400)
        assert process.returncode == 130, "".join(said) + rest
        document = json.loads(out)
        assert (document["run"], document["status"], document["interrupted"]) == (name, "interrupted", True)
        assert undocumented("search", document) == set()
        assert "Traceback" not in rest
        assert "interrupted: what it learned is in" in rest
        shown = raytl("runs", "show", name)
        assert shown.code == 0 and "interrupted" in shown.out
        nothing_is_left_running(place)
