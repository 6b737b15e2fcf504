"""Runs as the page shows them: plain values, read anew from the storage where something of it is new."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from raytl.api import Run
from raytl.core.dimensions import Choice, Dimension
from raytl.evaluation import metrics
from raytl.runs import wording
from raytl.runs.files import plain
from raytl.runs.requests import asked_of
from raytl.runs.run import interval
from raytl.runs.sentences import sentences
from raytl.runs.store import Known
from raytl.search.jobs import JobKind
from raytl.search.planning import UNLIMITED, most_trials
from raytl.search.records import TrialRecord
from raytl.search.space.definition import ANY, parse_space

BOARD = 30
"""Strategies of the leaderboard that are shown."""
HOUR_S = 3600.0
KEPT = 16
"""Runs that ended whose values are kept for the next look."""


class Views:
    """Runs as the page shows them. price: of an hour of all machines of a search, None where nobody said.

    A page that stays open asks every few seconds: a run that ended is read again once a file of it is another one.
    """

    def __init__(self, price: float | None) -> None:
        self._price = price
        self._kept: dict[str, tuple[Any, dict[str, Any]]] = {}
        self.known = Known()
        """What the list of all runs has of those that ended."""

    def show(self, run: Run) -> dict[str, Any]:
        """One run, as :func:`show`. The values are not to be changed."""
        if run.status == "running":
            return show(run, self._price)
        state = run.place.state()
        known = self._kept.pop(run.name, None)
        if known is None or known[0] != state:
            known = (state, show(Run(run.place), self._price))  # opened anew: it may have been another run before
        self._kept[run.name] = known
        for oldest in list(self._kept)[:-KEPT]:
            self._kept.pop(oldest, None)
        return known[1]


def show(run: Run, price: float | None = None) -> dict[str, Any]:
    """One run: its standing, its trials with their curves, the lanes they ran in, what it took so far.

    price: of an hour of all its machines, None where nobody said.
    """
    summary, records = run.summary(), run.records()
    share = metrics.recorded(str(summary["metric"])).share
    search, space = run.settings.get("search", {}), run.settings.get("space_settings", {})
    planned = most_trials(space.get("trials") or 0, search.get("trials"), search.get("time_budget_s"))
    asked = asked_of(run.place) if run.status == "running" else None
    return dict(
        plain(
            {
                "name": run.name,
                "path": run.location,
                "status": run.status,
                "started": run.started.isoformat(),
                "seconds": run.seconds,
                "lane_seconds": sum(record.seconds for record in records),
                "cost": None if price is None else price * run.seconds / HOUR_S,
                "setting": wording.at_hand(summary["setting"]),
                "metric": summary["metric"],
                "planned": planned if planned < UNLIMITED else None,
                "time_budget_s": search.get("time_budget_s"),
                "epochs": space.get("epochs"),
                "counts": summary["trials"]["by_status"],
                "best": _best(summary["best"], share=share),
                "why": summary["why"],
                "sentences": [one.text for one in sentences(summary, 0)],
                "tags": summary["tags"],
                "note": summary["note"],
                "has_model": run.has_model,
                "has_report": run.place.has(run.report_path.name),
                "can_go_on": run.status != "running" and run.settings.get("given") is not None,
                "dials": _dials(run),
                "stopping": asked is not None and asked.stop,
                "stopping_trials": [] if asked is None else sorted(asked.trials),
                "phases": [asdict(phase) for phase in run.phases()],
                "board": _board(run, share=share),
                "trials": [_trial(record) for record in records],
            }
        )
    )


def _dials(run: Run) -> dict[str, Any]:
    """What of a strategy can be set by hand: options, or both ends of a range, by its key in the run's space.

    Source models that are made of the task's domains are named as the trials have them.
    """
    if run.settings.get("given") is None or "space_values" not in run.settings:
        return {}
    space = parse_space(run.settings["space"], run.settings["space_values"])
    found: dict[str, Any] = {key: _dial(dimension) for key, dimension in space.plain.items()}
    for key, by_optimizer in space.by_optimizer.items():
        found[key] = {"low": None, "high": None, "hint": " / ".join(map(str, by_optimizer.values()))}
    for kind, components in space.components.items():
        if len(components) > 1:
            found[kind] = {"options": list(components)}
    for key in ("source_model", "source_domain"):
        tried = {r.strategy.get(key) or "none" for r in run.records() if r.kind == JobKind.SEARCH}
        listed = [one for one in found.get(key, {}).get("options", []) if "*" not in str(one) and one != ANY]
        found[key] = {"options": sorted({*map(str, listed), *tried})}
    if "cut" in found:
        found["cut"] = {"low": None, "high": None, "hint": "stages to freeze: a whole number, or all"}
    return {key: dial for key, dial in found.items() if len(dial.get("options", "..")) > 1}


def _dial(dimension: Dimension) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        return {"options": list(dimension.options)}
    return {"low": dimension.low, "high": dimension.high, "hint": str(dimension)}


def _best(best: dict[str, Any] | None, *, share: bool) -> dict[str, Any] | None:
    if best is None:
        return None
    return {
        "strategy": wording.strategy(best["strategy"]),
        "score": best["score"],
        "validation": _figure(best["validation_metric"], share=share),
        "test": _figure(best["test_metric"], share=share),
    }


def _figure(document: dict[str, Any] | None, *, share: bool) -> str | None:
    if document is None:
        return None
    known = interval(document)
    figure = wording.value(document["value"], share=share)
    return figure if known is None else f"{figure} ({wording.limits(known, share=share)})"


def _board(run: Run, *, share: bool) -> list[dict[str, Any]]:
    strategies = {record.strategy_key: record.strategy for record in run.records()}
    return [
        {
            "rank": row["rank"],
            "trial": row["trial"],
            "label": row["label"],
            "status": row["status"],
            "score": row["score"],
            "validation": wording.value(row["validation"], share=share),
            "folds": row["folds"],
            "epochs": row["epochs"],
            "seconds": row["seconds"],
            "strategy": wording.strategy(strategies[str(row["strategy_key"])]),
        }
        for row in run.leaderboard().head(BOARD).to_dict("records")
    ]


def _trial(record: TrialRecord) -> dict[str, Any]:
    return {
        "number": record.number,
        "kind": record.kind,
        "status": str(record.status),
        "reason": record.reason,
        "score": record.score,
        "fold": record.fold,
        "seconds": record.seconds,
        "ended": record.ended,
        "lane": record.lane,
        "strategy": wording.strategy(record.strategy),
        "curve": [[look.get("epoch"), look.get("score")] for look in record.history],
    }
