"""Whether the served model is still right: what is kept of the images that come in, off the path of their requests."""

from __future__ import annotations

import io
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raytl.bundles.predictor import Predictor
from raytl.bundles.yardstick import why_none
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.judging.health import Health, judge_health

_LOG = logging.getLogger("ray.serve")
WINDOW = 500
"""Images that what is said rests on: the last ones."""
MOST_PER_S = 50.0
"""Images a second that are looked at; of more, some."""
WAITING = 256
GATHER_S = 0.5
"""For so long images are gathered, to be looked at together: one by one, each would take several times as long."""
SHARE_EVERY_S = 5.0
TELL_EVERY_S = 5.0
"""What is published is so again: Ray drops a figure that it has not heard for twenty seconds."""
JUDGE_EVERY_S = 60.0
"""And judged anew, where no image comes here: other replicas may have seen some."""
STALE_S = 3600.0
"""After which what a replica kept is no longer counted: it has gone, or nothing has come to it."""


@dataclass(frozen=True)
class Window:
    """What is kept of some images, oldest first: told (m, 6), chosen (m,), statistics (m, s), times (m,) in seconds."""

    told: np.ndarray
    chosen: np.ndarray
    statistics: np.ndarray
    times: np.ndarray

    def to_bytes(self) -> bytes:
        """As numpy's own archive, without objects."""
        file = io.BytesIO()
        np.savez(file, told=self.told, chosen=self.chosen, statistics=self.statistics, times=self.times)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Window:
        """Inverse of :meth:`to_bytes`; nothing is unpickled."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return cls(found["told"], found["chosen"], found["statistics"], found["times"])


def merged(windows: Sequence[Window], most: int = WINDOW) -> Window:
    """The last images of all replicas. At least one window."""
    times = np.concatenate([window.times for window in windows])
    order = np.argsort(times, kind="stable")[-most:]
    parts = zip(*((w.told, w.chosen, w.statistics) for w in windows), strict=True)
    told, chosen, statistics = (np.concatenate(part)[order] for part in parts)
    return Window(told, chosen, statistics, times[order])


def certainty(bundle: Predictor, pixels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How certain each answer is, (n,): the probability that it is right, as far as it is known how to tell."""
    chosen = bundle.decide(probabilities)
    yardstick = bundle.yardstick
    if yardstick is None:
        return np.asarray(probabilities[np.arange(len(chosen)), chosen])
    told = yardstick.asked(probabilities, chosen, thumbnails(pixels), image_statistics(pixels))
    return yardstick.correctness.probabilities(told)


class Board(Protocol):
    """Where replicas of an endpoint leave what they keep for each other. Versions are kept apart."""

    def put(self, version: str, window: bytes) -> None:
        """Leave the window of this replica in the place of its last one."""

    def others(self, version: str) -> list[bytes]:
        """The windows of the other replicas."""

    def tell(self, version: str, health: Health, labels: Sequence[str]) -> None:
        """Publish as metrics."""


class Monitor:
    """Keeps what is needed of the images that a replica sees, and judges it. A full queue or a rate drops images.

    board: None where there are no other replicas to be asked.
    """

    def __init__(self, board: Board | None = None) -> None:
        self._board = board
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raytl-health")
        self._mutex = threading.Lock()
        self._version = ""
        self._kept: deque[tuple[np.ndarray, int, np.ndarray, float]] = deque(maxlen=WINDOW)
        self._noted: list[_Noted] = []
        self._waiting = 0
        self._hurry = threading.Event()
        self._allowed, self._asked = MOST_PER_S, time.monotonic()
        self._shared = 0.0
        self._unshared: _Noted | None = None
        self._later: threading.Timer | None = None
        self._serving = ""
        self._told: _Told | None = None
        self._telling: threading.Thread | None = None
        self._closed = threading.Event()
        self.seen = 0

    def note(self, version: str, bundle: Predictor, pixels: np.ndarray, probabilities: np.ndarray) -> None:
        """Images were answered: pixels (n, c, s, s), probabilities (n, k), neither of which changes any more.

        Returns at once; called from one thread.
        """
        self.seen += len(pixels)
        if bundle.yardstick is None:
            return
        now = time.monotonic()
        self._allowed = min(MOST_PER_S, self._allowed + (now - self._asked) * MOST_PER_S)
        self._asked = now
        count = min(len(pixels), int(self._allowed), WAITING - self._waiting)
        if count < 1:
            return
        self._allowed -= count
        if count < len(pixels):  # the first are as good as any: callers do not sort them by what is hard
            pixels, probabilities = pixels[:count].copy(), probabilities[:count].copy()
        with self._mutex:
            self._waiting += count
            self._noted.append(_Noted(version, bundle, pixels, probabilities, time.time()))
            first = len(self._noted) == 1
        if first:
            with suppress(RuntimeError):  # closed meanwhile
                self._thread.submit(self._gather).add_done_callback(_tell_of_failure)

    def serves(self, version: str) -> None:
        """From now on this one is served, and nothing is published of any other, whose model may be let go."""
        self._serving = version
        if self._told is not None and self._told.version != version:
            self._told = None

    def window(self, version: str) -> Window | None:
        """What this replica keeps of a version; None where it has seen nothing."""
        with self._mutex:
            rows = list(self._kept) if version == self._version else []
        if not rows:
            return None
        told, chosen, statistics, times = zip(*rows, strict=True)
        return Window(np.stack(told), np.array(chosen), np.stack(statistics), np.array(times))

    def judge(self, version: str, bundle: Predictor) -> dict[str, Any]:
        """What can be said of the last images of all replicas, as plain values. Takes a tenth of a second.

        ``health`` is None of a bundle without a yardstick, or before anything was seen; ``why_not`` says which.
        """
        if bundle.yardstick is None:
            return {"health": None, "why_not": why_none(bundle.manifest.provenance), "replicas": 1, "since": None}
        own = self.window(version)
        windows = [] if own is None else [own]
        if self._board is not None:
            others = [Window.from_bytes(data) for data in self._board.others(version)]
            windows += [window for window in others if time.time() - window.times[-1] < STALE_S]
        if not windows:
            self._told = None  # what others had seen is too old: asked again and again it would be no newer
            return {"health": None, "why_not": "no image has come in yet", "replicas": 0, "since": None}
        window = merged(windows)
        health = judge_health(bundle.yardstick, window.told, window.chosen, window.statistics)
        if self._board is not None and self._serving in ("", version):
            self._told = _Told(version, bundle, health, time.monotonic())
            self._tell()
        found: Mapping[str, Any] = health.to_json(bundle.labels)
        return {"health": found, "why_not": None, "replicas": len(windows), "since": float(window.times[0])}

    def settle(self) -> None:
        """Wait until all that was noted is kept."""
        self._hurry.set()
        self._thread.submit(self._hurry.clear).result()

    def close(self) -> None:
        """Stop keeping."""
        self._closed.set()
        self._hurry.set()
        if self._later is not None:
            self._later.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _gather(self) -> None:
        """In the thread: keep what is noted within a moment, each kind at once."""
        self._hurry.wait(GATHER_S)
        with self._mutex:
            noted, self._noted = self._noted, []
        try:
            for _, alike in itertools.groupby(noted, _Noted.kind):
                self._keep(list(alike))
        finally:
            with self._mutex:
                self._waiting -= sum(len(one.pixels) for one in noted)
        if self._board is None:
            return
        self._unshared = noted[-1]
        if time.monotonic() - self._shared > SHARE_EVERY_S:
            self._share()
        elif self._later is None or not self._later.is_alive():
            # Nothing may come after this for hours.
            self._later = threading.Timer(SHARE_EVERY_S, self._share_later)
            self._later.daemon = True
            self._later.start()

    def _share_later(self) -> None:
        with suppress(RuntimeError):  # closed meanwhile
            self._thread.submit(self._share).add_done_callback(_tell_of_failure)

    def _share(self) -> None:
        """In the thread: leave what is kept for the other replicas, and publish what is to be said of all."""
        last, self._unshared = self._unshared, None
        if last is None or self._board is None:
            return
        self._shared = time.monotonic()
        own = self.window(last.version)
        if own is not None:
            self._board.put(last.version, own.to_bytes())
        self.judge(last.version, last.bundle)

    def _tell(self) -> None:
        """Publish what was last said of the version that is served, now and every few seconds from then on."""
        told = self._told
        if self._board is None or told is None or self._serving not in ("", told.version):
            return
        self._board.tell(told.version, told.health, told.bundle.labels)
        with self._mutex:
            if self._telling is None:
                self._telling = threading.Thread(target=self._keep_telling, name="raytl-health-told", daemon=True)
                self._telling.start()

    def _keep_telling(self) -> None:
        while not self._closed.wait(TELL_EVERY_S):
            with suppress(RuntimeError):  # closed meanwhile
                self._thread.submit(self._tell_again).add_done_callback(_tell_of_failure)

    def _tell_again(self) -> None:
        """In the thread."""
        told = self._told
        if told is None or self._serving not in ("", told.version):
            return
        if time.monotonic() - told.at > JUDGE_EVERY_S:
            self.judge(told.version, told.bundle)
        else:
            self._tell()

    def _keep(self, noted: Sequence[_Noted]) -> None:
        version, bundle = noted[0].version, noted[0].bundle
        yardstick = bundle.yardstick
        assert yardstick is not None
        pixels = np.concatenate([one.pixels for one in noted])
        probabilities = np.concatenate([one.probabilities for one in noted])
        times = np.repeat([one.time for one in noted], [len(one.pixels) for one in noted]).tolist()
        chosen = bundle.decide(probabilities)
        statistics = image_statistics(pixels)
        told = yardstick.asked(probabilities, chosen, thumbnails(pixels), statistics).astype(np.float32)
        rows = zip(told, chosen.tolist(), statistics, times, strict=True)
        with self._mutex:
            if version != self._version:
                self._kept.clear()
                self._version = version
            self._kept.extend(rows)


@dataclass(frozen=True)
class _Told:
    """What was said of a version, and when, by the monotonic clock."""

    version: str
    bundle: Predictor
    health: Health
    at: float


@dataclass(frozen=True)
class _Noted:
    """Images of one request: see :meth:`Monitor.note`; when they were answered, seconds since 1970."""

    version: str
    bundle: Predictor
    pixels: np.ndarray
    probabilities: np.ndarray
    time: float

    def kind(self) -> tuple[str, int]:
        """Only images of the same kind are looked at together."""
        return self.version, id(self.bundle)


def _tell_of_failure(work: Future[None]) -> None:
    """Requests are answered whatever goes wrong here, but somebody should hear of it."""
    error = None if work.cancelled() else work.exception()
    if error is not None:
        _LOG.error("the images of a request could not be judged", exc_info=error)
