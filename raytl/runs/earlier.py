"""What earlier searches in a store have to tell a new one."""

from __future__ import annotations

from collections.abc import Iterator

from raytl.core.errors import UserError
from raytl.runs.store import RunStore
from raytl.search.plan.contest import Contest
from raytl.search.propose.warm_start import EarlierRun

NEWEST = 50
BEST = 4


def earlier_runs(store: RunStore) -> Iterator[EarlierRun]:
    """The finished runs of a store that say what their task was like, newest first; damaged ones are passed over."""
    for run in sorted(store.readable(), key=lambda run: run.started, reverse=True)[:NEWEST]:
        try:
            if run.status != "finished" or "embedding" not in run.settings:
                continue
            records, outcome = run.records(), run.outcome
        except UserError:
            continue
        strategies = {record.strategy_key: record.strategy for record in records}
        winner = [outcome["best"]["strategy_key"]] if outcome is not None else []
        best = list(dict.fromkeys([*winner, *Contest(records, None).leaders(BEST)]))[:BEST]
        yield EarlierRun(run.name, run.settings["embedding"], tuple(strategies[key] for key in best))
