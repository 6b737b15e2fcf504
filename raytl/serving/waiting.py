"""How many requests wait, and for how long, before anything is done for them.

On an endpoint they wait in Ray Serve until the replica works on fewer than ``max_ongoing_requests``, and no clock runs
there; HAProxy passes on at once whatever it has accepted. So a request's time begins where it reaches the replica, and
one whose turn comes after half of it is sent away: what is left is too short where so many are ahead, and while the
late ones are tried those behind them become late too. As turns come in the order of arrival, and all that are ahead
have their answer when their own time is over, nobody waits for longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from raytl.serving.problems import problem
from raytl.serving.settings import ServingSettings

ARRIVED = "raytl.arrived"
"""In the scope of a request: when it reached this process, by the monotonic clock."""
UPLOADED = "raytl.uploaded"
"""In the scope of a request: seconds for which its body was on its way before it began to wait for its turn."""
_SHARE = 0.5


def stamp(scope: Scope) -> None:
    """Note that a request has reached this process."""
    scope[ARRIVED] = time.monotonic()


def waited_s(scope: Scope) -> float:
    """Seconds since a request was stamped; 0 for one that was not, as nobody made it wait."""
    return time.monotonic() - float(scope[ARRIVED]) if ARRIVED in scope else 0.0


class Turns:
    """Sends requests away that waited for too long, and those beyond a number: memory and waiting have their bounds.

    settings: those that hold now. most: requests under way beyond which no more are taken; None where somebody else
    sees to that.
    """

    def __init__(self, app: ASGIApp, settings: Callable[[], ServingSettings], most: int | None) -> None:
        self._app = app
        self._settings = settings
        self._most = most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._most is not None and self._under_way >= self._most:
            await problem(503, "too many requests are waiting; try again later")(scope, receive, send)
            return
        waited, limit_s = waited_s(scope) - scope.get(UPLOADED, 0.0), self._settings().request_timeout_s
        if waited > _SHARE * limit_s:
            sentence = (
                f"the request waited for its turn for {waited:.1f} s, and has {limit_s:g} s in all; try again later"
            )
            await problem(503, sentence)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
