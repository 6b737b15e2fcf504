"""Dynamic batching without waiting: a batch is whatever arrived while the previous one was computed.

What is computed in a moment is computed on the event loop. In a thread every step of the network would ask for the
interpreter's lock anew, against the requests that are read meanwhile: that takes longer than it saves. Where nothing is
computed, a batch begins when all that has arrived so far has been read: else the first of many requests would be
computed alone.

Why not ``serve.batch``: it counts requests and not images, adds its waiting time to every request of a quiet endpoint,
and a cancelled or timed-out request can leave its background task hanging (ray#50046, ray#41057). Here there is no
background task and no timer: a finished batch starts the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

Compute = Callable[[np.ndarray], np.ndarray]
_TOO_OFTEN = 5
# torch's, by name: it is not imported here. What a GPU has lost by such an error stays lost in this process.
_FOR_GOOD = "AcceleratorError"


@dataclass(eq=False, slots=True)
class _Waiting:
    compute: Compute
    images: np.ndarray
    quick: int
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """Gathers images from concurrent requests into batches, one of which is computed at a time.

    Belongs to the event loop that calls it. Images whose caller has gone away are dropped before they are computed.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raytl-model")
        self._busy = False
        self._closed = False
        self._failed = 0
        self._lost = False
        self._broken = ""

    @property
    def broken(self) -> str:
        """Why nothing can be computed any more, in one sentence; "" while it can, as far as is known."""
        return self._broken

    async def submit(self, compute: Compute, images: np.ndarray, max_batch_size: int, quick: int = 0) -> np.ndarray:
        """Compute a row per image.

        compute: from (n, ...) to (n, k), called in the computing thread or on the event loop; only images with the same
            ``compute`` share a batch, so that a model can be swapped while older requests finish on the older one.
        images: shape (n, ...). quick: as many are computed in so short a time that they may be on the event loop.
        Returns shape (n, k), in order. An error of ``compute`` reaches every caller in the batch.
        """
        loop = asyncio.get_running_loop()
        answers = []
        for start in range(0, len(images), max_batch_size):
            answer: asyncio.Future[np.ndarray] = loop.create_future()
            self._waiting.append(_Waiting(compute, images[start : start + max_batch_size], quick, answer))
            answers.append(answer)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._start, loop, max_batch_size)
        if len(answers) == 1:
            return await answers[0]
        return np.concatenate(await asyncio.gather(*answers))

    def close(self) -> None:
        """Compute nothing after the current batch: who waits or comes later gets RuntimeError."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self, loop: asyncio.AbstractEventLoop, max_batch_size: int) -> None:
        batch = self._take(max_batch_size)
        self._busy = bool(batch)
        if not batch:
            return
        done: asyncio.Future[np.ndarray] = loop.create_future()
        try:
            if self._closed:
                raise RuntimeError("the model was let go of")
            if not _quick(batch):
                done = loop.run_in_executor(self._thread, _compute, batch)
                done.add_done_callback(lambda done: self._finish(loop, max_batch_size, batch, done))
                return
            done.set_result(_compute(batch))
        except Exception as error:  # noqa: BLE001 - it is the callers', as in the thread
            done.set_exception(error)
        self._finish(loop, max_batch_size, batch, done)

    def _take(self, max_batch_size: int) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting:
            item = self._waiting[0]
            if item.answer.done():
                self._waiting.popleft()
                continue
            if batch and (size + len(item.images) > max_batch_size or not _together(item, batch[0])):
                break
            batch.append(self._waiting.popleft())
            size += len(item.images)
        return batch

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        max_batch_size: int,
        batch: list[_Waiting],
        done: asyncio.Future[np.ndarray],
    ) -> None:
        in_thread = bool(self._waiting) and not _quick(self._waiting)
        if in_thread:
            self._start(loop, max_batch_size)  # first, so that the thread computes while the answers are written
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        self._note(error)
        start = 0
        for item in batch:
            stop = start + len(item.images)
            if not item.answer.done():
                if error is None:
                    item.answer.set_result(done.result()[start:stop])
                else:
                    item.answer.set_exception(error)
            start = stop
        if not in_thread:
            loop.call_soon(self._start, loop, max_batch_size)  # when these are written

    def _note(self, error: BaseException | None) -> None:
        """What became of a batch. A dead GPU stays dead; other failures tell something only in a row."""
        if isinstance(error, asyncio.CancelledError) or self._lost:
            return
        self._failed = 0 if error is None else self._failed + 1
        self._lost = type(error).__name__ == _FOR_GOOD
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        self._broken = f"the model cannot compute any more ({said})" if self._lost or self._failed >= _TOO_OFTEN else ""


def _quick(batch: Collection[_Waiting]) -> bool:
    return sum(len(item.images) for item in batch) <= min(item.quick for item in batch)


def _together(a: _Waiting, b: _Waiting) -> bool:
    return a.compute == b.compute and a.images.shape[1:] == b.images.shape[1:]


def _compute(batch: list[_Waiting]) -> np.ndarray:
    images = batch[0].images if len(batch) == 1 else np.concatenate([item.images for item in batch])
    return batch[0].compute(images)
