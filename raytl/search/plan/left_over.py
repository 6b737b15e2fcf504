"""What a time budget had no room for: time left unused without a word would look like a search that is done."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raytl.search.plan.time_budget import TimeBudget
from raytl.training.pretrain import parse_pretrain

UNUSED = 0.2
"""Share of a time budget of which it is worth saying that it was left."""
ROOM = 3.0
"""Times that a training's time has to fit in after the probes: itself, a refit, and controls."""


def not_learned_from(domains: Sequence[str]) -> str:
    """What there was no time to train a source model on. domains: their names, one at least."""
    names = domains[0] if len(domains) == 1 else f"{', '.join(domains[:-1])} and {domains[-1]}"
    models = "no source model was trained on it" if len(domains) == 1 else "no source models were trained on them"
    return f"{names}: {models}, for want of time; a longer --time-budget does"


@dataclass(frozen=True)
class PassedOver:
    """A size at which images were not seen for want of time.

    side: pixels. seconds: that it takes. more_s: by which the time that there was would have had to be longer.
    """

    side: int
    seconds: float
    more_s: float


class LeftOver:
    """Remembers the shortest training that there was no room for.

    seconds: that the plan has, None for no limit; apart_s: of the user's time budget, what goes into all else.
    """

    def __init__(self, time: TimeBudget, seconds: float | None, apart_s: float = 0.0) -> None:
        self._time = time
        self._seconds = seconds
        self._apart_s = apart_s
        self._shortest = math.inf
        self._said_unmade = self._said_size = False

    def refuse(self, seconds: float) -> None:
        """Note that a training of so many seconds was not begun, or not gone on with, for want of time."""
        self._shortest = min(self._shortest, seconds)

    def sentences(self, unmade: Sequence[str], size: PassedOver | None = None) -> Iterator[str]:
        """All there is to say, each once.

        unmade: source models that nothing was learned for, by their URI. size: what there was no time for.
        """
        why = self.sentence()
        if why:
            yield why
        domains = dict.fromkeys(parts[0] for uri in unmade if (parts := parse_pretrain(uri)) is not None)
        if domains and self._seconds is not None and not self._said_unmade:
            self._said_unmade = True
            yield not_learned_from(list(domains))
        if size is not None and self._seconds is not None and not self._said_size:
            self._said_size = True
            wanted = math.ceil((self._apart_s + self._seconds + size.more_s) / 60)
            yield (
                f"images were not seen at {size.side} pixels, which may tell more apart, for want of time: that is "
                f"expected to take {spoken(size.seconds)}; --time-budget {wanted}m has room"
            )

    def sentence(self) -> str:
        """Why much of the time is left, and which budget has room; empty where neither is so, or it was said."""
        if self._seconds is None or not math.isfinite(self._shortest) or self._time.left() < UNUSED * self._seconds:
            return ""
        wanted = math.ceil((self._apart_s + self._time.used() + ROOM * self._shortest) / 60)
        shortest, self._shortest = self._shortest, math.inf
        if ROOM * shortest < self._time.left():
            return (
                f"{spoken(self._time.left())} of the time budget are left: they were kept for a refit and controls of "
                "what took longest, which what leads does not take"
            )
        return (
            f"{spoken(self._time.left())} of the time budget are left: the shortest training without room in it is "
            f"expected to take {spoken(shortest)}, besides its refit and controls; "
            f"--time-budget {wanted}m has room"
        )


def spoken(seconds: float) -> str:
    """A length of time to the second, or the minute where it is longer."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
