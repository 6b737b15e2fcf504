"""One writer per run among machines: a claim, and beats that say that its holder lives.

On an object store, and in a folder that several machines mount.

Who wants a run puts a claim under a name of its own, then lists all claims. Of two who come at once the later one sees
the other's, as the store lists what was put, so at most one of them sees only its own; who sees another's withdraws.
No conditional write is needed, which not every store and client has. A claim is never renewed: beats are objects
beside it, so that a holder who was taken for dead and wakes up cannot bring its claim back, but finds it gone.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raytl.runs.lock import TakenError
from raytl.runs.storage.objects import Seen

FOLDER = "lock"
BEAT_S = 10.0
LEASE_S = 60.0
"""How old, by the store's clock, a holder's last beat must be before another may take the run over."""
LETTING_GO_S = 5.0
"""How long the end of a run waits for a store that does not answer."""
ATTEMPTS = 4


class Pieces(Protocol):
    """What a lease needs of an object store (:class:`raytl.runs.storage.objects.Objects`) or of a folder."""

    def put(self, key: str, content: bytes) -> None:
        """Put a piece, or another in its place."""

    def get(self, key: str) -> bytes:
        """A piece's content; FileNotFoundError where there is none."""

    def list(self, folder: str) -> dict[str, Seen]:
        """The pieces whose keys begin with ``folder/``, by key."""

    def delete(self, key: str) -> None:
        """Delete a piece; one that is gone already is fine."""


class Folder:
    """The same of files, whose names need not be UTF-8."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, content: bytes) -> None:
        """Write a file, below a folder that is made where it is missing."""
        path = self._folder / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def get(self, key: str) -> bytes:
        """A file's content."""
        return (self._folder / key).read_bytes()

    def list(self, folder: str) -> dict[str, Seen]:
        """The files of a folder; nothing where there is none."""
        found = {}
        with suppress(FileNotFoundError):
            for path in (self._folder / folder).iterdir():
                with suppress(FileNotFoundError):  # gone since it was listed
                    status = path.stat()
                    found[f"{folder}/{path.name}"] = Seen(status.st_size, status.st_mtime_ns)
        return found

    def delete(self, key: str) -> None:
        """Remove a file; one that is gone already is fine."""
        (self._folder / key).unlink(missing_ok=True)


class LostError(Exception):
    """The run was taken over by another process."""


@dataclass(frozen=True)
class Holder:
    """Who holds a run. silent_s: since its last beat."""

    pid: int
    host: str
    silent_s: float


class Lease:
    """A run's claim, held from construction to :meth:`release`.

    objects: the run's. name: of the run, for messages. Raises TakenError where another process holds it, OSError where
    the store does not answer.
    """

    def __init__(self, objects: Pieces, name: str) -> None:
        self._objects = objects
        self._name = name
        self._key = ""
        self._lost = False
        self._ended = threading.Event()
        self._claim()
        self._thread = threading.Thread(target=self._beat, name=f"lease of {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LostError where the claim is gone: another process may be writing by now."""
        if not self._lost and f"{self._key}.claim" not in self._objects.list(FOLDER):
            self._lost = True
        if self._lost:
            raise LostError(f"another process took run '{self._name}' over")

    def release(self) -> None:
        """Let go; where the store does not answer, the claim lapses by itself."""
        self._ended.set()
        self._thread.join(LETTING_GO_S)

    def _claim(self) -> None:
        for attempt in range(ATTEMPTS):
            self._key = f"{FOLDER}/{secrets.token_hex(8)}"
            try:
                self._objects.put(f"{self._key}.claim", json.dumps(_this_process()).encode())
                other = self._other()
                if other is None:
                    self._objects.put(f"{self._key}.beat", b"")
                    return
            except BaseException:
                with suppress(OSError):
                    self._objects.delete(f"{self._key}.beat")
                with suppress(OSError):
                    self._objects.delete(f"{self._key}.claim")
                raise
            self._objects.delete(f"{self._key}.claim")
            if other[1] or attempt == ATTEMPTS - 1:
                raise TakenError(_occupied(self._name, other[0]))
            time.sleep(random.uniform(0.05, 0.5))  # both came at once, and neither has it

    def _other(self) -> tuple[Holder, bool] | None:
        """Another's claim that has not lapsed, and whether it is established; those that have lapsed are removed."""
        own = self._objects.list(FOLDER).get(f"{self._key}.claim")
        if own is None:
            raise OSError("it does not list what was just put; runs need a store that is strongly consistent")
        for key, holder, established in _claims(self._objects, own.mtime_ns):
            if key == self._key:
                continue
            if holder.silent_s <= LEASE_S:
                return holder, established
            self._objects.delete(f"{key}.claim")
            self._objects.delete(f"{key}.beat")
        return None

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self._objects.put(f"{self._key}.beat", b"")
                self.check()
            except OSError:
                continue  # what was missed is seen at the next beat that arrives
            except LostError:
                break
        with suppress(OSError):
            self._objects.delete(f"{self._key}.beat")
            self._objects.delete(f"{self._key}.claim")


def is_held(objects: Pieces) -> bool:
    """Whether a process that lives holds the run. The clocks of store and machine must agree to half a minute."""
    now_ns = time.time_ns()
    return any(holder.silent_s <= LEASE_S for _, holder, _ in _claims(objects, now_ns))


def _claims(objects: Pieces, now_ns: int | None) -> list[tuple[str, Holder, bool]]:
    """All claims: key, holder, whether it is established."""
    listed = objects.list(FOLDER)
    found: list[tuple[str, Holder, bool]] = []
    for key in listed:
        if not key.endswith(".claim"):
            continue
        name = key.removesuffix(".claim")
        beats = [listed[known].mtime_ns for known in (key, f"{name}.beat") if known in listed]
        known_ns = [beat for beat in beats if beat is not None]
        silent_s = (now_ns - max(known_ns)) / 1e9 if known_ns and now_ns is not None else 0.0
        try:
            told = json.loads(objects.get(key))
            pid, host, machine = int(told["pid"]), str(told["host"]), told["machine"]
        except FileNotFoundError:  # withdrawn meanwhile
            continue
        except (ValueError, KeyError, TypeError):
            pid, host, machine = 0, "unknown", None
        if machine is not None and machine == _machine() and not _is_alive(pid):
            silent_s = float("inf")
        found.append((name, Holder(pid, host, silent_s), f"{name}.beat" in listed))
    return found


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine()}


def _machine() -> str | None:
    """What process numbers can be told apart by: this boot of this machine, and the container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _occupied(name: str, holder: Holder) -> str:
    return (
        f"run '{name}' is being written by another process (pid {holder.pid} on {holder.host}). Wait for it, or start "
        f"with another --name. If that process is gone, its claim lapses {LEASE_S:.0f} s after its last sign of life."
    )
