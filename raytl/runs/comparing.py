"""Two runs side by side: what was different about them, and what that changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from raytl.evaluation import metrics
from raytl.evaluation.intervals import paired_metric_interval
from raytl.runs.environment import changed
from raytl.runs.files import plain
from raytl.runs.run import Run

SHOWN = 10
_PROBABILITY = "probability."
_SETTINGS = ("task", "setting", "seed")


@dataclass(frozen=True)
class Standing:
    """A strategy in two leaderboards: rank and figure of the validation in each, None where it was not tried."""

    strategy_key: str
    strategy: dict[str, Any]
    rank_a: int | None
    rank_b: int | None
    validation_a: float | None
    validation_b: float | None


@dataclass(frozen=True)
class Comparison:
    """Two runs, a and b.

    differs: what was not the same, by kind (``settings``, ``space``, ``data``, ``versions``) and name: values of a and
    b. results: by name, of a and b. gain: b's winner less a's on the same test images, with its interval; None where
    they were not tested on the same. leaderboard: the strategies that lead in either, in the order of their best rank.
    """

    a: str
    b: str
    differs: dict[str, dict[str, tuple[Any, Any]]]
    results: dict[str, tuple[Any, Any]]
    gain: dict[str, float] | None
    leaderboard: list[Standing]

    def to_json(self) -> dict[str, Any]:
        """Plain values; every pair as ``{"a": …, "b": …}``."""

        def pairs(found: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
            return {name: {"a": a, "b": b} for name, (a, b) in found.items()}

        differs = {kind: pairs(found) for kind, found in self.differs.items()}
        leaderboard = [asdict(standing) for standing in self.leaderboard]
        document = {"a": self.a, "b": self.b, "differs": differs, "results": pairs(self.results)}
        return dict(plain(document | {"gain": self.gain, "leaderboard": leaderboard}))


def compare(a: Run, b: Run) -> Comparison:
    """What differs between two runs, and how they came out."""
    of_a, of_b = a.settings, b.settings
    differs = {
        "settings": _differing(_search_settings(of_a), _search_settings(of_b)),
        "space": _differing(_space(of_a), _space(of_b)),
        "data": _differing(_data(of_a), _data(of_b)),
        "versions": changed(a.environment, b.environment),
    }
    summaries = a.summary(), b.summary()
    told = [_results(run, summary) for run, summary in zip((a, b), summaries, strict=True)]
    results = {name: (told[0][name], told[1][name]) for name in told[0]}
    return Comparison(a.name, b.name, differs, results, _gain(a, b, summaries), _standings(a, b))


def _search_settings(settings: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {name: settings.get(name) for name in _SETTINGS} | settings.get("search", {})
    warm = [start["run"] for start in settings.get("warm_start", [])]
    return own | {"warm_start": warm}


def _space(settings: dict[str, Any]) -> dict[str, Any]:
    return _flat(
        {"space": settings.get("space")} | settings.get("space_settings", {}) | settings.get("space_values", {})
    )


def _data(settings: dict[str, Any]) -> dict[str, Any]:
    names = ("fingerprint", "classes", "given")
    counts = settings.get("data", {}).get("counts", {})
    found = {name: settings.get(name) for name in names} | {"test_fingerprint": _tested_on(settings)}
    return found | {f"images.{name}": count for name, count in counts.items()}


def _tested_on(settings: dict[str, Any]) -> str | None:
    """The fingerprint of the test images that a run opens; None without any.

    Not of the whole test: images that source models have learned from are left out of it, by one run and not by
    another. Runs of before opened all, and say nothing else.
    """
    found = settings.get("opened_fingerprint", settings.get("test_fingerprint"))
    return None if found is None else str(found)


def _flat(values: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{at}{name}.") if isinstance(value, dict) and value else {f"{at}{name}": value}
    return found


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = list(dict.fromkeys([*a, *b]))
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _results(run: Run, summary: dict[str, Any]) -> dict[str, Any]:
    best = summary["best"] or {}
    return {
        "status": run.status,
        "seconds": summary["seconds"],
        "trials": summary["trials"]["count"],
        "metric": summary["metric"],
        "strategy": best.get("strategy"),
        "score": best.get("score"),
        "validation": best.get("validation_metric"),
        "test": best.get("test_metric"),
        "transfer_gain": summary["transfer_gain"],
        "adaptation_gain": summary["adaptation_gain"],
    }


def _gain(a: Run, b: Run, summaries: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, float] | None:
    """Only where both were tested on the same images, by the same metric, if it is installed here.

    Images of one group count as one.
    """
    known = _tested_on(a.settings)
    same_images = known is not None and known == _tested_on(b.settings) and a.classes == b.classes
    if not same_images or summaries[0]["metric"] != summaries[1]["metric"]:
        return None
    first, second = a.predictions(), b.predictions()
    if first is None or second is None or not np.array_equal(first["label"], second["label"]):
        return None
    if summaries[0]["metric"] not in metrics.names():
        return None
    metric, positive = metrics.get(str(summaries[0]["metric"])), summaries[0]["positive"]
    if positive != summaries[1]["positive"]:
        return None
    if positive in a.classes:
        metric = metric.finding(a.classes.index(positive), a.classes)
    grouped = next((one["group"].to_numpy() for one in (first, second) if "group" in one), None)  # not in older runs
    pair = paired_metric_interval(metric, _said(second), _said(first), first["label"].to_numpy(), grouped)
    return pair.to_json()


def _said(predictions: pd.DataFrame) -> np.ndarray:
    names = [str(name) for name in predictions if str(name).startswith(_PROBABILITY)]
    names.sort(key=lambda name: int(name.removeprefix(_PROBABILITY)))
    return predictions[names].to_numpy(np.float64)


def _standings(a: Run, b: Run) -> list[Standing]:
    in_a, in_b = ({str(row["strategy_key"]): row for row in run.leaderboard().to_dict("records")} for run in (a, b))
    strategies = {record.strategy_key: record.strategy for run in (b, a) for record in run.records()}
    best = {key: min(rows[key]["rank"] for rows in (in_a, in_b) if key in rows) for key in [*in_a, *in_b]}
    return [
        Standing(
            key,
            strategies[key],
            _rank(in_a.get(key)),
            _rank(in_b.get(key)),
            _validation(in_a.get(key)),
            _validation(in_b.get(key)),
        )
        for key in sorted(best, key=lambda key: (best[key], key))[:SHOWN]
    ]


def _rank(row: dict[Any, Any] | None) -> int | None:
    return None if row is None else int(row["rank"])


def _validation(row: dict[Any, Any] | None) -> float | None:
    value = None if row is None else row["validation"]
    return None if value is None or value != value else float(value)
