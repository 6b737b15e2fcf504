"""The command line: parses, calls the public API, prints. Exit codes: 0 done, 2 the user's mistake, 1 ours, 130 Ctrl-C."""

from __future__ import annotations

import sys

import click

from raytl.cli.output import Output
from raytl.core.errors import UserError

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    output = Output.for_arguments(sys.argv[1:])
    try:
        from raytl.cli.commands import app

        app(standalone_mode=False)
    except (UserError, click.UsageError) as error:
        message = error.format_message() if isinstance(error, click.UsageError) else str(error)
        output.fail(message, code=2)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, click.Abort):
        output.fail("interrupted", code=INTERRUPTED)


__all__ = ["main"]
