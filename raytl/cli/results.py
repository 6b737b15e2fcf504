"""How runs look on a terminal. Runs are shown without Ray and torch, which take seconds to import."""

from __future__ import annotations

import shlex
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raytl.cli.output import Output
from raytl.core.paths import default_storage, run_argument
from raytl.evaluation import metrics
from raytl.runs import Run, RunStore, render_leaderboard, wording
from raytl.runs.comparing import Comparison
from raytl.runs.gains import metric_of
from raytl.runs.run import interval
from raytl.runs.sentences import sentences

WIDTH = 40
HEADINGS = ("run", "started (UTC)", "status", "trials", "score", "test")


def open_run(name: str, storage: str | None) -> Run:
    """A run by name, folder or URI."""
    return RunStore(storage or default_storage()).open(name)


def show_run(output: Output, run: Run) -> None:
    """Leaderboard, the choice and its grounds, gains, and where to go from here."""
    summary = run.summary()
    output.say(render_leaderboard(run, width=output.console.width))
    output.say("")
    best = summary["best"] or {}
    output.say(f"chosen: {summary['why']}" if best else summary["why"])
    for one in sentences(summary, 0):
        output.say(one.text)
    for name, value in (summary["gains"] or {}).items():
        gain = interval(value)
        if gain is not None and summary["baselines"][name]["strategy"] != best["strategy"]:
            output.say(f"  over {name}: {wording.gain(gain, share=metric_of(summary).share)}")
    if summary["tags"]:
        output.say(f"tags: {', '.join(summary['tags'])}")
    if summary["note"]:
        output.say(f"note: {summary['note']}")
    if run.place.has(run.report_path.name):
        output.say(f"report: {run.where}/{run.report_path.name}")
    if run.status == "interrupted":
        _say_how_to_go_on(output, run)
    elif run.has_model:
        where = shlex.quote(run.argument)
        output.say(f"next: raytl deploy {where}")
        output.say(f"  or: raytl predict {where} NEW_PHOTOS/")
        output.say(f"  or: raytl export {where} model/")


def _say_how_to_go_on(output: Output, run: Run) -> None:
    model = run.has_model
    output.say(f"interrupted: what it learned is in {run.where}" + ("" if model else ", a model is not"))
    if model:
        output.say(f"the best model that was made so far: raytl deploy {shlex.quote(run.argument)}")
    if run.settings.get("given") is None:
        output.say("its data was given from memory: to go on, search again (pretrained source models are kept)")
        return
    name = run_argument(run.argument)
    output.say(f"to go on: raytl search --resume {name}")
    output.say(f"for a model of the best so far: raytl search --resume {name} --trials 1 (no more are tried than were)")


def show_runs(output: Output, storage: str | None) -> None:
    """One line per run, newest first."""
    store = RunStore(storage or default_storage())
    found = store.list()
    tagged = any(run.tags for run in found)
    table = Table(*HEADINGS, *(["tags"] if tagged else []), box=None)
    for run in found:
        started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else ""
        share = run.metric is not None and metrics.recorded(run.metric).share
        figures = (wording.score(run.score), wording.value(run.test, share=share))
        table.add_row(Text(run.name), started, run.status, str(run.trials or ""), *figures, Text(", ".join(run.tags)))
    output.say(table if found else f"no runs in {store.shown} yet; begin with: raytl search --target PATH")
    output.document({"storage": store.shown, "runs": [run.to_json() for run in found]})


def show_comparison(output: Output, found: Comparison) -> None:
    """What differed, the figures, each in its own run's metric, and both leaderboards in one."""
    names = escape(found.a), escape(found.b)
    table = Table("", *names, box=None)
    for kind, values in found.differs.items():
        for name, (a, b) in values.items():
            table.add_row(Text(f"{kind}: {name}"), Text(_short(a)), Text(_short(b)))
    output.say(table if table.row_count else "nothing was different about them: settings, space, data, versions")
    output.say("")
    judged_by = [metrics.recorded(str(name)) for name in found.results["metric"]]
    figures = Table("", *names, box=None)
    for name, (a, b) in found.results.items():
        told = [_figure(name, value, share=m.share) for value, m in zip((a, b), judged_by, strict=True)]
        figures.add_row(name.replace("_", " "), *map(Text, told))
    output.say(figures)
    gain = interval(found.gain)
    if gain is not None:  # then both are judged by the same
        told_gain = wording.gain(gain, share=judged_by[0].share)
        output.say(f"{found.b} over {found.a} on the same test images: {told_gain}")
    output.say("")
    same = judged_by[0].name == judged_by[1].name
    heads = ["val" if same else f"val {metric.title}" for metric in judged_by]
    board = Table(*(f"# {name}" for name in names), *heads, "strategy", box=None)
    for one in found.leaderboard:
        ranks = ["–" if rank is None else str(rank) for rank in (one.rank_a, one.rank_b)]
        pair = zip((one.validation_a, one.validation_b), judged_by, strict=True)
        validation = [wording.value(value, share=metric.share) for value, metric in pair]
        board.add_row(*ranks, *validation, Text(wording.strategy(one.strategy)))
    output.say(board)


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _figure(name: str, value: Any, *, share: bool) -> str:
    if name == "strategy":
        return "none" if value is None else wording.strategy(value)
    if name == "seconds":
        return wording.duration(value)
    if name == "score":
        return wording.score(value)
    known = interval(value) if isinstance(value, dict) else None
    if known is not None:
        if name.endswith("gain"):
            return wording.gain(known, share=share)
        return f"{wording.value(known.value, share=share)} ({wording.limits(known, share=share)})"
    return _short(value["value"] if isinstance(value, dict) else value)
