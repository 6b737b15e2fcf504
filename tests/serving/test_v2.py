"""The open inference protocol: answers as those of /v1/predict, limits and errors in its own form."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from raytl.bundles import Bundle, export_bundle
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import Candidate, ServingSettings, bundle_version
from raytl.serving.tensors import HEADER

URL = "/v2/models/first"


@pytest.fixture(scope="module")
def client(bundles):
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), max_images=4, max_body_bytes=200_000)))
    with TestClient(create_http(service), "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def images(png):
    return [png(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def truth(client, images):
    files = [("files", image) for image in images]
    return client.post("/v1/predict", files=files).json()["predictions"]


def agrees(answer, truth) -> bool:
    outputs = {tensor["name"]: tensor for tensor in answer.json()["outputs"]}
    labels, rows = outputs["label"], outputs["probabilities"]
    expected = [list(one["probabilities"].values()) for one in truth]
    same = np.allclose(np.reshape(rows["data"], rows["shape"]), expected, atol=1e-5)
    return same and labels["data"] == [one["label"] for one in truth] and labels["shape"] == [len(truth)]


def tensor(kind, shape, data, **more):
    return {"inputs": [{"name": "image", "datatype": kind, "shape": shape, "data": data}], **more}


def arrays(images, mode):
    stacked = np.stack([np.asarray(Image.open(io.BytesIO(image)).convert(mode)) for image in images])
    return stacked if stacked.ndim == 4 else stacked[..., None]


class TestInfer:
    @pytest.mark.parametrize("path", [URL, f"{URL}/versions/VERSION"])
    def test_encoded_images_are_answered_as_by_predict(self, client, bundles, images, truth, path):
        path = path.replace("VERSION", bundle_version(bundles["first"]))
        body = tensor("BYTES", [3], [base64.b64encode(image).decode() for image in images], id="7é")
        answer = client.post(f"{path}/infer", json=body)
        assert answer.status_code == 200 and agrees(answer, truth)
        told = answer.json()
        assert (told["id"], told["model_name"]) == ("7é", "first")
        assert told["model_version"] == bundle_version(bundles["first"])

    def test_a_named_version_answers_itself_while_another_is_on_trial(self, bundles, images):
        first, second = (bundle_version(bundles[name]) for name in ("first", "second"))
        service = Service()
        candidate = Candidate(bundle=str(bundles["second"]), version=second, share=0.9)
        asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), candidate=candidate)))
        body = tensor("BYTES", [1], [base64.b64encode(images[0]).decode()])
        with TestClient(create_http(service), "http://127.0.0.1") as client:

            def answered_by(path: str) -> set[str]:
                return {client.post(path, json=body).json()["model_version"] for _ in range(20)}

            assert answered_by(f"{URL}/versions/{first}/infer") == {first}
            assert answered_by(f"{URL}/infer") == {first, second}
        service.close()

    def test_a_candidate_that_has_the_labels_in_another_order_answers_in_the_order_that_is_told(
        self, bundles, images, tmp_path
    ):
        """As a bundle that was extended by a class has them, and the next search has not."""
        turned = shutil.copytree(bundles["first"], tmp_path / "turned")
        model = Bundle.load(bundles["first"]).model
        order = [2, 0, 3, 1]
        with torch.no_grad():
            model.head.weight.copy_(model.head.weight[order])
            model.head.bias.copy_(model.head.bias[order])
        model.labels = tuple(model.labels[number] for number in order)
        shutil.rmtree(turned)
        export_bundle(turned, model, metrics={}, provenance={})
        service = Service()
        candidate = Candidate(bundle=str(turned), version=bundle_version(turned), share=0.5)
        asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), candidate=candidate)))
        body = tensor("BYTES", [1], [base64.b64encode(images[0]).decode()])
        with TestClient(create_http(service), "http://127.0.0.1") as client:
            answers = [client.post(f"{URL}/infer", json=body).json() for _ in range(20)]
        service.close()
        assert len({one["model_version"] for one in answers}) == 2
        rows = [next(out["data"] for out in one["outputs"] if out["name"] == "probabilities") for one in answers]
        assert np.ptp(np.array(rows), axis=0).max() < 1e-5

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    @pytest.mark.parametrize("kind", ["UINT8", "FP32"])
    @pytest.mark.parametrize("flat", [True, False])
    def test_arrays_are_answered_as_the_images_they_are(self, client, images, truth, mode, kind, flat):
        pixels = arrays(images, mode)[:1]
        values = pixels if kind == "UINT8" else (pixels / 255).astype(np.float32)
        data = (values.ravel() if flat else values).tolist()
        answer = client.post(f"{URL}/infer", json=tensor(kind, list(pixels.shape), data))
        assert answer.status_code == 200 and agrees(answer, truth[:1])

    @pytest.mark.parametrize("kind", ["BYTES", "UINT8", "FP32"])
    def test_binary_tensors_both_ways(self, client, images, truth, kind):
        pixels = arrays(images, "RGB")
        if kind == "BYTES":
            shape, data = [3], b"".join(len(image).to_bytes(4, "little") + image for image in images)
        else:
            shape = list(pixels.shape)
            data = pixels.tobytes() if kind == "UINT8" else (pixels / 255).astype("<f4").tobytes()
        size = {"binary_data_size": len(data)}
        head = {"inputs": [{"name": "image", "datatype": kind, "shape": shape, "parameters": size}]}
        asked = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
        answer = client.post(f"{URL}/infer", content=asked + data, headers={HEADER: str(len(asked))})
        assert answer.status_code == 200
        length = int(answer.headers[HEADER])
        labels, rows = json.loads(answer.content[:length])["outputs"]
        cut = length + labels["parameters"]["binary_data_size"]
        expected = b"".join(len(one["label"]).to_bytes(4, "little") + one["label"].encode() for one in truth)
        assert answer.content[length:cut] == expected
        found = np.frombuffer(answer.content[cut:], "<f4").reshape(rows["shape"])
        assert np.allclose(found, [list(one["probabilities"].values()) for one in truth], atol=1e-5)

    def test_only_the_outputs_asked_for(self, client, images):
        body = tensor("BYTES", [1, 1], [[base64.b64encode(images[0]).decode()]], outputs=[{"name": "probabilities"}])
        (only,) = client.post(f"{URL}/infer", json=body).json()["outputs"]
        assert (only["name"], only["shape"], only["datatype"]) == ("probabilities", [1, 4], "FP32")

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            (b"{", 400, "not JSON"),
            (b"[]", 400, "no object"),
            (b'{"inputs": []}', 400, "one tensor"),
            (b'{"id": 7, "inputs": [{}]}', 400, "'id' is no string"),
            ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": []}]}, 400, "no input 'x'"),
            (tensor("BYTES", [1], ["!"]), 400, "image[0] is not base64"),
            (tensor("BYTES", [2], ["eA=="]), 400, "its data are 1 images"),
            (tensor("BYTES", [1], ["eA=="]), 422, "image[0]"),
            (tensor("BYTES", [0], []), 400, "shape is [0]"),
            (tensor("BYTES", [-1], []), 400, "whole numbers"),
            (tensor("BYTES", [5], []), 413, "at most 4"),
            (tensor("BYTES", [1], ["eA=="], outputs=[{"name": "logits"}]), 400, "no output 'logits'"),
            (tensor("BYTES", [1], ["eA=="], outputs=[{"name": "\ud800"}]), 400, "no output"),
            (tensor("FP16", [1, 1, 1, 3], [1, 1, 1]), 400, "datatype is 'FP16'"),
            (tensor("UINT8", [1, 1, 1, 4], [1, 1, 1, 1]), 400, "shape is"),
            (tensor("UINT8", [1, 2**30, 2**30, 3], [1]), 400, "its data are 1 numbers"),
            (tensor("UINT8", [1, 1, 1, 3], [1, 1, 256]), 400, "from 0 to 255"),
            (tensor("UINT8", [1, 1, 1, 3], [1, 1, 0.5]), 400, "whole number"),
            (tensor("UINT8", [1, 1, 1, 3], [1, [1], 1]), 400, "one length"),
            (tensor("UINT8", [1, 1, 1, 3], ["x" * 1000, "y", 1]), 400, "all numbers"),
            (tensor("FP32", [1, 1, 1, 3], [1, 1, 10**400]), 400, "all numbers"),
            (b'{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,1,1],"data":[NaN]}]}', 400, "from 0 to 1"),
            (b'{"inputs":' + b"[" * 40 + b"]" * 40 + b"}", 400, "nested more than 32 deep"),
            (b"x" * 200_001, 413, "200000 bytes"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_errors_are_in_the_protocols_form(self, client, body, status, words):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = client.post(f"{URL}/infer", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status and list(answer.json()) == ["error"]
        assert words in answer.json()["error"] and answer.headers["content-type"] == "application/json"

    @pytest.mark.parametrize(
        ("length", "data", "words"),
        [("x", b"", "is 'x'"), ("99999", b"", "the body has"), (None, b"\x09\0\0\0abc", "end too early"),
         (None, b"\x01\0\0\0ab", "more than 1"), (None, b"\x01", "end too early")],
    )  # fmt: skip
    def test_binary_data_that_do_not_fit(self, client, length, data, words):
        size = {"binary_data_size": len(data)}
        document = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": size}]}
        head = json.dumps(document).encode()
        answer = client.post(f"{URL}/infer", content=head + data, headers={HEADER: length or str(len(head))})
        assert answer.status_code == 400 and words in answer.json()["error"]


class TestDescription:
    def test_server_and_model(self, client, bundles):
        assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json()["ready"] is True
        model, version = client.get(URL).json(), bundle_version(bundles["first"])
        assert (model["name"], model["versions"]) == ("first", [version])
        assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert {one["name"]: (one["datatype"], one["shape"]) for one in model["outputs"]} == {
            "label": ("BYTES", [-1]), "probabilities": ("FP32", [-1, 4]),
        }  # fmt: skip
        assert client.get(f"{URL}/versions/{version}/ready").json() == {"name": "first", "ready": True}

    @pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/other/ready", f"{URL}/versions/1"])
    def test_other_names_and_versions(self, client, path):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"].startswith("there is no ")
        assert client.post("/v2/models/other/infer", json={}).status_code == 404
