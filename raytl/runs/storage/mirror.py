"""Sends what is written in a folder to an object store, in the order in which it was written.

At any moment the store so holds what the folder held at an earlier one: a run that can be read and resumed. While the
store does not answer, what was written waits, and the search goes on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from raytl.core.errors import cause
from raytl.runs.storage.lease import LostError
from raytl.runs.storage.objects import Objects
from raytl.runs.storage.places import JOURNAL
from raytl.runs.storage.segments import SegmentedJournal

HELD_BYTES = 4 * 2**20
"""Files up to this size are sent as they were when they were written; larger ones are written once."""

MODEL_DOCUMENT = "model.json"
"""Without it nobody takes a folder for a model."""


@dataclass(frozen=True)
class Task:
    """Something to send. name: of the file; content: None to remove it; size: of the journal.

    stay: of a folder: the names in it that are not removed.
    """

    name: str
    content: bytes | Path | None = None
    size: int | None = None
    stay: frozenset[str] | None = None


class Outbox:
    """What waits to be sent. folder: where it is written. check: raises LostError where it may no longer be sent.

    Raises OSError where the store does not take anything now.
    """

    def __init__(self, folder: Path, objects: Objects, check: Callable[[], None]) -> None:
        self.folder = folder
        self._objects = objects
        self._journal = SegmentedJournal(objects)
        self._check = check
        self._tasks: deque[Task] = deque()
        self._mutex = threading.Lock()

    def journal(self, size: int) -> None:
        """The journal has grown to so many bytes."""
        with self._mutex:
            if len(self._tasks) > 1 and self._tasks[-1].size is not None:  # the first may be on its way
                self._tasks.pop()
            self._tasks.append(Task(JOURNAL, size=size))

    def keep(self, *names: str) -> None:
        """Files or folders were written."""
        for name in names:
            path = self.folder / name
            if path.is_dir():
                self._keep_folder(name, path)
            else:
                small = path.stat().st_size <= HELD_BYTES
                self._add(Task(name, path.read_bytes() if small else path))

    def drop(self, name: str) -> None:
        """A file was removed."""
        self._add(Task(name))

    def drop_folder(self, names: Collection[str]) -> None:
        """A folder with these files was removed; what still waits of them is left out."""
        with self._mutex:
            waiting = list(self._tasks)
            kept = [task for task in waiting[1:] if task.name not in names]  # the first may be on its way
            self._tasks = deque([*waiting[:1], *kept, *map(Task, names)])

    def waiting(self) -> list[str]:
        """Names of what is still to be sent, each once."""
        with self._mutex:
            return list(dict.fromkeys(task.name for task in self._tasks))

    def send_one(self) -> bool:
        """Send what comes first; False where there was nothing.

        Raises OSError where the store does not take it (it stays the first), LostError where it may not be sent.
        """
        with self._mutex:
            if not self._tasks:
                return False
            task = self._tasks[0]
        if task.size is not None:
            self._journal.put(self._journal_bytes(task.size))
        elif task.stay is not None:
            self._clear(task.name, task.stay)
        else:
            self._check()
            if task.content is None:
                self._objects.delete(task.name)
            elif not isinstance(task.content, Path) or task.content.exists():  # else it was removed in the meantime
                self._objects.put(task.name, task.content)
        with self._mutex:
            self._tasks.popleft()
        return True

    def close(self) -> None:
        """Leave the journal in one piece, once all is sent."""
        path = self.folder / JOURNAL
        if path.exists():
            self._journal.compact(path.read_bytes())

    def _keep_folder(self, name: str, path: Path) -> None:
        """A model's document goes first and comes last: without it nobody takes a folder for a model that is whole.

        In between goes what an earlier state of the folder had and this one has not: it is of another model. What still
        waits of the earlier state is left out: its large files are not there any more.
        """
        with self._mutex:
            on_its_way = list(self._tasks)[:1]
            waiting = [task for task in list(self._tasks)[1:] if not f"{task.name}/".startswith(f"{name}/")]
            self._tasks = deque(on_its_way + waiting)
        names = sorted(file.relative_to(self.folder).as_posix() for file in path.rglob("*") if file.is_file())
        others = [name for name in names if not _is_document(name)]
        self._add(Task(name, stay=frozenset(others)))
        self.keep(*others, *(name for name in names if _is_document(name)))

    def _clear(self, folder: str, stay: Collection[str]) -> None:
        """Remove from a folder of the store what is not to stay, a model's document first."""
        gone = [name for name in self._objects.list(folder) if name not in stay]
        for name in sorted(gone, key=lambda name: (not _is_document(name), name)):
            self._check()
            self._objects.delete(name)

    def _add(self, task: Task) -> None:
        with self._mutex:
            self._tasks.append(task)

    def _journal_bytes(self, size: int) -> bytes:
        with (self.folder / JOURNAL).open("rb") as file:
            return file.read(size)


def _is_document(name: str) -> bool:
    return name.rpartition("/")[2] == MODEL_DOCUMENT


PAUSE_S = 1.0
"""Between two pieces of the journal, so that an hour's search is thousands of objects and not more."""
RETRY_S = (0.5, 30.0)
"""Least and most time until a store that did not answer is asked again."""


class Mirror:
    """Sends an outbox, in a thread of its own."""

    def __init__(self, outbox: Outbox, pause_s: float = PAUSE_S) -> None:
        self._outbox = outbox
        self._pause_s = pause_s
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._ended = threading.Event()
        self.trouble: Exception | None = None
        self._thread = threading.Thread(target=self._send, name="mirror of a run", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        self._news.set()

    def finish(self, patience_s: float) -> list[str]:
        """Wait until all is sent, for so long at most; names of what is not."""
        self._hurry.set()
        self._news.set()
        self._thread.join(patience_s)
        self._ended.set()
        self._news.set()
        return self._outbox.waiting()

    def _send(self) -> None:
        retry_s = RETRY_S[0]
        while not self._ended.is_set():
            try:
                sent = self._outbox.send_one()
                self.trouble, retry_s = None, RETRY_S[0]
            except OSError as error:
                self.trouble = error
                self._ended.wait(retry_s)
                retry_s = min(2 * retry_s, 2.0 if self._hurry.is_set() else RETRY_S[1])
                continue
            except LostError as error:
                self.trouble = error
                return
            if sent:
                self._hurry.wait(self._pause_s)
            elif self._hurry.is_set():
                return
            else:
                self._news.wait()
                self._news.clear()


def describe_trouble(error: Exception | None) -> str:
    """Why something was not sent, in a few words."""
    return "it does not answer" if error is None else cause(error)
