"""A bounded sample of the images that come in, kept on disk for whoever will label them: the least certain first."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raytl.core.locks import lock

_LOG = logging.getLogger("ray.serve")
WRITE_EVERY_S = 10.0
MOST_BYTES = 256 * 2**20
"""That a replica keeps in memory and on disk, whatever the number of images."""
WAITING = 256
WAITING_BYTES = 256 * 2**20
"""Requests, and bytes of their images, as they came and as prepared, that wait to be looked at; others are left out."""
GATHER_S = 0.5
"""For so long images are gathered, to be looked at together: one by one, each would take several times as long."""
MOST_REPLICAS = 1000


Certainty = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""How certain each answer is, (n,), of prepared images, uint8 (n, c, s, s), and their probabilities, (n, k)."""


class Capture:
    """Keeps the encoded images that the model is least certain of, and writes them now and then.

    folder: gets one Parquet file for each replica that runs at a time, which ``raytl search --unlabelled`` reads. A
    replica goes on with the file of one that is gone, and begins anew where its own was taken away: what was in it is
    with its owner then. limit: images kept in a file.
    version: of the model, in the files' names. What one model is certain of says nothing of another's certainty.
    Nothing that a client sent beside the image is kept: no name, address or header.
    """

    def __init__(self, folder: Path, limit: int, version: str = "") -> None:
        self.folder, self.limit, self.version = folder, limit, version
        self._slot: int | None = None  # an open, locked file: the lock goes with the process
        self._file = folder / "captured.parquet"
        self._kept: dict[bytes, tuple[float, str]] = {}  # the same picture once
        self._filed: set[bytes] = set()  # those of them that are in the file
        self._bytes = 0
        self._surest = math.inf
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raytl-capture")
        self._noted: list[_Noted] = []
        self._waiting_bytes = 0
        self._hurry = threading.Event()
        self._mutex = threading.Lock()
        self._written = 0.0
        self._unwritten = False
        self._later: threading.Timer | None = None

    def note(self, images: Sequence[bytes], arrays: np.ndarray, rows: np.ndarray, certainty: Certainty) -> None:
        """Images were answered: encoded as they came, arrays as prepared, rows of probabilities.

        certainty: images of requests with the same one are looked at together. Returns at once; while too much is
        waiting, images are left out.
        """
        size = sum(map(len, images)) + arrays.nbytes
        with self._mutex:
            if len(self._noted) >= WAITING or self._waiting_bytes + size > WAITING_BYTES:
                return
            self._waiting_bytes += size
            self._noted.append(_Noted(list(images), arrays, rows, certainty))
            first = len(self._noted) == 1
        if first:
            with suppress(RuntimeError):  # closed meanwhile
                self._thread.submit(self._gather).add_done_callback(self._done)

    def flush(self) -> None:
        """Write what is kept, now."""
        self._hurry.set()
        self._thread.submit(self._write_now).result()

    def close(self) -> None:
        """Write what is kept, and stop."""
        self._hurry.set()
        if self._later is not None:
            self._later.cancel()
        with suppress(RuntimeError):
            self._thread.submit(self._end)
        self._thread.shutdown(wait=True)

    def _gather(self) -> None:
        """In the thread: keep what is noted within a moment."""
        self._hurry.wait(GATHER_S)
        with self._mutex:
            noted, self._noted, self._waiting_bytes = self._noted, [], 0
        self._forget_taken()
        if self._slot is None:
            self._take_slot()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for certainty, alike in itertools.groupby(noted, lambda one: one.certainty):
            together = list(alike)
            arrays, rows = (np.concatenate(part) for part in zip(*((o.arrays, o.rows) for o in together), strict=True))
            images = [image for one in together for image in one.images]
            for image, sure in zip(images, certainty(arrays, rows).tolist(), strict=True):
                self._add(image, sure, now)
        if self._unwritten and time.monotonic() - self._written > WRITE_EVERY_S:
            self._write()
        elif self._unwritten and (self._later is None or not self._later.is_alive()):
            # Nothing may come after this for hours.
            self._later = threading.Timer(WRITE_EVERY_S, self._write_later)
            self._later.daemon = True
            self._later.start()

    def _write_later(self) -> None:
        with suppress(RuntimeError):  # closed meanwhile
            self._thread.submit(self._write).add_done_callback(self._done)

    def _add(self, image: bytes, sure: float, when: str) -> None:
        if sure >= self._surest or image in self._kept or len(image) > MOST_BYTES // 8:
            return
        self._kept[image] = (sure, when)
        self._unwritten = True
        self._bytes += len(image)
        if len(self._kept) > 1.2 * self.limit + 10 or self._bytes > MOST_BYTES:
            self._cut()

    def _cut(self) -> None:
        """Let go of the surest, down to the limits."""
        rows = sorted(self._kept.items(), key=lambda item: item[1][0])[: self.limit]
        total = np.cumsum([len(image) for image, _ in rows])
        rows = rows[: max(1, int((total <= MOST_BYTES * 0.8).sum()))]
        if len(rows) < len(self._kept):
            self._surest = rows[-1][1][0]
        self._kept, self._bytes = dict(rows), sum(len(image) for image, _ in rows)

    def _take_slot(self) -> None:
        """The first file that no running replica writes, with what is in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(MOST_REPLICAS):
            name = "-".join(part for part in ("captured", self.version, str(number)) if part)
            handle = os.open(self.folder / f".{name}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                if not lock(handle, wait=False):
                    os.close(handle)
                    raise OSError(f"{self.folder} is on a file system without locks, by which replicas keep apart")
            except BlockingIOError:
                os.close(handle)
                continue
            self._slot, self._file = handle, self.folder / f"{name}.parquet"
            break
        else:
            raise OSError(f"{MOST_REPLICAS} replicas write to {self.folder} already")
        if self._file.exists():
            for row in pq.read_table(self._file).to_pylist():
                self._add(row["image"], row["certainty"], row["captured"])
            self._filed = set(self._kept)

    def _forget_taken(self) -> None:
        """Where the file was taken away, let go of what was in it, and of its place: the folder may be gone too."""
        gone = self._slot is not None and not self.folder.is_dir()
        if not gone and (not self._filed or self._file.exists()):
            return
        self._kept = {image: known for image, known in self._kept.items() if image not in self._filed}
        self._bytes, self._surest, self._filed = sum(map(len, self._kept)), math.inf, set()
        if self._slot is not None:
            os.close(self._slot)
            self._slot = None

    def _write_now(self) -> None:
        self._hurry.clear()
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        self._forget_taken()
        if not self._kept or not self._unwritten:
            return
        if self._slot is None:
            self._take_slot()
        self._cut()
        rows = sorted(self._kept.items(), key=lambda item: item[1][0])
        table = pa.table(
            {
                "image": pa.array([image for image, _ in rows], pa.binary()),
                "certainty": pa.array([sure for _, (sure, _) in rows], pa.float32()),
                "captured": pa.array([when for _, (_, when) in rows], pa.string()),
            }
        )
        staging = self._file.with_suffix(".part")
        handle = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # they are somebody's pictures
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file)
        staging.replace(self._file)
        self._unwritten, self._filed = False, set(self._kept)

    def _end(self) -> None:
        try:
            self._write()
        finally:
            if self._slot is not None:
                os.close(self._slot)

    def _done(self, work: Future[None]) -> None:
        error = None if work.cancelled() else work.exception()
        if error is not None:
            _LOG.error("captured images could not be kept in %s (%s)", self._file, error)


@dataclass(frozen=True)
class _Noted:
    """Of one request: see :meth:`Capture.note`."""

    images: list[bytes]
    arrays: np.ndarray
    rows: np.ndarray
    certainty: Certainty
