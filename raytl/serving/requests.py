"""The forms in which images arrive, read under limits into one list of named bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from raytl.serving.json_bodies import parse_json
from raytl.serving.problems import RequestError
from raytl.serving.settings import ServingSettings

NamedBytes = tuple[str, bytes]
_URL_SAFE = str.maketrans("-_", "+/")
_GZIP_WINDOW = 31  # zlib's way to ask for gzip's frame
_SLICE_BYTES = 16 * 1024
"""Of a gzip body at a time: at the end of each frame zlib copies what is left of what it was given."""
SMALL_BYTES = 64 * 1024
"""Up to which a body is parsed on the event loop: that takes less than the way to a thread and back."""
FORMS = "image bytes (image/* or application/octet-stream), multipart/form-data files, or JSON with base64 images"


@dataclass(frozen=True)
class Images:
    """What a request asks to have classified.

    images: encoded, in order, each with a name for messages. ignored: keys of a JSON body that mean nothing here.
    """

    images: list[NamedBytes]
    ignored: tuple[str, ...] = ()


async def read_images(request: Request, settings: ServingSettings) -> Images:
    """The encoded images of a request. Raises RequestError."""
    body = await read_content(request, settings.max_body_bytes)
    ignored: tuple[str, ...] = ()
    if not body:
        raise RequestError(400, f"the request is empty; send {FORMS}")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        # A body of megabytes takes tens of milliseconds to parse: not on the event loop. A small one takes less than
        # the way to a thread and back.
        if len(body) > SMALL_BYTES:
            images, ignored = await asyncio.to_thread(_from_json, body)
        else:
            images, ignored = _from_json(body)
    elif kind == "multipart/form-data":
        images = await _from_multipart(request, body, settings)
    elif not kind or kind == "application/octet-stream" or kind.startswith("image/"):
        images = [("the image", body)]
    else:
        raise RequestError(415, f"content type '{kind}' is not understood; send {FORMS}")
    if not images:
        raise RequestError(400, f"the request holds no image; send {FORMS}")
    if len(images) > settings.max_images:
        raise too_many(len(images), settings.max_images)
    return Images(images, ignored)


def too_many(images: int, limit: int) -> RequestError:
    """What a request gets that holds more images than one may."""
    return RequestError(413, f"the request holds {images} images; send at most {limit} at a time")


async def read_content(request: Request, limit: int) -> bytes:
    """The body of a request, unpacked, of at most ``limit`` bytes. Raises RequestError."""
    body = await _read_body(request, limit)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("gzip", "x-gzip"):
        return await asyncio.to_thread(_unpack, body, limit)
    if coding != "identity":
        raise RequestError(415, f"content encoding '{coding}' is not understood; send gzip or none")
    return body


def read_top(request: Request) -> int | None:
    """The value of ``?top=K``, or None. Raises RequestError unless it is a whole number above 0."""
    text = request.query_params.get("top") if request.scope["query_string"] else None
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise RequestError(400, f"top is '{text}'; give a whole number above 0")
    return int(text)


def read_switch(request: Request, name: str) -> bool:
    """Whether a query parameter is on. Raises RequestError unless it is true or false, or not there."""
    if not request.scope["query_string"]:
        return False
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "1", "false", "0"):
        raise RequestError(400, f"{name} is '{text}'; give true or false")
    return text in ("true", "1")


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
    parser.spool_max_size = settings.max_body_bytes  # all of it is in memory already: no copy on a disk
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


def _unpack(body: bytes, limit: int) -> bytes:
    """The content of one gzip frame or several after one another, but never more than ``limit`` bytes of it."""
    content, frame = bytearray(), None
    try:
        for start in range(0, len(body), _SLICE_BYTES):
            part = body[start : start + _SLICE_BYTES]
            while part:
                frame = frame or zlib.decompressobj(_GZIP_WINDOW)
                content += frame.decompress(part, limit + 1 - len(content))
                if len(content) > limit:
                    raise RequestError(
                        413, f"the request unpacks to more than {limit} bytes; send fewer or smaller images"
                    )
                if not frame.eof:
                    break
                part, frame = frame.unused_data, None
    except zlib.error as error:
        raise RequestError(400, f"the body is not gzip ({error}); send it without Content-Encoding") from None
    if frame is not None:
        raise RequestError(400, "the gzip body ends too early; send it again")
    return bytes(content)


def _from_json(body: bytes) -> tuple[list[NamedBytes], tuple[str, ...]]:
    """The images and the keys that mean nothing."""
    document = parse_json(body, '{"image": base64} or {"images": [base64, …]}')
    keys = document.keys() if isinstance(document, dict) else set()
    form = keys & {"image", "images"}
    ignored = tuple(str(key) for key in keys if key not in form)
    if form == {"image"}:
        return [("image", from_base64("image", document["image"]))], ignored
    if form == {"images"} and isinstance(document["images"], list):
        texts = enumerate(document["images"])
        return [(f"images[{i}]", from_base64(f"images[{i}]", text)) for i, text in texts], ignored
    raise RequestError(400, 'the JSON is not of the form {"image": base64} or {"images": [base64, …]}')


def from_base64(name: str, text: object) -> bytes:
    """Bytes from base64 as people write it: with line breaks, of either alphabet, with or without padding."""
    if not isinstance(text, str):
        raise RequestError(400, f"{name} is not a string; send the image's bytes in base64")
    if text.startswith("data:"):  # what a browser's FileReader gives
        text = text.partition(",")[2]
    compact = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, f"{name} is not base64; send the image's bytes in base64") from None
