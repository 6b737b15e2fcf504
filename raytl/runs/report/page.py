"""The page: puts words, tables and figures into one self-contained HTML file."""

from __future__ import annotations

import math
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from raytl.evaluation.metrics import Metric
from raytl.runs import wording
from raytl.runs.files import replacing
from raytl.runs.gains import cross_validated, figure_of, metric_of, named, shares, tone
from raytl.runs.parts import is_matched
from raytl.runs.report import charts, tables
from raytl.runs.report.examples import ReportExamples, gallery
from raytl.runs.report.importance import METHOD, importance
from raytl.runs.run import Run, interval
from raytl.runs.sentences import sentences
from raytl.runs.unlabelled import are_of_another_kind, right_on_unlabelled
from raytl.search.plan.stopping import expected_gain

_LINES = """the lines are 95 % intervals. A line that crosses zero means that these images cannot tell the two apart;
the verdicts above count all pairs together and so ask for a little more."""
OUTLOOK_S = 600
"""Of which the report says what they are expected to bring."""

# The browser itself then keeps the page from loading anything; Plotly's WebGL traces compile their drawing code.
_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"


def write_report(run: Run, examples: ReportExamples | None = None) -> Path:
    """Write ``report.html`` into the run's folder; it needs no network and no other file.

    examples: test images to show in the confusion matrix. Raises UserError where the disk does not take it.
    """
    parts = _Parts()
    counts, classes = _confusion(run, examples)
    sections = [
        _top(run, int(counts.sum()) if counts is not None else 0),
        _gains(run, parts),
        _leaderboard(run),
        _anytime(run, parts),
        _curves(run, parts),
        _settings_that_mattered(run, parts),
        _mistakes(counts, classes, examples, parts),
        _data(run),
        _reproduce(run),
    ]
    title = escape(f"{run.name} – raytl report")
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{title}</title>
<style>
{_asset("style.css")}</style>
</head>
<body>
<main>
{"".join(sections)}</main>
<noscript><p>The charts of this report need JavaScript; the tables do not.</p></noscript>
{"".join(parts.scripts)}
<script>{get_plotlyjs()}</script>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""
    with replacing(run.report_path) as file:
        file.write(html.encode(errors="replace"))
    return run.report_path


class _Parts:
    """The figures of a page: each leaves a place in the text and its data at the end."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def place(self, name: str, figure: go.Figure, says: str, *, kind: str = "") -> str:
        """The figure's place. says: what it shows, for who cannot see it."""
        data = figure.to_json().replace("<", "\\u003c")  # no name in it can end the script element
        self.scripts.append(f'<script type="application/json" data-figure="{name}">{data}</script>\n')
        height = figure.layout.height
        return (
            f'<div class="scroll"><div class="chart {kind}" id="{name}" role="img" aria-label="{escape(says)}" '
            f'style="height:{height}px"></div></div>\n'
        )


def _top(run: Run, test_images: int) -> str:
    summary = run.summary()
    statements = "".join(
        f'<p class="verdict {one.tone}">{escape(one.text)}</p>\n' for one in sentences(summary, test_images)
    )
    facts = [f"started {run.started:%Y-%m-%d %H:%M} UTC", wording.duration(run.seconds)]
    if run.settings.get("setting"):
        facts.insert(0, wording.at_hand(run.settings["setting"]))
    return f"""<h1>{escape(run.name)}</h1>
<p class="soft">{escape(" · ".join(facts))}</p>
<dl class="cards">{_cards(summary)}</dl>
{statements}<p class="note">Chosen for: {escape(summary["why"])}.</p>
"""


def _cards(summary: dict[str, Any]) -> str:
    best = summary["best"] or {}
    cards = []
    metric = metric_of(summary)
    test, validation = interval(best.get("test_metric")), best.get("validation_metric") or {}
    if test is not None:
        under = f"95 % interval {wording.limits(test, share=metric.share)}"
        cards.append(_card(f"Test {metric.title}", wording.value(test.value, share=metric.share), under))
    elif validation.get("value") is None:
        why = "not tested: interrupted" if summary["interrupted"] else summary.get("test_undefined") or "no test split"
        cards.append(_card("Selection score", wording.score(best.get("score")), why))
    else:
        known = interval(validation)
        under = cross_validated(best)
        if known is not None:
            under = f"{under}; 95 % interval {wording.limits(known, share=metric.share)}"
        if summary.get("test_undefined"):
            under = f"{under}; {summary['test_undefined']}"
        title = metric.title[0].upper() + metric.title[1:]  # ROC stays in capitals
        cards.append(_card(title, wording.value(validation["value"], share=metric.share), under))
    right = right_on_unlabelled(summary)
    if right is not None:  # where it will be used, which is what somebody who reads no further wants to know
        under = f"right answers, by an estimate; 90 % interval {right.low} to {right.high}{right.beside}"
        kind = "bad" if are_of_another_kind(summary) else ""
        cards.append(_card("On the images without labels", f"{right.value} %", under, kind))
    for title, key in [("Gain from transfer", "transfer_gain"), ("Gain from adaptation", "adaptation_gain")]:
        gain = interval(summary[key])
        if gain is not None:
            under = f"95 % interval {wording.gain(gain, share=metric.share).partition('interval ')[2].rstrip(')')}"
            cards.append(_card(title, wording.amount(gain.value, share=metric.share), under, tone(gain)))
    states = summary["trials"]["by_status"]
    words = {"pruned": "stopped early"}
    told = ", ".join(f"{count} {words.get(status, status)}" for status, count in states.items())
    cards.append(_card("Trials", str(summary["trials"]["count"]), told))
    return "".join(cards)


def _card(title: str, figure: str, under: str, kind: str = "") -> str:
    return (
        f'<div class="card {kind}"><dt>{escape(title)}</dt><dd class="figure">{escape(figure)}</dd>'
        f'<dd class="under">{escape(under)}</dd></div>'
    )


def _gains(run: Run, parts: _Parts) -> str:
    summary = run.summary()
    metric = metric_of(summary)
    html = _waterfall(summary, parts)
    compared = [(control, gain) for control in summary["controls"] if (gain := interval(control)) is not None]
    controls = {named(control): gain for control, gain in compared if is_matched(control)}
    others = {named(control): gain for control, gain in compared if not is_matched(control)}
    if controls:
        says = "Controls: " + "; ".join(f"{n} {wording.gain(g, share=metric.share)}" for n, g in controls.items())
        html += f"""<h2>What each part brings</h2>
<p class="note">{_difference(metric, "", "the same strategy with one part taken out")}, all else equal, on the same
images; {_LINES}</p>
{parts.place("controls", charts.gains(controls, metric), says)}"""
    if others:
        says = "Other models: " + "; ".join(f"{n} {wording.gain(g, share=metric.share)}" for n, g in others.items())
        html += f"""<h2>Whether something usual or simpler would do</h2>
<p class="note">{_difference(metric, "", "a usual or simpler one")}, which differs from it in several things, on the
same images; {_LINES}</p>
{parts.place("others", charts.gains(others, metric), says)}"""
    found = {name: gain for name, value in summary["gains"].items() if (gain := interval(value)) is not None}
    if found:
        says = "Gains: " + "; ".join(f"over {n} {wording.gain(g, share=metric.share)}" for n, g in found.items())
        images = "test " if figure_of(summary)[1] == "test" else ""
        html += f"""<h2>Gain over each baseline</h2>
<p class="note">{_difference(metric, images, "a usual recipe")}, which may differ from it in several
things, on the same images; the lines are 95 % intervals.</p>
{parts.place("gains", charts.gains(found, metric), says)}"""
    return html


def _difference(metric: Metric, images: str, other: str) -> str:
    """What a gain is, in words: above zero is better, also of a loss. images: ``test `` or nothing."""
    figure = escape(f"{images}{metric.title}")
    if metric.higher_is_better:
        return f"{figure[0].upper()}{figure[1:]} of the best strategy minus that of {other}"
    return f"By how much the {figure} of the best strategy is better, which is lower, than that of {other}"


def _waterfall(summary: dict[str, Any], parts: _Parts) -> str:
    whole, found = shares(summary)
    end, where = figure_of(summary)
    if whole is None or end is None:
        return ""
    metric = metric_of(summary)
    figure = charts.waterfall(whole.value, found, end.value, metric)
    lower = "" if metric.higher_is_better else " Lower is better: a bar that goes down is a gain."
    told = "; ".join(
        f"{name} {wording.amount(metric.oriented(g.value), share=metric.share)}" for name, g in found.items()
    )
    figures = f"test {metric.title}" if where == "test" else f"{metric.title} by cross-validation"
    says = f"From plain training from scratch to the winner: {told}; the rest they bring only together."
    return f"""<h2>From scratch to the winner</h2>
<p class="note">{escape(figures[0].upper() + figures[1:])}: what is lost when one part is taken out of the winner, all
else equal. Parts may be worth more together than one by one, or less; that is the last step. The next figure has the
intervals.{lower}</p>
{parts.place("waterfall", figure, says)}"""


def _leaderboard(run: Run) -> str:
    trials = run.trials()
    reasons = dict(zip(trials["strategy_key"], trials["reason"].fillna(""), strict=True))
    share = metric_of(run.summary()).share
    board = tables.leaderboard_table(run.leaderboard(), reasons, share=share)
    return f"""<h2>Leaderboard</h2>
<p class="note">One row per strategy, folds pooled. The score decides who goes on; validation figures of the best few
are a little too good for having been chosen (the winner's is corrected for it), test figures are not. Stopped trials
had fewer epochs.</p>
{board}"""


def _anytime(run: Run, parts: _Parts) -> str:
    trials = run.trials()
    figure = charts.anytime(trials)
    if figure is None:
        return ""
    says = "Best selection score on the first fold over the time of the search; the leaderboard holds the scores."
    return f"""<h2>What the time brought</h2>
<p class="note">Selection scores on the first fold by when they were known. {escape(_outlook(trials, run.seconds))}</p>
{parts.place("anytime", figure, says)}"""


def _outlook(trials: pd.DataFrame, seconds: float) -> str:
    """What more of the same is expected to bring."""
    tried = trials[trials["kind"].isin(["search", "baseline"]) & trials["score"].notna()]
    full = tried.loc[tried["status"] == "completed", "score"].tolist()
    each = expected_gain(full, len(tried))
    if not math.isfinite(each) or seconds <= 0:
        return "Too few trainings came to their end to tell what more of them would bring."
    fold = tried["fold"].iloc[0] if "fold" in tried else None
    heads = trials[(trials["kind"] == "probe") & (trials["status"] == "completed") & trials["score"].notna()]
    behind = max((score for score in heads.loc[heads["fold"] == fold, "score"]), default=0.0) - max(full)
    more = OUTLOOK_S / seconds * len(tried)
    gain = each * (len(tried) + 1) * math.log1p(more / (len(tried) + 1))
    if max(full) + gain > 1.0:  # no score is higher: the tail is not the one that the estimate supposes
        return "The best scores lie too far above the others to tell what more trainings would bring."
    if gain <= behind:
        return "A head on frozen features leads by more than what further trainings are expected to bring."
    gain -= max(0.0, behind)
    return (
        f"Another {OUTLOOK_S // 60} minutes, for about {more:.0f} trials more, are expected to raise the best score by "
        f"{gain:.3f}, were strategies drawn at random."
    )


def _curves(run: Run, parts: _Parts) -> str:
    trials, history = run.trials(), run.history()
    best_key = run.outcome["best"]["strategy_key"] if run.outcome else None
    figure = charts.curves(trials, history, best_key)
    if figure is None:
        return ""
    says = f"Learning curves of {history['trial'].nunique()} trials; the leaderboard holds their last values."
    return f"""<h2>Learning curves</h2>
<p class="note screen">Tap a name in the legend to hide its lines, twice to see them alone.</p>
{parts.place("curves", figure, says)}"""


def _settings_that_mattered(run: Run, parts: _Parts) -> str:
    board = run.leaderboard()
    shares = importance(board)
    html = ""
    if shares:
        says = "Importance: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(shares.items())[:6])
        html += f"""<h3>Importance</h3>
<p class="note">{escape(METHOD)}, from {int(board["score"].notna().sum())} strategies. A hint, not a proof: the search
does not try all settings evenly.</p>
{parts.place("importance", charts.importances(shares), says)}"""
    figure = charts.parallel(board, shares)
    if figure is not None:
        says = "Parallel coordinates: one line per strategy through its settings to its score, as in the leaderboard."
        html += f"""<h3>All strategies at once</h3>
<p class="note screen">One line per strategy, from grey ones that scored low over blue ones to the highest, in
orange. Drag along an axis to keep only the lines that pass there, click the axis to let go; drag an axis by its name to
move it.</p>
{parts.place("parallel", figure, says, kind="wide")}"""
    return f"<h2>Which settings mattered</h2>\n{html}" if html else ""


def _mistakes(counts: np.ndarray | None, classes: list[str], examples: ReportExamples | None, parts: _Parts) -> str:
    if counts is None:
        return ""
    wrong = int(counts.sum() - np.trace(counts))
    says = f"Confusion matrix: {wrong} of {int(counts.sum())} test images wrong; the table of classes has the figures."
    pictures = ""
    hint = ""
    chosen, part = charts.most_confused(counts), ""
    if len(chosen) < len(classes):
        inside = counts[np.ix_(chosen, chosen)]
        part = f""" The figure has the {len(chosen)} most confused of {len(classes)} classes, and with them
{int(inside.sum() - np.trace(inside))} of the {wrong} mistakes; the table has all classes."""
    if examples is not None:
        hint = "Pick a cell to see its images below."
        pictures = f"""<h3>Mistakes, the surest first</h3>
<p><button id="all-examples" hidden>Show all mistakes again</button>
<span id="examples-told" aria-live="polite"></span></p>
<div class="gallery">
{gallery(examples)}
</div>
"""
    return f"""<h2>What it gets wrong</h2>
<p class="note">{wrong} of {int(counts.sum())} test images. Rows are the true classes, columns what the model said;
blue is right, red is wrong.{part} <span class="screen">{hint}</span></p>
{parts.place("confusion", charts.confusion(counts, classes), says, kind="square")}{pictures}
{tables.class_table(counts, classes)}
"""


def _data(run: Run) -> str:
    data = run.settings.get("data") or {}
    problems = [item if isinstance(item, dict) else {"message": item} for item in data.get("problems", [])]
    counts = tables.settings_table(data.get("counts") or {}, "Images")
    if not counts and not problems:
        return ""
    told = "".join(f"<li>{_problem(item)}</li>" for item in problems)
    listed = f'<ul class="problems">{told}</ul>' if told else "<p>No problem was found in the data.</p>"
    return f"<h2>Data</h2>\n{counts}<h3>Problems</h3>\n{listed}\n"


def _problem(item: dict[str, Any]) -> str:
    """As on a terminal: how grave it is, where it is, and what."""
    grade = f"<b>{escape(str(item['severity']))}:</b> " if "severity" in item else ""
    where = f"{item['where']}: " if item.get("where") else ""
    return f"{grade}{escape(where + str(item.get('message', '')))}"


def _reproduce(run: Run) -> str:
    summary = run.summary()
    settings = {key: value for key, value in run.settings.items() if key not in ("data", "command")}
    command = run.settings.get("command")
    again = f"<p>To run it again:</p>\n<pre>{escape(str(command))}</pre>\n" if command else ""
    best = tables.settings_table(summary["best"]["strategy"], "The best strategy") if summary["best"] else ""
    return f"""<h2>Settings and environment</h2>
{again}{best}
{tables.settings_table(settings, "Settings of the search")}
{tables.settings_table(run.environment, "Environment")}
"""


def _confusion(run: Run, examples: ReportExamples | None) -> tuple[np.ndarray | None, list[str]]:
    """The winner's confusion matrix (k, k) and the names of its classes; None where nothing was tested."""
    predictions = run.predictions()
    if predictions is not None and "predicted.best" in predictions:
        labels, guesses = predictions["label"].to_numpy(), predictions["predicted.best"].to_numpy()
    elif examples is not None:
        labels, guesses = np.asarray(examples.labels), np.asarray(examples.predicted)
    else:
        return None, []
    if not len(labels):
        return None, []
    classes = list(run.classes) or [str(name) for name in (examples.classes if examples else [])]
    size = max(len(classes), int(labels.max()) + 1, int(guesses.max()) + 1)
    classes += [str(index) for index in range(len(classes), size)]
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (labels, guesses), 1)
    return counts, classes


def _asset(name: str) -> str:
    return resources.files("raytl.runs.report").joinpath(name).read_text("utf-8")
