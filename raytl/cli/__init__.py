"""The command line: parses, calls the public API, prints.

Exit codes: 0 done, 2 the user's mistake, 1 ours (of `doctor`: a problem was found), 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shlex
import sys
import warnings
from contextlib import suppress
from typing import Any, NoReturn

import typer
from typer.main import get_command

from raytl.cli.interrupts import interruptible
from raytl.cli.output import Output
from raytl.core.errors import StorageWarning, UserError
from raytl.core.plugins import PluginWarning

INTERRUPTED = 130


def main() -> None:
    """The program: run the command line and exit.

    Python would take every imported module apart at the end, which takes two seconds after torch and Ray: what is to be
    cleaned up is cleaned up by then.
    """
    left: list[int] = []

    def leave() -> None:
        if not left:
            return
        with suppress(OSError):  # what cannot be written Python tells of in its own way
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(left[0])

    atexit.register(leave)  # before all others, so that it is called after them
    try:
        run()
    except SystemExit as end:
        if isinstance(end.code, int):
            left.append(end.code)
        raise


def run() -> NoReturn:
    """Run the command line, and raise SystemExit with its exit code."""
    output = Output.for_arguments(sys.argv[1:])
    sys.excepthook = output.crashed
    logging.getLogger("raytl").setLevel(logging.CRITICAL)  # a sentence tells what failed, and --verbose the traceback
    interruptible()
    warnings.showwarning = _plain_warnings(output, warnings.showwarning)
    try:
        from raytl.cli.commands import app

        # Not app() itself, which would put an excepthook of its own in the place of ours.
        code = get_command(app)(prog_name="raytl", standalone_mode=False)
    except UserError as error:
        output.fail(str(error), code=2)
    except typer.TyperException as error:
        output.fail(_usage(error), code=2)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED and not output.told:
        output.fail("interrupted", code=INTERRUPTED)
    sys.exit(code or 0)


def _plain_warnings(output: Output, otherwise: Any) -> Any:
    """How warnings are shown: of a package or a storage that fails, the user need not see our line that found out."""

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, PluginWarning | StorageWarning):
            output.note(f"raytl: {message}")
        else:
            otherwise(message, category, *where)

    return show


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the arguments, and which help to read; empty where the help was shown already."""
    message = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    said = f"{message[0].lower()}{message[1:]}"
    stray = re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", message)
    options = {option for parameter in context.command.params for option in parameter.opts}
    if stray and "--target" in options and ("://" in stray[1] or os.path.lexists(stray[1])):
        return f"{said}; did you mean --target {shlex.quote(stray[1])}?"
    return f"{said}; see: {context.command_path} --help"


__all__ = ["main", "run"]
