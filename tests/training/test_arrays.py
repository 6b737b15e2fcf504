"""The array cache: computed once, under a budget, and never poisoned by what a killed process left."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from raytl.core.errors import UserError
from raytl.core.stopping import StoppedError, stoppable
from raytl.training.arrays import ArrayCache, file_lock


class Counted:
    """Computes the same array each time and counts how often."""

    def __init__(self, value: float = 1.0, size: int = 100) -> None:
        self.array = np.full(size, value, dtype=np.float32)
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.array


def test_the_time_of_making_is_counted_once_and_that_of_finding_is_not(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)

    def shallow() -> np.ndarray:
        time.sleep(0.05)
        return np.ones(3)

    def deep() -> np.ndarray:
        return cache.get("shallow", shallow) + 1

    began = time.perf_counter()
    cache.get("deep", deep)
    assert 0.05 <= cache.made_s <= time.perf_counter() - began
    made_s = cache.made_s
    for key, compute in (("deep", deep), ("shallow", shallow)):
        cache.get(key, compute)
    assert cache.made_s == made_s
    with pytest.raises(ZeroDivisionError):
        cache.get("broken", lambda: np.ones(1) / (1 // 0))
    assert cache.made_s == made_s
    cache.get("another", shallow)
    assert cache.made_s >= made_s + 0.05
    full = ArrayCache(tmp_path / "full", budget_bytes=0)
    assert (full.get("shallow", shallow) == 1).all()
    assert full.made_s == 0  # nothing is kept, and the next one who asks takes as long


def _ask(root: Path, barrier: object) -> None:
    """In another process: ask for one entry at the same time as the others, and leave a trace if it was computed."""

    def compute() -> np.ndarray:
        time.sleep(0.2)  # long enough for the others to come by
        (root / f"computed-{os.getpid()}").touch()
        return np.arange(1000.0)

    barrier.wait()  # type: ignore[attr-defined]
    assert np.array_equal(ArrayCache(root).get("x", compute), np.arange(1000.0))


def test_who_waits_for_what_another_makes_can_be_stopped(tmp_path: Path) -> None:
    lock, asked, ended = tmp_path / "a.lock", threading.Event(), []

    def wait() -> None:
        try:
            with stoppable(asked), file_lock(lock):
                ended.append("held")
        except StoppedError:
            ended.append("stopped")

    with file_lock(lock):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        asked.set()
        waiting.join(60)
        assert ended == ["stopped"]


class TestGet:
    def test_computes_once_and_reads_after_that(self, tmp_path: Path) -> None:
        compute = Counted()
        for cache in (ArrayCache(tmp_path), ArrayCache(tmp_path)):
            assert np.array_equal(cache.get("x", compute), compute.array)
        assert compute.calls == 1

    def test_hands_out_what_cannot_be_written_to(self, tmp_path: Path) -> None:
        array = ArrayCache(tmp_path).get("x", Counted())
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2

    def test_computes_once_for_processes_that_ask_together(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(4)
        processes = [context.Process(target=_ask, args=(tmp_path, barrier)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(180)
        assert [process.exitcode for process in processes] == [0] * 4
        assert len(list(tmp_path.glob("computed-*"))) == 1

    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
    def test_keeps_empty_arrays(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        cache = ArrayCache(tmp_path)
        for _ in range(2):
            assert cache.get("x", lambda: np.empty(shape)).shape == shape

    def test_a_failed_computation_leaves_nothing_behind_and_can_be_repeated(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path)
        with pytest.raises(ZeroDivisionError):
            cache.get("x", lambda: np.full(3, 1 // 0))
        assert not cache.has("x")
        assert cache.get("x", Counted()).sum() == 100


def _killed_while_writing(root: Path) -> None:
    """In another process, which is killed after its first rows are written."""

    def pieces() -> Iterator[np.ndarray]:
        yield np.ones((10, 3))
        yield np.ones((10, 3))
        os.kill(os.getpid(), signal.SIGKILL)

    ArrayCache(root).stream("x", 30, pieces)


def _stream(root: Path, barrier: Barrier) -> None:
    """In another process: make the entry at the same time as the others, slowly, and say if it was made here."""

    def pieces() -> Iterator[np.ndarray]:
        (root / f"computed-{os.getpid()}").touch()
        for first in range(0, 20, 5):
            yield np.arange(first, first + 5)
            time.sleep(0.02)

    barrier.wait()
    assert np.array_equal(ArrayCache(root).stream("x", 20, pieces), np.arange(20))


class TestStream:
    @pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 0, 5, 1], [0, 7]])
    @pytest.mark.parametrize("budget", [2**20, 10])
    def test_pieces_become_one_array(self, tmp_path: Path, sizes: list[int], budget: int) -> None:
        whole = np.random.default_rng(0).random((7, 2, 3)).astype(np.float32)
        made = ArrayCache(tmp_path, budget).stream("x", 7, lambda: np.split(whole, np.cumsum(sizes)[:-1]))
        assert np.array_equal(made, whole) and made.dtype == whole.dtype
        assert ArrayCache(tmp_path).has("x") == (budget > whole.nbytes)

    def test_columns_of_a_larger_array_are_kept_as_they_are(self, tmp_path: Path) -> None:
        whole = np.arange(60.0).reshape(5, 12)
        pieces = [whole[:2, ::3], whole[2:, ::3]]
        assert np.array_equal(ArrayCache(tmp_path).stream("x", 5, lambda: pieces), whole[:, ::3])

    def test_is_mapped_and_not_held(self, tmp_path: Path) -> None:
        made = ArrayCache(tmp_path).stream("x", 4, lambda: [np.ones((2, 2)), np.zeros((2, 2))])
        assert isinstance(made, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            made[0] = 2

    @pytest.mark.parametrize("budget", [2**20, 10])
    @pytest.mark.parametrize("count", [3, 5])
    def test_rows_too_few_or_too_many_are_not_kept(self, tmp_path: Path, count: int, budget: int) -> None:
        cache = ArrayCache(tmp_path, budget)
        with pytest.raises(ValueError):
            cache.stream("x", count, lambda: [np.ones(2), np.ones(2)])
        assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]

    @pytest.mark.parametrize("error", [UserError("an image cannot be read"), KeyboardInterrupt(), OSError("no such")])
    def test_what_ends_it_midway_leaves_nothing_and_passes_through(self, tmp_path: Path, error: BaseException) -> None:
        def pieces() -> Iterator[np.ndarray]:
            yield np.ones((10, 3))
            assert list(tmp_path.glob("*.part"))
            raise error

        cache = ArrayCache(tmp_path)
        with pytest.raises(type(error)) as raised:
            cache.stream("x", 20, pieces)
        assert raised.value is error
        assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
        assert cache.stream("x", 20, lambda: [np.ones((20, 3))]).shape == (20, 3)

    def test_what_a_killed_process_wrote_is_never_read(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_killed_while_writing, args=(tmp_path,))
        process.start()
        process.join(180)
        assert process.exitcode == -signal.SIGKILL
        assert list(tmp_path.glob("*.part"))
        cache = ArrayCache(tmp_path)
        assert not cache.has("x")
        assert np.array_equal(cache.stream("x", 30, lambda: [np.zeros((30, 3))]), np.zeros((30, 3)))

    def test_is_made_once_for_processes_that_ask_together(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(3)
        processes = [context.Process(target=_stream, args=(tmp_path, barrier)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(180)
        assert [process.exitcode for process in processes] == [0] * 3
        assert len(list(tmp_path.glob("computed-*"))) == 1

    def test_room_is_left_for_what_is_being_written(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, budget_bytes=2000)

        def pieces() -> Iterator[np.ndarray]:
            yield np.ones(1)
            assert isinstance(cache.get("small", lambda: np.ones(50)), np.memmap)
            assert not isinstance(cache.get("large", lambda: np.ones(200)), np.memmap)
            yield np.ones(99)

        assert isinstance(cache.stream("x", 100, pieces), np.memmap)
        assert cache.has("small") and not cache.has("large")


class TestDamage:
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 0.99])
    def test_a_truncated_entry_is_computed_again(self, tmp_path: Path, share: float) -> None:
        compute = Counted()
        ArrayCache(tmp_path).get("x", compute)
        path = next(tmp_path.glob("*.npy"))
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        for _ in range(2):
            assert np.array_equal(ArrayCache(tmp_path).get("x", compute), compute.array)
        assert compute.calls == 2

    @pytest.mark.parametrize("content", [b"nothing that numpy knows", b"\x80\x04N.", b"\x93NUMPY\x01\x00\xff\xff{"])
    def test_an_entry_that_is_no_array_is_computed_again(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.npy").write_bytes(content)
        assert ArrayCache(tmp_path).get("x", Counted()).sum() == 100

    def test_unfinished_files_of_killed_processes_go_and_those_being_written_stay(self, tmp_path: Path) -> None:
        old, new = tmp_path / "a.1.part", tmp_path / "b.2.part"
        for path in (old, new):
            path.write_bytes(b"x" * 100)
        two_hours_ago = time.time() - 7200
        os.utime(old, (two_hours_ago, two_hours_ago))
        ArrayCache(tmp_path).get("x", Counted())
        assert not old.exists()
        assert new.exists()


class TestBudget:
    def test_the_least_recently_used_goes_first(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, budget_bytes=1200)  # two entries of 528 bytes
        for age, key in [(30, "a"), (20, "b")]:
            cache.get(key, Counted())
            used = time.time() - age
            os.utime(tmp_path / f"{key}.npy", (used, used))
        cache.get("a", Counted())  # read again: now b is the one not used for longest
        cache.get("c", Counted())
        assert [key for key in "abc" if cache.has(key)] == ["a", "c"]
        assert cache.size_bytes() <= 1200

    def test_an_entry_evicted_while_mapped_stays_readable(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, budget_bytes=600)
        first = cache.get("a", Counted(7.0))
        cache.get("b", Counted())
        assert not cache.has("a")
        assert np.array_equal(first, np.full(100, 7.0))

    def test_what_is_larger_than_the_budget_is_not_kept_and_evicts_nothing(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, budget_bytes=600)
        cache.get("a", Counted())
        assert cache.get("big", Counted(size=1000)).sum() == 1000
        assert cache.has("a") and not cache.has("big")

    def test_an_evicted_entry_comes_back(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, budget_bytes=600)
        for value, key in [(1.0, "a"), (2.0, "b"), (1.0, "a")]:
            assert cache.get(key, Counted(value))[0] == value


def _on_a_full_disk(root: Path, answer: Connection) -> None:
    """In another process, which may write no more than 64 KiB into a file: arrays that are larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    cache = ArrayCache(root)
    answer.send(float(cache.get("x", lambda: np.ones(2**20)).sum()))
    pieces = np.split(np.arange(2.0**17).reshape(-1, 16), 64)
    made = []
    whole = cache.stream("y", 2**13, lambda: (made.append(len(piece)) or piece for piece in pieces))
    answer.send(np.array_equal(whole, np.concatenate(pieces)) and len(made) == len(pieces))
    try:
        ArrayCache(root, memory_share=0.0).stream("z", 2**13, lambda: pieces)
    except UserError as error:
        answer.send(str(error))
    cache.get("small", lambda: np.ones(10))


class TestPlace:
    def test_a_full_disk_costs_no_trial_and_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_on_a_full_disk, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        assert ours.recv() == 2**20
        assert ours.recv() is True  # what was written before the disk was full is not made again
        assert re.fullmatch(
            rf"{tmp_path}: no room for 1 MiB of images as networks see them \(its disk is full\), nor in memory, "
            r"of which [\d,]+ MiB are free; free space there, point RAYTL_HOME at another place or set a smaller "
            r"image_size",
            ours.recv(),
        )
        process.join(180)
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["small.npy"]

    def test_what_neither_budget_nor_memory_hold_is_one_sentence(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, budget_bytes=600, memory_share=0.0)
        with pytest.raises(
            UserError, match=r"\(RAYTL_CACHE_BYTES is 600\), nor in memory, .* raise that or set a small"
        ):
            cache.stream("x", 100, lambda: np.split(np.ones(100), 4))
        assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]

    def test_a_place_that_is_a_file_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("not a folder")
        with pytest.raises(UserError, match=r"cannot be used as a cache .*; point RAYTL_HOME at another place"):
            ArrayCache(tmp_path / "home" / "arrays")
