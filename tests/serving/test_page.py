"""The pages over HTTP, what counted in an image, and who is kept out; test_page_browser.py looks at them."""

from __future__ import annotations

import asyncio
import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from raytl.bundles import Bundle
from raytl.serving import tokens
from raytl.serving.http import create_http
from raytl.serving.occlusion import occlusion
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings


def client_of(bundle, **settings) -> TestClient:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle), **settings)))
    return TestClient(create_http(service), "http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(bundles):
    with client_of(bundles["first"], max_images=4) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs"])
class TestPages:
    def test_need_nothing_from_elsewhere_and_nothing_inline(self, client, path):
        text = client.get(path).text
        names = re.findall(r'(?:src|href)="(static/[^"]+)"', text)
        assert len(names) >= 4
        for name in names:
            answer = client.get(f"/{name}")
            assert answer.status_code == 200
            text += answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", client.get(path).text)

    def test_headers_keep_others_out(self, client, path):
        for name in (path, "/static/dom.js", "/static/base.css"):
            headers = client.get(name).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"

    def test_load_without_the_token_which_the_api_asks_for(self, bundles, path):
        with client_of(bundles["first"], token_sha256=tokens.hashed("secret")) as client:
            assert client.get(path).status_code == client.get("/static/try.js").status_code == 200
            assert client.get("/v1/model").status_code == client.get("/openapi.json").status_code == 401
            assert client.post("/v1/explain").status_code == client.get("/v2").status_code == 401
            assert client.get("/v2/health/ready").status_code == 200

    def test_under_a_prefix(self, bundles, path):
        service = Service()
        settings = ServingSettings(bundle=str(bundles["first"]), token_sha256=tokens.hashed("secret"))
        asyncio.run(service.apply(settings))
        with TestClient(create_http(service), "http://127.0.0.1", root_path="/other") as client:
            assert client.get("/other", follow_redirects=False).headers["location"].endswith("/other/")
            answer = client.get(f"/other{path}")
            assert answer.status_code == 200 and 'src="static/dom.js"' in answer.text


def test_only_files_of_the_pages_are_given(client):
    for name in ("__init__.py", "..%2fhttp.py", "try.html", "x"):
        assert client.get(f"/static/{name}").status_code == 404


def test_other_sites_are_told_nothing(client, png):
    foreign = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (client.options("/v1/predict", headers=foreign), client.get("/v1/model", headers=foreign)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


class TestExplain:
    def test_what_counted_is_where_it_is(self):
        """A network that looks at one corner."""

        async def compute(images: np.ndarray) -> np.ndarray:
            lit = images[:, 0, :8, 24:].mean(axis=(1, 2)) / 255
            return np.stack([lit, 1 - lit], axis=1).astype(np.float32)

        image = np.zeros((1, 32, 32), dtype=np.uint8)
        image[:, :8, 24:] = 255
        whole, drops = asyncio.run(occlusion(image, 0, compute, 60))
        assert drops.shape == (8, 8) and whole == 1
        assert (drops[:2, 6:] > 0.2).all() and np.abs(drops[3:]).max() == 0 and np.abs(drops[:, :5]).max() == 0

    def test_costs_no_more_where_there_is_no_time(self):
        counted = []

        async def compute(images: np.ndarray) -> np.ndarray:
            counted.append(len(images))
            return np.full((len(images), 2), 0.5, dtype=np.float32)

        image = np.zeros((3, 16, 16), dtype=np.uint8)
        assert asyncio.run(occlusion(image, 0, compute, 0))[1].shape == (4, 4)
        assert sum(counted) == 17 and max(counted) <= 8
        asyncio.run(occlusion(image, 0, compute, 60))
        assert sum(counted) == 17 + 81

    def test_is_of_the_answer_that_predict_gives(self, client, bundles, png):
        expected = Bundle.load(bundles["first"]).predict([png(1)])[0]
        found = client.post("/v1/explain", content=png(1)).json()
        assert found["label"] == expected.label and found["probability"] == pytest.approx(expected.confidence, abs=1e-5)
        assert np.shape(found["drops"]) == (8, 8) and np.isfinite(found["drops"]).all()
        seen = Image.open(io.BytesIO(base64.b64decode(found["seen"].partition(",")[2])))
        assert np.array_equal(np.asarray(seen), Bundle.load(bundles["first"]).prepare(png(1))[0])

    def test_of_another_label(self, client, png):
        found = client.post("/v1/explain?label=tulip", content=png(1)).json()
        assert found["label"] == "tulip"
        assert client.post("/v1/explain?label=oak", content=png(1)).status_code == 400

    def test_obeys_the_limits_of_predict(self, client, bundles, png):
        assert client.post("/v1/explain", files=[("f", png(0))] * 2).status_code == 413
        assert client.post("/v1/explain", content=b"hello").status_code == 422
        with client_of(bundles["first"], max_body_bytes=10, max_pixels=100) as narrow:
            assert narrow.post("/v1/explain", content=png(0)).status_code == 413
        with client_of(bundles["first"], max_pixels=100) as narrow:
            assert narrow.post("/v1/explain", content=png(0)).status_code == 413

    def test_is_no_part_of_what_came_in(self, bundles, png):
        service = Service()
        asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]))))
        with TestClient(create_http(service), "http://127.0.0.1") as client:
            client.post("/v1/explain", content=png(0))
            assert service.monitor.seen == 0
            client.post("/v1/predict?sets=true", content=png(0))
            assert service.monitor.seen == 1


class TestSets:
    def test_of_a_bundle_that_knows(self, known):
        picture = io.BytesIO()
        Image.new("RGB", (16, 16), "magenta").save(picture, "PNG")
        with client_of(known) as client:
            (said,) = client.post("/v1/predict?sets=true", content=picture.getvalue()).json()["predictions"]
            assert said["label"] in said["labels"] and isinstance(said["none_of_these"], bool | None)
            (plain,) = client.post("/v1/predict", content=picture.getvalue()).json()["predictions"]
            assert {"labels", "none_of_these"}.isdisjoint(plain)
            assert plain["probabilities"] == pytest.approx(said["probabilities"], abs=1e-6)

    def test_of_one_that_does_not(self, client, png):
        (said,) = client.post("/v1/predict?sets=1", content=png(0)).json()["predictions"]
        assert said["labels"] is None and said["none_of_these"] is None
        assert client.post("/v1/predict?sets=perhaps", content=png(0)).status_code == 400
