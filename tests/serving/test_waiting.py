"""What becomes of requests that had to wait before anything was done for them. Nothing here waits."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from httpx import Response
from ray.serve._private.replica import Replica
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from raytl.serving import explaining, trial
from raytl.serving.asking import in_time
from raytl.serving.http import create_http
from raytl.serving.problems import RequestError
from raytl.serving.service import Service
from raytl.serving.settings import Candidate, ServingSettings
from raytl.serving.waiting import ARRIVED

LIMIT_S = 1000.0


class Late:
    """Passes requests on as if each had come that long ago."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[ARRIVED] = time.monotonic() - self._seconds
        await self._app(scope, receive, send)


@pytest.fixture
def service(bundles) -> Service:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), request_timeout_s=LIMIT_S)))
    return service


def asked(service: Service, waited: float, path: str, content: bytes) -> Response:
    with TestClient(Late(create_http(service), waited), "http://127.0.0.1") as client:
        return client.post(path, content=content) if content else client.get(path)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v1/models/raytl/predict", "/v2/models/raytl/infer"])
def test_whose_turn_comes_after_half_of_its_time_is_sent_away(service, png, path):
    answer = asked(service, 0.51 * LIMIT_S, path, png(0))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert re.match(r"the request waited for its turn for 5\d\d\.", answer.json()["error"])
    assert service.monitor.seen == 0


def test_whose_turn_comes_before_is_answered_and_whoever_only_looks_need_not_hurry(service, png):
    assert asked(service, 0.4 * LIMIT_S, "/v1/predict", png(0)).status_code == 200
    assert asked(service, 5 * LIMIT_S, "/v1/model", b"").status_code == 200


def test_what_a_request_waited_for_is_part_of_its_time():
    """Of 1000 s all are over: without that this would go on for as long again."""
    scope: Scope = {"type": "http", ARRIVED: time.monotonic() - LIMIT_S}

    async def read() -> bytes:
        return b""

    async def never(_: bytes) -> None:
        await asyncio.Event().wait()

    with pytest.raises(RequestError, match=r"no answer within 1000 s") as refused:
        asyncio.run(in_time(Request(scope), ServingSettings(bundle="b", request_timeout_s=LIMIT_S), read(), never))
    assert refused.value.status == 504


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_shares_are_of_the_time_that_a_request_has_left(service, png, monkeypatch, path):
    """How long a candidate may take, and how long it may take to look at an image closely."""
    given: list[float] = []

    async def looked(image: np.ndarray, label: int, compute: object, patience_s: float) -> tuple[float, np.ndarray]:
        given.append(patience_s / explaining._SHARE)
        return 1.0, np.zeros((4, 4))

    def limited(seconds: float) -> asyncio.Timeout:
        given.append(seconds / trial._PATIENCE)
        return asyncio.timeouts.timeout(seconds)

    monkeypatch.setattr(explaining, "occlusion", looked)
    settings = service.live.settings
    candidate = Candidate(bundle=settings.bundle, version=service.live.version, share=0.9)
    asyncio.run(service.apply(replace(settings, candidate=candidate)))
    monkeypatch.setattr(trial, "asyncio", SimpleNamespace(timeout=limited, get_running_loop=asyncio.get_running_loop))
    for _ in range(2):  # the first is the served version's anyhow
        assert asked(service, 0.4 * LIMIT_S, path, png(0)).status_code == 200
    assert given and all(0.5 * LIMIT_S < seconds <= 0.6 * LIMIT_S for seconds in given)


def test_serve_still_has_what_requests_are_stamped_in():
    assert list(inspect.signature(Replica._direct_ingress_asgi).parameters) == ["self", "scope", "receive", "send"]
    source = inspect.getsource(Replica._direct_ingress_asgi)
    assert "_call_http_entrypoint(user_method_info,scope," in "".join(source.split())
