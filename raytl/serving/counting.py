"""What one process counts of its requests, for Prometheus; behind Ray Serve that is Ray's (``ray_metrics.py``)."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Metrics = Callable[[], Awaitable[str]]
"""A page in Prometheus' text format."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_KINDS = ("predict", "explain", "infer")


class Counting:
    """Counts the requests that pass through, by what they ask for and what became of them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answered: Counter[tuple[str, int]] = Counter()
        self._within = [0] * (len(_SECONDS) + 1)  # of predictions: as many as took up to each time, and longer
        self._seconds = 0.0
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # where it fails before it is answered

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        self._under_way += 1
        try:
            await self._app(scope, receive, answer)
        finally:
            self._under_way -= 1
            last = scope["path"].rpartition("/")[2]
            kind = last if last in _KINDS else "other"
            self._answered[kind, status] += 1
            if kind in ("predict", "infer"):
                seconds = time.monotonic() - began
                self._within[bisect.bisect_left(_SECONDS, seconds)] += 1
                self._seconds += seconds

    def page(self, health: Mapping[str, Any] | None) -> str:
        """All of it in Prometheus' text format. health: as ``/v1/model/health`` tells it."""
        answered = [({"asked": kind, "status": str(code)}, n) for (kind, code), n in sorted(self._answered.items())]
        lines = _family("raytl_requests_total", "counter", "Requests, by what was asked for and the answer", answered)
        lines += _family(
            "raytl_requests_under_way", "gauge", "Requests that are being answered", [({}, self._under_way)]
        )
        lines += _head("raytl_predict_seconds", "histogram", "Time from a request's headers to the end of its answer")
        total = 0
        for limit, count in zip((*map(str, _SECONDS), "+Inf"), self._within, strict=True):
            total += count
            lines.append(_sample("raytl_predict_seconds_bucket", {"le": limit}, total))
        lines.append(_sample("raytl_predict_seconds_sum", {}, self._seconds))
        lines.append(_sample("raytl_predict_seconds_count", {}, total))
        return "\n".join([*lines, *_of_health(health), ""])


def page_of(text: str) -> Response:
    """An answer with such a page."""
    return Response(text.encode(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _of_health(health: Mapping[str, Any] | None) -> list[str]:
    """Under the names that Ray gives them, without its own ``ray_``."""
    if health is None or not health["images"]:
        return []
    accuracy, drift = health["accuracy"], health["drift"]
    values = {
        "estimated_accuracy": ("Estimated share of right answers among the last images", accuracy["value"]),
        "estimated_accuracy_low": ("Low end of its 90 % interval", accuracy["low"]),
        "estimated_accuracy_high": ("High end of its 90 % interval", accuracy["high"]),
        "unlike_share": ("Share of the last images that look like none of the classes", health["unlike"]),
        "drift_alarm": ("1 where the last images are of another kind than the labelled ones", drift and drift["alarm"]),
        "judged_images": ("Images that the other figures are of", health["images"]),
    }
    lines = []
    for name, (description, value) in values.items():
        if value is not None:
            lines += _family(f"raytl_{name}", "gauge", description, [({}, value)])
    shares = [({"label": label}, share) for label, share in health["shares"].items()]
    return lines + _family("raytl_label_share", "gauge", "Share of a label among the last answers", shares)


def _family(name: str, kind: str, about: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    return [*_head(name, kind, about), *(_sample(name, labels, value) for labels, value in samples)]


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{told}}} {float(value)!r}" if told else f"{name} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
