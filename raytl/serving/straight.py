"""The way of a request through Ray Serve's replica, without what is done there for others.

For each request Serve looks through all routes, makes up names for it, writes a line for a log that is switched off and
goes through a dozen frames: together a fifth of what a small answer costs. None of it is needed for a prediction that
HAProxy has passed on. Whatever else comes goes Serve's own way, and all does where that log or traces are wanted.

What Serve counts is counted here too, for autoscaling and for Prometheus, and its limits hold: as many requests at once
and waiting as the deployment says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Mapping
from typing import Any

from ray.serve import context
from ray.serve._private.common import RUNNING_REQUESTS_KEY, RequestMetadata, RequestProtocol
from ray.serve._private.replica import Replica, ReplicaMetricsManager
from ray.serve._private.tracing_utils import is_tracing_enabled
from starlette.types import Message, Receive, Scope, Send

from raytl.serving.waiting import stamp

# HAProxy is told to say so of what is watched here (``haproxy/configuration.py``).
_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")
_UNTIMED = (b"x-request-timeout-seconds", b"0")
_ID = b"x-request-id"  # Serve gives one to each that comes without
_LOG = logging.getLogger("ray.serve")
_serves_way = Replica._direct_ingress_asgi
_routes: dict[tuple[str, str], str] = {}
"""What Serve calls the route of a prefix and a path, of those alone that lead to a prediction."""


def shorten() -> None:
    """Have the requests of this process's replica go this way; the time of each begins when it comes."""
    Replica._direct_ingress_asgi = direct


async def direct(self: Replica, scope: Scope, receive: Receive, send: Send) -> None:
    """Handle one request, before it waits for its turn; it does once its body is there."""
    stamp(scope)
    metadata = _metadata(self, scope)
    uploads = getattr(self._user_callable_asgi_app, "uploads", None) if scope.get("method") == "POST" else None
    if uploads is None:
        await _passed(self, metadata, scope, receive, send)
        return
    if metadata is not None and not self._can_accept_request(metadata):  # its body would be sent for nothing
        await _serves_way(self, scope, receive, send)
        return
    # There is no work yet, but the replica must not end meanwhile: Serve waits for what is reserved.
    upload = f"upload {id(scope)}"
    self._reserved_slots.add(upload)
    try:
        async with uploads.reading(scope, receive) as there:
            self._reserved_slots.discard(upload)
            await _passed(self, metadata, scope, there, send)
    finally:
        self._reserved_slots.discard(upload)


async def _passed(self: Replica, metadata: RequestMetadata | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Have a request wait for its turn, here or as Serve does: there where metadata is None."""
    if metadata is None or not self._can_accept_request(metadata):
        await _serves_way(self, scope, receive, send)
        return
    scope["root_path"] = _below(self, scope)
    await _handled(self, metadata, scope, receive, send)


async def _handled(self: Replica, metadata: RequestMetadata, scope: Scope, receive: Receive, send: Send) -> None:
    """Have a request answered when its turn comes, and count it."""
    status: str | None = None
    error: BaseException | None = None

    async def answer(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = str(message["status"])
        await send(message)

    began, at_work = time.monotonic(), _at_work(self._metrics_manager)
    try:
        with self._track_queued_request() as begins:
            await self._semaphore.acquire()
            begins()
            try:
                at_work.note()
                self._metrics_manager.inc_num_ongoing_requests(metadata)
                try:
                    await self._user_callable_asgi_app(scope, receive, answer)
                finally:
                    at_work.note()
                    self._metrics_manager.dec_num_ongoing_requests(metadata)
            finally:
                self._semaphore.release()
    except asyncio.CancelledError as cancelled:
        error = cancelled
    except Exception as failed:  # noqa: BLE001 - uvicorn says so to the client, as after Serve's
        error = failed
        _LOG.exception("Request failed.")
    _count(self, metadata, status, 1000 * (time.monotonic() - began), error)


class _AtWork:
    """Serve's store of what autoscaling goes by, told how many requests were at work on average since it was last told.

    Serve looks now and then at how many are. On the event loop on which a batch is computed it so always comes between
    two of them, when all are answered, however much there is to do.
    """

    def __init__(self, manager: ReplicaMetricsManager) -> None:
        self._manager = manager
        self._store = manager._metrics_store
        self._told = self._noted = time.monotonic()
        self._request_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def note(self) -> None:
        """Take in how many have been at work since this was last called: before that number changes."""
        now = time.monotonic()
        self._request_s += self._manager._num_ongoing_requests * (now - self._noted)
        self._noted = now

    def add_metrics_point(self, values: Mapping[Hashable, float], at: float) -> None:
        """As Serve's own."""
        self.note()
        mean = self._request_s / max(self._noted - self._told, 1e-9)
        self._told, self._request_s = self._noted, 0.0
        known = {RUNNING_REQUESTS_KEY: mean} if RUNNING_REQUESTS_KEY in values else {}
        self._store.add_metrics_point({**values, **known}, at)


def _at_work(manager: ReplicaMetricsManager) -> _AtWork:
    """Of a replica's requests, from the first one on."""
    if not isinstance(manager._metrics_store, _AtWork):
        manager._metrics_store = _AtWork(manager)
    return manager._metrics_store


def _count(
    self: Replica, metadata: RequestMetadata, status: str | None, latency_ms: float, error: BaseException | None
) -> None:
    """As Serve does. status: None where there was no answer."""
    known = {"route": metadata.route, "latency_ms": latency_ms}
    kind = None if error is None else type(error).__name__
    self._metrics_manager.record_request_metrics(**known, is_error=error is not None, exception_type=kind)
    if status is not None:
        self._metrics_manager.record_ingress_request_metrics(
            **known,
            protocol=RequestProtocol.HTTP,
            method=metadata._http_method,
            app_name=metadata.app_name,
            deployment_name=self._deployment_id.name,
            is_error=status.startswith(("4", "5")),
            status_code=status,
        )


def _metadata(self: Replica, scope: Scope) -> RequestMetadata | None:
    """What Serve says of a request; None of one that is to go Serve's way."""
    if scope["type"] != "http" or scope["method"] != "POST" or is_tracing_enabled() or not _as_deployed(self):
        return None
    headers = scope["headers"]
    route = _route(self, scope)
    if route is None or _UNWATCHED not in headers or _UNTIMED not in headers:
        return None
    name = next((value.decode("latin-1") for key, value in headers if key == _ID), "")
    app = self._deployment_id.app_name
    # For what is logged. By the second name Serve would find what a request has asked other deployments: there is none.
    known = context._RequestContext(route=route, request_id=name, _internal_request_id=name, app_name=app)
    context._serve_request_context.set(known)
    return RequestMetadata(
        request_id=name,
        internal_request_id=name,
        route=route,
        app_name=app,
        is_streaming=True,
        _http_method="POST",
        _request_protocol=RequestProtocol.HTTP,
        is_direct_ingress=True,
    )


def _as_deployed(self: Replica) -> bool:
    """Whether requests are not logged one by one, and answered on the event loop on which they come."""
    logged = (self._deployment_config.logging_config or {}).get("enable_access_log", True)
    return not logged and not self._user_callable_wrapper._run_user_code_in_separate_thread


def _below(self: Replica, scope: Scope) -> str:
    """The path below which the application finds its routes."""
    return str(scope.get("root_path", "")) + (self._route_prefix or "").rstrip("/")


def _route(self: Replica, scope: Scope) -> str | None:
    """What Serve calls the route of a request for a prediction, None of any other."""
    below, path = _below(self, scope), scope["path"]
    known = _routes.get((below, path))
    if known is None and path.startswith(f"{below}/"):
        straight = getattr(self._user_callable_asgi_app, "straight", {})
        if path in straight or path.removeprefix(below) in straight:
            known = _routes[below, path] = self._determine_http_route({**scope, "root_path": below})
    return known
