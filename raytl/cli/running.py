"""What commands that search share: the display, and the problems of the data said before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raytl.cli.output import Output
from raytl.cli.progress import Progress
from raytl.tasks import Problem, Severity

SHOWN = 12
_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "dim"}


@contextmanager
def listening(output: Output, trials: int, time_budget_s: float | None) -> Iterator[Progress]:
    """The live display of a search."""
    with Progress(output.progress_console, trials, time_budget_s, output.begun) as progress:
        yield progress


def show_problems(output: Output, problems: Sequence[Problem], listed: str) -> None:
    """What was noticed about the data, on stderr: first what was taken for what, then the gravest.

    listed: what has all of them.
    """
    order = list(_STYLES)
    for problem in sorted(problems, key=lambda problem: (not problem.leading, order.index(problem.severity)))[:SHOWN]:
        output.note(f"{problem.severity}: {problem}", _STYLES[problem.severity])
    if len(problems) > SHOWN:
        output.note(f"… and {len(problems) - SHOWN} more; {listed} lists them all")
