"""The runtime without torch and Ray: it answers as the endpoint does, and needs nothing that it is to do without."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tiny import shapes

from raytl.bundles.onnx import export_onnx
from raytl.bundles.onnx_model import ONNX_FILE, OnnxModel
from raytl.core.errors import UserError
from raytl.serving import runtime
from raytl.serving.http import create_http
from raytl.serving.live import load, warmed
from raytl.serving.service import Load, Service
from raytl.serving.settings import ServingSettings

ROOT = Path(__file__).parents[2]
WITHOUT = ("torch", "ray", "pandas", "sklearn", "matplotlib", "scipy", "pyarrow", "optuna", "torchvision", "onnx")
CODE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WITHOUT}:
            raise ImportError(f"{{name}} is not there")

sys.meta_path.insert(0, Absent())
from raytl.serving.runtime import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def bundle(bundles, tmp_path_factory) -> Path:
    folder = Path(shutil.copytree(bundles["first"], tmp_path_factory.mktemp("onnx") / "first"))
    export_onnx(folder)
    return folder


def client(bundle: Path, load: Load, **limits: object) -> TestClient:
    service = Service(load)
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle), **limits)))
    return TestClient(create_http(service), "http://127.0.0.1", raise_server_exceptions=False)


@contextlib.contextmanager
def server(*arguments: object, home: Path | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process in which nothing of ``WITHOUT`` can be imported."""
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({} if home is None else {"HOME": str(home)})}
    environment = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "ORT_"))}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving "), process.stderr.read()
            yield line.split()[-1], process
        finally:
            process.kill()


BODIES = {
    "bytes": lambda a, b: {"content": a, "headers": {"Content-Type": "image/png"}},
    "files": lambda a, b: {"files": [("files", ("a.png", a)), ("files", ("b.png", b))]},
    "JSON": lambda a, b: {"json": {"images": [base64.b64encode(a).decode(), base64.urlsafe_b64encode(b).decode()]}},
    "gzip": lambda a, b: {"content": gzip.compress(a), "headers": {"Content-Encoding": "gzip"}},
    "ignored keys": lambda a, b: {"json": {"image": base64.b64encode(b).decode(), "note": 1}},
    "no image": lambda a, b: {"content": b"GIF89a"},
    "nothing": lambda a, b: {"content": b""},
    "not JSON": lambda a, b: {"content": b"{", "headers": {"Content-Type": "application/json"}},
    "another type": lambda a, b: {"content": b"a,b", "headers": {"Content-Type": "text/csv"}},
    "too many": lambda a, b: {"files": [("files", (f"{number}.png", a)) for number in range(5)]},
    "too many pixels": lambda a, b: {"files": [("files", ("a.png", a)), ("files", ("b.png", a))] * 2},
    "too large": lambda a, b: {"content": b"x" * 60_000},
}


@pytest.mark.parametrize("form", BODIES)
def test_answers_as_the_endpoint_does(bundle, png, form):
    limits = {"max_images": 4, "max_pixels": 5000, "max_body_bytes": 50_000}
    asked = BODIES[form](png(1), png(2))
    on_torch = client(bundle, load, **limits).post("/v1/predict?top=3", **asked)
    found = client(bundle, partial(warmed, read=OnnxModel.load), **limits).post("/v1/predict?top=3", **asked)
    assert found.status_code == on_torch.status_code
    assert found.headers["content-type"] == on_torch.headers["content-type"]
    expected, told = on_torch.json(), found.json()
    pairs = zip(told.pop("predictions", ()), expected.pop("predictions", ()), strict=True)
    assert told == expected
    for one, other in pairs:
        assert one["label"] == other["label"]
        assert list(one["probabilities"]) == list(other["probabilities"])
        assert np.allclose(list(one["probabilities"].values()), list(other["probabilities"].values()), atol=1e-3)


def test_a_process_without_torch_and_ray_serves_and_ends_when_told(bundle, png, bundles):
    expected = client(bundle, load)
    with (
        server(bundle, "--port", 0) as (url, process),
        httpx.Client(base_url=url, trust_env=False, timeout=60) as asking,
    ):
        assert asking.head("/healthz").status_code == asking.get("/readyz").status_code == 200
        assert asking.get("/v1/model").json() == expected.get("/v1/model").json()
        assert asking.get("/v1/model/health").json()["health"] is None
        assert (
            asking.get("/openapi.json").json()["paths"].keys() == expected.get("/openapi.json").json()["paths"].keys()
        )
        assert "raytl_requests_total" in asking.get("/metrics").text
        problem = asking.post("/v1/predict", content=b"no image")
        assert (problem.status_code, problem.headers["content-type"]) == (422, "application/problem+json")
        answers = [asking.post("/v1/predict", content=png(seed)).json()["predictions"][0] for seed in range(6)]
        labels = [expected.post("/v1/predict", content=png(seed)).json()["predictions"][0] for seed in range(6)]
        assert [answer["label"] for answer in answers] == [answer["label"] for answer in labels]

        def slowly() -> Iterator[bytes]:
            yield png(1)[:50]
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield png(1)[50:]

        assert asking.post("/v1/predict", content=slowly()).status_code == 200, "what is under way is answered"
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            asking.get("/healthz")
        assert process.stderr.read() == ""


def test_health_is_told_as_by_the_endpoint(known, tmp_path):
    folder = Path(shutil.copytree(known, tmp_path / "m"))
    export_onnx(folder)
    pixels = [item.open() for item in shapes(15, seed=5).items]
    told = []
    for read in (load, partial(warmed, read=OnnxModel.load)):
        service = Service(read)
        asyncio.run(service.apply(ServingSettings(bundle=str(folder))))
        asking = TestClient(create_http(service), "http://127.0.0.1")
        for image in pixels:
            file = io.BytesIO()
            image.save(file, "PNG")
            assert asking.post("/v1/predict", content=file.getvalue()).status_code == 200
        service.monitor.settle()
        told.append(asking.get("/v1/model/health").json()["health"])
    assert told[1]["images"] == told[0]["images"] > 0 and told[1]["shares"] == told[0]["shares"]
    assert told[1]["accuracy"]["value"] == pytest.approx(told[0]["accuracy"]["value"], abs=0.01)


def test_leaves_nothing_in_the_home_folder(bundle, png, tmp_path):
    """Where onnxruntime reports to its maker, it keeps there what it has not sent yet."""
    with server(bundle, "--port", 0, home=tmp_path) as (url, process):
        assert httpx.post(f"{url}/v1/predict", content=png(1), trust_env=False, timeout=60).status_code == 200
        process.terminate()
        assert process.wait(60) == 0
    assert list(tmp_path.rglob("*")) == []


def test_a_token_is_asked_for_and_rotated_without_a_restart(bundle, png, tmp_path):
    file = tmp_path / "token"
    file.write_text("first-token-of-some-length\n")

    def status(asking: httpx.Client, token: str) -> int:
        return asking.post("/v1/predict", content=png(1), headers={"Authorization": f"Bearer {token}"}).status_code

    with (
        server(bundle, "--port", 0, "--token-file", file) as (url, _),
        httpx.Client(base_url=url, trust_env=False, timeout=60) as asking,
    ):
        assert asking.post("/v1/predict", content=png(1)).status_code == 401
        assert asking.get("/healthz").json() == {"status": "ok"}
        assert status(asking, "first-token-of-some-length") == 200
        file.write_text("")  # half written: the old one counts
        time.sleep(1.5)
        assert status(asking, "first-token-of-some-length") == 200
        file.write_text("another-token-of-some-length")
        deadline = time.monotonic() + 60
        while status(asking, "another-token-of-some-length") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert status(asking, "first-token-of-some-length") == 401


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "write 16 characters or more into a file .* --token-file"),
        (["--token-file", "nowhere"], "nowhere: the token cannot be read"),
        (["--int8"], "has no model-int8.onnx; export it with: raytl export "),
        (["--host", "203.0.113.7", "--token-file", "TOKEN"], "203.0.113.7:8000 cannot be listened on"),
    ],
)
def test_a_mistake_is_one_sentence(bundle, tmp_path, capsys, arguments, sentence):
    (tmp_path / "token").write_text("a-token-of-some-length")
    words = [str(tmp_path / "token") if word == "TOKEN" else word for word in arguments]
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as left:
            runtime.main([str(bundle), *words])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(sentence, told)


class TestChecks:
    def test_of_another_model_is_refused(self, bundle, bundles, tmp_path):
        folder = Path(shutil.copytree(bundles["second"], tmp_path / "m"))
        shutil.copy(bundle / ONNX_FILE, folder)
        with pytest.raises(UserError, match="is of another model than"):
            OnnxModel.load(folder)

    def test_a_damaged_file_is_refused(self, bundle, tmp_path):
        folder = Path(shutil.copytree(bundle, tmp_path / "m"))
        data = (folder / ONNX_FILE).read_bytes()
        (folder / ONNX_FILE).write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match=r"model.onnx: cannot be loaded by onnxruntime"):
            OnnxModel.load(folder)

    def test_another_preprocessing_than_was_tested_is_refused(self, bundle, tmp_path):
        folder = Path(shutil.copytree(bundle, tmp_path / "m"))
        manifest = json.loads((folder / "model.json").read_text())
        manifest["preprocessing"]["resize"] = "crop"
        manifest["preprocessing"]["crop_fraction"] = 0.4
        (folder / "model.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match="fails its own reference predictions"):
            warmed(ServingSettings(bundle=str(folder)), OnnxModel.load)


def test_beyond_the_requests_that_may_wait_others_are_sent_away(bundle, png):
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle))))
    full = TestClient(create_http(service, most_waiting=0), "http://127.0.0.1")
    answer = full.post("/v1/predict", content=png(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"] == "too many requests are waiting; try again later"
    assert full.get("/readyz").status_code == 200
    roomy = TestClient(create_http(service, most_waiting=1), "http://127.0.0.1")
    assert [roomy.post("/v1/predict", content=png(1)).status_code for _ in range(3)] == [200] * 3


def test_files_of_megabytes_need_no_disk(bundle, monkeypatch, tmp_path):
    """A container's root may be read-only."""
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1200), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert len(data) > 2**20
    asking = client(bundle, load)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert asking.post("/v1/predict", files={"files": ("a.png", data)}).status_code == 200


def test_the_small_distribution_has_the_modules_that_are_imported_and_no_others():
    code = (
        "import sys, raytl.serving.runtime; "
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'raytl'))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    needed = {str(Path(file).relative_to(ROOT)) for file in told.stdout.split()}
    project = tomllib.loads((ROOT / "serve" / "runtime" / "pyproject.toml").read_text())
    listed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    beside = {
        path for folder in ("serving/page", "web") for path in (ROOT / "raytl" / folder).iterdir() if path.is_file()
    }
    needed |= {str(path.relative_to(ROOT)) for path in beside}  # pages, style sheets and scripts
    assert set(listed) == {f"../../{file}" for file in needed}
    assert set(listed.values()) == {f"raytl_serve/shared/{file}" for file in needed}
