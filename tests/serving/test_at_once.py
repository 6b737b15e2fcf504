"""Two people change what a Serve instance serves at once: the failure of one takes nothing of the other back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from own_ray import own_ray
from trials import variant

from raytl.core.errors import UserError
from raytl.serving import (
    Endpoint,
    applying,
    changing,
    deploy,
    look,
    rollback,
    rotate_token,
    tokens,
    try_out,
    undeploy,
    update,
)
from raytl.serving.applying import replace, settings_of, stop_if_last
from raytl.serving.controller import Serve
from raytl.serving.ports import free_port
from raytl.serving.ray_session import RaySession
from raytl.serving.room import Need, Patience, Waiting
from raytl.serving.settings import Candidate, bundle_version
from raytl.serving.snapshots import snapshot
from raytl.serving.trial_judge import conclude, figures_of, stands, start_judge

pytestmark = pytest.mark.slow  # a Ray session and Serve take half a minute on two busy cores
SMALL: dict[str, Any] = {"num_cpus": 0.5, "max_replicas": 1}
TOO_LARGE: dict[str, Any] = {"num_cpus": 64, "max_replicas": 1}
PATIENCE_S = 240.0


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    with own_ray(3):
        SMALL["port"] = TOO_LARGE["port"] = free_port()  # not while tests are collected, long before it is listened on
        yield


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def endpoint(bundles: dict[str, Path]) -> Endpoint:
    """With the first bundle, whatever the test before left."""
    return deploy(bundles["first"], **SMALL)


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Once it is set, what is too large is soon waited for no longer; until then it is, whatever others take."""
    over, really = threading.Event(), applying._wait_until_served

    def wait(serve: Serve, config: dict[str, Any], waiting: Waiting) -> None:
        if config["deployments"][0]["ray_actor_options"]["num_cpus"] == TOO_LARGE["num_cpus"]:
            assert over.wait(PATIENCE_S)
            waiting = Waiting(Patience(PATIENCE_S, room_s=2), config, None)
        really(serve, config, waiting)

    monkeypatch.setattr(applying, "_wait_until_served", wait)
    return over


@pytest.fixture
def token_given_up(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The same of a token that is not taken."""
    over, really = threading.Event(), changing._takes_token

    def takes(serve: Serve, config: dict[str, Any], deadline: float) -> bool:
        assert over.wait(PATIENCE_S)
        return really(serve, config, time.monotonic() + 2)

    monkeypatch.setattr(changing, "_takes_token", takes)
    monkeypatch.setattr(changing, "_ANSWER_S", 1.0)  # of a replica that is stopped there is none
    return over


def told(name: str) -> dict[str, Any]:
    """What the replicas of an application are told; nothing where there is none."""
    serve = Serve.running()
    config = {} if serve is None else serve.configs().get(name) or {}
    return config["deployments"][0]["user_config"] if config else {}


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S / 2
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(work: Future[Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        work.result(timeout=PATIENCE_S)


@contextmanager
def one_stopped(name: str) -> Iterator[None]:
    """A replica of an application takes no notice of anything."""
    (deployment,) = Serve.running().applications()[name]["deployments"].values()
    process = deployment["replicas"][0]["pid"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def model_at(endpoint: Endpoint) -> str:
    answer = httpx.get(f"{endpoint.url}/healthz", trust_env=False, timeout=60)
    return answer.raise_for_status().json()["model"]


def test_what_several_change_in_the_same_moment_is_all_there(bundles, endpoint):
    """Serve takes all applications at once: each command tells it of the others' as it has read them."""
    (config,) = Serve.running().configs().values()
    named = {name: {**config, "name": name, "route_prefix": f"/{name}"} for name in ("a", "b", "c")}

    def add(name):
        def edit(present):
            time.sleep(0.5)  # as long as the network takes to a cluster
            return {**present, name: named[name]}

        Serve.running().change(edit)

    def fail(_):
        with pytest.raises(UserError, match="changed in the meantime"):
            replace(Serve.running(), config, None)  # made for a name that was free when it was read

    with ThreadPoolExecutor(4) as pool:
        done = [*pool.map(add, named), *pool.map(fail, range(2))]
    assert len(done) == 5 and set(Serve.running().configs()) == {"raytl", *named}
    for name in named:
        Serve.running().remove(name)
    assert Serve.running().configs() == {"raytl": config} and model_at(endpoint) == "first"


def test_the_first_on_the_endpoint_fails_and_the_second_stays(bundles, other, given_up):
    failing = other.submit(deploy, bundles["second"], name="letters", **TOO_LARGE)
    wait_for(lambda: told("letters"))
    endpoint = deploy(bundles["first"], **SMALL)
    given_up.set()
    refused(failing, "CPUs")
    assert model_at(endpoint) == "first"
    assert set(Serve.running().configs()) == {"raytl"}


def test_one_fails_and_another_was_updated_and_its_trial_taken_back(bundles, other, endpoint, given_up, tmp_path):
    try_out(variant(bundles["first"], tmp_path / "again"), canary=0.5)
    failing = other.submit(deploy, bundles["second"], name="cells", **TOO_LARGE)
    wait_for(lambda: told("cells"))
    rollback()
    assert look()["candidate"] is None
    update(bundles["second"])
    given_up.set()
    refused(failing, "CPUs")
    assert (look()["live"]["model"], look()["candidate"], model_at(endpoint)) == ("second", None, "second")
    assert set(Serve.running().configs()) == {"raytl"}


def test_one_fails_and_what_replaced_it_meanwhile_stays(bundles, other, endpoint):
    failing = other.submit(deploy, bundles["second"], wait_s=PATIENCE_S, **TOO_LARGE)
    wait_for(lambda: told("raytl")["model"] == "second")
    again = deploy(bundles["first"], **SMALL)
    refused(failing, "given another version by somebody else, first")
    assert again.version == told("raytl")["version"] and model_at(endpoint) == "first"


def test_one_that_is_taken_down_before_it_is_ready_says_so_at_once(bundles, other, endpoint):
    failing = other.submit(deploy, bundles["second"], name="letters", wait_s=2 * PATIENCE_S, **TOO_LARGE)
    wait_for(lambda: told("letters"))
    undeploy("letters")
    refused(failing, "'letters' was taken down by another command")
    assert set(Serve.running().configs()) == {"raytl"} and model_at(endpoint) == "first"


def test_the_copy_of_a_bundle_that_another_command_is_about_to_serve_is_kept(bundles, endpoint, tmp_path):
    bundle = variant(bundles["first"], tmp_path / "again")
    copy = snapshot(bundle, bundle_version(bundle), Need())
    update(bundles["second"])
    assert (copy / "model.json").is_file()
    os.utime(copy, (0, 0))  # of a command that has long ended
    update(bundles["first"])
    assert not copy.exists() and model_at(endpoint) == "first"


def test_ctrl_c_while_a_trial_is_begun_leaves_neither_it_nor_its_judge(bundles, endpoint, monkeypatch):
    before = Serve.running().configs()
    begun = []

    def interrupted(serve: Serve, config: dict[str, Any], waiting: Waiting) -> None:
        begun.append(settings_of(config)["candidate"]["trial"])
        assert stands("raytl", begun[0]) and figures_of(begun[0]) is not None
        raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_wait_until_served", interrupted)
    with pytest.raises(KeyboardInterrupt):
        try_out(bundles["second"], canary=0.5)
    assert Serve.running().configs() == before and not stands("raytl", begun[0])
    wait_for(lambda: figures_of(begun[0]) is None)


def test_the_judge_of_a_trial_that_nobody_has_ends_by_itself(endpoint):
    """As when the command is killed after it has started the judge."""
    start_judge("raytl", Candidate(bundle="b", version="v", trial="nobodys"), unwanted_s=1)
    wait_for(lambda: figures_of("nobodys") is None)


def test_a_failure_alone_leaves_all_as_it_was(bundles, endpoint):
    before = Serve.running().configs()
    with pytest.raises(UserError, match="CPUs"):
        deploy(bundles["second"], wait_s=3, **TOO_LARGE)
    assert Serve.running().configs() == before and model_at(endpoint) == "first"


@pytest.mark.parametrize("promoted", [True, False])
def test_a_trial_that_is_decided_before_all_replicas_have_it_stays_decided(bundles, other, tmp_path, promoted):
    deploy(bundles["first"], port=SMALL["port"], num_cpus=0.5, min_replicas=2)
    served, again = told("raytl")["version"], variant(bundles["first"], tmp_path / "again")
    with one_stopped("raytl"):
        trying = other.submit(try_out, again, canary=0.5, wait_s=PATIENCE_S)
        wait_for(lambda: told("raytl").get("candidate"))
        trial = told("raytl")["candidate"]["trial"]
        conclude(Serve.running(), "raytl", trial, {"why": "three of three"}, promoted=promoted)
        tried = trying.result(timeout=PATIENCE_S)
    known = look()
    assert known["live"]["version"] == tried.version == (bundle_version(again) if promoted else served)
    assert (tried.candidate, known["candidate"]) == ("", None)
    assert (known["last_trial"]["promoted"], known["last_trial"]["why"]) == (promoted, "three of three")


def test_a_token_is_not_taken_and_another_model_was_updated(bundles, other, token_given_up, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    file = Path(deploy(bundles["first"], token=True, **SMALL).token_file)
    cells = deploy(bundles["first"], name="cells", **SMALL)
    before, old = told("raytl"), file.read_text()
    with one_stopped("raytl"):
        failing = other.submit(rotate_token)
        wait_for(lambda: told("raytl") != before)
        update(bundles["second"], name="cells")
        token_given_up.set()
        refused(failing, "the old one is good still")
    assert told("raytl") == before and file.read_text() == old
    assert model_at(cells) == "second" == told("cells")["model"]


def test_a_new_token_is_refused_because_another_command_was_faster(bundles, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    undeploy()  # whose token lies elsewhere
    endpoint = deploy(bundles["first"], token=True, **SMALL)
    file = Path(endpoint.token_file)
    old, write = file.read_text(), tokens.write_token

    def write_late(name, token=None):
        if token is None:
            update(bundles["second"])
        return write(name, token)

    monkeypatch.setattr(tokens, "write_token", write_late)
    with pytest.raises(UserError, match="changed in the meantime"):
        rotate_token()
    assert file.read_text() == old
    headers = {"Authorization": f"Bearer {old.strip()}"}
    assert httpx.get(f"{endpoint.url}/v1/model", headers=headers, trust_env=False, timeout=60).status_code == 200
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "colleague"))
    before = told("raytl")
    with pytest.raises(UserError, match=r"asks for a token, and .* does not hold it: put it there, or give"):
        deploy(bundles["second"], **SMALL)  # would wait for answers that it is not given
    assert told("raytl") == before and undeploy()


def test_what_another_command_serves_is_not_taken_down_with_the_last_of_ours(bundles, endpoint):
    deploy(bundles["first"], name="cells", **SMALL)
    known = Serve.running()
    assert not stop_if_last(known, RaySession(detached=False, head=None), "raytl")
    assert undeploy("raytl") and set(known.configs()) == {"cells"}
    assert stop_if_last(known, RaySession(detached=False, head=None), "cells") and Serve.running() is None
    with pytest.raises(UserError, match="another command has just taken down all that is served"):
        known.change(lambda present: present)
