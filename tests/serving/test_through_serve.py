"""Every kind of route, and changes of a model by its name, through Ray Serve: one session for the module."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
from test_deploy import free_port
from trials import Traffic, until, variant

from raytl.bundles import Bundle
from raytl.serving import Endpoint, deploy, look, promote, rollback, try_out, undeploy
from raytl.serving.settings import bundle_version

pytestmark = pytest.mark.slow  # a Ray session and Serve take half a minute on two busy cores
NAME = "letters"


@pytest.fixture(scope="module")
def default(bundles) -> Iterator[Endpoint]:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield deploy(bundles["first"], port=free_port(), max_replicas=1)
    undeploy(NAME)
    undeploy()
    ray.shutdown()


@pytest.fixture(scope="module")
def named(default, bundles) -> Endpoint:
    port = int(default.url.rpartition(":")[2])
    return deploy(bundles["second"], name=NAME, port=port, num_cpus=0.5, max_replicas=1)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="module", params=["default", "named"])
def served(request, default, named, bundles) -> tuple[str, str, Path]:
    """Address, deployed name and bundle of either model."""
    found = {"default": (default.url, "raytl", bundles["first"]), "named": (named.url, NAME, bundles["second"])}
    return found[request.param]


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

    def test_the_name_of_the_other_model(self, default, named, client):
        answer = client.get(f"{default.url}/v2/models/{NAME}")
        assert answer.status_code == 404 and f"answers below '/v1/models/{NAME}'" in answer.json()["error"]
        answer = client.get(f"{named.url}/v2/models/raytl")
        assert answer.status_code == 404 and "answers below '/'" in answer.json()["error"]


class TestChangesOfANamedModel:
    def test_a_shadow_answers_nobody_and_is_promoted(self, default, named, bundles, png, tmp_path, client):
        again = variant(bundles["second"], tmp_path / "again")
        with Traffic().to(named, png) as traffic:
            tried = try_out(again, name=NAME, promote_after=60, max_slowdown=20)
            assert tried.url == named.url and tried.candidate == bundle_version(again)
            known = until(lambda known: known["candidate"] is None, NAME)
            time.sleep(1)
        assert traffic.failed == [] and known["last_trial"]["promoted"]
        assert known["last_trial"]["compared"] >= 60 and known["last_trial"]["disagreement"]["value"] == 0
        assert set(traffic.models) <= {"second", "again"} and traffic.models[-1] == "again"
        assert rollback(NAME).version == bundle_version(bundles["second"])
        assert client.get(f"{named.url}/healthz").json()["model"] == "second"
        assert client.get(f"{default.url}/healthz").json()["model"] == "first" and look()["candidate"] is None

    def test_a_canary_answers_its_share_and_is_taken_back(self, default, named, bundles, png, tmp_path, client):
        permuted = variant(bundles["second"], tmp_path / "permuted", permuted=True)
        with Traffic().to(named, png) as traffic:
            try_out(permuted, name=NAME, canary=0.2, promote_after=50, max_slowdown=20)
            known = until(lambda known: known["candidate"] is None, NAME)
            time.sleep(1)
        answered = Counter(traffic.models)
        assert traffic.failed == [] and 0 < answered["permuted"] <= 0.2 * sum(answered.values())
        assert not known["last_trial"]["promoted"] and traffic.models[-1] == "second"
        assert client.get(f"{default.url}/healthz").json()["model"] == "first"

    def test_people_promote_and_go_back(self, default, named, bundles, tmp_path, client):
        again = variant(bundles["second"], tmp_path / "again")
        try_out(again, name=NAME, canary=0.5)
        assert promote(NAME).version == bundle_version(again)
        assert client.post(f"{default.url}/v1/models/{NAME}/predict", content=b"x").status_code == 422
        assert client.get(f"{default.url}/v1/models/{NAME}").json()["model"] == "again"
        assert rollback(NAME).version == bundle_version(bundles["second"])
        assert client.get(f"{default.url}/healthz").json()["version"] == bundle_version(bundles["first"])
