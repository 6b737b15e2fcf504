"""Whether a search judges well: what it chooses, what it says of it, and what it says of transfer, against the truth.

    python benchmarks/judgement.py              # under an hour on two cores; --quick: ten minutes
    python benchmarks/judgement.py --only 'digits-.*' --labels 5 --seeds 3 --budget 60

chosen      worth of the run's model on hundreds of images that the search never saw: accuracy, or balanced accuracy
            where the run says that it chose by that. Where several source domains could join the training, followed by
            + if all that do are of use, - if not, o if none joins; with ``--domains`` by how much the
            same strategy with the best of the others would be better
best tried  of all models that the run refitted; with ``--test`` also of those that its leaderboard has a test figure of
controls    computed here and from nothing of raytl's: the commonest class; logistic regression on pixels; and "the 30
            lines", logistic regression with five folds on frozen features, of EfficientNet-Lite0 or of a small network
            trained on a source domain, whichever the folds say; and such a network trained from scratch. Without labels
            they train on a source domain. In this order in the table; * where the chosen model is below the best of
            them by over two points and beyond noise
stated      the estimate and interval that the run states; "!" where the truth is outside
labels      a class, and the seed
verdicts    how many parts (source model, adaptation, ...) the run calls helpful or harmful, and how often the truth
            is otherwise. The truth is the difference on the large set between the chosen model and the one without the
            part, which is trained here where the run kept none

A line a case goes to ``--out`` as soon as it is known. The last line is one JSON document, with the floors.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polite  # noqa: F401
import typer
from common import finish, say, scratch_home
from controls import controls, joinable
from drawn import hash_of
from measured import (
    Refits,
    Searched,
    metric_of,
    one_ray,
    paired,
    probabilities,
    searched,
    space_settings,
    stated,
    worth,
)
from scipy.stats import binomtest
from tasks import LABELS, SPECS, Case, case

from raytl.bundles import Bundle
from raytl.core.errors import UserError
from raytl.judging.verdict import Part, Tone
from raytl.tasks.task import TOGETHER
from raytl.training.strategy import Strategy

QUICK = (
    ("digits", 5), ("digits", 0), ("digits-skewed", 5), ("digits-is-it-8", 5), ("digits-permuted", 5),
    ("digits-mixture", 5), ("digits-mixture-reversed", 5), ("letters-unrelated", 5), ("solar", 5),
    ("solar-to-poly", 0), ("icons-outline", 5), ("digits-frequencies", 0), ("letters", 1), ("solar", 20),
)  # fmt: skip
HEADER = ("task", "labels", "chosen", "best tried", "regret", "controls", "stated", "verdicts")
_REVERSED = "-reversed"
_POINT = 0.01
_ROUNDING = 1e-6  # an end that is all but 1
_NO_CHANGE = 0.005  # a true difference below half a point contradicts nobody


@dataclass(frozen=True)
class Floors:
    """What the figures are held against; shares."""

    regret_with_labels: float = 2 * _POINT
    regret_without: float = 4 * _POINT
    below_control: float = 0.02
    contradictions: float = 0.05
    coverage: tuple[float, float] = (0.90, 0.98)
    order: float = 0.0
    better_domain: float = 2 * _POINT


def judged(made: Case, found: Searched, *, domains: bool = False) -> dict[str, Any]:
    """All figures of one search. domains: whether other source domains are tried in the place of the one joined."""
    record: dict[str, Any] = {"seconds": found.seconds}
    if found.refused is not None:
        return record | {"refused": found.refused}
    summary, labels = found.summary(), made.truth.labels
    metric = metric_of(summary)
    try:
        bundle = found.run.best.load()
    except UserError as error:  # the budget was over before a model was made
        return record | {"refused": str(error)}
    chosen = probabilities(bundle, made).argmax(1)
    tried = {}
    for name, path in found.candidates.items():
        other = Bundle.load(path)
        same = other.manifest.weights.sha256 == bundle.manifest.weights.sha256  # the run's model is one of them
        tried[name] = chosen if same else probabilities(other, made).argmax(1)
    values = {name: worth(predicted, labels, metric) for name, predicted in tried.items()}
    board = found.run.leaderboard()
    tested = {str(row["strategy_key"]): float(row["test"]) for _, row in board[board["test"].notna()].iterrows()}
    values = {**(tested if metric == "accuracy" else {}), **values}
    value = worth(chosen, labels, metric)
    best = max([value, *values.values()])
    record |= {
        "metric": metric,
        "chosen": value,
        "strategy": (summary.get("best") or {}).get("strategy"),
        "best_tried": best,
        "tried": len(values),
        "regret": best - value if len(values) > 1 else None,
        "predicted": chosen,
    }
    rivals = {name: control.probabilities.argmax(1) for name, control in controls(made).items()}
    record["controls"] = {name: worth(predicted, labels, metric) for name, predicted in rivals.items()}
    strongest = max(rivals, key=lambda name: record["controls"][name])
    gap, low, _ = paired(rivals[strongest], chosen, labels, metric)
    record["best_control"], record["below_control"] = strongest, gap > 2 * _POINT and low > 0
    estimate = stated(summary)
    if estimate is not None:
        record["stated"] = estimate
        record["covered"] = estimate["low"] - _ROUNDING <= value <= estimate["high"] + _ROUNDING
    refits = Refits(found, made)
    record["verdicts"] = _verdicts(summary, chosen, tried, labels, metric, refits)
    names = list(joinable(made))
    if len(names) > 1 and record["strategy"] is not None:
        strategy = Strategy.from_dict(record["strategy"])
        record["joined"] = strategy.source_domain
        record["joined_of_use"] = set((strategy.source_domain or "").split(TOGETHER)) <= set(made.facts["related"])
        if domains and strategy.source_domain is not None:
            others = [refits(replace(strategy, source_domain=name)) for name in names if name != strategy.source_domain]
            gains = [worth(other, labels, metric) - value for other in others if other is not None]
            record["better_domain"] = max(gains, default=None)
    return record


def _contradicts(word: str, gap: float) -> bool:
    """Whether a true difference is other than a verdict has it; one that cannot tell says nothing."""
    if word == Tone.DID_NOT:
        return abs(gap) > 2 * _POINT
    return {Tone.HELPED: gap, Tone.HARM: -gap}.get(Tone(word), 0.0) < -_NO_CHANGE


def _verdicts(
    summary: dict[str, Any],
    chosen: np.ndarray,
    tried: dict[str, np.ndarray],
    labels: np.ndarray,
    metric: str,
    refit: Callable[[Strategy], np.ndarray | None],
) -> list[dict[str, Any]]:
    """What the run says of each part, and the true gain of the models that it held against each other.

    tried: predictions by a strategy's key. refit: those of a strategy that the run has no model of.
    """
    verdicts = []
    for entry in summary.get("controls") or []:
        if entry.get("low") is None or entry.get("high") is None or entry["part"] == Part.CONSTANT:
            continue  # the majority is among this table's own controls
        says = {Tone.HELPED: 1, Tone.HARM: -1}.get(Tone(entry["verdict"]), 0)
        verdict: dict[str, Any] = {"part": entry["part"], "says": says, "words": entry["verdict"]}
        strategy = Strategy.from_dict(entry["strategy"])
        other = tried[strategy.key] if strategy.key in tried else refit(strategy)
        if other is not None:
            gap, low, high = paired(chosen, other, labels, metric)
            verdict |= {"true_gain": gap, "true_low": low, "true_high": high}
            verdict["contradicted"] = _contradicts(entry["verdict"], gap)
            verdict["unfounded"] = says != 0 and abs(gap) <= _NO_CHANGE
        verdicts.append(verdict)
    return verdicts


# --- all cases together ----------------------------------------------------------------------------------------------


def _figures(records: list[dict[str, Any]], floors: Floors) -> dict[str, Any]:
    """Means, shares, and whether they keep to the floors; None where there is nothing to tell from."""
    done = [record for record in records if "chosen" in record]

    def mean(values: list[Any]) -> float | None:
        known = [float(value) for value in values if value is not None]
        return float(np.mean(known)) if known else None

    hard = [record for record in done if {"skewed", "junk"} & SPECS[record["task"]].tags]
    verdicts = [verdict for record in done for verdict in record["verdicts"] if "true_gain" in verdict]
    definite = [verdict for verdict in verdicts if verdict["says"]]
    orders = _orders(done)
    figures: dict[str, Any] = {
        "regret_with_labels": mean([record["regret"] for record in done if record["labels"]]),
        "regret_without": mean([record["regret"] for record in done if not record["labels"]]),
        "below_control": mean([record["below_control"] for record in done]),
        "below_control_skewed_or_junk": sum(record["below_control"] for record in hard) if hard else None,
        "coverage": mean([record["covered"] for record in done if "covered" in record]),
        "estimates": sum("covered" in record for record in done),
        "verdicts": len(verdicts),
        "definite_verdicts": len(definite),
        "contradictions": mean([verdict["contradicted"] for verdict in verdicts]),
        "unfounded": mean([verdict["unfounded"] for verdict in verdicts]),
        "order": orders,
        "domains_of_use": mean([record["joined_of_use"] for record in done if record.get("joined") is not None]),
        "better_domain": mean([better > 2 * _POINT for better in _better_domains(done)]),
        "refused": sum("refused" in record for record in records),
    }
    largest = max((abs(pair["difference"]) for pair in orders), default=None)

    def held(value: float | None, most: float) -> bool | None:
        return None if value is None else value <= most + 1e-9

    figures["floors"] = {
        "regret_with_labels": held(figures["regret_with_labels"], floors.regret_with_labels),
        "regret_without": held(figures["regret_without"], floors.regret_without),
        "below_control": held(figures["below_control"], floors.below_control),
        "below_control_skewed_or_junk": held(figures["below_control_skewed_or_junk"], 0),
        "contradictions": held(figures["contradictions"], floors.contradictions),
        "coverage": _covers(
            sum(record.get("covered", False) for record in done), figures["estimates"], floors.coverage
        ),
        "order": held(largest, floors.order),
        "better_domain": held(max(_better_domains(done), default=None), floors.better_domain),
    }
    return figures


def _covers(covered: int, estimates: int, wanted: tuple[float, float]) -> bool | None:
    """Whether a coverage within ``wanted`` would count like this, at 95 %: ten of ten disproves nothing."""
    if not estimates:
        return None
    interval = binomtest(covered, estimates).proportion_ci()
    return bool(interval.low <= wanted[1] and interval.high >= wanted[0])


def _better_domains(done: list[dict[str, Any]]) -> list[float]:
    """By how much the best of the other source domains would have been better, in each case where that was tried."""
    return [record["better_domain"] for record in done if record.get("better_domain") is not None]


def _orders(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks that are there with their source domains in two orders: what that changed."""
    by_name = {(record["task"], record["labels"], record["seed"]): record for record in done}
    pairs = []
    for (name, labels, seed), other in by_name.items():
        first = by_name.get((name.removesuffix(_REVERSED), labels, seed))
        if name.endswith(_REVERSED) and first is not None:
            same = float(np.mean(first["predicted"] == other["predicted"]))
            difference = first["chosen"] - other["chosen"]
            strategy = first["strategy"] == other["strategy"]
            pairs.append(
                {
                    "task": name,
                    "labels": labels,
                    "seed": seed,
                    "same_strategy": strategy,
                    "same_answers": same,
                    "difference": difference,
                }
            )
    return pairs


def _row(record: dict[str, Any]) -> list[str]:
    start = [record["task"], f"{record['labels']}/{record['seed']}"]
    if "chosen" not in record:
        return [*start, "refused", *["-"] * 5]
    told, estimate = "-", record.get("stated")
    if estimate:
        told = f"{_share(estimate['low'])}..{_share(estimate['high'])}{'' if record['covered'] else ' !'}"
    definite = sum(bool(verdict["says"]) for verdict in record["verdicts"])
    wrong = sum(verdict.get("contradicted", False) for verdict in record["verdicts"])
    return [
        *start,
        _share(record["chosen"]) + ("*" if record["below_control"] else "") + _domain_mark(record),
        f"{_share(record['best_tried'])} ({record['tried']})",
        _share(record["regret"]),
        " ".join(_share(record["controls"][name]) for name in ("majority", "pixels", "30-lines", "scratch")),
        told,
        f"{definite}/{len(record['verdicts'])}" + (f" {wrong} !" if wrong else ""),
    ]


def _domain_mark(record: dict[str, Any]) -> str:
    """Of the source domain that joins, where several could."""
    if "joined" not in record:
        return ""
    mark = "o" if record["joined"] is None else "+" if record["joined_of_use"] else "-"
    better = record.get("better_domain")
    return f" {mark}" + ("" if better is None else f" {100 * better:+.1f}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _plan(quick: bool, only: str, labels: list[int], seeds: int) -> list[tuple[str, int, int]]:
    """Cases shuffled, so that what there is time for is a fair sample; the two orders of one task stand together."""
    wanted = labels or list(LABELS)
    if quick:
        cases = [(name, count, seed) for seed in range(seeds) for name, count in QUICK if count in wanted]
    else:
        cases = [(n, c, s) for s in range(seeds) for n, spec in SPECS.items() for c in spec.labels if c in wanted]
        cases.sort(key=lambda one: (one[2], _place(one[0].removesuffix(_REVERSED), one[1]), one[0]))
    return [entry for entry in cases if re.search(only, entry[0])]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="ten minutes: a case of most kinds")] = False,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="tasks whose name matches this regular expression")] = "",
    labels: Annotated[list[int] | None, typer.Option(help="labelled images a class; repeat for several")] = None,
    seeds: int = 1,
    budget: Annotated[float | None, typer.Option(help="seconds a search (default 25; quick 20)")] = None,
    trials: Annotated[
        int | None, typer.Option(help="strategies a search instead of seconds: the same on every machine")
    ] = None,
    limit_min: Annotated[
        float | None, typer.Option(help="minutes after which no search begins (default 58; quick 9)")
    ] = None,
    space: str = "vision-small",
    as_shipped: Annotated[
        bool, typer.Option("--as-shipped", help="leave the space's source models as they are")
    ] = False,
    test: Annotated[bool, typer.Option("--test", help="give the search the truth as its sealed test set")] = False,
    domains: Annotated[
        bool, typer.Option("--domains", help="try the other source domains in the place of the one joined: trainings")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="a file that gets a JSON line a case")] = None,
) -> None:
    """Search, compare, sum up."""
    stop = time.perf_counter() + 60 * (limit_min or (9 if quick else 58))
    seconds = None if trials else budget or (20.0 if quick else 25.0)
    planned = _plan(quick, only, labels or [], seeds)
    records: list[dict[str, Any]] = []
    try:
        with scratch_home() as home:
            settings = space_settings(as_shipped)
            with one_ray():
                for number, (name, count, seed) in enumerate(planned):
                    if time.perf_counter() > stop:
                        break
                    made = case(name, count, seed)
                    found = searched(
                        made, home / "searches" / str(number), seed=seed, test=test, space=space, trials=trials,
                        time_budget_s=seconds, assignments=settings,
                    )  # fmt: skip
                    records.append(
                        {"task": name, "labels": count, "seed": seed, **judged(made, found, domains=domains)}
                    )
                    _tell(records[-1], out)
    finally:  # what is known is worth telling, whatever ended it
        left = [f"{name}/{count}/{seed}" for name, count, seed in planned[len(records) :]]
        extra = {"space": space, "budget_s": seconds, "trials": trials, "left_out": left}
        extra["cases"] = [_plain(record) for record in records]
        title = "What searches chose and said, against the truth (%)"
        finish("judgement", title, HEADER, [_row(record) for record in records], _figures(records, Floors()) | extra)


def _place(name: str, labels: int) -> float:
    return float(np.random.default_rng(hash_of(name, labels)).random())


def _tell(record: dict[str, Any], out: Path | None) -> None:
    say("  ".join(_row(record)))
    if "refused" in record:
        say(f"    {record['refused']}")
    if out is not None:
        with out.open("a") as file:
            file.write(json.dumps(_plain(record)) + "\n")


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Without the predictions, which only the comparison of orders needs."""
    return {key: value for key, value in record.items() if key not in ("predicted", "strategy")}


if __name__ == "__main__":
    typer.run(main)
