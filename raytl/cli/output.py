"""Where words go: people read stderr and stdout, programs read one JSON document on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from raytl.core.errors import UserError
from raytl.core.names import visible

SCHEMA_VERSION = 1


class Terminal(Console):
    """A console on which text is seen and never obeyed, whatever names hold; styles and positions are Rich's own."""

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is drawn."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def break_cells(table: Table) -> None:
    """Have cells without room go on in the next line, where Rich would cut them: names and paths are to be copied."""
    for column in table.columns:
        if not column.no_wrap:
            column.overflow = "fold"


class Output:
    """One command's output.

    With ``--json`` the process's stdout is turned to stderr at once, for Ray's processes and libraries too, and the one
    document goes to the stdout that was there before.
    begun: when the command was called, by the monotonic clock: from then on its time budget runs.
    """

    current: Output

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.told = False
        self.begun = time.monotonic()
        self.console = Terminal(stderr=as_json)
        self.progress_console = Terminal(stderr=True)
        self._stdout = None
        if as_json:
            sys.stdout.flush()
            self._stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
            os.dup2(2, 1)
        Output.current = self

    @classmethod
    def for_arguments(cls, arguments: list[str]) -> Output:
        """Decided before anything is parsed, so that a parse error is JSON too."""
        return cls(as_json="--json" in arguments)

    def say(self, thing: Any) -> None:
        """For people: a line, or anything that Rich draws. A line is not broken: it may hold a path to copy.

        Nor is a cell of a table cut, but where its column says so: it goes on in the next line.
        """
        for part in thing.renderables if isinstance(thing, Group) else (thing,):
            if isinstance(part, Table):
                break_cells(part)
        self._print(self.console, thing)

    def pass_on(self, said: str) -> None:
        """Lines that another process said, in their colours: Ray writes these whether or not there is a terminal."""
        for line in said.split("\n"):
            self._print(self.console, Text.from_ansi(line))

    def note(self, line: str, style: str = "") -> None:
        """A line about what is going on, on stderr."""
        self._print(self.progress_console, line, style)

    def asks(self, question: str) -> bool:
        """Whether the user says yes; nobody does where there is no terminal."""
        if self.as_json or not sys.stdin.isatty():
            return False
        self.progress_console.print(f"{question} [y/N] ", markup=False, end="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def document(self, value: dict[str, Any]) -> None:
        """The command's JSON document, which ends it; nothing without ``--json``."""
        if self._stdout is not None:
            text = json.dumps({"schema": SCHEMA_VERSION, **value}, ensure_ascii=False, allow_nan=False)
            text = text.encode(errors="backslashreplace").decode()  # undecodable file names: JSON's own escape
            self._stdout.write(text + "\n")
            self._stdout.flush()
        self.told = True

    def fail(self, message: str, *, code: int) -> NoReturn:
        """One sentence, and out."""
        if message:
            print(f"raytl: {visible(message)}", file=sys.stderr)
        self.document({"error": message, "exit_code": code})
        sys.exit(code)

    def crashed(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """A bug of ours, as ``sys.excepthook``: here the traceback is of use. Python exits with 1."""
        traceback.print_exception(kind, error, trace)
        message = f"{kind.__name__}: {error}"
        print(f"raytl: this is a bug in raytl, please report it with the lines above ({message})", file=sys.stderr)
        if not self.told:
            self.document({"error": message, "exit_code": 1})

    def _print(self, console: Console, thing: Any, style: str = "") -> None:
        try:
            if isinstance(thing, str | Text):
                console.print(thing, style=style or None, markup=False, soft_wrap=True)
            else:
                console.print(thing)
        except OSError as error:  # a file on a full disk; what is read no more (a pipe to head) is Rich's to see to
            raise UserError(f"what there is to say cannot be written: {error.strerror}") from error
