"""Through Ray Serve: one session for the module, on loopback, with real bundles."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import ray
import yaml
from own_ray import own_ray
from processes import descendants
from ray.serve.schema import ServeDeploySchema
from tiny import shapes

from raytl.bundles import Bundle, export_bundle
from raytl.core.errors import UserError
from raytl.serving import Endpoint, deploy, rollback, status, undeploy, update
from raytl.serving.controller import Serve, head_environment
from raytl.serving.ingress import haproxy_runs
from raytl.serving.ports import free_port, port_taken
from raytl.serving.settings import bundle_version
from raytl.sources import load
from raytl.tasks import read_unlabelled

pytestmark = pytest.mark.slow  # a Ray session and Serve take half a minute on two busy cores
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ray_session():
    with own_ray(3):
        yield


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def endpoint(ray_session, bundles, port) -> Endpoint:
    return deploy(bundles["first"], port=port, max_replicas=1)


@pytest.fixture
def client():
    with httpx.Client(trust_env=False, timeout=120) as client:
        yield client


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def serve_processes() -> list[str]:
    """Serve's processes in this module's Ray session, whose raylet is a child of this process."""
    return [name for name in descendants(os.getpid()).values() if name.startswith(("ray::Serve", "ray::Proxy"))]


def ask(client: httpx.Client, endpoint: Endpoint, image: bytes) -> dict:
    answer = client.post(f"{endpoint.url}/v1/predict", content=image, headers={"content-type": "image/png"})
    answer.raise_for_status()
    return answer.json()


def test_answers_200_requests_over_16_connections_as_the_bundle_does(endpoint, bundles, png, client):
    images = [png(seed) for seed in range(20)]
    expected = [prediction.probabilities for prediction in Bundle.load(bundles["first"]).predict(images)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: ask(client, endpoint, images[i % 20]), range(200)))
    for i, answer in enumerate(answers):
        assert answer["predictions"][0]["probabilities"] == pytest.approx(expected[i % 20], abs=1e-5)


def test_prometheus_is_told_what_ray_counts(endpoint, png, client):
    ask(client, endpoint, png(0))
    deadline = time.monotonic() + 120  # Ray gathers its metrics every few seconds
    names: set[str] = set()
    while not {"ray_serve_num_http_requests_total", "ray_serve_deployment_request_counter_total"} <= names:
        assert time.monotonic() < deadline, sorted(names)
        time.sleep(0.5)
        page = client.get(f"{endpoint.url}/metrics").raise_for_status().text
        names = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    assert 'application="raytl"' in page
    assert all(name.startswith(("ray_serve_", "ray_raytl_")) for name in names)


def test_many_images_in_one_request(endpoint, bundles, png, client):
    images = [png(seed) for seed in range(100)]
    files = [("files", (f"{i}.png", image)) for i, image in enumerate(images)]
    predictions = client.post(f"{endpoint.url}/v1/predict", files=files).json()["predictions"]
    assert [p["label"] for p in predictions] == [p.label for p in Bundle.load(bundles["first"]).predict(images)]


def test_a_bad_image_is_a_sentence_through_the_proxy(endpoint, client):
    answer = client.post(f"{endpoint.url}/v1/predict", content=b"no image")
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == answer.json()["error"] and "\n" not in answer.json()["error"]


def test_an_update_swaps_the_model_and_drops_no_request(endpoint, bundles, png, client, port):
    seen: list[str] = []
    failed: list[Exception] = []
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            try:
                seen.append(ask(client, endpoint, png(0))["model"])
            except httpx.HTTPError as error:
                failed.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: bool(seen))
    updated = deploy(bundles["second"], port=port, max_replicas=1)
    wait_for(lambda: seen[-20:] == ["second"] * 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen[0] == "first" and seen[-1] == "second"
    assert updated.version == bundle_version(bundles["second"]) != endpoint.version
    # One swap per connection at most: a replica never goes back.
    assert ask(client, endpoint, png(0))["model"] == "second"


def test_an_update_keeps_all_but_the_model_and_refuses_other_labels(endpoint, bundles, client, png, tmp_path):
    def shape() -> dict:
        (config,) = Serve.running().configs().values()
        (deployment,) = config["deployments"]
        return {**config, "deployments": [{**deployment, "user_config": None}]}

    before = shape()
    assert update(bundles["first"]).version == bundle_version(bundles["first"])
    assert ask(client, endpoint, png(0))["model"] == "first"
    back = update(bundles["second"])
    assert (back.url, ask(client, endpoint, png(0))["model"]) == (endpoint.url, "second")
    assert shape() == before

    model = load("scratch:cnn-small", channels=1, image_size=32, seed=0)
    model.replace_head(2, ("iris", "poppy"), "linear")
    other = export_bundle(tmp_path / "other", model, metrics={}, provenance={})
    with pytest.raises(
        UserError, match="with the labels daisy, poppy, rose, tulip, and the new model with iris, poppy"
    ):
        update(other)
    assert ask(client, endpoint, png(0))["model"] == "second"
    assert update(other, name="nobody") is None


def test_a_bundle_that_does_not_load_is_refused_and_the_served_one_stays(endpoint, client, png, tmp_path, port):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.json").write_text("{}")
    with pytest.raises(UserError, match="broken"):
        deploy(broken, port=port)
    assert ask(client, endpoint, png(0))["model"] == "second"


def test_serving_survives_the_bundle_being_deleted(endpoint, client):
    """The replicas read a copy: a run may be removed while its model is served."""
    served = Serve.running().configs()["raytl"]["deployments"][0]["user_config"]["bundle"]
    assert bundle_version(Path(served)) == client.get(f"{endpoint.url}/healthz").json()["version"]
    assert "first" not in served and "second" not in served


def test_another_port_is_refused_with_the_one_to_use(endpoint, bundles, port):
    with pytest.raises(UserError, match=f"--port {port}"):
        deploy(bundles["first"], port=free_port())


def test_the_route_of_another_application_is_refused(endpoint, bundles, port):
    with pytest.raises(UserError, match="'raytl' is already served under /"):
        deploy(bundles["first"], name="other", port=port, route_prefix="/")


def what_stays(application: dict) -> dict:
    """Of a deployment, what is not the version's own."""
    (deployment,) = application["deployments"]
    of_version = ("bundle", "version", "model", "since", "previous")
    kept = {name: value for name, value in deployment["user_config"].items() if name not in of_version}
    return {**deployment, "user_config": kept}


def test_another_name_is_a_model_beside_the_default(endpoint, bundles, client, png, tmp_path):
    options = {"num_cpus": 0.1, "max_replicas": 1, "capture": tmp_path, "capture_limit": 7, "allow_hosts": ["cells"]}
    other = deploy(bundles["first"], name="letters", **options)  # where the endpoint listens
    before = Serve.running().configs()["letters"]
    base = endpoint.url
    assert other.url == f"{base}/v1/models/letters"
    assert client.post(f"{base}/v1/models/letters/predict", content=png(0)).json()["model"] == "first"
    assert ask(client, other, png(0))["model"] == "first"
    assert ask(client, endpoint, png(0))["model"] == "second"
    listed = {one["name"]: one for one in client.get(f"{base}/v1/models").json()["models"]}
    assert {name: one["default"] for name, one in listed.items()} == {"raytl": True, "letters": False}
    assert listed["letters"]["path"] == "/v1/models/letters/v1/predict"
    for answer in (client.post(f"{base}/v1/models/nobody/predict", content=png(0)), client.get(f"{other.url}/nothing")):
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"
    # A new version of the one is none of the other's business, nor is its end.
    assert deploy(bundles["second"], name="letters").url == other.url
    same, told = what_stays(before), what_stays(Serve.running().configs()["letters"])
    assert told == same and told["user_config"] | {"capture": str(tmp_path), "hosts": ["cells"]} == told["user_config"]
    assert client.post(f"{base}/v1/models/letters/predict", content=png(0)).json()["model"] == "second"
    assert rollback("letters").version == bundle_version(bundles["first"])
    assert ask(client, endpoint, png(0))["model"] == "second"
    assert undeploy("letters")
    assert client.post(f"{base}/v1/models/letters/predict", content=png(0)).status_code == 404
    assert ask(client, endpoint, png(0))["model"] == "second"


def test_a_second_application_and_the_shipped_config_beside_the_first(endpoint, bundles, client, png):
    config = yaml.safe_load((ROOT / "serve" / "one-machine.yaml").read_text())
    (application,) = config["applications"]
    application |= {"name": "shipped", "route_prefix": "/shipped"}
    application["deployments"][0]["user_config"]["bundle"] = str(bundles["first"])
    parsed = ServeDeploySchema.model_validate(config)
    serve = Serve.running()
    (beside,) = parsed.model_dump(exclude_unset=True)["applications"]
    serve.change(lambda present: {**present, "shipped": beside})
    wait_for(lambda: serve.applications()["shipped"]["status"] == "RUNNING")
    answer = client.post(f"{endpoint.url}/shipped/v1/predict", content=png(0))
    assert answer.json()["model"] == "first"
    assert ask(client, endpoint, png(0))["model"] == "second"
    assert {entry["name"] for entry in status()} == {"raytl", "shipped"}
    assert undeploy("shipped")
    assert [entry["name"] for entry in status()] == ["raytl"]
    assert ask(client, endpoint, png(0))["model"] == "second"


def test_no_room_in_the_cluster_is_a_sentence_and_keeps_what_is_served(endpoint, bundles, client, png, port):
    with pytest.raises(UserError, match="CPUs"):
        deploy(bundles["first"], port=port, num_cpus=64, wait_s=3)
    assert ask(client, endpoint, png(0))["model"] == "second"


def test_undeploy_frees_the_port_and_leaves_no_process(endpoint, port):
    assert len(serve_processes()) >= 3  # controller, proxy, replica
    remembered = Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "raytl-haproxy"
    folder = Path(remembered.read_text() if haproxy_runs() else "nowhere")
    assert undeploy()
    assert not port_taken("127.0.0.1", port)
    assert status() == [] and not undeploy()
    wait_for(lambda: serve_processes() == [])
    assert [name for name in descendants(os.getpid()).values() if "haproxy" in name] == []
    assert not remembered.exists() and not folder.exists()


def test_a_taken_port_is_refused_before_anything_is_started(ray_session, bundles):
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {taken} on 127\.0\.0\.1 is taken.*--port"):
            deploy(bundles["first"], port=taken)
    assert Serve.running() is None


@pytest.mark.skipif(not haproxy_runs(), reason="Serve's own proxy needs no port beside the one that was asked for")
def test_where_a_port_of_its_own_is_taken_meanwhile_others_are_chosen(
    ray_session, bundles, client, png, monkeypatch, port
):
    chosen, squatter = [], socket.socket()

    def head_environment_and_somebody_else(*asked):
        chosen.append(head_environment(*asked))
        if len(chosen) == 1:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", int(chosen[0]["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"])))
            squatter.listen()
        return chosen[-1]

    monkeypatch.setattr("raytl.serving.endpoint.head_environment", head_environment_and_somebody_else)
    with squatter:
        try:
            found = deploy(bundles["first"], port=port, max_replicas=1)
            assert len(chosen) == 2
            assert ask(client, found, png(0))["model"] == "first"
        finally:
            undeploy()


def test_says_whether_it_is_still_right_and_captures_for_the_next_search(endpoint, known, tmp_path, client, port):
    options = {"name": "shapes", "route_prefix": "/shapes", "num_cpus": 0.1, "max_replicas": 1}
    shapes_endpoint = deploy(known, port=port, capture=tmp_path / "kept", capture_limit=5, **options)
    try:
        for image in shapes(4, 60).items:
            file = io.BytesIO()
            image.open().save(file, "PNG")
            ask(client, shapes_endpoint, file.getvalue())

        def asked() -> dict:
            return client.get(f"{shapes_endpoint.url}/v1/model/health").raise_for_status().json()

        wait_for(lambda: (asked()["health"] or {"images": 0})["images"] >= 12)
        told = asked()
        assert told["health"]["images"] == 12 and told["replicas"] == 1 and told["model"] == "shapes"
        assert told["health"]["accuracy"]["low"] < told["health"]["accuracy"]["high"]
        wait_for(lambda: bool(list((tmp_path / "kept").glob("*.parquet"))))
        assert 1 <= len(read_unlabelled(tmp_path / "kept").images) <= 12
    finally:
        undeploy("shapes")


def test_replicas_leave_what_they_keep_for_each_other_by_version(ray_session):
    from raytl.serving.health_board import RayBoard

    mine, other = RayBoard("app", "a"), RayBoard("app", "b")
    mine.put("v1", b"mine")
    other.put("v1", b"theirs")
    other.put("v2", b"newer")
    assert mine.others("v1") == [b"theirs"] and other.others("v1") == [b"mine"]
    assert mine.others("v2") == [b"newer"] and RayBoard("another", "a").others("v1") == []
