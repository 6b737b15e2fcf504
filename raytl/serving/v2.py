"""The open inference protocol, version 2, over HTTP: what clients of KServe and Triton speak.

https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md), with Triton's extension
for binary tensors. One input, ``image``; two outputs, ``label`` and ``probabilities``. Images go the way of
``/v1/predict``: an array becomes an uncompressed image file first, so that limits, batches and answers are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from raytl.serving.asking import Answering, Live, Model, in_time
from raytl.serving.problems import GATED, RequestError, answer, retry, to_json
from raytl.serving.requests import SMALL_BYTES, read_content
from raytl.serving.settings import ServingSettings
from raytl.serving.tensors import HEADER, OUTPUTS, Inference, read_inference, written

_PATH = "/v2/models/{name}"
_VERSIONED = _PATH + "/versions/{version}"
Elsewhere = Callable[[str, str], Awaitable[None]]
"""Of a name and the path below which it is asked for; raises RequestError."""


def v2_routes(service: Answering[Model], deployed: str, elsewhere: Elsewhere) -> APIRouter:
    """The protocol's routes for a service.

    deployed: the model's name; that of its bundle is understood as well. elsewhere: raises what is to be said of any
    other name.
    """
    router = APIRouter(tags=["Open inference protocol v2"])

    async def found(name: str, version: str | None) -> Model:
        live = service.live
        if name not in (deployed, live.name):
            await elsewhere(name, _PATH.format(name=name))
        if version not in (None, live.version):
            raise RequestError(404, f"there is no version '{version}' of '{name}' here; there is '{live.version}'")
        return live

    @router.head("/v2", include_in_schema=False)
    @router.get("/v2", responses=GATED, summary="Describe the server")
    async def server() -> Response:
        return answer(200, {"name": "raytl", "version": _version(), "extensions": ["binary_tensor_data"]})

    @router.head("/v2/health/live", include_in_schema=False)
    @router.get("/v2/health/live", summary="Does the server answer?")
    async def is_live() -> Response:
        return answer(200, {"live": True})

    @router.head("/v2/health/ready", include_in_schema=False)
    @router.get("/v2/health/ready", responses=_NOT_READY, summary="Is the model ready?")
    async def is_ready() -> Response:
        _ = service.live
        ready = not service.broken
        return answer(200 if ready else 503, {"live": True, "ready": ready})

    @router.get(_VERSIONED, responses=_NO_SUCH, summary="Describe this version of the model's tensors")
    @router.get(_PATH, responses=_NO_SUCH, summary="Describe the model's tensors")
    async def model(name: str, version: str | None = None) -> Response:
        return await _told(found(name, version), lambda live: _describe(live, name))

    @router.get(_VERSIONED + "/ready", responses=_NO_SUCH, summary="Is this version of the model ready?")
    @router.get(_PATH + "/ready", responses=_NO_SUCH, summary="Is the model of this name ready?")
    async def is_model_ready(name: str, version: str | None = None) -> Response:
        return await _told(found(name, version), lambda live: {"name": name, "ready": True})

    @router.post(
        _VERSIONED + "/infer", summary="Classify images with this version", openapi_extra=_BODY, responses=_REFUSED
    )
    @router.post(_PATH + "/infer", summary="Classify images", openapi_extra=_BODY, responses=_REFUSED)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        try:
            live = await found(name, version)
            reading = _read(request, live.settings)

            async def found_by(it: Inference) -> tuple[Model, np.ndarray]:
                if version is None:
                    return await service.answer(live, it.images)
                rows = await service.classify(live, it.images)  # who names a version wants no other one's answer
                service.watch(live, it.images)
                return live, rows

            asked, (who, rows) = await in_time(request, live.settings, reading, found_by)
        except RequestError as refused:
            return _error(refused)
        return _inferred(name, who, asked, rows, live.labels)

    return router


async def _read(request: Request, settings: ServingSettings) -> Inference:
    body = await read_content(request, settings.max_body_bytes)
    read = partial(read_inference, body, request.headers.get(HEADER), settings.max_images)
    return read() if len(body) <= SMALL_BYTES else await asyncio.to_thread(read)


def _inferred(name: str, live: Live, asked: Inference, rows: np.ndarray, told: Sequence[str]) -> Response:
    """told: the labels in the order that clients know, which a candidate's need not be."""
    labels = [live.labels[number] for number in live.decide(rows)]
    if tuple(told) != tuple(live.labels):
        places = {label: number for number, label in enumerate(live.labels)}
        if places.keys() == set(told):
            rows = rows[:, [places[label] for label in told]]
    values: dict[str, Any] = {"label": labels, "probabilities": rows}
    outputs, binary = written(values, asked.outputs)
    document = {"model_name": name, "model_version": live.version, "outputs": outputs}
    if asked.id is not None:
        document["id"] = asked.id
    if not binary:
        return answer(200, document)
    head = to_json(document)
    return Response(head + binary, headers={HEADER: str(len(head))}, media_type="application/octet-stream")


def _describe(live: Live, name: str) -> dict[str, Any]:
    shapes = {"label": [-1], "probabilities": [-1, len(live.labels)]}
    return {
        "name": name,
        "versions": [live.version],
        "platform": "raytl_bundle",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": name, "datatype": kind, "shape": shapes[name]} for name, kind in OUTPUTS.items()],
    }


async def _told(finding: Awaitable[Model], tell: Callable[[Model], dict[str, Any]]) -> Response:
    try:
        return answer(200, tell(await finding))
    except RequestError as refused:
        return _error(refused)


def _error(refused: RequestError) -> Response:
    return answer(refused.status, {"error": refused.sentence}, retry(refused.status))


_PIXELS_SHAPE = {
    "type": "array",
    "description": "[images, height, width, channels], channels 3 or 1",
    "items": {"type": "integer", "minimum": 1},
    "minItems": 4,
    "maxItems": 4,
}


def _tensor(datatype: str, shape: dict[str, Any], items: dict[str, Any], about: str) -> dict[str, Any]:
    return {
        "type": "object",
        "title": datatype,
        "description": about,
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": "image"},
            "shape": shape,
            "datatype": {"const": datatype},
            "data": {"type": "array", "items": items, "minItems": 1},
            "parameters": {"type": "object"},
        },
    }


_TENSORS = [
    _tensor(
        "BYTES",
        {"type": "array", "description": "[images]", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
        | {"maxItems": 1},
        {"type": "string", "contentEncoding": "base64"},
        "encoded images (PNG, JPEG, ...), each in base64; as many as the shape says",
    ),
    _tensor(
        "UINT8",
        _PIXELS_SHAPE,
        {"type": "integer", "minimum": 0, "maximum": 255},
        "pixels, row by row; as many numbers as the product of the shape",
    ),
    _tensor(
        "FP32",
        _PIXELS_SHAPE,
        {"type": "number", "minimum": 0, "maximum": 1},
        "the same from 0 to 1",
    ),
]
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": {"oneOf": _TENSORS}, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"enum": list(OUTPUTS)}, "parameters": {"type": "object"}},
            },
        },
        "parameters": {"type": "object"},
    },
}
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEklEQVR42mNkUIEAJgYoII8BAER8AQwcQTkPAAAAAElFTkSuQmCC"


def _example(datatype: str, shape: list[int], data: list[Any], about: str) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": datatype, "shape": shape, "data": data}
    return {"summary": about, "value": {"inputs": [tensor]}}


_EXAMPLES = {
    "encoded": _example("BYTES", [1], [_PNG], "An encoded image"),
    "pixels": _example("UINT8", [1, 2, 2, 1], [0, 85, 170, 255], "Four grey pixels"),
    "colour": _example("FP32", [1, 1, 2, 3], [1.0, 0.5, 0.0, 0.0, 0.5, 1.0], "Two pixels in colour, from 0 to 1"),
}
_ERROR = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
        }
    }
}
_NO_SUCH: dict[int | str, dict[str, Any]] = GATED | {
    404: {"description": "No model or version has this name.", **_ERROR}
}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "The model cannot compute any more."}}
_REFUSED: dict[int | str, dict[str, Any]] = _NO_SUCH | {
    400: {"description": "The request cannot be read.", **_ERROR},
    408: {"description": "The request did not arrive in time.", **_ERROR},
    413: {"description": "Too many or too large images.", **_ERROR},
    415: {"description": "A content type that is not understood.", **_ERROR},
    422: {"description": "An image that cannot be decoded.", **_ERROR},
    503: {"description": "Too many requests are waiting; try again after Retry-After seconds."},
    504: {"description": "No answer in time.", **_ERROR},
}
_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST, "examples": _EXAMPLES}}}
}


def _version() -> str:
    """Of what serves: raytl itself, or the small distribution of its runtime."""
    for name in ("raytl", "raytl-serve"):
        try:
            return installed(name)
        except PackageNotFoundError:
            continue
    return "unknown"
