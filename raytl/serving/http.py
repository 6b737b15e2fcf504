"""The HTTP side of a served model: routes, limits in time, and every error as one JSON sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from raytl.serving.requests import RequestError, read_images, read_top
from raytl.serving.service import Service, predictions
from raytl.serving.tokens import fits

_OPEN = frozenset({"/healthz", "/readyz"})  # load balancers have no token
_RETRY = {"Retry-After": "1"}
_TRUSTED = "raytl.trusted"


def create_http(service: Service, most_waiting: int | None = None) -> FastAPI:
    """The ASGI application for a service. The OpenAPI document is at ``/openapi.json``, its reader at ``/docs``.

    most_waiting: requests under way beyond which more are sent away (503); None where somebody else sees to that.
    """
    app = FastAPI(title="raytl", version="1", description="Image classification with a raytl bundle.")
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_error)
    app.add_middleware(_Gate, service=service)
    if most_waiting is not None:
        app.add_middleware(_Queue, most=most_waiting)

    # Handlers take the bare request and return a ready response: FastAPI's validation and serialisation of models would
    # cost more than the rest of a request does.
    @app.post("/v1/predict", openapi_extra=_PREDICT_BODY, responses=_PREDICT_RESPONSES, summary="Classify images")
    async def predict(request: Request) -> Response:
        """Classify one image or many, sent as bytes, as multipart files or as base64 in JSON."""
        live = service.live
        try:
            async with asyncio.timeout(live.settings.request_timeout_s):
                top = read_top(request)
                asked = await read_images(request, live.settings)
                live, probabilities = await service.answer(live, asked.images)
        except RequestError as refused:
            return _sentence(refused.status, refused.sentence)
        except TimeoutError:
            seconds = f"{live.settings.request_timeout_s:g}"
            return _sentence(504, f"no answer within {seconds} s; send fewer images or try again later", _RETRY)
        answer = {"model": live.name, "predictions": predictions(live.bundle, probabilities, top)}
        return _json(200, {**answer, "ignored": asked.ignored} if asked.ignored else answer)

    # FastAPI's own handling of a request (dependencies, exit stacks, validation) costs as much as decoding a small
    # image. The bare route is found first; the one above tells the OpenAPI document of it.
    app.router.routes.insert(0, Route("/v1/predict", predict, methods=["POST"]))

    # Load balancers and `curl -I` ask for the head alone.
    @app.head("/v1/model", include_in_schema=False)
    @app.get("/v1/model", summary="Describe the model")
    async def model() -> Response:
        """Labels, metrics with intervals, provenance, preprocessing and versions of the served model."""
        return _json(200, service.live.describe())

    @app.get("/v1/model/health", summary="Is the model still right on what comes in?")
    async def model_health() -> Response:
        """Estimated accuracy of the last answers, drift, shares of labels and of images like none of the classes."""
        return _json(200, await service.health(service.live))

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Is the model ready?")
    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Is the model ready? (as Kubernetes asks)")
    async def healthz(request: Request) -> Response:
        """Name and version of the served model; ``refused`` says why a newer one is not served or on trial."""
        if not request.scope.get(_TRUSTED, True):
            return _json(200, {"status": "ok"})
        live, trial = service.live, service.trial
        known = {"status": "ok", "model": live.name, "version": live.version, "refused": service.refused}
        return _json(200, known if trial is None else {**known, "candidate": trial.candidate.version})

    return app


class _Gate:
    """Lets nobody in without the token, where the endpoint has one; a change of it counts from the next request on."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (digest := self._service.live.settings.token_sha256):
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            scope[_TRUSTED] = fits(given, digest)
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if not scope[_TRUSTED] and path not in _OPEN:
                sentence = "this endpoint asks for its token; send it as 'Authorization: Bearer TOKEN'"
                await _sentence(401, sentence, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Queue:
    """Sends requests away while so many are under way, so that neither memory nor waiting grows without bound."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._most:
            await _sentence(503, "too many requests are waiting; try again later", _RETRY)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1


def _json(status: int, value: Any) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


def _sentence(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a problem document (RFC 9457); ``error`` is the sentence, as ``detail`` is."""
    known = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    document = {**known, "detail": sentence, "error": sentence}
    return JSONResponse(document, status, headers=headers, media_type="application/problem+json")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return _sentence(error.status_code, f"{request.method} {request.url.path}: {error.detail}", headers)


async def _on_error(request: Request, error: Exception) -> Response:
    return _sentence(500, "the server failed to answer this request; its log says why")


_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_PREDICT_BODY = {
    "parameters": [
        {
            "name": "top",
            "in": "query",
            "required": False,
            "description": "List only K labels, the predicted one first and then the most probable.",
            "schema": {"type": "integer", "minimum": 1},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"type": "object", "required": ["image"], "properties": {"image": _BASE64}},
                        {
                            "type": "object",
                            "required": ["images"],
                            "properties": {"images": {"type": "array", "items": _BASE64}},
                        },
                    ]
                }
            },
        },
    },
}
_PREDICTION = {
    "type": "object",
    "required": ["label", "confidence", "probabilities"],
    "properties": {
        "label": {"type": "string"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {
        "model": {"type": "string"},
        "predictions": {"type": "array", "items": _PREDICTION},
        "ignored": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Keys of the request's JSON that mean nothing here; there only if there are any.",
        },
    },
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string", "description": "The same as detail."},
    },
}
_ERROR = {"content": {"application/problem+json": {"schema": _ERROR_SCHEMA}}}
_PREDICT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A prediction per image, in order.", "content": {"application/json": {"schema": _ANSWER}}},
    400: {"description": "The request cannot be read.", **_ERROR},
    401: {"description": "The endpoint asks for its bearer token.", **_ERROR},
    413: {"description": "Too many or too large images.", **_ERROR},
    415: {"description": "A content type that is not understood.", **_ERROR},
    422: {"description": "An image that cannot be decoded.", **_ERROR},
    503: {"description": "Too many requests are waiting; try again after Retry-After seconds."},
    504: {"description": "No answer in time.", **_ERROR},
}
