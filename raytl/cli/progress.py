"""The live display of a search: what runs, what leads, how long it will take."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raytl.search.planning import UNLIMITED
from raytl.search.records import TrialRecord, TrialStatus

PHASES = {
    "survey": "looking at the domains",
    "pretrain": "pretraining source models",
    "warm-start": "begins with what did best in similar earlier runs",
    "probe": "probing every source model",
    "first-model": "there is a first model",
    "baseline": "baselines",
    "search": "searching",
    "confirm": "confirming the leaders on further folds",
    "control": "holding the winner against itself with one part taken out",
    "refit": "refitting on all labelled images",
    "choice": "choosing",
    "test": "opening the test split",
    "report": "writing report and bundle",
    "deploy": "deploying the endpoint",
    "classify": "classifying the test images through HTTP",
}


class Progress:
    """A search listener that draws itself, in place on a terminal and line by line elsewhere.

    trials: how many the search will try; time_budget_s: None where there is none. begun: what times are told from, by
    the monotonic clock; now by default.
    """

    def __init__(
        self, console: Console, trials: int, time_budget_s: float | None = None, begun: float | None = None
    ) -> None:
        self._console = console
        self._trials = trials
        self._budget = time_budget_s
        self._started = time.monotonic() if begun is None else begun
        self._records: dict[int, TrialRecord] = {}
        self._phase = "starting Ray and the lanes"
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._draw)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def on_phase(self, phase: str, detail: str) -> None:
        """A new line for the phase; what is said of the metric, machine, time or labels stays, and is no phase."""
        if phase in {"metric", "memory", "lanes", "labels", "by-hand", "time", "earlier"}:
            self._write(detail)
            return
        self._phase = PHASES.get(phase, phase) + (f" ({detail})" if detail else "")
        if not self._console.is_terminal or phase == "first-model":  # from then on the search may be left
            self._write(self._phase)

    def on_trial(self, record: TrialRecord) -> None:
        """Keep the trial; say how it ended where there is no live display."""
        self._records[record.number] = record
        if not self._console.is_terminal and record.status != TrialStatus.RUNNING:
            self._write(self._line(record))

    def _write(self, line: str) -> None:
        with suppress(OSError):  # a log on a full disk is no reason to lose the search
            self._console.print(f"{self._elapsed():5.0f} s  {line}", markup=False, soft_wrap=True)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _line(self, record: TrialRecord) -> str:
        score = "" if record.score is None else f" score {record.score:.3f}"
        name = record.baseline or record.kind
        reason = f": {record.reason}" if record.reason else ""
        return f"trial {record.number} ({name}) {record.status}{score} {describe(record.strategy)}{reason}"

    def _draw(self) -> Group:
        records = list(self._records.values())
        ended = [record for record in records if record.status != TrialStatus.RUNNING]
        searched = sum(record.kind == "search" for record in ended)
        head = Text.assemble(
            (f"{self._phase}\n", "bold"),
            f"{searched}{f' of {self._trials}' if self._trials < UNLIMITED else ''} tried, ",
            f"{sum(r.status == 'pruned' for r in ended)} stopped early, ",
            f"{sum(r.status == 'failed' for r in ended)} failed · {self._elapsed():.0f} s",
            f" · {self._left(searched)}",
        )
        best = max((r for r in ended if r.score is not None), key=lambda r: r.score or 0.0, default=None)
        lines: list[Any] = [head]
        if best is not None:
            lines.append(Text(f"best so far: {best.score:.3f}  {describe(best.strategy)}", style="green"))
        running = Table.grid(padding=(0, 2))
        for record in records:
            if record.status == TrialStatus.RUNNING:
                epoch = f"epoch {len(record.history)}"
                score = "" if record.score is None else f"{record.score:.3f}"
                running.add_row(
                    f"  trial {record.number}", record.baseline or record.kind, epoch, score, describe(record.strategy)
                )
        return Group(*lines, running)

    def _left(self, searched: int) -> str:
        if self._budget is not None:
            return f"at most {max(0.0, self._budget - self._elapsed()):.0f} s left"
        if searched >= self._trials:
            return "soon done"
        if searched < 2:
            return "time left not known yet"
        return f"about {self._elapsed() / searched * (self._trials - searched):.0f} s left"


def describe(strategy: dict[str, Any]) -> str:
    """A strategy in a few words."""
    parts = [str(strategy["source_model"]), f"cut {strategy['cut']}"]
    if strategy.get("source_domain"):
        parts.append(f"with {strategy['source_domain']}")
    if strategy.get("adaptation", "none") != "none":
        parts.append(str(strategy["adaptation"]))
    return ", ".join(parts)
