"""Runs at a URI: written and read in copies on this machine, and kept on an object store.

A run's objects have the names of the files of a run's folder, but for its journal, which is in segments, and its lock.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from raytl.core import tidying
from raytl.core.errors import UserError
from raytl.core.hashing import hash_json
from raytl.core.paths import below, home
from raytl.runs.files import read_json, replacing, writing
from raytl.runs.lock import FILE as LOCK
from raytl.runs.lock import RunLock, TakenError, is_locked
from raytl.runs.storage import lease, segments
from raytl.runs.storage.keeper import SENT, ObjectKeeper
from raytl.runs.storage.lease import Lease
from raytl.runs.storage.mirror import Mirror, Outbox
from raytl.runs.storage.objects import ELSEWHERE, Objects, Seen, copying, reaching
from raytl.runs.storage.places import DOCUMENT, JOURNAL, Keeper, Place

NEVER_SENT = {SENT, LOCK, JOURNAL, DOCUMENT, "tune", "tags", "note.txt"}
"""Names in a working copy that are scratch, sent apart from the others, or not the search's."""
GOES = {"outcome.json", "predictions.parquet"}
"""Files that a search which goes on removes: they are of what it chose before."""
Locks = tuple[RunLock, Lease]
KEPT_S = 24 * 3600.0
"""How long a working copy stays after all of it was sent."""


class ObjectStorage:
    """The runs below a URI.

    objects: what is there, None for what the URI names. copies: folder of copies on this machine. mirror: sends.
    """

    def __init__(
        self,
        uri: str,
        *,
        objects: Objects | None = None,
        copies: Path | None = None,
        mirror: Callable[[Outbox], Mirror] = Mirror,
    ) -> None:
        self.shown = uri.rstrip("/")
        self._objects = objects or Objects.at(uri)
        self._copies = copies or home() / "runs" / hash_json(self._objects.shown)[:12]
        self._mirror = mirror

    def check(self) -> None:
        """Raise UserError where it cannot be written to."""
        with reaching(self.shown, write=True):
            probe = f".raytl-{os.getpid()}"
            self._objects.put(probe, b"")
            self._objects.delete(probe)

    def places(self) -> Sequence[Place]:
        """Of all runs, from one listing."""
        with reaching(self.shown):
            listed = self._objects.list()
        runs: dict[str, dict[str, Seen]] = {}
        for key, seen in listed.items():
            name, _, rest = key.partition("/")
            runs.setdefault(name, {})[rest] = seen
        return [self._place(name, objects) for name, objects in sorted(runs.items()) if DOCUMENT in objects]

    def place(self, name: str) -> ObjectPlace:
        """Of the run of this name, if there is one."""
        return self._place(name, None)

    def make(self, name: str) -> Keeper | None:
        """The right to write a new run."""
        place = self.place(name)
        with place.taken() as locks:
            own = (f"{lease.FOLDER}/", f"{segments.FOLDER}/")  # of a start that failed
            others = [key for key in place.listed() if not key.startswith(own)]
            if DOCUMENT not in others and others:
                raise TakenError(f"{place.shown} exists and is not a run. Give another --name, or remove it.")
            if DOCUMENT not in others:
                return place.begin(locks, resume=False)
            for lock in locks:
                lock.release()
        return None

    def _place(self, name: str, listed: dict[str, Seen] | None) -> ObjectPlace:
        argument = below(self.shown, name)
        return ObjectPlace(self._objects.below(name), name, argument, self._copies, self._mirror, listed)


class ObjectPlace:
    """A run's objects, with a copy to read and one to write below ``copies``. argument: its URI as it was given."""

    def __init__(
        self,
        objects: Objects,
        name: str,
        argument: str,
        copies: Path,
        mirror: Callable[[Outbox], Mirror],
        listed: dict[str, Seen] | None,
    ) -> None:
        self.name = name
        self.shown = objects.shown
        self.argument = argument
        self.folder = copies / "read" / name
        self._objects = objects
        self._work = copies / "written" / name
        self._mirror = mirror
        self._listed = listed

    def listed(self) -> dict[str, Seen]:
        """All objects of the run, as they were when this was first asked."""
        if self._listed is None:
            with reaching(self.shown):
                self._listed = self._objects.list()
        return self._listed

    def look_again(self) -> None:
        """Forget what was listed: what others put there since is seen from now on."""
        self._listed = None

    def is_written(self) -> bool:
        """Whether a process that lives is writing the run."""
        with reaching(self.shown):
            return lease.is_held(self._objects)

    def state(self) -> list[tuple[str, int, int | None]]:
        """As it was when it was listed."""
        own = f"{lease.FOLDER}/"
        return sorted((key, seen.size, seen.mtime_ns) for key, seen in self.listed().items() if not key.startswith(own))

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self.listed() or (name == JOURNAL and bool(segments.newest(self.listed())))

    def file(self, name: str) -> Path:
        """Where a file is on this machine, as it is in the storage now."""
        target = self.folder / name
        tidying.touch(self.folder)
        with reaching(self.shown):
            if name == JOURNAL:
                self._join_journal(target)
            elif name in self.listed():
                self._fetch(name, target)
            else:
                _remove(target)
        return target

    def tree(self, name: str) -> Path:
        """The same for a folder."""
        wanted = {key for key in self.listed() if key.startswith(f"{name}/")}
        target = self.folder / name
        for path in target.rglob("*") if target.is_dir() else ():
            if path.is_file() and path.relative_to(self.folder).as_posix() not in wanted:
                _remove(path)
        for key in wanted:
            self.file(key)
        return target

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder of the run."""
        return sorted(key.removeprefix(f"{folder}/") for key in self.listed() if key.startswith(f"{folder}/"))

    def save(self, name: str) -> None:
        """Keep a file that was written in ``folder``."""
        with reaching(self.shown, write=True):
            self._objects.put(name, self.folder / name)
        self._listed = None

    def remove(self, name: str) -> None:
        """Remove such a file."""
        with reaching(self.shown, write=True):
            self._objects.delete(name)
        self._listed = None

    def write(self) -> Keeper:
        """Take the right to write the run."""
        with self.taken() as locks:
            return self.begin(locks, resume=True)

    def copy(self, folder: Path) -> None:
        """Copy all files into a folder, which is a run's folder then."""
        own = (f"{segments.FOLDER}/", f"{lease.FOLDER}/")
        names = [name for name in self.listed() if not name.startswith(own) and name != LOCK]
        for name in [*names, *([JOURNAL] if self.has(JOURNAL) else [])]:
            found, target = self.file(name), folder / name
            if not found.exists():  # gone since it was listed: a search that goes on replaces its model
                continue
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, target)

    def delete(self) -> None:
        """Remove the run. What is cut short here is no run any more, and its name is taken until it is removed."""
        with self.taken() as locks, reaching(self.shown, write=True):
            self._objects.delete(DOCUMENT)
            self._objects.delete_all()
        for lock in locks:
            lock.release()
        with reaching(self.shown, write=True):
            self._objects.delete_all()  # what the lock leaves
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._work, ignore_errors=True)

    @contextmanager
    def taken(self) -> Iterator[Locks]:
        """The right to write the run, let go of where the block raises.

        First on this machine: a driver that was taken for dead, and is not, writes the working copy too.
        """
        with copying(self._work):
            self._work.mkdir(parents=True, exist_ok=True)
        here = RunLock(self._work)
        try:
            with reaching(self.shown, write=True):
                held = Lease(self._objects, self.name)
        except BaseException:
            here.release()
            raise
        try:
            self._listed = None
            yield here, held
        except BaseException:
            held.release()
            here.release()
            raise

    def begin(self, locks: Locks, *, resume: bool) -> Keeper:
        """Write the run in a working copy. resume: whether it goes on from what is there.

        What a driver that was killed had not sent yet waits to be: of a model, half may be there.
        """
        self._tidy()
        waits = resume and self._is_ahead() and not (self._work / SENT).exists()
        if resume and not self._is_ahead():
            _empty(self._work)
            self.copy(self._work)
        elif not resume:
            _empty(self._work)
        (self._work / SENT).unlink(missing_ok=True)
        keeper = self._keeper(locks)
        if waits:
            keeper.behind = partial(self._send_files, keeper)
        return keeper

    def send(self) -> str | None:
        """Send what a search on this machine could not; a sentence on what still cannot be.

        Raises UserError where there is nothing of the kind, or the run went on elsewhere.
        """
        if not (self._work / DOCUMENT).exists() or (self._work / SENT).exists():
            raise UserError(f"nothing of run '{self.name}' on this machine waits to be sent to {self.shown}")
        with self.taken() as locks:
            if self.has(DOCUMENT) and not self._is_ahead():
                raise UserError(f"{self.shown} went on elsewhere since; what is on this machine is in {self._work}")
            keeper = self._keeper(locks)
        if (self._work / JOURNAL).exists():
            keeper.journal((self._work / JOURNAL).stat().st_size)
        self._send_files(keeper)
        keeper.keep(DOCUMENT)
        return keeper.release()

    def _send_files(self, keeper: Keeper) -> None:
        """Have the storage hold the files that the working copy holds, but for the run's document and journal."""
        for name in self.listed():
            if (name in GOES or name.startswith("refits/")) and not (self._work / name).exists():
                keeper.drop(name)
        names = sorted(path.name for path in self._work.iterdir())
        # What begins with a dot is half a file, of a process that was killed.
        keeper.keep(*(name for name in names if name not in NEVER_SENT and not name.startswith(".")))

    def _keeper(self, locks: Locks) -> ObjectKeeper:
        with reaching(self.shown, write=True):
            outbox = Outbox(self._work, self._objects, locks[1].check)
        return ObjectKeeper(self.argument, self._work, locks, outbox, self._mirror(outbox))

    def _is_ahead(self) -> bool:
        """Whether the working copy of this machine has all that the storage has: what a driver did not get there."""
        document, journal = self._work / DOCUMENT, self._work / JOURNAL
        if not document.exists() or not journal.exists():
            return False
        there = self.file(JOURNAL).read_bytes() if self.has(JOURNAL) else b""
        if not journal.read_bytes().startswith(there):
            return False
        try:
            started = [read_json(path).get("started") for path in (document, self.file(DOCUMENT))]
        except UserError:
            return False
        return started[0] == started[1]

    def _tidy(self) -> None:
        """Let go of other runs' working copies that were sent long ago, and nobody writes; of what was read too."""
        tidying.evict(home(), tidying.READ)
        for mark in self._work.parent.glob(f"*/{SENT}"):
            if mark.parent == self._work or is_locked(mark.parent):
                continue
            with suppress(OSError):
                if time.time() - mark.stat().st_mtime > KEPT_S:
                    shutil.rmtree(mark.parent)

    def _fetch(self, name: str, target: Path) -> None:
        """An object as a file of the same age, by which it is known to be current the next time."""
        seen = self.listed()[name]
        if name != DOCUMENT and _is_current(target, seen):
            return
        try:
            self._objects.download(name, target)
        except FileNotFoundError:  # gone since it was listed
            _remove(target)
            return
        _make_current(target, seen)

    def _join_journal(self, target: Path) -> None:
        for attempt in (1, 2, 3):
            found = segments.newest(self.listed())
            seen = [self.listed()[segment.key] for segment in found]
            ages = [one.mtime_ns for one in seen if one.mtime_ns is not None]
            whole = Seen(sum(one.size for one in seen), max(ages, default=None))
            if not found:
                _remove(target)
                return
            if _is_current(target, whole):
                return
            try:
                content = b"".join(self._objects.get(segment.key) for segment in found)
            except FileNotFoundError:  # put together since it was listed
                if attempt == 3:
                    raise
                self._listed = None
                continue
            with copying(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target, ELSEWHERE) as file:
                file.write(content)
            _make_current(target, whole)
            return


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _remove(target: Path) -> None:
    """Remove a copy of what is not there any more."""
    with copying(target):
        target.unlink(missing_ok=True)


def _make_current(target: Path, seen: Seen) -> None:
    """Give a copy the age of what it is of, where that is known."""
    if seen.mtime_ns is not None:
        with copying(target):
            os.utime(target, ns=(seen.mtime_ns, seen.mtime_ns))


def _is_current(target: Path, seen: Seen) -> bool:
    try:
        known = target.stat()
    except OSError:  # not there, or where nothing can be: of that whoever writes it says why
        return False
    return seen.mtime_ns is not None and (known.st_size, known.st_mtime_ns) == (seen.size, seen.mtime_ns)
