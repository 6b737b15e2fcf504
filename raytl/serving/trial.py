"""A version on trial in one replica: it answers at most its share of the requests, and is compared on a sample of all.

The comparison is nobody's wait: it runs in a thread of its own that yields to all others, one request at a time, rests
three times as long as it worked, and what arrives meanwhile is not compared. Both versions are asked there, one after
the other on the same images, so that their times can be held against each other however busy the replica is.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from raytl.bundles.yardstick import why_none
from raytl.evaluation.unseen_accuracy import gain
from raytl.serving.asking import left_s
from raytl.serving.batching import Batcher
from raytl.serving.decoding import LARGE_PIXELS, Decoder
from raytl.serving.evidence import Tally
from raytl.serving.live import LiveModel
from raytl.serving.requests import NamedBytes
from raytl.serving.settings import Candidate
from raytl.tasks.decoding import pixels_to_decode

Classify = Callable[[LiveModel, Sequence[NamedBytes], Batcher], Awaitable[np.ndarray]]

_NICE = 10
_MOST_IMAGES = 8  # of one request are compared
_REST = 3  # times as long as a comparison took
# Of the time that a request has left: where the candidate has not answered by then, the served version still can.
_PATIENCE = 0.3


class Trial:
    """Belongs to the event loop of the service. candidate: loaded and warm. decoder: of all requests."""

    def __init__(self, candidate: LiveModel, rules: Candidate, decoder: Decoder) -> None:
        self.candidate = candidate
        self.rules = rules
        self._decoder = decoder
        self.tally = Tally()
        self.counter = secrets.token_hex(4)
        self._batcher = Batcher()  # of its own: a slow candidate is not waited for by requests that it does not answer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raytl-compare", initializer=_yield_to_others)
        self._seen = 0
        self._comparing = False
        self._rest_until = 0.0
        self._under_way = 0
        self._closed = False

    async def answer(
        self, live: LiveModel, images: Sequence[NamedBytes], classify: Classify, batcher: Batcher
    ) -> tuple[LiveModel, np.ndarray]:
        """Who answers, and the probabilities, float32 (n, k). Where the candidate fails, the served version answers.

        batcher: of the served version. Raises RequestError as the served version does.
        """
        failed = False
        if self._takes():
            self._under_way += 1
            try:
                async with asyncio.timeout(_PATIENCE * left_s(live.settings)):
                    rows = await classify(self.candidate, images, self._batcher)
                if not np.isfinite(rows).all():
                    raise ValueError("not finite")
            except Exception:  # noqa: BLE001 - whatever a new version does, its requests are answered
                failed = True
            else:
                self.tally.attempts += 1
                self.tally.answered_candidate += 1
                self._compare(live, images)
                return self.candidate, rows
            finally:
                self._under_way -= 1
                self._let_go()
        rows = await classify(live, images, batcher)
        if failed:  # only now is it certain that it was not the request's fault
            self.tally.attempts += 1
            self.tally.errors += 1
        self.watch(live, images)
        return live, rows

    def watch(self, live: LiveModel, images: Sequence[NamedBytes]) -> None:
        """Compare on a request that the served version has answered because nobody else was to."""
        self.tally.answered_live += 1
        self._compare(live, images)

    def close(self) -> None:
        """Let go of the threads; the candidate finishes what it was asked."""
        self._closed = True
        self._thread.shutdown(wait=False)
        self._let_go()

    def _let_go(self) -> None:
        if self._closed and not self._under_way:
            self._batcher.close()

    def _takes(self) -> bool:
        """Whether the candidate is to answer this request: by chance, and never more than its share of all so far."""
        if not self.rules.share or self._closed:
            return False
        self._seen += 1
        owed = self.rules.share * self._seen - self._taken
        return owed >= 1 and random.random() < 2 * self.rules.share

    @property
    def _taken(self) -> int:
        return self.tally.answered_candidate + self.tally.errors

    def _compare(self, live: LiveModel, images: Sequence[NamedBytes]) -> None:
        if self._closed or self._comparing or time.monotonic() < self._rest_until:
            self.tally.unseen += 1
            return
        self._comparing = True
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._both, live, list(images[:_MOST_IMAGES]))
        work.add_done_callback(self._compared)

    def _compared(self, work: asyncio.Future[Tally]) -> None:
        self._comparing = False
        failed = work.cancelled() or work.exception() is not None
        self.tally.add(Tally(lost=1) if failed else work.result())

    def _both(self, live: LiveModel, images: Sequence[NamedBytes]) -> Tally:
        """One compared request, in the thread."""
        start = time.monotonic()
        try:
            first = random.random() < 0.5  # whoever is second finds the caches warm
            # Decoding is most of what a photograph costs; versions that see the same of it share it, and its time.
            shared = self._prepared(live, images) if _see_alike(live, self.candidate) else None
            other = self._ask_candidate(images, shared) if first else None
            one = self._timed(live, images, shared)
            if not first:
                other = self._ask_candidate(images, shared)
            if other is None:
                return Tally(attempts=1, errors=1)
            return self._tallied(live, one, other)
        finally:
            self._rest_until = time.monotonic() + _REST * (time.monotonic() - start)

    def _ask_candidate(self, images: Sequence[NamedBytes], shared: tuple[np.ndarray, float] | None) -> _Answered | None:
        try:
            found = self._timed(self.candidate, images, shared)
        except Exception:  # noqa: BLE001 - counted, where the served version can do it
            return None
        return found if np.isfinite(found.rows).all() else None

    def _prepared(self, model: LiveModel, images: Sequence[NamedBytes]) -> tuple[np.ndarray, float]:
        """Images as the model reads them, and what that took, as :meth:`_timed` counts.

        Large ones are decoded one at a time with those of requests, for the memory that they take.
        """
        decode = partial(_decoded, model)
        found = [
            self._decoder.one_large(decode, image) if pixels_to_decode(image[1]) > LARGE_PIXELS else decode(image)
            for image in images
        ]
        return np.stack([array for array, _ in found]), sum(seconds for _, seconds in found)

    def _timed(
        self, model: LiveModel, images: Sequence[NamedBytes], prepared: tuple[np.ndarray, float] | None
    ) -> _Answered:
        """The answers, and what they took: of the processor, unless a GPU does the work."""
        arrays, seconds = prepared or self._prepared(model, images)
        clock = _clock(model)
        start = clock()
        rows = model.compute(arrays)
        return _Answered(arrays, rows, seconds + clock() - start)

    def _tallied(self, live: LiveModel, one: _Answered, other: _Answered) -> Tally:
        chosen, others = live.bundle.decide(one.rows), self.candidate.bundle.decide(other.rows)
        names = [live.labels[number] for number in chosen]
        other_names = [self.candidate.labels[number] for number in others]
        differ = np.array([a != b for a, b in zip(names, other_names, strict=True)])
        each = np.arange(len(differ))
        found = Tally(
            attempts=1,
            compared=1,
            disagreed=float(differ.mean()),
            confidence_live=float(one.rows[each, chosen].mean()),
            confidence_candidate=float(other.rows[each, others].mean()),
            slower=int(other.seconds > self.rules.max_slowdown * one.seconds),
            seconds_live=one.seconds,
            seconds_candidate=other.seconds,
            images=len(differ),
            unjudged=self._unjudged(live),
        )
        if not found.unjudged:
            found.judged, (found.gained, found.excused) = 1, _gained(live, one, self.candidate, other, differ)
            found.squares = found.excused**2
        return found

    def _unjudged(self, live: LiveModel) -> str:
        """Why it cannot be told how probably either version is right, "" where it can."""
        for whose, model in (("the served version", live), ("the candidate", self.candidate)):
            if model.bundle.yardstick is None:
                return f"of {whose}: {why_none(model.bundle.manifest.provenance)}"
        return ""


@dataclass(frozen=True)
class _Answered:
    """What a version said of some images: arrays, as it reads them; rows (n, k); seconds that it took."""

    arrays: np.ndarray
    rows: np.ndarray
    seconds: float


def _gained(
    live: LiveModel, one: _Answered, candidate: LiveModel, other: _Answered, differ: np.ndarray
) -> tuple[float, float]:
    """How much more often the candidate is right by an estimate; the same with what that may be off by. At most 1.

    differ: bool (n,), whether the two name different labels.
    """
    if not differ.any():
        return 0.0, 0.0
    before = live.certainty(one.arrays[differ], one.rows[differ])
    after = candidate.certainty(other.arrays[differ], other.rows[differ])
    known = (live.bundle.yardstick, candidate.bundle.yardstick)
    errors = [yardstick.correctness.level_error for yardstick in known if yardstick is not None]
    found = gain(before, after, (errors[0], errors[1]))
    excused = np.minimum(1.0, found.value + found.doubt)
    return float(found.value.sum() / len(differ)), float(excused.sum() / len(differ))


def _see_alike(a: LiveModel, b: LiveModel) -> bool:
    """Whether both prepare an image in the same way."""
    same = a.bundle.manifest.preprocessing == b.bundle.manifest.preprocessing
    return same and a.bundle.on_gpu == b.bundle.on_gpu


def _decoded(model: LiveModel, image: NamedBytes) -> tuple[np.ndarray, float]:
    """An image as the model reads it, and what that took of the thread that it is in."""
    clock = _clock(model)
    start = clock()
    return model.decode(image), clock() - start


def _clock(model: LiveModel) -> Callable[[], float]:
    return time.perf_counter if model.bundle.on_gpu else time.thread_time


def _yield_to_others() -> None:
    if sys.platform == "linux":  # where a thread can be told so alone, with those that torch starts for it
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
