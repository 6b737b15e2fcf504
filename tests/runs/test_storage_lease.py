"""Who may write a run on an object store: one at a time, also where all come at once, and nobody for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from pyarrow import fs
from s3 import s3_server

from raytl.runs.lock import TakenError
from raytl.runs.storage import lease
from raytl.runs.storage.lease import Folder, Lease, LostError, is_held
from raytl.runs.storage.objects import Objects


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "files", "s3"])
def objects(request, tmp_path):
    if request.param == "folder":
        folder = tmp_path / os.fsdecode(b"no utf-8: \xff")
        folder.mkdir()
        return Folder(folder)
    if request.param == "files":
        return Objects(fs.LocalFileSystem(), str(tmp_path), "file")
    return Objects.at(request.getfixturevalue("s3").uri(tmp_path.name))


def test_the_second_is_told_who_has_it_until_it_is_let_go(objects):
    held = Lease(objects, "flowers")
    assert is_held(objects)
    with pytest.raises(TakenError, match=rf"run 'flowers' is being written by another process \(pid {os.getpid()} on "):
        Lease(objects, "flowers")
    held.check()
    held.release()
    assert not is_held(objects) and objects.list(lease.FOLDER) == {}
    Lease(objects, "flowers").release()


def test_of_those_who_come_at_once_one_has_it(objects):
    start = Barrier(5)

    def take(_):
        start.wait()
        try:
            return Lease(objects, "flowers")
        except TakenError:
            return None

    with ThreadPoolExecutor(5) as pool:
        held = [found for found in pool.map(take, range(5)) if found is not None]
    assert len(held) <= 1
    for one in held:
        one.check()
        one.release()
    assert objects.list(lease.FOLDER) == {}


def test_a_killed_process_of_this_machine_has_it_no_more(tmp_path):
    code = """
        import sys, time
        from pyarrow import fs
        from raytl.runs.storage.lease import Lease
        from raytl.runs.storage.objects import Objects
        held = Lease(Objects(fs.LocalFileSystem(), sys.argv[1], "file"), "flowers")
        print("ready", flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    objects = Objects(fs.LocalFileSystem(), str(tmp_path), "file")
    assert process.stdout.readline() == b"ready\n"
    with pytest.raises(TakenError, match=rf"pid {process.pid} on "):
        Lease(objects, "flowers")
    process.kill()
    process.wait()
    assert not is_held(objects)
    Lease(objects, "flowers").release()


@pytest.mark.parametrize("fails", [".claim", ".beat"])
def test_what_a_full_disk_does_not_take_is_no_claim(tmp_path, monkeypatch, fails):
    """An empty file of it would have kept everybody away for a minute."""
    folder = Folder(tmp_path)

    def put(key, content):
        Folder.put(folder, key, b"")
        if key.endswith(fails):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "put", put, raising=False)
        with pytest.raises(OSError, match="No space left"):
            Lease(folder, "flowers")
    assert list((tmp_path / "lock").iterdir()) == []
    Lease(folder, "flowers").release()


def test_one_that_is_silent_loses_it_and_finds_out(tmp_path, monkeypatch):
    objects = Objects(fs.LocalFileSystem(), str(tmp_path), "file")
    asleep = Lease(objects, "flowers")
    for path in (tmp_path / "lock").iterdir():
        os.utime(path, (time.time() - 2 * lease.LEASE_S,) * 2)
    awake = Lease(objects, "flowers")
    with pytest.raises(LostError, match="another process took run 'flowers' over"):
        asleep.check()
    awake.check()
    asleep.release()
    awake.check()
    awake.release()


def test_one_that_gives_signs_of_life_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    objects = Objects(fs.LocalFileSystem(), str(tmp_path), "file")
    held = Lease(objects, "flowers")
    for _ in range(3):
        for path in (tmp_path / "lock").iterdir():
            os.utime(path, (0, 0))
        until = time.monotonic() + 60
        while not is_held(objects):
            assert time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(TakenError):
            Lease(objects, "flowers")
    held.release()
