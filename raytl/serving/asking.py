"""What the routes ask of whoever serves a model, and for how long they wait. Neither Ray nor torch is needed here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Protocol, TypeVar

import numpy as np
from starlette.requests import Request

from raytl.serving.problems import RequestError
from raytl.serving.requests import NamedBytes
from raytl.serving.settings import ServingSettings
from raytl.serving.waiting import waited_s

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class Live(Protocol):
    """A loaded model with the settings it is served under."""

    @property
    def settings(self) -> ServingSettings:
        """Its limits."""

    @property
    def name(self) -> str:
        """What answers call it."""

    @property
    def version(self) -> str:
        """Of its bundle."""

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the probabilities."""

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The number of the predicted label of each row of (n, k), int64 (n,)."""


Model = TypeVar("Model", bound=Live)


class Answering(Protocol[Model]):
    """Whoever serves a model."""

    @property
    def live(self) -> Model:
        """The model that answers now."""

    @property
    def broken(self) -> str:
        """Why it cannot compute any more, in one sentence; "" while it can."""

    async def answer(self, live: Model, images: Sequence[NamedBytes]) -> tuple[Model, np.ndarray]:
        """Who answers, and the probabilities, float32 (n, k), in order. Raises RequestError."""

    async def classify(self, live: Model, images: Sequence[NamedBytes]) -> np.ndarray:
        """As :meth:`answer`, by this model whatever else is on trial."""

    def watch(self, live: Model, images: Sequence[NamedBytes]) -> None:
        """Compare what is on trial on a request that :meth:`classify` has answered."""

    async def prepare(self, live: Model, images: Sequence[NamedBytes]) -> np.ndarray:
        """The images as the network reads them, uint8 (n, channels, size, size). Raises RequestError."""

    async def compute(self, live: Model, arrays: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (n, k), of prepared images that are not counted as requests."""


_over: ContextVar[float | None] = ContextVar("over", default=None)
"""When the time of the request that is being answered is over, by the monotonic clock."""


def left_s(settings: ServingSettings) -> float:
    """Seconds that the request which is being answered still has; outside of one, as many as any has."""
    over = _over.get()
    return settings.request_timeout_s if over is None else max(0.0, over - time.monotonic())


async def in_time(
    request: Request, settings: ServingSettings, reading: Awaitable[Asked], finding: Callable[[Asked], Awaitable[Found]]
) -> tuple[Asked, Found]:
    """What was asked, and what was found: both within the time that a request has, what it waited for included.

    Raises RequestError: 408 where the request did not arrive in time, 504 where there was no answer.
    """
    arrived = False
    seconds_left = settings.request_timeout_s - waited_s(request.scope)
    _over.set(time.monotonic() + seconds_left)
    try:
        async with asyncio.timeout(seconds_left):
            asked = await reading
            arrived = True
            return asked, await finding(asked)
    except TimeoutError:
        seconds = f"{settings.request_timeout_s:g} s"
        if arrived:
            raise RequestError(504, f"no answer within {seconds}; send fewer images or try again later") from None
        raise RequestError(408, f"the request did not arrive within {seconds}; send fewer or smaller images") from None
