"""What becomes of a configuration that does not come up, with the applications of a Serve that is only a mapping."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import ray
from listening import listening
from ray.exceptions import RaySystemError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from raytl.core.errors import UserError
from raytl.serving import applying, changing, endpoint, room, snapshots, tokens, undeploy
from raytl.serving.applying import AppConfig, put, refuse_other_labels, replace
from raytl.serving.controller import Serve
from raytl.serving.ray_session import RaySession
from raytl.serving.room import Need, Patience, Waiting
from raytl.serving.settings import ServingSettings, bundle_version
from raytl.serving.snapshots import snapshot

SESSION = RaySession(detached=False, head=None)


class Kept:
    """Serve's applications, as :class:`Serve` changes them."""

    def __init__(self, **configs: AppConfig) -> None:
        self.configs = configs

    def applications(self) -> dict[str, Any]:
        return {name: {"deployments": {}} for name in self.configs}

    def change(self, edit: Callable[[dict[str, AppConfig]], Mapping[str, AppConfig] | None]) -> None:
        after = edit(dict(self.configs))
        self.configs = self.configs if after is None else dict(after)


def application(name: str, version: str, num_cpus: float = 1, route: str = "/") -> AppConfig:
    told = {"bundle": "b", "version": version, "model": "m", "since": version}
    deployment = {"name": "Classifier", "ray_actor_options": {"num_cpus": num_cpus}, "user_config": told}
    return {"name": name, "route_prefix": route, "deployments": [deployment]}


@pytest.mark.parametrize("status", [200, 401])
def test_a_token_that_is_not_asked_for_yet_is_not_served(status):
    """Replicas without a node keep Serve from telling that the others have taken it."""

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"version": "v1"})

    async def model(request: Request) -> Response:
        return Response(status_code=status)

    app = Starlette(routes=[Route("/healthz", health), Route("/v1/model", model)])
    with listening(app) as (host, port), httpx.Client(trust_env=False) as client:
        url, wanted = f"http://{host}:{port}", ("v1", "")
        assert applying._serves(client, url, wanted, locked=False)
        assert applying._serves(client, url, wanted, locked=True) is (status == 401)


def test_one_look_in_vain_does_not_mean_that_it_was_taken_down_however_long_the_answer_before_took(monkeypatch):
    """Serve lists nothing while the store of the cluster's head is away."""
    now, wanted = 100.0, application("raytl", "v1")
    running = {"raytl": {"deployed_app_config": wanted, "status": "RUNNING", "message": "", "deployments": {}}}
    listed = [running, {}, running, running, {}, {}]

    def serves(*_: Any, **__: Any) -> bool:
        nonlocal now
        now += 10.0
        return len(listed) == 3

    def sleep(_: float) -> None:
        nonlocal now
        now += 6.0

    serve = SimpleNamespace(host="127.0.0.1", port=1, applications=lambda: listed.pop(0))
    monkeypatch.setattr(applying, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(applying, "_serves", serves)
    with pytest.raises(UserError, match="was taken down by another command before it was ready"):
        applying._wait_until_served(cast(Serve, serve), wanted, Waiting(Patience(1000.0), wanted, None))
    assert listed == []


def test_what_is_interrupted_while_it_is_waited_for_is_undone(monkeypatch):
    before = application("raytl", "v1")
    kept = Kept(raytl=before, other=application("other", "v1", route="/other"))
    all_before = dict(kept.configs)

    def interrupted(*_: Any) -> None:
        assert kept.configs["raytl"]["deployments"][0]["ray_actor_options"] == {"num_cpus": 64}
        raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_wait_until_served", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(cast(Serve, kept), SESSION, application("raytl", "v2", num_cpus=64), before, Patience(1))
    assert kept.configs == all_before


@pytest.mark.parametrize("why", [UserError("the model cannot be loaded."), KeyboardInterrupt(), ValueError("a bug")])
def test_why_it_failed_is_said_though_it_cannot_be_undone(why, monkeypatch):
    class Lost(Kept):
        def change(self, edit: Callable[[dict[str, AppConfig]], Mapping[str, AppConfig] | None]) -> None:
            if self.configs:
                raise RaySystemError("the cluster does not answer")
            super().change(edit)

    def failed(*_: Any) -> None:
        raise why

    monkeypatch.setattr(applying, "_wait_until_served", failed)
    with pytest.raises(type(why)) as said:
        put(cast(Serve, Lost()), SESSION, application("raytl", "v1"), None, Patience(1))
    told = "it could not be undone, either (System error: the cluster does not answer): look at 'raytl endpoint status'"
    if isinstance(why, UserError):
        assert str(said.value) == f"the model cannot be loaded; {told}"
    else:
        assert said.value is why and why.__notes__ == [told]


def test_the_same_that_another_command_has_just_deployed_stays(monkeypatch):
    kept = Kept(raytl=application("raytl", "v1"))
    with pytest.raises(UserError, match="changed in the meantime"):
        put(cast(Serve, kept), SESSION, application("raytl", "v1"), None, Patience(1))
    assert set(kept.configs) == {"raytl"}


def test_two_that_begin_at_once_without_a_default_do_not_both_get_its_route():
    kept = Kept(a=application("a", "v1"))
    with pytest.raises(UserError, match="'a' was deployed under / in the meantime, by another command: try again"):
        replace(cast(Serve, kept), application("b", "v1"), None)
    assert set(kept.configs) == {"a"}
    replace(cast(Serve, kept), application("b", "v1", route="/v1/models/b"), None)
    assert set(kept.configs) == {"a", "b"}


def test_the_same_labels_in_another_order_are_not_those_that_callers_know(bundles):
    config = application("raytl", "v1")
    config["deployments"][0]["user_config"]["bundle"] = str(bundles["first"])
    refuse_other_labels(config, "http://127.0.0.1", ("daisy", "poppy", "rose", "tulip"))
    with pytest.raises(UserError, match="poppy, rose, tulip in this order, and the new model with poppy, daisy"):
        refuse_other_labels(config, "http://127.0.0.1", ("poppy", "daisy", "rose", "tulip"))


def test_two_commands_copy_the_same_bundle_at_once(bundles, monkeypatch, tmp_path):
    """The one that is done later finds the copy there."""
    both = threading.Barrier(2)
    copied = snapshots.shutil.copytree

    def copy(*arguments: Any, **options: Any) -> Any:
        done = copied(*arguments, **options)
        both.wait(120)
        return done

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    monkeypatch.setattr(snapshots, "nodes_come_later", lambda need: False)
    monkeypatch.setattr(snapshots, "_folder", lambda: tmp_path)
    monkeypatch.setattr(snapshots.shutil, "copytree", copy)
    version = bundle_version(bundles["first"])
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: snapshot(bundles["first"], version, Need()), range(2)))
    assert paths == [tmp_path / version] * 2 and bundle_version(paths[0]) == version
    assert [path.name for path in tmp_path.iterdir()] == [version]


def test_replicas_get_no_copy_of_what_is_of_the_training_images(bundles, monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    monkeypatch.setattr(snapshots, "nodes_come_later", lambda need: False)
    monkeypatch.setattr(snapshots, "_folder", lambda: tmp_path / "copies")
    bundle = tmp_path / "bundle"
    shutil.copytree(bundles["first"], bundle)
    for name in ("features.safetensors", "learned.safetensors"):
        (bundle / name).write_bytes(b"of people's pictures")
    copy = snapshot(bundle, "v1", Need())
    assert {path.name for path in copy.iterdir()} == {path.name for path in Path(bundles["first"]).iterdir()} - {
        "features.safetensors",
        "learned.safetensors",
    }


def test_a_hash_that_is_none_is_refused_and_one_in_capitals_fits():
    digest = tokens.hashed("a secret")
    for given in (digest[:-1], f"{digest}0", f" {digest}", "a secret", digest[:-1] + "g"):
        with pytest.raises(UserError, match="'token_sha256' is not the SHA-256 of a token; give its 64 hex digits"):
            ServingSettings(bundle="b", token_sha256=given)
    assert ServingSettings(bundle="b", token_sha256=digest.upper()).token_sha256
    assert tokens.fits("Bearer a secret", digest.upper()) and not tokens.fits("Bearer another", digest.upper())


def test_the_token_of_an_endpoint_that_is_gone_goes_and_another_ones_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    token = tokens.write_token("raytl")
    tokens.drop_token("raytl", "")
    tokens.drop_token("raytl", tokens.hashed("another"))
    assert tokens.read_token("raytl") == token
    tokens.drop_token("raytl", tokens.hashed(token))
    assert tokens.read_token("raytl") is None and not Path(tokens.token_file("raytl")).exists()


@pytest.mark.parametrize("free", [0, 1], ids=["before", "and taken back"])
def test_the_file_holds_the_token_that_is_asked_for_where_it_cannot_be_changed(free, monkeypatch, tmp_path):
    """free: changes that are made until others do not come to an end."""

    class Busy(Kept):
        def change(self, edit: Callable[[dict[str, AppConfig]], Mapping[str, AppConfig] | None]) -> None:
            changes.append(edit)
            if len(changes) > free:
                raise UserError("another command has been changing what is served")
            super().change(edit)

    changes: list[object] = []
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    before = application("raytl", "v1")
    settings = before["deployments"][0]["user_config"]
    settings["token_sha256"] = tokens.hashed(tokens.write_token("raytl"))
    kept = Busy(raytl=before)
    monkeypatch.setattr(changing, "_endpoint", lambda name: nullcontext((kept, SESSION, before)))
    monkeypatch.setattr(changing, "_takes_token", lambda *_: False)
    with pytest.raises(UserError, match="another command") as said:
        changing.rotate_token()
    assert str(said.value).startswith("endpoint 'raytl' did not take the new token in 60 s; it could") is (free == 1)
    asked_for = applying.settings_of(kept.configs["raytl"])["token_sha256"]
    assert tokens.hashed(tokens.read_token("raytl")) == asked_for and len(changes) == free + 1
    assert (asked_for == settings["token_sha256"]) is (free == 0)


BAD = "A replica failed to start: raytl.core.errors.UserError: the bundle cannot be loaded\n"


@pytest.mark.parametrize(
    ("status", "deployment", "message", "given", "reason"),
    [
        ("DEPLOYING", "UNHEALTHY", "", "v1", None),  # as it was before the change, which the controller has yet to see
        ("DEPLOYING", "UNHEALTHY", BAD, "v2", None),
        ("DEPLOYING", "DEPLOY_FAILED", BAD, "v1", None),
        ("DEPLOYING", "UPDATING", BAD, "v1", None),
        ("DEPLOYING", "UPDATING", BAD, "v2", "the bundle cannot be loaded"),
        ("DEPLOYING", "UPDATING", "Retrying.", "v2", None),
        ("DEPLOY_FAILED", "DEPLOY_FAILED", BAD, "v2", "the bundle cannot be loaded"),
        ("UNHEALTHY", "UNHEALTHY", "it died\n", "v2", "it died"),
        ("DEPLOY_FAILED", "DEPLOY_FAILED", "", "v2", "Serve gives no reason"),
    ],
)
def test_what_a_deployment_tells_of_before_a_change_does_not_speak_against_it(
    status: str, deployment: str, message: str, given: str, reason: str | None
) -> None:
    told = {"status": deployment, "message": message, "deployment_config": {"user_config": {"version": given}}}
    found = {"status": status, "message": "", "deployments": {"Classifier": told}}
    assert applying._failure(found, {"version": "v2"}) == reason


class Stoppable(Kept):
    """Serve with the applications of these statuses by name."""

    def __init__(self, **statuses: str) -> None:
        super().__init__()
        self.statuses, self.stopped = statuses, False

    def applications(self) -> dict[str, Any]:
        return {name: {"status": status} for name, status in self.statuses.items()}

    def shutdown(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("status", ["DELETING", "DEPLOYING", "UNHEALTHY"])
def test_what_is_being_removed_does_not_keep_serve_and_the_head(status: str, monkeypatch) -> None:
    monkeypatch.setattr(applying, "drop_snapshots", lambda **_: None)
    monkeypatch.setattr(applying, "clear_head", lambda: None)
    serve = Stoppable(raytl="RUNNING", other=status)
    assert applying.stop_if_last(cast(Serve, serve), SESSION, "raytl") is (status == "DELETING")
    assert serve.stopped is (status == "DELETING")


@pytest.mark.parametrize(
    ("statuses", "commands", "stopped"),
    [({}, 1, True), ({"b": "DELETING"}, 1, True), ({"b": "RUNNING"}, 1, False), ({}, 2, False)],
)
def test_serve_without_applications_is_ended_by_what_takes_endpoints_down(statuses, commands, stopped, monkeypatch):
    """Unless another command, which has just started it, is about to have it serve."""
    serve = Stoppable(**statuses)
    monkeypatch.setattr(applying, "drop_snapshots", lambda **_: None)
    monkeypatch.setattr(applying, "clear_head", lambda: None)
    monkeypatch.setattr(applying, "jobs", lambda: [{"IsDead": False}] * commands + [{"IsDead": True}])
    monkeypatch.setattr(endpoint, "session", lambda start: nullcontext(SESSION))
    monkeypatch.setattr(endpoint.Serve, "running", lambda: serve)
    assert not undeploy() and serve.stopped is stopped


def test_what_is_not_ready_in_time_says_what_is_free_and_that_more_time_may_do(monkeypatch):
    replicas = [{"state": "STARTING", "node_id": "a node"}]
    found = {"status": "DEPLOYING", "message": "", "deployed_app_config": application("raytl", "v1")}
    found["deployments"] = {"Classifier": {"status": "UPDATING", "message": "1 replica starts", "replicas": replicas}}
    serve = SimpleNamespace(host="127.0.0.1", port=1, applications=lambda: {"raytl": found})
    monkeypatch.setattr(room.Nodes, "now", lambda: room.Nodes(((2.0, 0.0),), ((0.5, 0.0),)))
    wanted = application("raytl", "v1")
    with pytest.raises(room.NotInTimeError, match=r"\(1 replica starts\): 0.5 of the cluster's 2 CPUs are free; stop"):
        applying._wait_until_served(cast(Serve, serve), wanted, Waiting(Patience(0.3), wanted, None))
