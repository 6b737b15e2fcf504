"""Submit, be killed, come back, fetch, predict: one real head with a token on loopback for all of it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from documented import undocumented
from photos import folder, picture, space
from safetensors.torch import save_file

import raytl
import raytl.api
from raytl import sources
from raytl.core.errors import UserError
from raytl.serving.ports import free_port

pytestmark = pytest.mark.slow  # a Ray head, and searches as jobs of it
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head as ``ray start`` makes one, with a token in its home folder, and a user's folder beside it."""
    home, desk = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("desk")
    (home / ".ray").mkdir()
    os.close(os.open(home / ".ray" / "auth_token", os.O_WRONLY | os.O_CREAT, 0o600))
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    folder(desk / "photos")
    space(desk)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYTL_"))}
    own = {"HOME": str(home), "RAYTL_HOME": str(home / "cache"), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    environment = {**kept, **own, "http_proxy": "http://127.0.0.1:9", "COLUMNS": "100"}
    port, temporary = free_port(), tempfile.mkdtemp(prefix="raytl-", dir="/tmp")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0", "--num-cpus=1"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--ray-client-server-port={free_port()}", "--dashboard-agent-listen-port=0", "--no-monitor"]
    command += ["--disable-usage-stats", "--object-store-memory=134217728", f"--temp-dir={temporary}"]
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # or Ray listens on every interface
    with (Path(temporary) / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**environment, **loopback}, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 200
    while True:
        try:
            if httpx.get(f"{url}/api/authentication_mode", trust_env=False).json() == {"authentication_mode": "token"}:
                break
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < deadline, "the head did not come up"
        time.sleep(0.2)
    yield SimpleNamespace(url=url, desk=desk, home=home, environment=environment)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)


def start(head, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raytl", *words], cwd=head.desk, env=head.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(head, *words: str, code: int = 0, timeout_s: float = 400) -> str:
    process = start(head, *words)
    out, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == code, out
    return out


@pytest.fixture(scope="module")
def by_hand(head):
    """A search that Ray's own program submits, and that goes on beside the others."""
    command = [PROGRAMS / "ray", "job", "submit", "--address", head.url, "--working-dir", ".", "--no-wait", "--"]
    command += ["raytl", "search", "--target", "photos", "--space", "tiny.yaml", "--trials", "1", "--lanes", "1"]
    command += ["--name", "by-hand", "--storage", str(head.home / "elsewhere")]
    token = {"RAY_AUTH_MODE": "token", "no_proxy": "127.0.0.1"}
    subprocess.run(
        command, cwd=head.desk, env={**head.environment, **token}, check=True, capture_output=True, timeout=400
    )


@pytest.fixture(scope="module")
def killed(head, by_hand):
    """A client that is killed as soon as its search goes on."""
    asked = ["--target", "photos", "--space", "tiny.yaml", "--trials", "2", "--lanes", "1", "--name", "flowers"]
    client = start(head, "submit", *asked, "--deploy-when", "accuracy>=0.99", "--address", head.url)
    said = []
    for line in client.stdout:
        said.append(line)
        if "probing" in line:
            break
    client.kill()
    client.communicate()
    assert "submitted: flowers (job raytl-flowers)\n" in said, said
    return head


@pytest.fixture(scope="module")
def followed(killed):
    return run(killed, "jobs", "follow", "flowers", "--address", killed.url, code=4)


def test_a_search_outlives_its_client_and_is_followed_from_its_first_line_on(followed):
    assert "probing every source model" in followed and "writing report and bundle" in followed
    assert "Running entrypoint" not in followed
    assert f"{'flowers'}: " in followed and "chosen: " in followed


def test_the_model_is_not_deployed_on_the_strength_of_so_few_images(followed):
    assert "not deployed: accuracy " in followed
    assert "does not reach the 99.0 %" in followed or "too wide an interval to tell" in followed


def test_the_list_has_it(head, followed):
    out = run(head, "jobs", "list", "--address", head.url, "--json")
    document = json.loads(out.splitlines()[-1])
    assert undocumented("jobs list", document) == set()
    assert [(job["run"], job["exit_code"]) for job in document["jobs"]] == [("flowers", 4)]


def test_what_it_said_is_printed_once_more(head, followed):
    out = run(head, "jobs", "logs", "flowers", "--address", head.url)
    assert "chosen: " in out and "Running entrypoint" not in out
    said = [line.rstrip() for line in out.splitlines()]
    assert [*said, f"bring it home: raytl fetch flowers --address {head.url}"] == followed.splitlines()


def test_the_run_is_fetched_and_its_model_answers(head, followed):
    out = run(head, "fetch", "flowers", "--address", head.url)
    assert "report: raytl-runs/flowers/report.html" in out
    got, there = (place / "raytl-runs" / "flowers" for place in (head.desk, head.home))
    names = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()} - {"run.lock"}
    assert {"report.html", "model/model.safetensors", "trials.parquet"} <= names
    assert all((got / name).read_bytes() == (there / name).read_bytes() for name in names)

    picture("poppy", 99).save(head.desk / "new.png")
    said = json.loads(run(head, "predict", "flowers", "new.png", "--json").splitlines()[-1])
    assert said["predictions"][0]["label"] == "poppy"


def own_model(folder: Path) -> str:
    """URI of weights of one's own in a folder below the user's."""
    folder.mkdir()
    save_file(sources.load("scratch:cnn-small", channels=3).state_dict(), folder / "own.safetensors")
    return f"file:{folder.name}/own.safetensors?arch=scratch:cnn-small"


@pytest.fixture
def at_the_desk(head, monkeypatch):
    """This process, with the head's token and the user's folder."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.home / ".ray" / "auth_token"))
    monkeypatch.chdir(head.desk)


def test_a_run_fetched_again_takes_its_own_place_and_no_others(head, followed, at_the_desk):
    handle = raytl.find_job("flowers", address=head.url)
    assert [handle.fetch("mine").name for _ in range(2)] == ["flowers", "flowers"]
    document = head.desk / "mine" / "flowers" / "run.json"
    began = str(raytl.open_run("flowers", "mine").started.year)
    document.write_text(document.read_text().replace(f'"started": "{began}', '"started": "1999'))
    with pytest.raises(UserError, match="is there already and another one; give another --storage"):
        handle.fetch("mine")
    assert [path.name for path in (head.desk / "mine").iterdir()] == ["flowers"]


class Tunnel:
    """A way to the head that breaks, as those through SSH do."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            ends = self._server.accept()[0], socket.create_connection(("127.0.0.1", self._port))
            self._ends += ends
            for one, other in (ends, ends[::-1]):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def test_from_python_through_a_way_that_breaks_and_stopped_it_keeps_what_it_learned(head, followed, at_the_desk):
    tunnel = Tunnel(head.url)
    own = f"source_model={own_model(head.desk / 'own')}"
    handle = raytl.submit(
        raytl.Task(target="photos"), "tiny.yaml", trials=400, lanes=1, name="endless", address=tunnel.url,
        assignments=[own],
    )  # fmt: skip
    lines, cut = [], False
    for line in handle.follow():
        lines.append(line)
        if not cut and "trial 0" in line:
            tunnel.cut()
            cut = True
        elif cut and "trial 3" in line:
            break
    assert len(lines) == len(set(lines)) and handle.logs().splitlines()[: len(lines)] == lines
    assert handle.status() == "running"
    said = json.loads(run(head, "jobs", "logs", "endless", "--address", head.url, "--json").splitlines()[-1])
    assert undocumented("jobs logs", said) == set()
    assert said["logs"].splitlines()[: len(lines)] == lines and said["status"] == "running"
    stopped = run(head, "jobs", "stop", "endless", "--address", head.url, "--json")
    document = json.loads(stopped.splitlines()[-1])
    assert undocumented("jobs stop", document) == set()
    assert "endless is stopped" in stopped and document["stopped"] and document["status"] == "stopped"
    assert handle.status() == "stopped" and not handle.stop()
    assert "endless had ended before (stopped)" in run(head, "jobs", "stop", "endless", "--address", head.url)
    fetched = handle.fetch("stopped")
    assert fetched.status == "interrupted" and len(fetched.trials()) >= 4


def test_a_search_is_gone_on_with_over_a_model_that_came_along(head, followed, at_the_desk):
    """The job that goes on brings nothing: its driver and its lanes find the model where the first job left it."""
    done = len(raytl.open_run("endless", "stopped").trials())
    shutil.rmtree(head.desk / "own")
    run(head, "submit", "--resume", "endless", "--trials", str(done + 2), "--address", head.url)
    fetched = raytl.find_job("endless", address=head.url).fetch("stopped")
    after = fetched.records()[done:]
    assert fetched.status == "finished" and {record.status for record in after} <= {"completed", "pruned"}
    assert any("own.safetensors" in record.strategy["source_model"] and record.lane != "driver" for record in after)


def test_what_ray_submits_runs_as_well_and_can_be_fetched(head, by_hand, followed, at_the_desk):
    elsewhere = head.home / "elsewhere"
    deadline = time.monotonic() + 400
    while not (elsewhere / "by-hand" / "report.html").exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    found = raytl.api.find_run("by-hand", address=head.url, storage=str(elsewhere))
    assert found.fetch().report_path.exists()


def test_without_the_right_token_nothing_goes(head, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(UserError, match="does not take this machine's token"):
        raytl.find_job("flowers", address=head.url)
