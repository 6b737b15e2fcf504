"""The short way through Serve's replica does what Serve's own does: both are asked the same on replicas alike."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve import context
from ray.serve._private import common, replica
from ray.serve._private.metrics_utils import InMemoryMetricsStore
from ray.serve._private.replica import Replica
from starlette.types import Message, Receive, Scope, Send

from raytl.serving import straight
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.waiting import ARRIVED

serves_way = Replica._direct_ingress_asgi
FROM_HAPROXY = ((b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0"))


class Metrics:
    """What is counted of a replica's requests, without times."""

    def __init__(self) -> None:
        self.counted: list[Any] = []
        self._num_ongoing_requests = 0
        self._metrics_store: Any = InMemoryMetricsStore()

    def inc_num_ongoing_requests(self, metadata: common.RequestMetadata) -> None:
        self._num_ongoing_requests += 1
        self.counted.append(("begins", metadata.is_direct_ingress, metadata.protocol))

    def dec_num_ongoing_requests(self, metadata: common.RequestMetadata) -> None:
        self._num_ongoing_requests -= 1
        self.counted.append(("ends", metadata.is_direct_ingress, metadata.protocol))

    def record_request_metrics(self, *, latency_ms: float, **known: Any) -> None:
        assert 0 <= latency_ms < 60_000
        self.counted.append(known)

    record_ingress_request_metrics = record_request_metrics


class Application:
    """Tells what it was asked, as what; fails and is cancelled where it is told to."""

    def __init__(self, straight_on: str = "/v1/predict") -> None:
        real = create_http(Service(), "cells")
        self.routes, self.router, self.straight = real.routes, real.router, {straight_on: None}
        self.outcome: BaseException | None = None
        self.early = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = context._get_serve_request_context()
        told = (scope["root_path"], scope["path"], known.route, known.request_id, known.app_name)
        if self.outcome is not None and self.early:
            raise self.outcome
        await send({"type": "http.response.start", "status": 418, "headers": [(b"told", repr(told).encode())]})
        if self.outcome is not None:
            raise self.outcome
        await send({"type": "http.response.body", "body": await body(receive)})


async def body(receive: Receive) -> bytes:
    return bytes((await receive())["body"])


def replica_of(application: Application, prefix: str = "/", waiting: int = 0, log: bool = False) -> Replica:
    made = object.__new__(Replica)

    async def entry(_: object, scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope, receive, send)

    wrapper = SimpleNamespace(
        _run_user_code_in_separate_thread=False,
        event_loop=None,
        get_user_method_info=lambda name: None,
        _call_http_entrypoint=entry,
    )
    limits = {"max_ongoing_requests": 1, "max_queued_requests": 2, "logging_config": {"enable_access_log": log}}
    rest = {"backpressure_config": SimpleNamespace(status_code=503, retry_after_s=1)}
    known = {
        "_user_callable_initialized": True,
        "_route_prefix": prefix,
        "_deployment_id": common.DeploymentID("Classifier", "cells"),
        "_metrics_manager": Metrics(),
        "_deployment_config": SimpleNamespace(**limits, **rest),
        "_user_callable_asgi_app": application,
        "_user_callable_wrapper": wrapper,
        "_num_queued_requests": waiting,
        "_http_options": SimpleNamespace(request_timeout_s=None),
        "_access_log_context": {},
        "_ingress": True,
        "_quiescing": False,
        "_reserved_slots": set(),
    }
    for name, value in known.items():
        setattr(made, name, value)
    made._semaphore = replica.Semaphore(lambda: 1)
    return made


def ask(way: Any, made: Replica, path: str, method: str = "POST", headers: Any = FROM_HAPROXY) -> tuple[Any, ...]:
    """What was sent, what was counted, what is left waiting, and whether a turn is free afterwards."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"image", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        known = [(b"host", b"a"), (b"x-request-id", b"number 7"), *headers]
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": known, "client": ("a", 1)}
        await way(made, scope, receive, send)
        assert way is serves_way or ARRIVED in scope

    asyncio.run(main())
    return sent, made._metrics_manager.counted, made._num_queued_requests, made._semaphore.locked()


@pytest.fixture
def not_serves(monkeypatch):
    """Whoever goes Serve's way now is noticed."""
    went = []

    async def noticed(*asked: Any) -> None:
        went.append(asked)
        await serves_way(*asked)

    monkeypatch.setattr(straight, "_serves_way", noticed)
    return went


@pytest.mark.parametrize(
    ("prefix", "path", "straight_on"),
    [
        ("/", "/v1/predict", "/v1/predict"),
        ("/v1/models/cells", "/v1/models/cells/v1/predict", "/v1/predict"),
        ("/v1/models/cells", "/v1/models/cells/predict", "/v1/models/cells/predict"),
        ("/", "/v1/models/cells/predict", "/v1/models/cells/predict"),
    ],
)
@pytest.mark.parametrize("outcome", [None, ValueError("no"), asyncio.CancelledError()])
@pytest.mark.parametrize("early", [True, False])
def test_it_is_answered_and_counted_alike(not_serves, prefix, path, straight_on, outcome, early):
    found = []
    for way in (serves_way, straight.direct):
        application = Application(straight_on)
        application.outcome, application.early = outcome, early
        found.append(ask(way, replica_of(application, prefix), path))
    assert found[0] == found[1]
    assert not not_serves
    assert found[0][2:] == (0, False)


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ({}, {"path": "/v1/explain"}),
        ({}, {"path": "/-/healthz", "method": "GET"}),
        ({}, {"path": "/v1/predict", "method": "GET"}),
        ({}, {"path": "/v1/predict", "headers": (*FROM_HAPROXY[:1], (b"x-request-timeout-seconds", b"9"))}),
        ({}, {"path": "/v1/predict", "headers": FROM_HAPROXY[:1]}),
        ({"log": True}, {"path": "/v1/predict"}),
        ({"prefix": "/other"}, {"path": "/v1/predict"}),
        ({"waiting": 2}, {"path": "/v1/predict"}),
    ],
)
def test_all_else_goes_serves_way(not_serves, known, asked):
    made = replica_of(Application(), **known)
    made._healthy, made._shutting_down = True, False
    sent, *_ = ask(straight.direct, made, **asked)
    assert sent and len(not_serves) == 1
    if "waiting" in known:
        assert sent[0]["status"] == 503


def test_a_request_waits_for_its_turn_and_one_that_is_given_up_meanwhile_is_not_counted_as_waiting():
    application = Application()
    made = replica_of(application)

    async def main() -> None:
        await made._semaphore.acquire()
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "root_path": "", "headers": [*FROM_HAPROXY]}
        waiting = [asyncio.create_task(straight.direct(made, {**scope}, None, None)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert made._num_queued_requests == 2 and not made._metrics_manager.counted
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    asyncio.run(main())
    assert made._num_queued_requests == 0
    assert [known["exception_type"] for known in made._metrics_manager.counted] == ["CancelledError"] * 2


def test_autoscaling_is_told_how_many_were_at_work_on_average(monkeypatch):
    """Asked when all are answered, as it always is where batches are computed on the event loop."""
    now = 0.0
    monkeypatch.setattr(straight, "time", SimpleNamespace(monotonic=lambda: now))
    made, key = replica_of(Application()), common.RUNNING_REQUESTS_KEY
    at_work = straight._at_work(made._metrics_manager)
    assert straight._at_work(made._metrics_manager) is at_work
    manager = made._metrics_manager
    metadata = common.RequestMetadata(request_id="", internal_request_id="", is_direct_ingress=True)
    at_work.add_metrics_point({key: 0}, 1.0)
    for change in (*[manager.inc_num_ongoing_requests] * 4, *[manager.dec_num_ongoing_requests] * 4):
        at_work.note()
        change(metadata)
        now += 1.0
    at_work.add_metrics_point({key: manager._num_ongoing_requests, "own": 7}, 2.0)
    assert [point.value for point in at_work.data[key]] == [0, (1 + 2 + 3 + 4 + 3 + 2 + 1) / 8]
    assert [point.value for point in at_work.data["own"]] == [7]


def test_serves_own_way_is_the_one_that_was_followed():
    """Where Serve does more for a request than it did, this is to be looked at again."""
    source = "".join(inspect.getsource(serves_way).split())
    for step in ("self._can_accept_request(", "self._wrap_request(", "self._track_queued_request()", "call_asgi()"):
        assert step in source
    wrapped = "".join(inspect.getsource(Replica._record_errors_and_metrics).split())
    assert wrapped.count("self._metrics_manager.") == 2 and "logger.info(" in wrapped
