"""Every form of request and every refusal, against the service in this process; test_deploy.py goes through Serve."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import shutil
import time
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from raytl.bundles import Bundle, Threshold, export_bundle
from raytl.core.errors import UserError
from raytl.serving import gate
from raytl.serving.app import Classifier
from raytl.serving.http import create_http
from raytl.serving.live import LiveModel
from raytl.serving.live import load as load_live
from raytl.serving.service import Service
from raytl.serving.settings import Candidate, ServingSettings, bundle_version
from raytl.sources import load
from raytl.tasks.decoding import MAX_PIXELS
from tests.tasks.pictures import empty_avif


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def client_of(service: Service) -> TestClient:
    return TestClient(create_http(service), "http://127.0.0.1", raise_server_exceptions=False)


def serving(bundle, **limits) -> Service:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle), **limits)))
    return service


@pytest.fixture(scope="module")
def client(bundles):
    with client_of(serving(bundles["first"], max_images=4, max_body_bytes=100_000)) as client:
        yield client


@pytest.fixture(scope="module")
def roomy(bundles):
    """With the limits as they are by default."""
    with client_of(serving(bundles["first"])) as client:
        yield client


@pytest.fixture(scope="module")
def truth(bundles, png):
    bundle = Bundle.load(bundles["first"])
    return {seed: bundle.predict([png(seed)])[0] for seed in range(4)}


def agrees(prediction, expected) -> bool:
    return prediction["label"] == expected.label and prediction["probabilities"] == pytest.approx(
        expected.probabilities, abs=1e-5
    )


class TestForms:
    @pytest.mark.parametrize("kind", ["image/png", "image/x-anything", "application/octet-stream", ""])
    def test_image_bytes(self, client, png, truth, kind):
        answer = client.post("/v1/predict", content=png(1), headers={"content-type": kind} if kind else {})
        assert answer.status_code == 200
        assert answer.json()["model"] == "first"
        assert agrees(answer.json()["predictions"][0], truth[1])

    def test_multipart_files_in_their_order(self, client, png, truth):
        files = [("files", (f"{seed}.png", png(seed), "image/png")) for seed in (2, 0, 3)]
        predictions = client.post("/v1/predict", files=files).json()["predictions"]
        assert [agrees(p, truth[seed]) for p, seed in zip(predictions, (2, 0, 3), strict=True)] == [True] * 3

    def test_json_with_one_image(self, client, png, truth):
        predictions = client.post("/v1/predict", json={"image": b64(png(3))}).json()["predictions"]
        assert len(predictions) == 1 and agrees(predictions[0], truth[3])

    def test_json_with_many_images_in_their_order(self, client, png, truth):
        body = {"images": [b64(png(1)), "data:image/png;base64," + b64(png(0))]}
        predictions = client.post("/v1/predict", json=body).json()["predictions"]
        assert [agrees(p, truth[seed]) for p, seed in zip(predictions, (1, 0), strict=True)] == [True] * 2

    def test_top_lists_the_best_first(self, client, png, truth):
        prediction = client.post("/v1/predict?top=2", content=png(0)).json()["predictions"][0]
        best = sorted(truth[0].probabilities.items(), key=lambda item: -item[1])[:2]
        assert list(prediction["probabilities"]) == [label for label, _ in best]
        assert prediction["label"] == best[0][0]
        assert prediction["confidence"] == prediction["probabilities"][prediction["label"]]


def is_problem(answer) -> bool:
    """Whether it is a problem document (RFC 9457) that says the same as the status line."""
    document = answer.json()
    said = document["type"] == "about:blank" and document["status"] == answer.status_code
    same = document["detail"] == document["error"] and document["title"] == HTTPStatus(answer.status_code).phrase
    return said and same and answer.headers["content-type"] == "application/problem+json"


JSON = {"content-type": "application/json"}
REFUSALS = {
    "empty body": ({"content": b""}, 400, "the request is empty"),
    "not an image": ({"content": b"hello"}, 422, "the image"),
    "html": ({"content": b"<p>", "headers": {"content-type": "text/html"}}, 415, "'text/html'"),
    "form": ({"data": {"a": "b"}}, 415, "x-www-form-urlencoded"),
    "not JSON": ({"content": b"{", "headers": JSON}, 400, "not JSON"),
    "deep JSON": ({"content": b"[" * 50_000, "headers": JSON}, 400, "nested more than 32 deep"),
    "deep JSON beside an image": (
        {"content": b'{"image": "eA==", "x": ' + b'{"a": [' * 20 + b"]}" * 20 + b"}", "headers": JSON},
        400,
        "nested more than 32 deep",
    ),
    "JSON in UTF-16": ({"content": '{"image": ""}'.encode("utf-16"), "headers": JSON}, 400, "not JSON"),
    "a number without end": ({"content": b"9" * 50_000, "headers": JSON}, 400, "not"),
    "other JSON": ({"json": {"picture": "x"}}, 400, '{"image": base64}'),
    "no list": ({"json": {"images": "x"}}, 400, '{"images": [base64'),
    "empty list": ({"json": {"images": []}}, 400, "holds no image"),
    "neither image nor images": ({"json": {"image": "", "images": []}}, 400, "not of the form"),
    "another coding": ({"content": b"x", "headers": {"content-encoding": "br"}}, 415, "'br' is not understood"),
    "not gzip": ({"content": b"hello", "headers": {"content-encoding": "gzip"}}, 400, "not gzip"),
    "half a gzip": ({"content": gz(b"x" * 99)[:-9], "headers": {"content-encoding": "gzip"}}, 400, "ends too early"),
    "base64 of an odd length": ({"json": {"image": "abcde"}}, 400, "not base64"),
    "base64 in another script": ({"json": {"image": "\u0416\u0416\u0416\u0416"}}, 400, "not base64"),
    "not base64": ({"json": {"images": ["!"]}}, 400, "images[0] is not base64"),
    "not a string": ({"json": {"images": [7]}}, 400, "images[0] is not a string"),
    "multipart without files": ({"files": {"a": (None, "b")}}, 400, "holds no image"),
    "300 parts without files": ({"files": [("a", (None, "b"))] * 300}, 400, "Too many fields"),
    "broken multipart": (
        {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "multipart",
    ),
    "too many files": ({"files": [("f", b"x")] * 9}, 413, "at most 4"),
    "300 files": ({"files": [("f", b"x")] * 300}, 413, "at most 4"),
    "too many in JSON": ({"json": {"images": ["eA=="] * 5}}, 413, "at most 4"),
    "too large": ({"content": b"x" * 100_001}, 413, "100000 bytes"),
}


PACKED = {"content-encoding": "gzip"}


class TestAsPeopleSend:
    @pytest.mark.parametrize(
        "write",
        [
            lambda data: base64.encodebytes(data).decode(),
            lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
            lambda data: base64.urlsafe_b64encode(data).decode(),
            lambda data: base64.b64encode(data).decode().rstrip("="),
            lambda data: "data:image/png;base64," + base64.urlsafe_b64encode(data).decode().rstrip("="),
        ],
        ids=["line breaks", "CRLF", "URL-safe", "no padding", "data URL"],
    )
    @pytest.mark.parametrize("tail", [b"", b"x", b"xy"])  # for each length of the padding; Pillow ignores what follows
    def test_base64_in_each_of_its_forms(self, client, png, truth, write, tail):
        answer = client.post("/v1/predict", json={"image": write(png(1) + tail)})
        assert answer.status_code == 200 and agrees(answer.json()["predictions"][0], truth[1])

    def test_a_gzip_body(self, client, png, truth):
        for body, kind in ((png(1), "image/png"), (json.dumps({"image": b64(png(1))}).encode(), "application/json")):
            answer = client.post("/v1/predict", content=gz(body), headers={**PACKED, "content-type": kind})
            assert answer.status_code == 200 and agrees(answer.json()["predictions"][0], truth[1])

    def test_a_gzip_body_of_several_frames(self, client, png):
        data = png(1)
        answer = client.post("/v1/predict", content=gz(data[:50]) + gz(data[50:]), headers=PACKED)
        assert answer.status_code == 200

    @pytest.mark.parametrize("frames", [1, 1000])
    def test_a_gzip_bomb_is_cut_off_at_the_limit(self, client, frames):
        body = gz(bytes(2_000_000 // frames)) * frames
        answer = client.post("/v1/predict", content=body[:90_000], headers=PACKED)
        assert answer.status_code == 413 and "unpacks" in answer.json()["error"]

    def test_other_keys_are_named_and_left_aside(self, client, png, truth):
        answer = client.post("/v1/predict", json={"image": b64(png(1)), "id": 7, "user": "x"}).json()
        assert agrees(answer["predictions"][0], truth[1]) and answer["ignored"] == ["id", "user"]
        assert "ignored" not in client.post("/v1/predict", json={"image": b64(png(1))}).json()

    def test_brackets_in_strings_are_no_depth(self, client, png):
        body = json.dumps({"image": b64(png(1)), "note": '[{"' * 40 + "\\"}).encode()
        answer = client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200 and answer.json()["ignored"] == ["note"]

    def test_half_a_character_in_a_key(self, client, png):
        body = b'{"image": "%s", "\\ud800": 1}' % b64(png(1)).encode()
        answer = client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200 and answer.json()["ignored"] == ["\ud800"]

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/model"])
    def test_head_is_get_without_the_body(self, client, path):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(mode: str) -> Image.Image:
    return Image.linear_gradient("L").convert(mode)


ODD = {
    "animated GIF": lambda: encoded(gradient("P"), "GIF", save_all=True, append_images=[gradient("P")] * 3),
    "animated WebP": lambda: encoded(gradient("RGB"), "WEBP", save_all=True, append_images=[gradient("RGB")] * 3),
    "animated PNG": lambda: encoded(gradient("RGB"), "PNG", save_all=True, append_images=[gradient("RGB")] * 3),
    "pages of a TIFF": lambda: encoded(gradient("RGB"), "TIFF", save_all=True, append_images=[gradient("RGB")]),
    "CMYK JPEG": lambda: encoded(gradient("CMYK"), "JPEG"),
    "CMYK TIFF": lambda: encoded(gradient("CMYK"), "TIFF"),
    "LAB TIFF": lambda: encoded(Image.new("LAB", (9, 9)), "TIFF"),
    "16 bits": lambda: encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG"),
    "floating point": lambda: encoded(gradient("F"), "TIFF"),
    "one bit": lambda: encoded(gradient("1"), "PNG"),
    "palette with transparency": lambda: encoded(gradient("P"), "PNG", transparency=3),
    "transparent": lambda: encoded(gradient("RGBA"), "PNG"),
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "a profile of nonsense": lambda: encoded(gradient("RGB"), "JPEG", icc_profile=b"nonsense" * 99),
    "EXIF of nonsense": lambda: encoded(gradient("RGB"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "with something behind it": lambda: encoded(gradient("RGB"), "PNG") + b"<script>" * 99,
}
BROKEN = {
    "half a JPEG": lambda: encoded(gradient("RGB"), "JPEG")[:300],
    "half a WebP": lambda: encoded(gradient("RGB"), "WEBP")[:60],
    "half a TIFF": lambda: encoded(gradient("RGB"), "TIFF")[:200],
    "an AVIF of zeros": empty_avif,
    "a flipped byte": lambda: bytes(b ^ (i == 60) for i, b in enumerate(encoded(gradient("RGB"), "PNG"))),
    "too many pixels": lambda: encoded(Image.new("1", (30_000, 30_000)), "PNG"),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": lambda: b"%PDF-1.7",
}


class TestThreshold:
    @pytest.fixture
    def screening(self, bundles, tmp_path):
        """The first bundle's network with two of its labels, and a threshold that is easily met."""
        model = load(f"file:{bundles['first']}")
        model.replace_head(2, ("defect", "fine"))
        point = Threshold(label="defect", value=0.0)
        return export_bundle(tmp_path / "screening", model, metrics={}, provenance={}, threshold=point)

    def test_decides_what_is_answered(self, screening, png):
        with client_of(serving(screening)) as client:
            answer = client.post("/v1/predict?top=1", files=[("f", png(seed)) for seed in range(8)]).json()
            assert client.get("/v1/model").json()["threshold"] == {"label": "defect", "value": 0.0}
        offline = Bundle.load(screening).predict([png(seed) for seed in range(8)])
        assert {p["label"] for p in answer["predictions"]} == {"defect"} == {p.label for p in offline}
        for prediction, expected in zip(answer["predictions"], offline, strict=True):
            assert prediction["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
            assert list(prediction["probabilities"]) == ["defect"]


class TestHostileImages:
    @pytest.mark.parametrize("name", ODD)
    def test_an_odd_image_gets_an_answer(self, roomy, name):
        answer = roomy.post("/v1/predict", content=ODD[name]())
        assert answer.status_code == 200, answer.text

    @pytest.mark.parametrize("name", BROKEN)
    def test_a_broken_one_gets_a_sentence(self, roomy, name):
        answer = roomy.post("/v1/predict", content=BROKEN[name]())
        assert answer.status_code == 422 and is_problem(answer)

    def test_many_images_just_under_the_limit_are_refused_before_they_are_decoded(self, roomy):
        side = int(MAX_PIXELS**0.5)
        bomb = encoded(Image.new("1", (side, side)), "PNG")
        start = time.process_time()
        Image.open(io.BytesIO(bomb)).load()
        decoded = time.process_time()
        answer = roomy.post("/v1/predict", files=[("f", bomb)] * 16)
        assert time.process_time() - decoded < 8 * (decoded - start)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("the 16 images have together 1432 megapixels, more than 268;")

    def test_large_ones_are_decoded_one_after_another_and_leave_no_memory_behind(self, roomy):
        side = 5000
        large = encoded(Image.new("RGB", (side, side)), "PNG", compress_level=1)
        roomy.post("/v1/predict", content=large)  # whatever is loaded once
        before = resident_mb()
        answer = roomy.post("/v1/predict", files=[("f", large)] * 6)
        assert answer.status_code == 200 and len(answer.json()["predictions"]) == 6
        assert resident_mb() - before < 50  # one such image has 100 MB

    def test_an_operators_limit_holds_for_a_single_image(self, bundles):
        with client_of(serving(bundles["first"], max_pixels=100)) as client:
            answer = client.post("/v1/predict", content=encoded(gradient("RGB"), "PNG"))
        assert answer.status_code == 413 and "scale it down" in answer.json()["error"]


def resident_mb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSALS)
    def test_one_sentence_and_a_4xx(self, client, case):
        request, status, words = REFUSALS[case]
        answer = client.post("/v1/predict", **request)
        assert answer.status_code == status and is_problem(answer)
        assert words in answer.json()["error"] and "\n" not in answer.json()["error"]

    def test_names_the_bad_one_among_good_ones(self, client, png):
        body = {"images": [b64(png(0)), b64(png(1)[:50]), b64(png(2))]}
        answer = client.post("/v1/predict", json=body)
        assert answer.status_code == 422 and "images[1]" in answer.json()["error"]
        files = [("f", ("good.png", png(0))), ("f", ("bad.png", b"GIF89a"))]
        answer = client.post("/v1/predict", files=files)
        assert answer.status_code == 422 and "bad.png" in answer.json()["error"]

    def test_a_stream_without_a_length_is_cut_off_at_the_limit(self, client):
        def endless():
            for _ in range(1000):
                yield b"x" * 1000

        answer = client.post("/v1/predict", content=endless())
        assert "content-length" not in answer.request.headers
        assert answer.status_code == 413

    @pytest.mark.parametrize("top", ["0", "-1", "two", "1.5", "", "²"])
    def test_top_must_be_a_number_above_zero(self, client, png, top):
        answer = client.post("/v1/predict", params={"top": top}, content=png(0))
        assert answer.status_code == 400 and "whole number" in answer.json()["error"]

    def test_unknown_path_and_method_are_sentences_too(self, client):
        answer = client.get("/nowhere")
        assert is_problem(answer) and answer.status_code == 404
        assert answer.json()["error"] == "GET /nowhere: there is nothing here; /docs lists what there is"
        for method in ("GET", "PUT"):  # PUT is what `curl -T` sends by itself
            answer = client.request(method, "/v1/predict")
            assert answer.status_code == 405 and answer.headers["allow"] == "POST" and is_problem(answer)
            assert answer.json()["error"] == (
                f"{method} /v1/predict: this path takes POST; send it so (with curl: -X POST)"
            )
        answer = client.post("/v1/model", content=b"x")
        assert answer.headers["allow"] == "GET, HEAD" and "takes GET, HEAD; send it so (with" in answer.json()["error"]

    @pytest.mark.parametrize(
        "path",
        [
            *("/v1/model", "/v1/model/health", "/v1/models", "/v1/models/raytl"),
            *("/v2", "/v2/health/live", "/readyz", "/metrics"),
        ],
    )
    def test_the_head_alone_is_there_where_the_whole_is(self, client, path):
        head, whole = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"") and whole.status_code == 200

    def test_a_model_that_cannot_compute_any_more_is_not_ready(self, bundles, png):
        service = serving(bundles["first"])
        with client_of(service) as client:
            assert client.get("/readyz").status_code == client.get("/v2/health/ready").status_code == 200

            def dead(*_: object) -> np.ndarray:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore of it")

            service.live.bundle.compute = dead
            assert client.post("/v1/predict", content=png(0)).status_code == 500
            for path in ("/healthz", "/readyz", "/v2/health/ready"):
                assert client.get(path).status_code == 503
            told = client.get("/readyz").json()["error"]
        assert told.startswith("the model cannot compute any more (AcceleratorError: CUDA error") and "\n" not in told
        replica = object.__new__(Classifier)
        replica._service = service
        with pytest.raises(RuntimeError, match="cannot compute any more"):  # Serve replaces it
            replica.check_health()

    def test_too_slow_is_504_with_a_time_to_come_back(self, bundles, png):
        with client_of(serving(bundles["first"], request_timeout_s=1e-6)) as client:
            answer = client.post("/v1/predict", content=png(0))
        assert answer.status_code == 504 and answer.headers["retry-after"] == "1"

    def test_many_lists_are_refused_before_they_take_memory(self, roomy):
        body = b'{"images": [' + b"[]," * 1_000_001 + b"[]]}"
        answer = roomy.post("/v1/predict", content=body, headers=JSON)
        assert answer.status_code == 413 and "1000000 lists" in answer.json()["error"] and is_problem(answer)

    @pytest.mark.parametrize("end", [b"", b"\\"])
    def test_a_string_without_an_end_is_gone_through_once(self, roomy, end):
        body = b"[" * 33 + b'"' + b'\\"' * 80_000 + end
        start = time.process_time()
        answer = roomy.post("/v1/predict", content=body, headers=JSON)
        assert time.process_time() - start < 5  # from each of its quotes anew it is half a minute
        assert answer.status_code == 400 and "nested" in answer.json()["error"]

    def test_many_gzip_frames_are_not_copied_for_each(self, roomy):
        body = gz(b"") * 400_000
        start = time.process_time()
        answer = roomy.post("/v1/predict", content=body, headers=PACKED)
        assert time.process_time() - start < 10  # with a copy of the rest for each it is more than half a minute
        assert answer.status_code == 400 and "empty" in answer.json()["error"]

    @pytest.mark.parametrize("size", [1, 16 * 1024, 40_000])
    def test_a_gzip_body_that_ends_too_early_is_a_sentence(self, roomy, size):
        whole = gz(np.random.default_rng(0).bytes(100_000))
        answer = roomy.post("/v1/predict", content=whole[:size], headers=PACKED)
        assert answer.status_code == 400 and "ends too early" in answer.json()["error"]

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        body=st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps),
        kind=st.sampled_from(["", "image/png", "application/json", "multipart/form-data; boundary=x", "text/plain"]),
    )
    def test_no_garbage_is_our_fault(self, client, body, kind):
        answer = client.post("/v1/predict", content=body, headers={"content-type": kind} if kind else {})
        assert 400 <= answer.status_code < 500 and is_problem(answer)


class TestDescription:
    def test_model_tells_labels_metrics_and_provenance(self, client, bundles):
        model = client.get("/v1/model").json()
        manifest = json.loads((bundles["first"] / "model.json").read_text())
        assert (model["model"], model["version"]) == ("first", bundle_version(bundles["first"]))
        assert {key: model[key] for key in manifest} == manifest

    def test_openapi_documents_the_routes(self, client):
        paths = client.get("/openapi.json").json()["paths"]
        ours = {path for path in paths if not path.startswith("/v2")}
        assert ours == {
            *("/v1/predict", "/v1/explain", "/v1/model", "/v1/model/health", "/healthz", "/readyz", "/metrics"),
            *("/v1/models", "/v1/models/{model_name}", "/v1/models/{model_name}/predict"),
            "/v1/models/{model_name}/health",
        }
        assert set(paths["/v1/predict"]["post"]["requestBody"]["content"]) >= {"application/json", "image/*"}

    def test_openapi_tells_of_whoever_is_not_let_in_on_every_path_that_is_not_open_to_all(self, client):
        paths = client.get("/openapi.json").json()["paths"]
        silent = {
            (method, path)
            for path, methods in paths.items()
            for method, route in methods.items()
            if path not in gate._OPEN and not {"401", "403", "421"} <= route["responses"].keys()
        }
        assert silent == set() and len(paths) > len(gate._OPEN & paths.keys()) > 0


class TestSwap:
    def test_the_next_request_meets_the_new_model(self, bundles, png):
        service = serving(bundles["first"])
        with client_of(service) as client:
            asyncio.run(service.apply(ServingSettings(bundle=str(bundles["second"]))))
            answer = client.post("/v1/predict", content=png(0)).json()
        assert answer["model"] == "second"
        assert agrees(answer["predictions"][0], Bundle.load(bundles["second"]).predict([png(0)])[0])

    def test_a_bundle_that_does_not_load_leaves_the_old_one_serving(self, bundles, png, tmp_path):
        service = serving(bundles["first"])
        asyncio.run(service.apply(ServingSettings(bundle=str(tmp_path))))
        with client_of(service) as client:
            health = client.get("/healthz").json()
            assert client.post("/v1/predict", content=png(0)).json()["model"] == "first"
        assert health["version"] == bundle_version(bundles["first"]) and str(tmp_path) in health["refused"]

    @pytest.mark.parametrize("as_candidate", [False, True])
    def test_one_that_finds_no_memory_leaves_the_old_one_serving(self, bundles, png, as_candidate):
        def crowded(settings: ServingSettings) -> LiveModel:
            live = load_live(settings)
            if live.bundle.manifest.provenance["run"] == "second":
                torch.empty(2**60, dtype=torch.uint8)
            return live

        service = Service(crowded)
        first = ServingSettings(bundle=str(bundles["first"]))
        asyncio.run(service.apply(first))
        other = Candidate(bundle=str(bundles["second"]), version=bundle_version(bundles["second"]))
        second = replace(first, candidate=other) if as_candidate else ServingSettings(bundle=other.bundle)
        asyncio.run(service.apply(second))
        with client_of(service) as client:
            refused = client.get("/healthz").json()["refused"]
            assert client.post("/v1/predict", content=png(0)).json()["model"] == "first"
        assert str(bundles["second"]) in refused and "allocate" in refused and "\n" not in refused
        with pytest.raises(UserError, match="second: the bundle cannot be loaded"):
            asyncio.run(Service(crowded).apply(ServingSettings(bundle=other.bundle)))

    def test_the_first_bundle_must_load(self, tmp_path):
        with pytest.raises(UserError, match=r"model\.json is missing"):
            serving(tmp_path)

    def test_another_version_than_was_deployed_is_not_served(self, bundles):
        with pytest.raises(UserError, match="changed after it was deployed"):
            serving(bundles["first"], version="0" * 12)


class TestSettings:
    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({}, "no 'bundle'"),
            ({"bundel": "x"}, "did you mean 'bundle'"),
            ({"bundle": "x", "max_images": 0}, "'max_images' is 0"),
            ({"bundle": "x", "max_batch_size": "many"}, "'max_batch_size' is 'many'"),
        ],
    )
    def test_a_mistake_is_a_sentence(self, values, words):
        with pytest.raises(UserError, match=words):
            ServingSettings.parse(values)

    def test_plain_values_bring_them_back(self):
        settings = ServingSettings(bundle="x", max_images=7, request_timeout_s=2.5)
        assert ServingSettings.parse(settings.to_json()) == settings


def test_a_bundle_that_fails_its_own_reference_predictions_is_not_served(bundles, tmp_path):
    permuted = Path(shutil.copytree(bundles["first"], tmp_path / "permuted"))
    manifest = json.loads((permuted / "model.json").read_text())
    manifest["labels"] = manifest["labels"][1:] + manifest["labels"][:1]
    (permuted / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="permuted: fails its own reference predictions: of 4 images"):
        serving(permuted)
    service = serving(bundles["first"])
    asyncio.run(service.apply(ServingSettings(bundle=str(permuted))))
    assert service.live.name == "first" and "fails its own reference predictions" in service.refused


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/models/raytl/predict", "/v1/explain"])
def test_what_goes_wrong_here_is_a_problem_document_too(bundles, png, path):
    service = serving(bundles["first"])
    client = client_of(service)
    service.close()  # whoever asks now finds no thread to compute it
    answer = client.post(path, content=png(1))
    assert answer.status_code == 500 and is_problem(answer)
