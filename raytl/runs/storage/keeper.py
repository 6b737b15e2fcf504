"""The right to write a run on an object store: a working copy of this machine, and what sends it on."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from raytl.core.paths import storage_of
from raytl.runs.lock import RunLock
from raytl.runs.storage.lease import Lease
from raytl.runs.storage.mirror import Mirror, Outbox, describe_trouble

PATIENCE_S = 60.0
"""How long the end of a search waits for a store that does not answer."""
SENT = ".sent"


class ObjectKeeper:
    """The right to write a run in a working copy, which is mirrored."""

    def __init__(
        self, argument: str, folder: Path, locks: Sequence[RunLock | Lease], outbox: Outbox, mirror: Mirror
    ) -> None:
        self.folder = folder
        self._argument = argument
        self._locks = locks
        self._outbox = outbox
        self._mirror = mirror
        self._released = False
        self.behind: Callable[[], None] = lambda: None

    def journal(self, size: int) -> None:
        """The journal has grown to so many bytes."""
        self._outbox.journal(size)
        self._mirror.wake()

    def keep(self, *names: str) -> None:
        """Files, or folders, were written whole."""
        self._outbox.keep(*names)
        self._mirror.wake()

    def check(self) -> None:
        """Nothing: the copy is this process's own, and the store is asked before anything is sent."""

    def drop(self, name: str) -> None:
        """Remove a file or a folder, here and on the store."""
        path = self.folder / name
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file()]
            shutil.rmtree(path, ignore_errors=True)
            self._outbox.drop_folder([file.relative_to(self.folder).as_posix() for file in files])
        else:
            path.unlink(missing_ok=True)
            self._outbox.drop(name)
        self._mirror.wake()

    def catch_up(self) -> None:
        """Send what waits in the working copy."""
        self.behind()

    def release(self) -> str | None:
        """Let go, once all is kept, or after a minute of trying."""
        if self._released:
            return None
        self._released = True
        waiting = self._mirror.finish(PATIENCE_S)
        if not waiting:
            with suppress(OSError):
                self._outbox.close()
            (self.folder / SENT).touch()
        for lock in self._locks:
            lock.release()
        if not waiting:
            return None
        storage, name = storage_of(self._argument)
        why = describe_trouble(self._mirror.trouble)
        return (
            f"run '{name}' is whole in {self.folder}, but {', '.join(waiting)} of it could not be kept at "
            f"{self._argument} ({why}). Once it can be: raytl runs send {name} --storage {shlex.quote(storage)}"
        )
