"""The client against the real application, in a server of this process."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from listening import listening
from PIL import Image

import raytl
from raytl.bundles import Bundle
from raytl.core.errors import UserError
from raytl.core.prediction import Prediction
from raytl.serving import tokens
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings


@pytest.fixture(scope="module")
def url(bundles) -> Iterator[str]:
    service = Service()
    settings = ServingSettings(bundle=str(bundles["first"]), token_sha256=tokens.hashed("secret"))
    asyncio.run(service.apply(settings))
    with listening(create_http(service)) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
def client(url) -> Iterator[raytl.Client]:
    with raytl.Client(url, "secret") as client:
        yield client


def test_paths_bytes_and_images_are_answered_as_the_bundle_does(client, bundles, png, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(3))
    expected = Bundle.load(bundles["first"]).predict([path])[0]
    for image in (path, str(path), png(3), Image.open(io.BytesIO(png(3)))):
        prediction = client.predict(image)
        assert prediction.label == expected.label
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert list(client.predict(path, top=1).probabilities) == [expected.label]


def test_a_file_whose_name_is_no_utf8_is_answered_and_named(client, png, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(png(3))
    assert client.predict(path) == client.predict(png(3))
    path.write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        client.predict(path)
    assert "caf\\xe9.png" in str(error.value)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_an_image_of_any_mode_is_answered_as_the_bundle_does(client, bundles, png, mode):
    grey, file = Image.open(io.BytesIO(png(3))), io.BytesIO()
    if mode in ("I;16", "I", "F"):
        values = np.asarray(grey).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        image = Image.fromarray(values * 200)  # more than 8 bits hold
        image.save(file, "TIFF")
    else:
        image = grey.convert("RGBA").convert("P").convert("PA") if mode == "PA" else grey.convert("RGB").convert(mode)
    assert image.mode == mode
    expected = Bundle.load(bundles["first"]).predict([file.getvalue() or image])[0]
    assert client.predict(image).probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_decoded_image_that_breaks_off_is_a_sentence(client, png):
    with pytest.raises(UserError, match="image: cannot be read"):
        client.predict(Image.open(io.BytesIO(png(3)[:-200])))


def test_many_are_answered_in_their_order_however_many(client, bundles, png):
    images = [png(seed) for seed in range(150)]  # more than go into one request
    assert [p.label for p in client.predict(images)] == [p.label for p in Bundle.load(bundles["first"]).predict(images)]
    assert client.predict([]) == []


def test_a_model_is_described(client):
    assert client.model()["labels"] == ["daisy", "poppy", "rose", "tulip"]


def test_what_is_refused_is_a_sentence(client, url, png, tmp_path):
    with pytest.raises(UserError, match=r"image 2.*\(422\)"):
        client.predict([png(0), b"no image"])
    with pytest.raises(UserError, match=r"nowhere\.png: cannot be read"):
        client.predict(tmp_path / "nowhere.png")
    with raytl.Client(url) as nobody, pytest.raises(UserError, match=r"asks for its token.*\(401\)"):
        nobody.predict(png(0))
    with raytl.Client("http://127.0.0.1:9") as lost, pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not answer"):
        lost.predict(png(0))
    with pytest.raises(UserError, match="the token cannot be read"):
        raytl.Client(url, Path("nowhere"))


def test_a_token_is_read_with_the_end_of_its_line_and_never_told(url, png, tmp_path):
    (tmp_path / "token").write_bytes(b"secret\r\n")
    for token in ("secret\n", " secret ", tmp_path / "token"):
        with raytl.Client(url, token) as client:
            assert client.predict(png(0)).label
    (tmp_path / "binary").write_bytes(b"secret\xff\x00")
    (tmp_path / "empty").write_text("\n")
    for token in ("", "\n", "secret\nsecret", "secret secret", "sécret", tmp_path / "binary", tmp_path / "empty"):
        with pytest.raises(UserError) as refused:
            raytl.Client(url, token)
        assert "secret" not in str(refused.value) and refused.value.__cause__ is None
        assert ("is empty" if token in ("", "\n", tmp_path / "empty") else "") in str(refused.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost:8000", "ftp://127.0.0.1", ""])
def test_what_is_no_url_of_an_endpoint_is_a_sentence(url, png):
    with raytl.Client(url, "secret") as client, pytest.raises(UserError, match="is no URL of an endpoint"):
        client.predict(png(0))


ONE = {"label": "a", "confidence": 1.0, "probabilities": {"a": 1.0}}


class TestAnswersOfOthers:
    """What proxies, pages to log in, and endpoints of another version of raytl say."""

    @pytest.fixture
    def asking(self) -> Iterator[Callable[[int, bytes], raytl.Client]]:
        told = (200, b"")

        async def app(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": told[0], "headers": []})
            await send({"type": "http.response.body", "body": told[1]})

        def answered(status: int, body: bytes) -> raytl.Client:
            nonlocal told
            told = status, body
            return client

        with listening(app) as (host, port), raytl.Client(f"http://{host}:{port}") as client:
            yield answered

    @pytest.mark.parametrize(
        "body",
        [b"<html>log in</html>", b"", b"[]", b"null", b'"a"', b"{}", b'{"predictions": null}', b'{"predictions": []}']
        + [b'{"predictions": [null]}', b'{"predictions": ["a"]}', b'{"predictions": [{"label": "a"}]}']
        + [json.dumps({"predictions": [{**ONE, changed: None}]}).encode() for changed in ONE]
        + [json.dumps({"predictions": [ONE, ONE]}).encode()],
    )
    def test_are_a_sentence(self, asking, png, body):
        with pytest.raises(UserError, match="does not answer as an endpoint of raytl does"):
            asking(200, body).predict(png(0))

    def test_fewer_predictions_than_images_are_not_taken_for_them(self, asking, png):
        with pytest.raises(UserError, match="does not answer as an endpoint of raytl does"):
            asking(200, json.dumps({"predictions": [ONE]}).encode()).predict([png(0), png(1)])

    @pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"<html>", b""])
    def test_a_refusal_of_another_form_tells_its_status(self, asking, png, body):
        with pytest.raises(UserError, match=r"Internal Server Error \(500\)"):
            asking(500, body).predict(png(0))

    def test_what_a_newer_endpoint_says_beside_is_left_out(self, asking, png):
        body = json.dumps({"predictions": [{**ONE, "labels": ["a"], "newer": 1}]}).encode()
        assert asking(200, body).predict(png(0)) == Prediction(**ONE)


@pytest.mark.parametrize(("cut_off", "answered"), [(3, True), (4, False)])
def test_a_request_that_is_cut_off_is_sent_again_but_not_for_ever(cut_off, answered):
    """A server that drops so many connections with a request on them, and then answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number in range(cut_off + 1):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    if number == cut_off:
                        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"labels":[]}')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with raytl.Client(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
            if answered:
                assert client.model() == {"labels": []}
            else:
                with pytest.raises(UserError, match="does not answer"):
                    client.model()


def test_it_needs_neither_ray_nor_torch():
    code = "import sys, raytl; raytl.Client('http://127.0.0.1:9'); print({'ray', 'torch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
