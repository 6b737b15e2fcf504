"""The forms in which images arrive, read under limits into one list of named bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from raytl.serving.settings import ServingSettings

NamedBytes = tuple[str, bytes]
FORMS = "image bytes (image/* or application/octet-stream), multipart/form-data files, or JSON with base64 images"


class RequestError(Exception):
    """A request that gets ``status`` and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


async def read_images(request: Request, settings: ServingSettings) -> list[NamedBytes]:
    """The encoded images of a request, in order, each with a name for messages. Raises RequestError."""
    body = await _read_body(request, settings.max_body_bytes)
    if not body:
        raise RequestError(400, f"the request is empty; send {FORMS}")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        # A body of megabytes takes tens of milliseconds to parse: not on the event loop.
        images = await asyncio.to_thread(_from_json, body)
    elif kind == "multipart/form-data":
        images = await _from_multipart(request, body, settings)
    elif not kind or kind == "application/octet-stream" or kind.startswith("image/"):
        images = [("the image", body)]
    else:
        raise RequestError(415, f"content type '{kind}' is not understood; send {FORMS}")
    if not images:
        raise RequestError(400, f"the request holds no image; send {FORMS}")
    if len(images) > settings.max_images:
        raise RequestError(413, f"the request holds {len(images)} images; send at most {settings.max_images} at a time")
    return images


def read_top(request: Request) -> int | None:
    """The value of ``?top=K``, or None. Raises RequestError unless it is a whole number above 0."""
    text = request.query_params.get("top")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise RequestError(400, f"top is '{text}'; give a whole number above 0")
    return int(text)


async def _read_body(request: Request, limit: int) -> bytes:
    too_large = RequestError(413, f"the request is larger than {limit} bytes; send fewer or smaller images")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def _from_multipart(request: Request, body: bytes, settings: ServingSettings) -> list[NamedBytes]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    # One more than allowed gets through the parser, so that the count is refused with our sentence and not with its.
    parser = MultiPartParser(request.headers, stream(), max_files=settings.max_images + 1, max_fields=100)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        limit = settings.max_images
        if "Too many files" in error.message:
            raise RequestError(413, f"the request holds too many images; send at most {limit} at a time") from None
        raise RequestError(
            400, f"the multipart body cannot be read ({error.message}); send the images as files"
        ) from None
    images: list[NamedBytes] = []
    for field, value in form.multi_items():
        if isinstance(value, UploadFile):
            images.append((value.filename or f"{field} {len(images) + 1}", await value.read()))
    await form.close()
    return images


def _from_json(body: bytes) -> list[NamedBytes]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, 'the body is not JSON; send {"image": base64} or {"images": [base64, …]}') from None
    keys = set(document) if isinstance(document, dict) else set()
    if keys == {"image"}:
        return [("image", _from_base64("image", document["image"]))]
    if keys == {"images"} and isinstance(document["images"], list):
        return [(f"images[{i}]", _from_base64(f"images[{i}]", text)) for i, text in enumerate(document["images"])]
    raise RequestError(400, 'the JSON is not of the form {"image": base64} or {"images": [base64, …]}')


def _from_base64(name: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise RequestError(400, f"{name} is not a string; send the image's bytes in base64")
    if text.startswith("data:"):  # what a browser's FileReader gives
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, f"{name} is not base64; send the image's bytes in base64") from None
