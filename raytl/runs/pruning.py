"""Which runs of a storage may go, by rules that never take one that somebody tagged or that is being written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from raytl.runs.store import RunSummary

SPARED = "running"


def prunable(
    runs: Sequence[RunSummary],
    *,
    keep: int | None = None,
    older_than_s: float | None = None,
    statuses: Collection[str] = (),
    now: datetime | None = None,
) -> list[RunSummary]:
    """The runs that all rules that are given let go, newest first.

    runs: newest first. keep: spares the newest so many. older_than_s: spares those that began later. statuses: spares
    all of another status. Without any rule nothing goes.
    """
    if keep is None and older_than_s is None and not statuses:
        return []
    found = [run for run in runs[keep or 0 :] if run.status != SPARED and not run.tags]
    if statuses:
        found = [run for run in found if run.status in statuses]
    if older_than_s is not None:
        before = (now or datetime.now(UTC)) - timedelta(seconds=older_than_s)
        found = [run for run in found if run.started is not None and run.started < before]
    return found
