"""Whether a cluster's head still answers.

Ray ends every process that its head has not answered for a minute, on the spot: the user would see a search that is
gone, and not why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from raytl.core.errors import UserError
from raytl.machines.reaching import answers

PERIOD_S = 5.0
"""Between two questions."""
SILENT_S = 15.0
"""Without an answer for so long, the head is said to be away: well before Ray ends this process."""


@contextmanager
def listened_to(
    address: str,
    notice: Callable[[str], None],
    *,
    ask: Callable[[str], bool] = answers,
    period_s: float = PERIOD_S,
    silent_s: float = SILENT_S,
) -> Iterator[None]:
    """While the block runs, say once when the head at ``address`` is away, and once when it is there again.

    ask: whether it answers.
    """
    ended = threading.Event()

    def listen() -> None:
        heard, away = time.monotonic(), False
        while not ended.wait(period_s):
            if not ask(address):
                if not away and time.monotonic() - heard >= silent_s:
                    away = True
                    tell(
                        f"the cluster's head at {address} does not answer: unless it comes back within a minute, Ray "
                        "ends this search. What was tried is kept; --resume goes on with it, on another cluster by "
                        "--address"
                    )
                continue
            if away:
                tell(f"the cluster's head at {address} answers again")
            heard, away = time.monotonic(), False

    def tell(sentence: str) -> None:
        with suppress(UserError):  # a disk that takes no more is told of by the search itself
            notice(sentence)

    thread = threading.Thread(target=listen, name="whether the head answers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
