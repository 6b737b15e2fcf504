"""Runs in a folder: on this disk, or on one that several machines mount."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from raytl.core.errors import UserError
from raytl.core.places import is_there
from raytl.runs.files import writing
from raytl.runs.lock import FILE as LOCK
from raytl.runs.lock import RunLock, TakenError, TakenOverError, is_locked
from raytl.runs.storage import lease
from raytl.runs.storage.lease import Folder, Lease, LostError
from raytl.runs.storage.places import DOCUMENT, JOURNAL, MODEL, Keeper

_WRITTEN = ("run.json", "outcome.json", "trials.parquet", "history.parquet", "predictions.parquet", "optuna.journal")
_HALF = re.compile(rf"\.{MODEL}-(old-)?[a-z0-9_]{{8}}|\.({'|'.join(map(re.escape, _WRITTEN))})\..*")
"""Names of files and folders that only who has the run writes, and that have their own once whole."""
LOCKS = (LOCK, lease.FOLDER)
"""What a run's folder holds for the sake of who may write it, and no copy does."""


class DiskStorage:
    """The runs below a folder, made when the first run is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown = str(folder)

    def check(self) -> None:
        """Raise UserError where the folder cannot be made or written to; it is not made yet."""
        there = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if is_there(path))
        with writing(self.folder):
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def places(self) -> Sequence[DiskPlace]:
        """Of all runs. What is hidden was being deleted; a link to a run beside it is no other run."""
        found = [path.parent for path in self.folder.glob(f"*/{DOCUMENT}") if not path.parent.name.startswith(".")]
        here = self.folder.resolve()
        return [DiskPlace(path) for path in found if not (path.is_symlink() and path.resolve().parent == here)]

    def place(self, name: str) -> DiskPlace:
        """Of the run of this name, if there is one."""
        return DiskPlace(self.folder / name)

    def make(self, name: str) -> Keeper | None:
        """The right to write a new run."""
        folder = self.folder / name
        with writing(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                return _taken(folder)
        return DiskKeeper(folder)


class DiskPlace:
    """A run's folder. shown: in place of its path."""

    def __init__(self, folder: Path, shown: str | None = None) -> None:
        self.folder = folder
        self.name = folder.name if folder.name not in ("", "..") else folder.resolve().name  # "" is that of "."
        self.shown = self.argument = shown or str(folder)

    def look_again(self) -> None:
        """Nothing: a disk is looked at each time."""

    def is_written(self) -> bool:
        """Whether a process that lives is writing the run."""
        if is_locked(self.folder):
            return True
        with suppress(OSError):
            return lease.is_held(Folder(self.folder))
        return False

    def state(self) -> list[tuple[str, int, int | None]]:
        """Of the folder itself: a file more or less in a folder of it is a new time of that."""
        try:
            with os.scandir(self.folder) as entries:
                stats = [(entry.name, entry.stat()) for entry in entries if entry.name not in LOCKS]
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read ({(error.strerror or str(error)).lower()})") from error
        return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name. Raises UserError where the folder may not be looked into."""
        path = self.folder / name
        try:
            return path.is_file()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # then there is none
                return False
            raise UserError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error

    def file(self, name: str) -> Path:
        """Where it is."""
        return self.folder / name

    def tree(self, name: str) -> Path:
        """Where it is."""
        return self.folder / name

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder of the run."""
        path = self.folder / folder
        return sorted(file.name for file in path.iterdir()) if path.is_dir() else []

    def save(self, name: str) -> None:
        """It is where it belongs."""

    def remove(self, name: str) -> None:
        """Remove a file."""
        path = self.folder / name
        with writing(path):
            path.unlink(missing_ok=True)

    def write(self) -> Keeper:
        """Take the right to write the run."""
        return DiskKeeper(self.folder)

    def send(self) -> str | None:
        """Nothing ever waits to be sent to a disk."""
        raise UserError(f"{self.folder.parent} is a folder: its runs are where they belong")

    def copy(self, folder: Path) -> None:
        """Copy all files into a folder, which is a run's folder then."""
        with writing(folder):
            shutil.copytree(self.folder, folder, ignore=self._locks_in, dirs_exist_ok=True)

    def _locks_in(self, folder: str, names: Sequence[str]) -> list[str]:
        """Of a folder's files, those that are no part of the run; a tag may have such a name."""
        return [name for name in names if name in LOCKS and Path(folder) == self.folder]

    def delete(self) -> None:
        """Remove the run; its name is free at once, also where this is cut short."""
        keeper = DiskKeeper(self.folder)
        folder = self.folder.resolve()  # "." has a name, and a link is not what takes the space
        gone = folder.with_name(f".{folder.name}.deleted")
        with writing(self.folder):
            try:
                shutil.rmtree(gone, ignore_errors=True)  # of an earlier run of this name, cut short
                folder.rename(gone)
                if self.folder.is_symlink():
                    self.folder.unlink()
            finally:
                keeper.release()
            shutil.rmtree(gone)


class DiskKeeper:
    """The right to write a run's folder: its lock, for this machine, and a lease, for others that mount the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = RunLock(folder)
        try:
            with writing(folder / lease.FOLDER):
                self._lease = Lease(Folder(folder.absolute()), folder.name)
        except BaseException:
            self._lock.release()
            raise

    def check(self) -> None:
        """Raise TakenOverError where another machine has taken the run over."""
        try:
            with writing(self.folder):
                self._lease.check()
        except LostError:
            raise TakenOverError(
                f"{self.folder}: this process gave no sign of life for {lease.LEASE_S:.0f} s, and another one has "
                "taken the run over (or its folder was removed); what is tried from now on is not kept here"
            ) from None

    def journal(self, size: int) -> None:
        """It is where it belongs."""

    def keep(self, *names: str) -> None:
        """They are where they belong."""

    def drop(self, name: str) -> None:
        """Remove a file or a folder."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def catch_up(self) -> None:
        """Remove what an earlier process was writing when it died.

        Where it died while one model took the place of another, the earlier one comes back.
        """
        with suppress(OSError):
            for before in self.folder.glob(f".{MODEL}-old-*"):
                if not (self.folder / MODEL).exists() and any(before.iterdir()):
                    before.rename(self.folder / MODEL)
            for half in self.folder.iterdir():
                if _HALF.fullmatch(half.name):
                    self.drop(half.name)

    def release(self) -> str | None:
        """Let go of lock and lease."""
        self._lease.release()
        with writing(self.folder / LOCK):
            self._lock.release()
        return None


def _is_of_a_start(path: Path) -> bool:
    """Whether a file may be there before the run's document is."""
    empty = path.name == JOURNAL and not path.stat().st_size
    return empty or path.name in LOCKS or path.name.startswith(f".{DOCUMENT}.")


def _taken(folder: Path) -> Keeper | None:
    """What there is about a folder that is there: a run, nothing (a start cut short, which may be used), or else."""
    if folder.is_dir() and (folder / DOCUMENT).exists():
        DiskKeeper(folder).release()  # says so if the run is being written
        return None
    if not folder.is_dir() or not all(map(_is_of_a_start, folder.iterdir())):
        raise TakenError(f"{folder} exists and is not a run. Give another --name, or remove it.")
    return DiskKeeper(folder)
