"""Through Ray Serve: every kind of route, and new versions beside the old under requests all the while.

One session and one endpoint for the module, with a second model beside the default one.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from documented import undocumented
from own_ray import own_ray
from PIL import Image
from trials import Traffic, until, variant

from raytl.api import Condition, Run, deploy_when, open_run
from raytl.bundles import Bundle, export_bundle
from raytl.cli.output import Output
from raytl.cli.promoting import Promotion
from raytl.cli.promoting import promote as promote_winner
from raytl.core.errors import UserError
from raytl.evaluation.intervals import Interval
from raytl.runs import RunStore
from raytl.search.records import Candidate, SearchOutcome, TrialRecord, TrialStatus
from raytl.serving import Endpoint, deploy, look, promote, rollback, rotate_token, try_out, undeploy
from raytl.serving.applying import replace, settings_of, with_settings
from raytl.serving.controller import Serve
from raytl.serving.ports import free_port
from raytl.serving.ray_session import session
from raytl.serving.settings import bundle_version
from raytl.sources import load

pytestmark = pytest.mark.slow  # a Ray session and Serve take half a minute on two busy cores
NAME = "letters"


@pytest.fixture(scope="module")
def endpoint(bundles) -> Iterator[Endpoint]:
    """The default model."""
    with own_ray(3):
        yield deploy(bundles["first"], port=free_port(), max_replicas=1)
        undeploy(NAME)
        undeploy()


@pytest.fixture(scope="module")
def named(endpoint, bundles) -> Endpoint:
    port = int(endpoint.url.rpartition(":")[2])
    return deploy(bundles["second"], name=NAME, port=port, num_cpus=0.5, max_replicas=1)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="module", params=["default", "named"])
def served(request, endpoint, named, bundles) -> tuple[str, str, Path]:
    """Address, deployed name and bundle of either model."""
    found = {"default": (endpoint.url, "raytl", bundles["first"]), "named": (named.url, NAME, bundles["second"])}
    return found[request.param]


@pytest.fixture(scope="module")
def variants(bundles, tmp_path_factory) -> dict[str, Path]:
    """The first bundle under other names."""
    folder = tmp_path_factory.mktemp("variants")
    names = ("again", "permuted")
    return {name: variant(bundles["first"], folder / name, permuted=name == "permuted") for name in names}


@pytest.fixture
def command(capsys) -> Callable[..., str]:
    """Runs a command of raytl in this process, whose Ray session it finds, and returns what it says."""
    from typer.main import get_command

    from raytl.cli.commands import app
    from raytl.cli.output import Output

    def run(*arguments: str) -> str:
        capsys.readouterr()
        Output.for_arguments(list(arguments))
        get_command(app)(list(arguments), prog_name="raytl", standalone_mode=False)
        return capsys.readouterr().out

    return run


def serving(endpoint: Endpoint) -> str:
    return httpx.get(f"{endpoint.url}/healthz", trust_env=False, timeout=60).json()["model"]


class TestRoutes:
    def test_pages(self, served, client):
        url, _, _ = served
        for path, words in (("/", "Try it"), ("/docs", "The API"), ("/static/try.js", "classify")):
            answer = client.get(f"{url}{path}")
            assert answer.status_code == 200 and words in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        listed = client.get(f"{url}/v1/models").json()["models"]
        assert {one["name"]: one["path"] for one in listed} == {
            "raytl": "/v1/predict", NAME: f"/v1/models/{NAME}/v1/predict",
        }  # fmt: skip
        paths = client.get(f"{url}/openapi.json").json()["paths"]
        assert {"/v1/predict", "/v1/explain", "/v2/models/{name}/infer"} <= paths.keys()

    def test_what_counted(self, served, client, png):
        url, _, bundle = served
        expected = Bundle.load(bundle).predict([png(1)])[0]
        found = client.post(f"{url}/v1/explain", content=png(1)).json()
        assert found["label"] == expected.label and found["probability"] == pytest.approx(expected.confidence, abs=1e-5)
        assert len(found["drops"]) in (4, 8) and found["seen"].startswith("data:image/png;base64,")

    def test_open_inference_protocol(self, served, client, png):
        url, name, bundle = served
        expected = Bundle.load(bundle).predict([png(2)])[0]
        assert client.get(f"{url}/v2/health/ready").json()["ready"] is True
        assert client.get(f"{url}/v2/models/{name}").json()["versions"] == [bundle_version(bundle)]
        data = base64.b64encode(png(2)).decode()
        body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}]}
        labels, rows = client.post(f"{url}/v2/models/{name}/infer", json=body).json()["outputs"]
        assert labels["data"] == [expected.label]
        assert rows["data"] == pytest.approx(list(expected.probabilities.values()), abs=1e-5)

    def test_sets_and_refusals(self, served, client, png):
        url, _, _ = served
        (said,) = client.post(f"{url}/v1/predict?sets=true", content=png(0)).json()["predictions"]
        assert said["labels"] is None and said["none_of_these"] is None  # the bundle has nothing to tell it by
        for path, status in (("/v1/explain", 422), ("/v1/predict?top=x", 400), ("/v2/models/nobody/infer", 404)):
            assert client.post(f"{url}{path}", content=b"no image").status_code == status

    def test_a_name_that_others_can_give_this_machine(self, served, client, png):
        url, _, _ = served
        rebound = {"Host": "rebound.example"}
        assert client.post(f"{url}/v1/predict", content=png(0), headers=rebound).status_code == 421
        foreign = {"Origin": "https://elsewhere.example"}
        assert client.post(f"{url}/v1/predict", content=png(0), headers=foreign).status_code == 403

    def test_the_name_of_the_other_model(self, endpoint, named, client):
        answer = client.get(f"{endpoint.url}/v2/models/{NAME}")
        assert answer.status_code == 404 and f"answers below '/v1/models/{NAME}'" in answer.json()["error"]
        answer = client.get(f"{named.url}/v2/models/raytl")
        assert answer.status_code == 404 and "answers below '/'" in answer.json()["error"]


@contextmanager
def one_at_a_time(limit_s: float) -> Iterator[None]:
    """A replica that works on one request at a time, with that limit."""
    with session(start=False):
        serve = Serve.running()
        assert serve is not None
        before = serve.configs()["raytl"]
        settings = {**settings_of(before), "request_timeout_s": limit_s}
        (deployment,) = with_settings(before, settings)["deployments"]
        after = {**before, "deployments": [{**deployment, "max_ongoing_requests": 1}]}
        replace(serve, after, before)
        try:
            yield
        finally:
            replace(serve, before, after)


def test_the_wait_in_serve_for_a_turn_is_part_of_a_requests_time(endpoint, client, png):
    """Behind one that takes long to decode. Without the stamp the wait is over some time and then all begins anew."""
    file = io.BytesIO()
    Image.new("L", (8000, 8000)).save(file, "PNG")
    large = file.getvalue()
    host, _, port = endpoint.url.removeprefix("http://").rpartition(":")
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}\r\n\r\n".encode()
    deadline, found = time.monotonic() + 120, client.get(f"{endpoint.url}/v1/model")
    with one_at_a_time(0.3):
        while "waited for its turn" not in found.text:
            assert time.monotonic() < deadline, found.text
            with socket.create_connection((host, int(port)), timeout=30) as ahead:
                ahead.sendall(head + large)
                time.sleep(0.05)
                found = client.post(f"{endpoint.url}/v1/predict", content=png(0))
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")


class TestChangesOfANamedModel:
    def test_a_shadow_answers_nobody_and_is_promoted(self, endpoint, named, bundles, png, tmp_path, client):
        again = variant(bundles["second"], tmp_path / "again")
        with Traffic().to(named, png) as traffic:
            tried = try_out(again, name=NAME, promote_after=60, max_slowdown=20)
            assert tried.url == named.url and tried.candidate == bundle_version(again)
            known = until(lambda known: known["candidate"] is None, NAME)
            traffic.settle("again")
        assert traffic.failed == [] and known["last_trial"]["promoted"]
        assert known["last_trial"]["compared"] >= 60 and known["last_trial"]["disagreement"]["value"] == 0
        assert set(traffic.models) <= {"second", "again"} and traffic.models[-1] == "again"
        assert rollback(NAME).version == bundle_version(bundles["second"])
        assert client.get(f"{named.url}/healthz").json()["model"] == "second"
        assert client.get(f"{endpoint.url}/healthz").json()["model"] == "first" and look()["candidate"] is None

    def test_a_canary_answers_its_share_and_is_taken_back(self, endpoint, named, bundles, png, tmp_path, client):
        permuted = variant(bundles["second"], tmp_path / "permuted", permuted=True)
        with Traffic().to(named, png) as traffic:
            try_out(permuted, name=NAME, canary=0.2, promote_after=50, max_slowdown=20, new_labels=True)
            known = until(lambda known: known["candidate"] is None, NAME)
            traffic.settle("second")
        answered = Counter(traffic.models)
        assert traffic.failed == [] and 0 < answered["permuted"] <= 0.2 * sum(answered.values())
        assert not known["last_trial"]["promoted"] and traffic.models[-1] == "second"
        assert client.get(f"{endpoint.url}/healthz").json()["model"] == "first"

    def test_people_promote_and_go_back(self, endpoint, named, bundles, tmp_path, client):
        again = variant(bundles["second"], tmp_path / "again")
        try_out(again, name=NAME, canary=0.5)
        assert promote(NAME).version == bundle_version(again)
        assert client.post(f"{endpoint.url}/v1/models/{NAME}/predict", content=b"x").status_code == 422
        assert client.get(f"{endpoint.url}/v1/models/{NAME}").json()["model"] == "again"
        assert rollback(NAME).version == bundle_version(bundles["second"])
        assert client.get(f"{endpoint.url}/healthz").json()["version"] == bundle_version(bundles["first"])


def test_rollback_puts_the_one_before_back_and_drops_no_request(endpoint, bundles, variants, png):
    with Traffic().to(endpoint, png) as traffic:
        traffic.settle("first", answers=1)
        deploy(bundles["second"], port=int(endpoint.url.rpartition(":")[2]), max_replicas=1)
        traffic.settle("second", answers=1)
        deploy(variants["again"], port=int(endpoint.url.rpartition(":")[2]), max_replicas=1)
        traffic.settle("again", answers=1)
        back = rollback()
        assert (back.version, serving(endpoint)) == (bundle_version(bundles["second"]), "second")
        rollback()
        assert serving(endpoint) == "first"
        rollback(to=bundle_version(variants["again"])[:6])
        assert serving(endpoint) == "again"
        rollback(to=bundle_version(bundles["first"]))
        traffic.settle("first")
    assert traffic.failed == []
    assert traffic.models[0] == "first" == traffic.models[-1] and set(traffic.models) >= {"first", "second", "again"}
    assert sorted(one["model"] for one in look()["previous"]) == ["again", "second"]
    with pytest.raises(UserError, match="'nothing' is not the beginning of exactly one earlier version"):
        rollback(to="nothing")


def test_other_labels_are_refused_unless_told(endpoint, bundles, tmp_path):
    model = load("scratch:cnn-small", channels=1, image_size=32, seed=0)
    model.replace_head(2, ("iris", "poppy"), "linear")
    other = export_bundle(tmp_path / "other", model, metrics={}, provenance={})
    port = int(endpoint.url.rpartition(":")[2])
    for attempt in (lambda: deploy(other, port=port), lambda: try_out(other)):
        with pytest.raises(UserError, match=r"daisy, poppy, rose, tulip, and the new model with iris, poppy.*--new-la"):
            attempt()
    assert serving(endpoint) == "first"
    deploy(other, port=port, max_replicas=1, new_labels=True)
    assert serving(endpoint) == "other"
    rollback(new_labels=True)
    assert serving(endpoint) == "first"


def test_a_shadow_answers_nobody_and_as_good_a_one_takes_over(endpoint, variants, png, command):
    tried = try_out(variants["again"], promote_after=100, max_slowdown=20)
    assert tried.candidate == bundle_version(variants["again"])
    answered: list[str] = []

    def compared(known) -> bool:
        """Of one request for each look: of many the trial would be over before all of it was looked at."""
        asked = httpx.post(f"{endpoint.url}/v1/predict", content=png(len(answered)), trust_env=False, timeout=60)
        answered.append(asked.raise_for_status().json()["model"])
        return (known["comparison"] or {}).get("compared", 0) > 0

    known = until(compared)
    assert undocumented("endpoint status", known) == set()
    shown = command("endpoint", "status")
    assert "on trial (shadow)" in shown and tried.candidate in shown and tried.version in shown
    assert known["candidate"]["share"] == 0 and known["comparison"]["candidate"]["answered"] == 0
    assert set(answered) == {"first"}
    with Traffic().to(endpoint, png) as traffic:
        known = until(lambda known: known["candidate"] is None)
        traffic.settle("again")
    assert traffic.failed == [] and set(traffic.models) <= {"first", "again"}
    assert known["last_trial"]["promoted"] and "not worse" in known["last_trial"]["why"]
    assert known["last_trial"]["compared"] >= 100 and known["last_trial"]["disagreement"]["value"] == 0
    assert traffic.models[-1] == "again" == serving(endpoint)
    assert undocumented("endpoint status", known) == set()
    assert "was promoted: after" in command("endpoint", "status")
    assert f"answers with version {tried.version}" in command("rollback")
    assert serving(endpoint) == "first"


def test_permuted_labels_never_answer_more_than_their_share_and_are_taken_back(endpoint, variants, png):
    with Traffic().to(endpoint, png) as traffic:
        try_out(variants["permuted"], canary=0.2, promote_after=50, max_slowdown=20, new_labels=True)
        known = until(lambda known: known["candidate"] is None)
        traffic.settle("first")
    assert traffic.failed == []
    answered = Counter(traffic.models)
    assert 0 < answered["permuted"] <= 0.2 * sum(answered.values())
    assert not known["last_trial"]["promoted"] and "names another label in 100.0%" in known["last_trial"]["why"]
    assert set(traffic.models[-10:]) == {"first"} and serving(endpoint) == "first"


def test_people_can_promote_and_take_back(endpoint, bundles, variants):
    with pytest.raises(UserError, match="has no version on trial"):
        promote()
    try_out(variants["again"], canary=0.5)
    with pytest.raises(UserError, match="serves this very version"):
        try_out(bundles["first"])
    assert rollback().candidate == "" and serving(endpoint) == "first"
    assert look()["last_trial"]["promoted"] is False
    try_out(variants["again"], canary=0.5)
    assert promote().version == bundle_version(variants["again"]) and serving(endpoint) == "again"
    assert rollback().version == bundle_version(bundles["first"])


def winner(storage: Path, name: str, bundle: Path) -> Run:
    """A finished run whose winner is beyond doubt, and is ``bundle``."""
    strategy = {"source_model": "scratch:cnn-small"}
    trial = TrialRecord(0, "search", strategy, "s", status=TrialStatus.COMPLETED, score=0.97)
    chosen = Candidate("best", strategy, "s", [0], Interval(0.97, 0.95, 0.98))
    with RunStore(storage).create(name, {"search": {"trials": 1}}) as writer:
        writer.on_trial(trial)
        writer.finish(SearchOutcome([trial], chosen, [], why="it was the only one", seconds=1.0))
    shutil.copytree(bundle, storage / name / "model")
    return open_run(name, storage)


def test_a_winner_is_deployed_where_nothing_is_served_and_tried_where_a_model_is(
    endpoint, bundles, variants, tmp_path, capsys
):
    first, better = (winner(tmp_path, name, path) for name, path in [("a", bundles["first"]), ("b", variants["again"])])
    port, name, asked = int(endpoint.url.rpartition(":")[2]), "found", Condition.parse("accuracy>=0.9")
    try:
        deployed = deploy_when(first, asked, name=name, port=port, max_replicas=1, num_cpus=0.1)
        assert (deployed.version, deployed.candidate) == (bundle_version(bundles["first"]), "")
        assert deploy_when(first, asked, name=name).candidate == ""  # it is there already
        tried = deploy_when(better, asked, name=name)
        assert (tried.url, tried.version) == (deployed.url, deployed.version)
        assert tried.candidate == bundle_version(variants["again"])
        known = look(name)
        assert (known["candidate"]["share"], known["candidate"]["promote_after"]) == (0.05, 500)
        trial = known["candidate"]["trial"]
        assert deploy_when(better, asked, name=name).candidate == tried.candidate
        assert look(name)["candidate"]["trial"] == trial  # and has not begun anew
        another = winner(tmp_path, "c", variants["permuted"])
        with pytest.raises(UserError, match=f"version {tried.candidate} is on trial at 'found'"):
            deploy_when(another, asked, name=name)
        assert look(name)["candidate"]["trial"] == trial
        with pytest.raises(UserError, match=r"does not reach the 99\.0 %"):
            deploy_when(better, "accuracy>=0.99", name=name)
    finally:
        undeploy(name)

    said = Output.for_arguments([])
    document = promote_winner(said, better, Promotion(asked, {"canary": 0.2, "promote_after": 0}))
    assert f"on trial: version {bundle_version(variants['again'])}, at {endpoint.url}" in capsys.readouterr().out
    assert document["endpoint"]["candidate"] and document["why_not"] is None
    assert look()["candidate"]["share"] == 0.2 and look()["candidate"]["promote_after"] == 0
    rollback()
    assert promote_winner(said, better, Promotion(Condition.parse("accuracy>=0.99"), {}))["endpoint"] is None


def test_a_bundle_that_fails_its_reference_predictions_is_not_tried(endpoint, bundles, tmp_path):
    broken = Path(shutil.copytree(bundles["first"], tmp_path / "broken"))
    manifest = json.loads((broken / "model.json").read_text())
    manifest["temperature"] = 9.0
    (broken / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="fails its own reference predictions"):
        try_out(broken, canary=0.5)
    assert look()["candidate"] is None


def test_a_token_is_asked_for_and_changed_without_a_restart(endpoint, bundles, png, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    port = int(endpoint.url.rpartition(":")[2])
    with pytest.raises(UserError, match="asks for no token"):
        rotate_token()
    file = Path(deploy(bundles["first"], port=port, max_replicas=1, token=True).token_file)
    assert oct(file.stat().st_mode & 0o777) == "0o600"

    def ask(token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        options = {"content": png(0), "headers": headers, "trust_env": False, "timeout": 60}
        return httpx.post(f"{endpoint.url}/v1/predict", **options).status_code

    old = file.read_text().strip()
    assert (ask(None), ask("wrong"), ask(old)) == (401, 401, 200)
    health = httpx.get(f"{endpoint.url}/healthz", trust_env=False, timeout=60)
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert old not in json.dumps(look())
    rotate_token()
    new = file.read_text().strip()
    assert new != old and (ask(old), ask(new)) == (401, 200)
    # Deployed again it keeps its token, asked for or not.
    assert deploy(bundles["second"], port=port, max_replicas=1).token_file == str(file)
    assert (ask(None), ask(new)) == (401, 200)
