from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.serving.batching import Batcher


class Recorder:
    """Adds one to every value, once its gate is open, and keeps what it was given."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.sizes: list[int] = []
        self._gate = gate
        self._begun = threading.Event()

    async def begun(self) -> None:
        """Wait until it has something to compute."""
        assert await asyncio.to_thread(self._begun.wait, 60)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self._begun.set()
        if self._gate is not None:
            self._gate.wait(60)
        self.sizes.append(len(images))
        return images + 1


def run(scenario: Callable[[Batcher], object]) -> object:
    async def main() -> object:
        batcher = Batcher()
        try:
            return await asyncio.wait_for(scenario(batcher), 120)
        finally:
            batcher.close()

    return asyncio.run(main())


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), limit=st.integers(1, 8))
def test_every_request_gets_its_own_rows_and_no_batch_is_too_large(sizes, limit):
    compute = Recorder()
    starts = np.cumsum([0, *sizes])
    requests = [np.arange(a, b, dtype=np.float32)[:, None] for a, b in itertools.pairwise(starts)]

    async def scenario(batcher: Batcher):
        return await asyncio.gather(*(batcher.submit(compute, request, limit) for request in requests))

    for request, answer in zip(requests, run(scenario), strict=True):
        np.testing.assert_array_equal(answer, request + 1)
    assert max(compute.sizes) <= limit
    assert sum(compute.sizes) == sum(sizes)


def test_requests_that_wait_are_computed_together():
    gate = threading.Event()
    compute = Recorder(gate)

    async def scenario(batcher: Batcher):
        first = asyncio.create_task(batcher.submit(compute, np.ones((1, 1)), 64))
        await compute.begun()
        others = [asyncio.create_task(batcher.submit(compute, np.ones((1, 1)), 64)) for _ in range(9)]
        await asyncio.sleep(0)  # now they wait
        gate.set()
        await asyncio.gather(first, *others)

    run(scenario)
    assert compute.sizes == [1, 9]


@pytest.mark.parametrize("quick", [0, 64])
def test_requests_that_come_at_once_are_computed_together_and_the_first_not_alone(quick):
    compute = Recorder()

    async def scenario(batcher: Batcher):
        return await asyncio.gather(*(batcher.submit(compute, np.full((1, 1), n), 64, quick) for n in range(10)))

    assert [answer.tolist() for answer in run(scenario)] == [[[n + 1]] for n in range(10)]
    assert compute.sizes == [10]


def test_what_is_quick_is_computed_on_the_event_loop_and_nothing_else_is():
    threads = []

    def compute(images: np.ndarray) -> np.ndarray:
        threads.append(threading.current_thread() is threading.main_thread())
        return images + 1

    async def scenario(batcher: Batcher):
        for sizes in ([4], [5], [2, 2], [2, 3], [1]):
            requests = [batcher.submit(compute, np.zeros((size, 1)), 64, 4) for size in sizes]
            for size, answer in zip(sizes, await asyncio.gather(*requests), strict=True):
                assert answer.tolist() == [[1]] * size

    run(scenario)
    assert threads == [True, False, True, False, True]


def test_a_cancelled_request_is_not_computed_and_holds_nobody_up():
    gate = threading.Event()
    compute = Recorder(gate)

    async def scenario(batcher: Batcher):
        running = asyncio.create_task(batcher.submit(compute, np.full((1, 1), 1), 64))
        await compute.begun()
        cancelled, waiting = (asyncio.create_task(batcher.submit(compute, np.full((n, 1), n), 64)) for n in (2, 3))
        await asyncio.sleep(0)  # now they wait
        running.cancel()
        cancelled.cancel()
        gate.set()
        answer = await waiting
        later = await batcher.submit(compute, np.full((4, 1), 4), 64)
        return answer, later

    answer, later = run(scenario)
    assert answer.tolist() == [[4]] * 3
    assert later.tolist() == [[5]] * 4
    assert compute.sizes == [1, 3, 4]


def test_two_models_never_share_a_batch():
    first, second = Recorder(), Recorder()

    async def scenario(batcher: Batcher):
        each = (first, first, second, second, first)
        await asyncio.gather(*(batcher.submit(compute, np.ones((1, 1)), 64) for compute in each))

    run(scenario)
    assert first.sizes == [2, 1]
    assert second.sizes == [2]


@pytest.mark.parametrize("quick", [0, 64])
def test_an_error_reaches_the_callers_and_the_next_batch_runs(quick):
    def broken(images: np.ndarray) -> np.ndarray:
        raise ArithmeticError("no")

    async def scenario(batcher: Batcher):
        requests = [batcher.submit(broken, np.ones((2, 1)), 64, quick) for _ in range(3)]
        errors = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(error) for error in errors] == [ArithmeticError] * 3
        return await batcher.submit(Recorder(), np.ones((2, 1)), 64, quick)

    assert run(scenario).tolist() == [[2], [2]]


@pytest.mark.parametrize("quick", [0, 64])
def test_after_its_end_nothing_is_computed_and_nobody_waits_for_it(quick):
    async def scenario(batcher: Batcher):
        batcher.close()
        requests = [batcher.submit(Recorder(), np.ones((2, 1)), 2, quick) for _ in range(3)]
        return await asyncio.gather(*requests, return_exceptions=True)

    assert [type(error) for error in run(scenario)] == [RuntimeError] * 3


class AcceleratorError(RuntimeError):
    """As torch's, which is not needed here."""


def test_what_fails_again_and_again_cannot_compute_and_what_a_gpu_has_lost_stays_lost():
    fails: list[Exception | None] = []

    def compute(images: np.ndarray) -> np.ndarray:
        if (error := fails.pop(0)) is not None:
            raise error
        return images

    async def scenario(batcher: Batcher):
        async def after(*outcomes: Exception | None) -> str:
            fails[:] = outcomes
            for _ in outcomes:
                await asyncio.gather(batcher.submit(compute, np.zeros((1, 1)), 8), return_exceptions=True)
            return batcher.broken

        memory = ValueError("no memory\nfor it")
        told = [await after(*[memory] * 4), await after(None, *[memory] * 4), await after(memory)]
        told += [await after(None), await after(AcceleratorError("gone")), await after(None)]
        return told

    few, few_again, many, right, lost, still = run(scenario)
    assert (few, few_again, right) == ("", "", "")
    assert many == "the model cannot compute any more (ValueError: no memory)"
    assert lost == still == "the model cannot compute any more (AcceleratorError: gone)"


def test_a_request_that_is_given_up_is_no_failure_of_the_model():
    gate = threading.Event()

    async def scenario(batcher: Batcher):
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(batcher.submit(Recorder(gate), np.zeros((1, 1)), 8), 0.01)
        gate.set()
        return batcher.broken

    assert run(scenario) == ""
