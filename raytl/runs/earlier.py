"""What earlier searches in a store have to tell a new one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raytl.core.errors import UserError
from raytl.judging.verdict import Part, Tone
from raytl.runs.run import interval
from raytl.runs.store import RunStore
from raytl.search.plan.contest import Contest
from raytl.search.propose.warm_start import EarlierRun

NEWEST = 50
BEST = 4


def earlier_runs(store: RunStore) -> Iterator[EarlierRun]:
    """The finished runs of a store whose strategies did well on a task that they describe, newest first.

    Damaged ones are passed over.
    """
    for run in sorted(store.readable(), key=lambda run: run.started, reverse=True)[:NEWEST]:
        try:
            if run.status != "finished" or "embedding" not in run.settings:
                continue
            records, outcome = run.records(), run.outcome
        except UserError:
            continue
        if outcome is None or not _did_well(outcome):
            continue
        strategies = {record.strategy_key: record.strategy for record in records}
        winner = outcome["best"]["strategy_key"]
        best = list(dict.fromkeys([winner, *Contest(records, None).leaders(BEST)]))[:BEST]
        yield EarlierRun(run.name, run.settings["embedding"], tuple(strategies[key] for key in best))


def _did_well(outcome: dict[str, Any]) -> bool:
    """Whether labelled images say that the winner is better than an answer without looking.

    What led by a score that no label confirms may have led for nothing, and would be tried first ever after. Runs of
    before that were not held against such an answer are believed.
    """
    best = outcome["best"]
    measured = any(interval(best.get(figure)) is not None for figure in ("test", "validation"))
    blind = [control for control in outcome.get("controls") or [] if control["part"] == Part.CONSTANT]
    return measured and all(control["verdict"] == Tone.HELPED for control in blind)
