"""The HTTP side of a served model: routes, limits in time, and every error as one JSON sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from raytl.serving import page
from raytl.serving.asking import in_time
from raytl.serving.counting import Counting, Metrics, page_of
from raytl.serving.explaining import explain_routes
from raytl.serving.gate import Gate, trusted
from raytl.serving.leaving import Leaving
from raytl.serving.live import LiveModel
from raytl.serving.named import MODELS, Directory, Entry, OwnPaths, entry, not_here
from raytl.serving.problems import GATED, PROBLEM, RequestError, answer, problem
from raytl.serving.requests import Images, read_images, read_switch, read_top
from raytl.serving.service import Service, predictions
from raytl.serving.uploads import ReadAhead, Uploads
from raytl.serving.v2 import v2_routes
from raytl.serving.waiting import Turns


def create_http(
    service: Service,
    name: str = "raytl",
    directory: Directory | None = None,
    most_waiting: int | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The ASGI application for a service. The OpenAPI document is at ``/openapi.json``, its reader at ``/docs``.

    name: what it is deployed under. directory: tells what else is served on the endpoint; None where that is nothing.
    most_waiting: requests under way beyond which more are sent away (503); None where somebody else sees to that.
    metrics: of all replicas; None where this process is the only one, and counts by itself.
    """
    described = "Image classification with a raytl bundle."
    app = _Application(title="raytl", version="1", description=described, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_error)
    app.uploads = Uploads(lambda: service.live.settings)
    inner: ASGIApp = Gate(Leaving(app.routed), settings=lambda: service.live.settings)
    inner = OwnPaths(Turns(inner, lambda: service.live.settings, most_waiting))
    if most_waiting is not None:
        inner = ReadAhead(inner, app.uploads)
    counting = Counting(inner)
    app.outermost = counting if metrics is None else inner

    # Handlers take the bare request and return a ready response: FastAPI's validation and serialisation of models would
    # cost more than the rest of a request does.
    @app.post("/v1/predict", openapi_extra=_PREDICT_BODY, responses=_PREDICT_RESPONSES, summary="Classify images")
    async def predict(request: Request) -> Response:
        """Classify one image or many, sent as bytes, as multipart files or as base64 in JSON."""
        live = service.live
        try:
            top, sets = read_top(request), read_switch(request, "sets")

            async def found(asked: Images) -> tuple[LiveModel, list[dict[str, Any]]]:
                if sets:  # of the served version alone: a version on trial is there to be compared, not believed
                    arrays, rows = await service.look(live, asked.images)
                    marks = await service.doubt(live, arrays, rows)
                    service.watch(live, asked.images)
                    told = zip(predictions(live.bundle, rows, top), marks, strict=True)
                    return live, [{**one, **mark} for one, mark in told]
                who, rows = await service.answer(live, asked.images)
                return who, predictions(who.bundle, rows, top)

            asked, (who, said) = await in_time(request, live.settings, read_images(request, live.settings), found)
        except RequestError as refused:
            return problem(refused.status, refused.sentence)
        told = {"model": who.name, "predictions": said}
        return answer(200, {**told, "ignored": asked.ignored} if asked.ignored else told)

    app.straight["/v1/predict"] = predict

    # Load balancers and `curl -I` ask for the head alone.
    @app.head("/v1/model", include_in_schema=False)
    @app.get("/v1/model", responses=GATED, summary="Describe the model")
    async def model() -> Response:
        """Labels, metrics with intervals, provenance, preprocessing and versions of the served model."""
        return answer(200, service.live.describe())

    @app.head("/v1/model/health", include_in_schema=False)
    @app.get("/v1/model/health", responses=GATED, summary="Is the model still right on what comes in?")
    async def model_health() -> Response:
        """Estimated accuracy of the last answers, drift, shares of labels and of images like none of the classes."""
        return answer(200, await service.health(service.live))

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", responses=_NOT_READY, summary="Is the model ready?")
    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses=_NOT_READY, summary="Is the model ready? (as Kubernetes asks)")
    async def healthz(request: Request) -> Response:
        """Name and version of the served model; ``refused`` says why a newer one is not served or on trial."""
        if service.broken:
            return problem(503, service.broken)
        if not trusted(request.scope):
            return answer(200, {"status": "ok"})
        live, trial = service.live, service.trial
        known = {"status": "ok", "model": live.name, "version": live.version, "refused": service.refused}
        return answer(200, known if trial is None else {**known, "candidate": trial.candidate.version})

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", responses=_METRICS, summary="Counts and times of requests, and what is said of the model")
    async def told_to_prometheus() -> Response:
        """In Prometheus' text format: of this process or, on Ray Serve, of all replicas of all its models."""
        if metrics is not None:
            return page_of(await metrics())
        return page_of(counting.page((await service.health(service.live))["health"]))

    async def known() -> Sequence[Entry]:
        live = service.live
        own = entry(name, "/", {"model": live.name, "version": live.version}, "RUNNING")
        return [own] if directory is None else await directory()

    async def elsewhere(asked: str, path: str) -> None:
        raise not_here(asked, path, await known())

    async def refused(asked: str) -> Response | None:
        if asked == name:
            return None
        error = not_here(asked, f"{MODELS}/{asked}", await known())
        return problem(error.status, error.sentence)

    @app.head("/v1/models", include_in_schema=False)
    @app.get("/v1/models", responses=GATED, summary="List the models of this endpoint")
    async def models() -> Response:
        """Each with its path, bundle, version and status; the default one answers at ``/v1/predict`` as well."""
        return answer(200, {"models": list(await known())})

    @app.post(
        "/v1/models/{model_name}/predict",
        openapi_extra=_PREDICT_BODY,
        responses=_PREDICT_RESPONSES | _UNKNOWN_MODEL,
        summary="Classify images with a model by name",
    )
    async def predict_by_name(request: Request, model_name: str) -> Response:
        """As ``/v1/predict``, by the model that was deployed under this name."""
        return await refused(model_name) or await predict(request)

    app.straight[f"{MODELS}/{name}/predict"] = predict

    @app.head("/v1/models/{model_name}", include_in_schema=False)
    @app.get("/v1/models/{model_name}", responses=_UNKNOWN_MODEL, summary="Describe a model by name")
    async def model_by_name(model_name: str) -> Response:
        """As ``/v1/model``."""
        return await refused(model_name) or await model()

    @app.head("/v1/models/{model_name}/health", include_in_schema=False)
    @app.get("/v1/models/{model_name}/health", responses=_UNKNOWN_MODEL, summary="Is a model still right?")
    async def health_by_name(model_name: str) -> Response:
        """As ``/v1/model/health``."""
        return await refused(model_name) or await model_health()

    app.include_router(explain_routes(service))
    app.include_router(v2_routes(service, name, elsewhere))
    app.router.routes.extend(page.page_routes())
    return app


class _Application(FastAPI):
    """Leads to handlers that are asked often past what FastAPI and Starlette do with any request.

    straight: these handlers by path, for POST. They are routes as well, which the OpenAPI document tells of.
    uploads: of this process, for whoever gives requests their turns (``straight.py``).
    outermost: what a request meets first; it leads to :meth:`routed` in the end.
    """

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self.straight: dict[str, Callable[[Request], Awaitable[Response]]] = {}
        self.uploads: Uploads | None = None
        self.outermost: ASGIApp = self.routed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.outermost(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request that was let in."""
        handler = None
        if scope["type"] == "http" and scope["method"] == "POST":
            handler = self.straight.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if handler is None:
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except ClientDisconnect:
            return
        except Exception as error:
            await (await _on_error(request, error))(scope, receive, send)
            raise  # whoever runs the server writes down what it was
        await response(scope, receive, send)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers, asked = dict(error.headers or {}), f"{request.method} {request.url.path}"
    if error.status_code == 404:
        root = request.scope.get("root_path", "")
        return problem(404, f"{asked}: there is nothing here; {root}/docs lists what there is", headers)
    if error.status_code == 405:
        # Starlette names the methods of the first route with this path; GET and HEAD have one each.
        methods = {
            method
            for route in request.app.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
        allowed = ", ".join(sorted(methods)) or headers.get("allow", headers.get("Allow", ""))
        one = "POST" if "POST" in methods else "GET"
        told = {"Allow": allowed}
        return problem(405, f"{asked}: this path takes {allowed}; send it so (with curl: -X {one})", told)
    return problem(error.status_code, f"{asked}: {error.detail}", headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # to nobody


async def _on_error(request: Request, error: Exception) -> Response:
    return problem(500, "the server failed to answer this request; its log says why")


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
        },
        {
            "name": "sets",
            "in": "query",
            "required": False,
            "description": "Tell of each image which labels hold the true one in 90 % of cases, and whether it looks "
            "like none of the classes; null where the bundle has nothing to tell it by.",
            "schema": {"type": "boolean"},
        },
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
        "labels": {"type": ["array", "null"], "items": {"type": "string"}, "description": "With sets only."},
        "none_of_these": {"type": ["boolean", "null"], "description": "With sets only."},
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
_METRICS: dict[int | str, dict[str, Any]] = GATED | {
    200: {"description": "A page of metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "The model cannot compute any more.", **PROBLEM}}
_UNKNOWN_MODEL: dict[int | str, dict[str, Any]] = GATED | {404: {"description": "No model has this name.", **PROBLEM}}
_PREDICT_RESPONSES: dict[int | str, dict[str, Any]] = GATED | {
    200: {"description": "A prediction per image, in order.", "content": {"application/json": {"schema": _ANSWER}}},
    400: {"description": "The request cannot be read.", **PROBLEM},
    408: {"description": "The request did not arrive in time.", **PROBLEM},
    413: {"description": "Too many or too large images.", **PROBLEM},
    415: {"description": "A content type that is not understood.", **PROBLEM},
    422: {"description": "An image that cannot be decoded.", **PROBLEM},
    503: {"description": "Too many requests are waiting, or this one waited too long; see Retry-After.", **PROBLEM},
    504: {"description": "No answer in time.", **PROBLEM},
}
