"""What Prometheus is told, read with its own client's parser; through Serve in test_deploy.py."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tiny import shapes

from raytl.serving.http import create_http
from raytl.serving.ray_metrics import merged
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(page: str) -> Samples:
    families = text_string_to_metric_families(page)
    return {(one.name, tuple(one.labels.items())): one.value for family in families for one in family.samples}


def service_of(bundle: Path, **settings: str) -> Service:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle), **settings)))
    return service


def test_requests_are_counted_by_what_they_ask_for_and_the_answer(bundles, png):
    service = service_of(bundles["first"])
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        for _ in range(3):
            client.post("/v1/predict", content=png(0))
        client.post("/v1/models/raytl/predict", content=b"no image")
        client.post("/v1/explain", content=png(0))
        client.get("/nowhere")
        answer = client.get("/metrics")
        told = parsed(answer.text)
    service.close()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    counted = {labels: value for (name, labels), value in told.items() if name == "raytl_requests_total"}
    expected = {("predict", "200"): 3, ("predict", "422"): 1, ("explain", "200"): 1, ("other", "404"): 1}
    assert counted == {(("asked", asked), ("status", status)): n for (asked, status), n in expected.items()}
    assert told["raytl_requests_under_way", ()] == 1  # this one
    assert told["raytl_predict_seconds_count", ()] == told["raytl_predict_seconds_bucket", (("le", "+Inf"),)] == 4
    assert told["raytl_predict_seconds_sum", ()] > 0
    assert not any("accuracy" in name for name, _ in told)  # a bundle that cannot tell


def test_what_is_said_of_the_model_is_there_too(known):
    service = service_of(known)
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        for item in shapes(4, 50).items:
            file = io.BytesIO()
            item.open().save(file, "PNG")
            client.post("/v1/predict", content=file.getvalue())
        health = client.get("/v1/model/health").json()["health"]
        told = parsed(client.get("/metrics").text)
    service.close()
    assert told["raytl_judged_images", ()] == health["images"] == 12
    assert told["raytl_estimated_accuracy", ()] == health["accuracy"]["value"]
    assert told["raytl_drift_alarm", ()] == health["drift"]["alarm"]
    assert {dict(labels)["label"]: n for (name, labels), n in told.items() if name == "raytl_label_share"} == health[
        "shares"
    ]


def test_the_token_is_asked_for(bundles):
    service = service_of(bundles["first"], token_sha256="0" * 64)
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        assert client.get("/metrics").status_code == 401
    service.close()


def test_behind_serve_it_is_what_is_gathered(bundles):
    async def gathered() -> str:
        return "# TYPE ray_serve_x gauge\nray_serve_x 1.0\n"

    service = service_of(bundles["first"])
    with TestClient(create_http(service, metrics=gathered), "http://127.0.0.1") as client:
        assert parsed(client.get("/metrics").text) == {("ray_serve_x", ()): 1.0}
    service.close()


def test_of_several_nodes_a_metric_stands_together_and_once():
    head = "# HELP ray_serve_n_total Requests, in all\n# TYPE ray_serve_n_total counter\n"
    other = "# HELP ray_gcs_x Of Ray itself\n# TYPE ray_gcs_x gauge\nray_gcs_x 1.0\n"
    last = "# HELP ray_raytl_y Y\n# TYPE ray_raytl_y gauge\nray_raytl_y 2.0\n"
    pages = [f'{other}{head}ray_serve_n_total{{node="a"}} 1.0\n{last}', f'{head}ray_serve_n_total{{node="b"}} 2.0\n']
    whole = merged(pages)
    assert whole == f'{head}ray_serve_n_total{{node="a"}} 1.0\nray_serve_n_total{{node="b"}} 2.0\n{last}'
    assert len(parsed(whole)) == 3 and merged([]) == ""


def test_what_two_nodes_describe_differently_is_described_once():
    """As while one of them has an older raytl; a second description makes the page unreadable."""
    one, other = (
        f'# HELP ray_raytl_x {about}\n# TYPE ray_raytl_x {kind}\nray_raytl_x{{node="{node}"}} 1.0\n'
        for about, kind, node in (("X", "gauge", "a"), ("X, in all", "counter", "b"))
    )
    assert merged([one, other]) == one + 'ray_raytl_x{node="b"} 1.0\n'
