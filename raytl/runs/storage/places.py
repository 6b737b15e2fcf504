"""What the rest of raytl knows of a storage: runs by name, each in a place that is read, and written by one at a time.

On a disk a place is the run's folder and most of this does nothing; on an object store the folder is a copy on this
machine, and this is what keeps the two alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

JOURNAL = "trials.jsonl"
DOCUMENT = "run.json"
MODEL = "model"


class Keeper(Protocol):
    """The right to write a run, until :meth:`release`.

    folder: where its files are written, on this machine.
    """

    folder: Path

    def journal(self, size: int) -> None:
        """The journal has grown to so many bytes, up to the end of a line."""

    def keep(self, *names: str) -> None:
        """Files, or folders, were written whole, in this order."""

    def check(self) -> None:
        """Raise TakenOverError where nothing may be written any more: another process writes the run."""

    def drop(self, name: str) -> None:
        """Remove a file or a folder."""

    def catch_up(self) -> None:
        """Keep what an earlier process of this machine wrote and could not; once the run says that it goes on."""

    def release(self) -> str | None:
        """Let go, once all is kept; a sentence that says what could not be."""


class Place(Protocol):
    """Where one run is.

    name: of the run. shown: the place as a user would name it; argument: as a command takes it, which of a URI is with
    what follows its ``?``. folder: where its files are read, on this machine; a file is there once :meth:`file` was
    asked for it. Methods raise UserError where the storage does not answer.
    """

    name: str
    shown: str
    argument: str
    folder: Path

    def look_again(self) -> None:
        """Forget what was listed: what others put there since is seen from now on."""

    def is_written(self) -> bool:
        """Whether a process that lives is writing the run."""

    def state(self) -> Sequence[tuple[str, int, int | None]]:
        """Names, sizes and times of what is there: another one where a file of the run is, but for who writes it."""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def file(self, name: str) -> Path:
        """Where a file is on this machine, as it is in the storage now; the path of nothing where there is none."""

    def tree(self, name: str) -> Path:
        """The same for a folder."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder of the run."""

    def save(self, name: str) -> None:
        """Keep a file that was written in ``folder`` beside the search, such as a note or a report."""

    def remove(self, name: str) -> None:
        """Remove such a file."""

    def write(self) -> Keeper:
        """Take the right to write the run. Raises UserError where another process has it."""

    def send(self) -> str | None:
        """Send what a search on this machine could not; a sentence on what still cannot be.

        Raises UserError where there is nothing of the kind.
        """

    def copy(self, folder: Path) -> None:
        """Copy all files into a folder, which is a run's folder then."""

    def delete(self) -> None:
        """Remove the run. Raises UserError where a process is writing it."""


class Storage(Protocol):
    """All runs of a folder or a URI. shown: as it was given."""

    shown: str

    def check(self) -> None:
        """Raise UserError where it cannot be written to."""

    def places(self) -> Sequence[Place]:
        """Of all runs."""

    def place(self, name: str) -> Place:
        """Of the run of this name, if there is one."""

    def make(self, name: str) -> Keeper | None:
        """The right to write a new run; None where there is one of this name.

        Raises UserError where something else is there, or another process is making it.
        """
