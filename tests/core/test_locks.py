"""Locks on files: one process at a time, and none where the file system has none."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import numpy as np
import pytest

from raytl.core.locks import NO_LOCKS, lock
from raytl.runs.lock import RunLock, is_locked
from raytl.training.arrays import ArrayCache


def refusing(code: int) -> object:
    def flock(file: object, kind: int) -> None:
        raise OSError(code, "no such thing here")

    return flock


def test_a_second_one_waits_or_is_told(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as first, (tmp_path / "a").open("w") as second:
        assert lock(first)
        with pytest.raises(BlockingIOError):
            lock(second, wait=False)
        fcntl.flock(first, fcntl.LOCK_UN)
        assert lock(second, wait=False)


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_file_system_without_locks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(code))
    with (tmp_path / "a").open("w") as file:
        assert not lock(file)
        assert not lock(file, wait=False)


def test_the_cache_and_runs_do_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOSYS))
    cache = ArrayCache(tmp_path / "cache")
    assert cache.get("a", lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert cache.get("a", lambda: np.zeros(3)).tolist() == [0, 1, 2]
    run = tmp_path / "run"
    run.mkdir()
    held = RunLock(run)
    assert is_locked(run)
    held.release()
    assert not is_locked(run)


def test_other_errors_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with (tmp_path / "a").open("w") as file, pytest.raises(OSError, match="no such thing"):
        lock(file)
