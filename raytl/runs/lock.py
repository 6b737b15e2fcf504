"""One writer per run: an advisory lock that dies with its process and tells who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from raytl.core.errors import UserError
from raytl.core.locks import NO_LOCKS
from raytl.runs.files import writing

FILE = "run.lock"
_LOOKS = 3


class TakenError(UserError):
    """A run's name is taken: by a run, by something else, or by a process that is writing it."""


class TakenOverError(UserError):
    """A run that this process was writing is another one's by now."""


class RunLock:
    """The lock of one run folder, held from construction to :meth:`release`.

    The operating system's own file lock decides on this machine: it is gone with its process, however that ended, and
    cannot mistake a reused process number for the old writer. The file also names host and process, for the message.
    Among machines that share a folder, where file locks may not reach, a lease decides, which whoever has this lock
    takes next (:class:`raytl.runs.storage.lease.Lease`): this one then passes over what another machine left in the
    file. Only a raytl without leases is respected there until somebody removes its lock.
    Raises TakenError where another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._own = {"pid": os.getpid(), "host": socket.gethostname(), "leased": True}
        with writing(self._path):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            holder = _holder(self._path, self._file)
            for _ in range(_LOOKS):
                if holder is None or (holder["pid"] != "unknown" and _alive(holder["pid"])):
                    break
                time.sleep(0.05)  # somebody who only looks, most likely, and not for long
                holder = _holder(self._path, self._file)
            if holder is not None:
                raise TakenError(_occupied(folder, holder))
            with writing(self._path):
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, json.dumps(self._own).encode(), 0)
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Let go. The file stays, empty: removing it could pull it from under a writer that just opened it."""
        if self._file >= 0:
            if _written_by(self._path) == self._own:  # else another machine took the run over
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


def is_locked(folder: Path) -> bool:
    """Whether some process of this machine is writing the run in ``folder`` now."""
    path = folder / FILE
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _holder(path, file, fcntl.LOCK_SH) is not None  # shared: whoever looks is in nobody's way
    finally:
        os.close(file)


def _holder(path: Path, file: int, kind: int = fcntl.LOCK_EX) -> dict[str, object] | None:
    """Who holds the lock, or None; where it is free, the caller holds the file lock from here on."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        free_here = True
    except BlockingIOError:
        return _written_by(path) or {"pid": "unknown", "host": "this machine"}
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        free_here = False  # this file system has no locks: the process number has to do
    holder = _written_by(path)
    if holder is None:
        return None
    if holder["host"] != socket.gethostname():
        return None if holder["leased"] else holder
    return None if free_here or not _alive(holder["pid"]) else holder


def _written_by(path: Path) -> dict[str, object] | None:
    try:
        content = json.loads(path.read_bytes())
        return {"pid": content["pid"], "host": content["host"], "leased": content.get("leased", False)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # empty, or torn by a process that died while writing it


def _alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _occupied(folder: Path, holder: dict[str, object]) -> str:
    sentence = (
        f"run '{folder.name}' is being written by another process (pid {holder['pid']} on {holder['host']}). "
        "Wait for it, or start with another --name."
    )
    if holder["host"] != socket.gethostname() and not holder.get("leased", True):
        sentence += f" If that machine is gone, remove {folder / FILE}."
    return sentence
