"""What the control room starts is really done: on runs of real searches, over HTTP as the page asks for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from documented import undocumented
from fastapi.testclient import TestClient
from photos import SPACE, folder, picture

from raytl.api.by_hand import ask
from raytl.core.errors import UserError
from raytl.runs import RunStore
from raytl.serving.ports import free_port
from raytl.ui import make_app

pytestmark = pytest.mark.slow  # searches that start Ray, and an endpoint
PATIENCE_S = 400.0


def raytl(place: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "raytl", *words, "--json"]
    return subprocess.Popen(command, cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def search(place: Path, name: str, trials: int) -> subprocess.Popen[str]:
    wanted = ["--target", "photos", "--space", "tiny.yaml", "--lanes", "1", "--trials", str(trials), "--name", name]
    return raytl(place, "search", *wanted, "--holdout", "0.25")


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, a run of them that came to its end, and this process in it."""
    here = tmp_path_factory.mktemp("ui")
    folder(here / "photos", 10)
    (here / "tiny.yaml").write_text(SPACE.replace("[0.03, 0.1]", "{low: 0.001, high: 0.5, log: true}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(here / "home"))
        patch.delenv("RAYTL_STORAGE", raising=False)
        patch.chdir(here)
        process = search(here, "flowers", 2)
        said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        yield here


@pytest.fixture(scope="module")
def page(place: Path) -> TestClient:
    return TestClient(make_app(str(place / "raytl-runs")), "http://localhost", headers={"X-Raytl": "test"})


def done(page: TestClient, run: str) -> dict[str, Any]:
    """What became of the command that was just started."""
    command = wait_for(lambda: (found := page.get(f"/api/runs/{run}").json()["command"])["code"] is not None and found)
    assert command["code"] == 0, command
    return command


def numbers(place: Path, kind: str = "search") -> list[int]:
    records = RunStore(place / "raytl-runs").open("flowers").records()
    return [record.number for record in records if record.kind == kind]


def test_go_on_by_trials_and_by_minutes(page: TestClient, place: Path) -> None:
    before = numbers(place)
    assert page.get("/api/runs/flowers").json()["can_go_on"]
    assert page.post("/api/runs/flowers/go-on", json={"trials": 2}).json() == {"started": True}
    refused = page.post("/api/runs/flowers/go-on", json={"trials": 2})
    assert refused.status_code == 409 and "'raytl search' is still busy with it" in refused.json()["error"]
    assert done(page, "flowers")["command"] == "search"
    after = numbers(place)
    assert after[: len(before)] == before and len(after) == len(before) + 2
    page.post("/api/runs/flowers/go-on", json={"minutes": 0.05})
    done(page, "flowers")
    document = json.loads((place / "raytl-runs" / "flowers" / "run.json").read_text())
    assert len(document["resumed"]) == 2 and document["status"] == "finished"
    assert document["settings"]["search"]["time_budget_s"] > 3  # beyond what it had taken
    assert numbers(place)[: len(after)] == after


def test_a_strategy_by_hand_is_one_more_of_a_run_that_ended(page: TestClient, place: Path) -> None:
    before = numbers(place)
    dials = page.get("/api/runs/flowers").json()["dials"]
    assert dials["augmentation"] == {"options": ["none", "shift"]} and dials["head_lr"]["low"] == 0.001
    page.post("/api/runs/flowers/try", json={"settings": ["head_lr=0.0123", "augmentation=shift"]})
    assert done(page, "flowers")["command"] == "runs try"
    run = RunStore(place / "raytl-runs").open("flowers")
    (new,) = [r for r in run.records() if r.kind == "search" and r.number not in before]
    assert (new.strategy["head_lr"], new.strategy["augmentation"], run.status) == (0.0123, "shift", "finished")
    page.post("/api/runs/flowers/try", json={"settings": ["head_lr=0.0123", "augmentation=shift"]})
    command = wait_for(lambda: (c := page.get("/api/runs/flowers").json()["command"])["code"] is not None and c)
    assert command["code"] == 2 and f"trial {new.number} is this very strategy" in command["said"]


def test_what_the_space_of_the_run_does_not_have_is_said(place: Path) -> None:
    with pytest.raises(UserError, match=r"--set head_lr=9.0: 'head_lr' is 9.0; give a number from 0.001 to 0.5"):
        ask("flowers", ["head_lr=9.0"])


def test_a_strategy_by_hand_is_tried_next_by_a_search_that_goes_on(page: TestClient, place: Path) -> None:
    process = search(place, "live", 3000)
    runs = RunStore(place / "raytl-runs")

    def searched() -> list[Any]:
        found = page.get("/api/runs/live")
        return [r for r in runs.open("live").records() if r.kind == "search"] if found.status_code == 200 else []

    try:
        wait_for(lambda: len(searched()) > 2 or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        asked = raytl(place, "runs", "try", "live", "--set", "head_lr=0.0234", "--set", "augmentation=none")
        out, err = asked.communicate(timeout=PATIENCE_S)
        assert asked.returncode == 0, err
        document = json.loads(out)
        assert document["asked"] and undocumented("runs try", document) == set()
        wait_for(lambda: [r for r in searched() if r.strategy["head_lr"] == 0.0234 and r.score is not None])
        assert any(p.phase == "by-hand" and "tried next" in p.detail for p in runs.open("live").phases())
        page.post("/api/runs/live/stop")
        assert process.wait(PATIENCE_S) == 130
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert runs.open("live").status == "interrupted"


def test_deploy_serves_the_model(page: TestClient, place: Path) -> None:
    port = free_port()
    page.post("/api/runs/flowers/deploy", json={"port": port})
    try:
        command = done(page, "flowers")
        assert command["url"].startswith(f"http://127.0.0.1:{port}")
        picture("poppy", 99).save(place / "new.png")
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.post(f"http://127.0.0.1:{port}/v1/predict", content=(place / "new.png").read_bytes())
        assert answer.json()["predictions"][0]["label"] in ("daisy", "poppy", "tulip")
    finally:
        gone = raytl(place, "undeploy")
        gone.communicate(timeout=PATIENCE_S)
    assert gone.returncode == 0
