"""A client of an endpoint: images in, predictions out. Needs neither Ray nor torch."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import httpx
from PIL import Image

from raytl.core.errors import UserError
from raytl.core.http import http_client
from raytl.core.names import printable
from raytl.core.prediction import Prediction
from raytl.serving.tokens import is_loopback

Picture = str | os.PathLike[str] | bytes | Image.Image

# Well below what an endpoint takes in one request.
_MOST_IMAGES = 64
_MOST_BYTES = 16 * 2**20
_LONGEST_WAIT_S = 5.0
# Pillow's modes. Whole numbers of 32 bits and floating ones would lose what is beyond 255 in a PNG.
_DEEP = ("I", "F")
_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
_OPAQUE_OR_NOT = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
# How often a request is sent again whose connection was cut off: whoever held it has died, and another one is there.
_MOST_CUT_OFF = 3
_AFTER_CUT_OFF_S = 0.2


class Client:
    """Of one endpoint, for one thread at a time; close it, or use it in a ``with`` block.

    url: of the endpoint, as ``raytl deploy`` prints it. token: that it asks for, or the :class:`~pathlib.Path` of a
        file with it. timeout_s: for one request; while the endpoint is too busy it is asked again that long, and a few
        times where the connection is cut off: a prediction changes nothing.
    """

    def __init__(self, url: str, token: str | Path | None = None, *, timeout_s: float = 60) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        headers = {} if token is None else {"Authorization": f"Bearer {_read(token)}"}
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL as error:
            raise UserError(
                f"{url}: is no URL of an endpoint ({error}); give one such as http://127.0.0.1:8000"
            ) from None
        # Nobody reaches this machine's loopback through a proxy.
        self._http = http_client(self._url, headers=headers, timeout=timeout_s, trust_env=not is_loopback(host))

    @overload  # a str is a sequence of str too; the first signature is the one that counts
    def predict(self, images: Picture, *, top: int | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[Picture], *, top: int | None = None) -> list[Prediction]: ...

    def predict(self, images: Picture | Sequence[Picture], *, top: int | None = None) -> Prediction | list[Prediction]:
        """What the model says of an image, or of each of several, in order.

        images: paths, encoded bytes or decoded images. top: list only so many labels, the predicted one first.
        Raises UserError where an image cannot be read, or with the endpoint's own sentence where it refuses.
        """
        if isinstance(images, str | os.PathLike | bytes | Image.Image):
            return self._ask([_encoded(images, "image")], top)[0]
        named = (_encoded(image, f"image {number}") for number, image in enumerate(images, 1))
        return [prediction for batch in _batches(named) for prediction in self._ask(batch, top)]

    def model(self) -> dict[str, Any]:
        """What is served: labels, metrics with intervals, preprocessing, where it comes from. Raises UserError."""
        return self._answer("GET", "/v1/model")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, images: Sequence[tuple[str, bytes]], top: int | None) -> list[Prediction]:
        files = [("files", image) for image in images]
        answer = self._answer("POST", "/v1/predict", files=files, params={} if top is None else {"top": top})
        told = answer.get("predictions")
        predictions = [_prediction(one) for one in told] if isinstance(told, list) else []
        if len(predictions) != len(images) or None in predictions:
            raise self._stranger()
        return [prediction for prediction in predictions if prediction is not None]

    def _stranger(self) -> UserError:
        """What is to be said of an answer that no endpoint gives."""
        return UserError(
            f"{self._url} does not answer as an endpoint of raytl does: give the URL that raytl deploy prints, and "
            "look whether a proxy or a page to log in is in between"
        )

    def _answer(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        deadline, cut_off = time.monotonic() + self._timeout_s, 0
        while True:
            try:
                answer = self._http.request(method, f"{self._url}{path}", **content)
                wait_s = _wait_s(answer)
            except httpx.UnsupportedProtocol:
                raise UserError(
                    f"{self._url}: is no URL of an endpoint; give one such as http://127.0.0.1:8000"
                ) from None
            except httpx.LocalProtocolError:  # which says what a header holds, a token perhaps
                raise UserError(f"{self._url}: cannot be asked like this; look at the URL and the token") from None
            except httpx.HTTPError as error:
                cut_off += 1
                dropped = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)
                wait_s = _AFTER_CUT_OFF_S if dropped and cut_off <= _MOST_CUT_OFF else None
                if wait_s is None or time.monotonic() + wait_s > deadline:
                    raise UserError(f"{self._url} does not answer ({error}); is it deployed?") from error
            else:
                if wait_s is None or time.monotonic() + wait_s > deadline:
                    break
            time.sleep(wait_s)
        try:
            document = answer.json()
        except ValueError:
            document = None
        known: dict[str, Any] = document if isinstance(document, dict) else {}
        if answer.status_code != httpx.codes.OK:
            raise UserError(f"{self._url}: {known.get('error') or answer.reason_phrase} ({answer.status_code})")
        if not known:
            raise self._stranger()
        return known


def _prediction(told: Any) -> Prediction | None:
    """Of what an endpoint says of an image, newer ones more than is known here; None where it is not of that kind."""
    match told:
        case {"label": str(label), "confidence": float() | int() as confidence, "probabilities": dict(probabilities)}:
            return Prediction(label, confidence, probabilities)
    return None


def _wait_s(answer: httpx.Response) -> float | None:
    """How long to wait before asking again; None where that is no use."""
    after = answer.headers.get("retry-after", "1")
    busy = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    return min(float(after) if after.isdigit() else 1.0, _LONGEST_WAIT_S) if busy else None


def _batches(images: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for name, data in images:
        if batch and (len(batch) == _MOST_IMAGES or size + len(data) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((name, data))
        size += len(data)
    if batch:
        yield batch


def _encoded(image: Picture, name: str) -> tuple[str, bytes]:
    """A name for messages, and the encoded image."""
    if isinstance(image, bytes):
        return name, image
    if isinstance(image, Image.Image):
        return name, _written(image, name)
    path = Path(image)
    shown = printable(str(path))  # what is sent is text, whatever bytes the name has
    try:
        return shown, path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror or error}); check the path") from error


def _written(image: Image.Image, name: str) -> bytes:
    """A decoded image as a file that holds what the endpoint reads of such an image. Raises UserError."""
    file = io.BytesIO()
    try:
        if image.mode in _DEEP:
            image.save(file, "TIFF", compression="tiff_adobe_deflate")
        else:
            held = image if image.mode in _OF_PNG else image.convert(_OPAQUE_OR_NOT.get(image.mode, "RGB"))
            held.save(file, "PNG")
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read ({error}); give another image, or its file") from error
    return file.getvalue()


def _read(token: str | Path) -> str:
    """The token itself. Raises UserError, which does not tell it."""
    if isinstance(token, str):
        where, text = "token", token
    else:
        try:
            where, text = str(token), token.read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"
            raise UserError(f"{token}: the token cannot be read ({why}); check the path") from None
    text = text.strip()
    if not text:
        raise UserError(f"{where}: is empty; give the endpoint's token, or None where it asks for none")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise UserError(f"{where}: has signs that no token has; read it from the file that it was saved in")
    return text
