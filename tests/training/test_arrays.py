"""The array cache: computed once, under a budget, and never poisoned by what a killed process left."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from raytl.core.errors import UserError
from raytl.training.arrays import ArrayCache


class Counted:
    """Computes the same array each time and counts how often."""

    def __init__(self, value: float = 1.0, size: int = 100) -> None:
        self.array = np.full(size, value, dtype=np.float32)
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.array


def _ask(root: Path, barrier: object) -> None:
    """In another process: ask for one entry at the same time as the others, and leave a trace if it was computed."""

    def compute() -> np.ndarray:
        time.sleep(0.2)  # long enough for the others to come by
        (root / f"computed-{os.getpid()}").touch()
        return np.arange(1000.0)

    barrier.wait()  # type: ignore[attr-defined]
    assert np.array_equal(ArrayCache(root).get("x", compute), np.arange(1000.0))


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
            process.join(30)
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
    """In another process, which may write no more than 64 KiB into a file: the sum of an array that is larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    cache = ArrayCache(root)
    answer.send(float(cache.get("x", lambda: np.ones(2**20)).sum()))
    cache.get("small", lambda: np.ones(10))


class TestPlace:
    def test_a_full_disk_costs_no_trial_and_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_on_a_full_disk, args=(tmp_path, theirs))
        process.start()
        process.join(30)
        assert ours.poll(), "the process died"
        assert ours.recv() == 2**20
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["small.npy"]

    def test_a_place_that_is_a_file_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("not a folder")
        with pytest.raises(UserError, match=r"cannot be used as a cache .*; point RAYTL_HOME at another place"):
            ArrayCache(tmp_path / "home" / "arrays")
