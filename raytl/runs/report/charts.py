"""The report's figures. Colours of text, grid and background are the page's, set there for light and dark."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from raytl.evaluation.intervals import Interval
from raytl.evaluation.metrics import Metric
from raytl.runs import wording
from raytl.runs.gains import tone
from raytl.runs.leaderboard import settings_columns
from raytl.sources.heads import CONVEX

TONES = {"good": "#1a9850", "open": "#8c8c8c", "bad": "#d73027"}
BEST = "#1f77b4"
_BASELINE_COLOURS = ["#e08214", "#b05fc4", "#2aa198", "#c0507a"]
_FAINT = "rgba(128,128,128,0.28)"
_AXES_AT_MOST = 7
CONFUSED_AT_MOST = 100
"""Classes of a confusion matrix: cells of more are smaller than can be pointed at, and megabytes in all."""
_ABSENT = -0.12  # where an axis shows strategies that do not have the setting, in shares of its length


def gains(found: dict[str, Interval], metric: Metric) -> go.Figure:
    """What the winner gains over each baseline or control, with 95 % intervals; shares in percentage points."""
    names = list(found)[::-1]
    unit = 100 if metric.share else 1
    values = [unit * found[name].value for name in names]
    bars = go.Bar(
        x=values,
        y=names,
        orientation="h",
        marker_color=[TONES[tone(found[name])] for name in names],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [unit * (found[name].high - found[name].value) for name in names],
            "arrayminus": [unit * (found[name].value - found[name].low) for name in names],
            "thickness": 1.5,
            "width": 5,
            "color": "#555",
        },
        hovertext=[f"{name}: {wording.gain(found[name], share=metric.share)}" for name in names],
        hoverinfo="text",
    )
    figure = _figure([bars], height=90 + 44 * len(names), bargap=0.45)
    title = escape(metric.title)  # with a class's name in it, say
    told = f"{title} gained" if metric.higher_is_better else f"{title}, better by"
    told += ", percentage points" if metric.share else ""
    figure.update_xaxes(title=told, zeroline=True, zerolinewidth=2, ticksuffix=" ")
    return figure.update_yaxes(automargin=True, ticksuffix="  ")


def waterfall(whole: float, parts: dict[str, Interval], end: float, metric: Metric) -> go.Figure:
    """From plain training from scratch to the winner: what each part brings, and what they bring only together.

    end: the winner's figure. whole: its gain over training from scratch. Gains are positive where the winner is better;
    a figure that is better the lower it is goes down by them.
    """
    share, sign = metric.share, 1 if metric.higher_is_better else -1
    unit = 100 if share else 1
    start = end - sign * whole
    together = whole - sum(gain.value for gain in parts.values())
    rest = "only together" if together >= 0 else "counted twice"
    steps = [*((name, sign * gain.value) for name, gain in parts.items()), (rest, sign * together)]
    names = ["from scratch", *(name for name, _ in steps), "the winner"]
    values = [unit * start, *(unit * value for _, value in steps), unit * end]
    told = [
        wording.value(start, share=share),
        *(wording.amount(value, share=share).removesuffix(" points") for _, value in steps),
        wording.value(end, share=share),
    ]
    heights = [start, end, *np.cumsum([start, *(value for _, value in steps)]).tolist()]
    low, top = min(heights), max(heights)
    better, worse = ({"marker": {"color": TONES[kind]}} for kind in ("good", "bad"))
    bars = go.Waterfall(
        x=names,
        y=values,
        measure=["absolute", *["relative"] * len(steps), "total"],
        text=told,
        textposition="outside",
        increasing=better if metric.higher_is_better else worse,
        decreasing=worse if metric.higher_is_better else better,
        totals={"marker": {"color": BEST}},
        connector={"line": {"color": _FAINT}},
        hoverinfo="x+text",
        cliponaxis=False,
    )
    figure = _figure([bars], height=340, showlegend=False)
    # From zero all bars would be of one height; what differs is at the top.
    floor = min(low, max(0.0, low - 0.5 * max(abs(end - start), 0.02)))
    return figure.update_yaxes(
        range=[unit * floor, unit * (top + 0.12 * (top - floor))], ticksuffix=" %" if share else ""
    )


def anytime(trials: pd.DataFrame) -> go.Figure | None:
    """The best selection score on the first fold by when it was known; None where that cannot be told."""
    if not {"ended", "strategy.head"} <= set(trials):
        return None
    rows = trials[(trials["fold"] == 0) & trials["score"].notna() & trials["ended"].notna()]
    rows = rows[(rows["status"] == "completed") & (rows["kind"] != "control")].sort_values("ended")
    if len(rows) < 2:
        return None
    best = rows["score"].cummax()
    names = {True: "head on frozen features", False: "trained"}
    convex = rows["strategy.head"].isin(CONVEX)
    line = go.Scatter(
        x=rows["ended"].round(1).tolist(),
        y=best.round(4).tolist(),
        mode="lines",
        line={"color": BEST, "width": 2.5, "shape": "hv"},
        name="best so far",
        hoverinfo="skip",
    )
    dots = [
        go.Scatter(
            x=rows["ended"][convex == kind].round(1).tolist(),
            y=rows["score"][convex == kind].round(4).tolist(),
            customdata=rows["number"][convex == kind].tolist(),
            mode="markers",
            marker={"color": colour, "size": 7},
            name=names[kind],
            hovertemplate="trial %{customdata}, after %{x:.0f} s: %{y:.3g}<extra></extra>",
        )
        for kind, colour in ((True, _BASELINE_COLOURS[0]), (False, "rgba(90,140,190,0.75)"))
        if (convex == kind).any()
    ]
    figure = _figure([line, *dots], height=320, legend=_LEGEND_ABOVE)
    figure.update_xaxes(title="seconds of the search", rangemode="tozero")
    return figure.update_yaxes(title="selection score")


def curves(trials: pd.DataFrame, history: pd.DataFrame, best_key: str | None) -> go.Figure | None:
    """Selection score over epochs, a line per trial; None where no trial reported any.

    One trace per group, its trials' lines parted by gaps: a thousand trials stay as light as ten.
    """
    if "score" not in history or history["score"].isna().all():
        return None
    groups: dict[str, list[int]] = {"stopped early": [], "other strategies": []}
    for _, trial in trials.sort_values("number").iterrows():
        if trial["strategy_key"] == best_key:
            group = "best"
        elif not pd.isna(trial["baseline"]):
            group = str(trial["baseline"])
        else:
            group = "other strategies" if trial["status"] in ("completed", "running") else "stopped early"
        groups.setdefault(group, []).append(int(trial["number"]))
    order = ["stopped early", "other strategies", *(name for name in groups if name in set(trials["baseline"])), "best"]
    colours = iter(_BASELINE_COLOURS * 8)
    lines = {"stopped early": (_FAINT, 1), "other strategies": ("rgba(90,140,190,0.55)", 1.2), "best": (BEST, 3)}
    by_trial = dict(iter(history.dropna(subset=["score"]).groupby("trial")))
    traces = []
    for group in order:
        colour, width = lines.get(group) or (next(colours), 2.2)
        x: list[Any] = []
        y: list[Any] = []
        which: list[Any] = []
        for number in groups.get(group, []):
            if number in by_trial:
                rows = by_trial[number].sort_values("epoch")
                x += [*rows["epoch"].tolist(), None]
                y += [*rows["score"].round(4).tolist(), None]
                which += [number] * (len(rows) + 1)
        if x:
            traces.append(
                go.Scatter(
                    x=x,
                    y=y,
                    customdata=which,
                    name=group,
                    mode="lines+markers" if len(x) <= 2 * len(groups[group]) else "lines",
                    line={"color": colour, "width": width},
                    hovertemplate=f"trial %{{customdata}} ({group})<br>epoch %{{x}}: %{{y:.3g}}<extra></extra>",
                )
            )
    figure = _figure(traces, height=420, legend=_LEGEND_ABOVE)
    figure.update_xaxes(title="epoch", rangemode="tozero", tickformat="d")
    return figure.update_yaxes(title="selection score")


def parallel(board: pd.DataFrame, importance: dict[str, float]) -> go.Figure | None:
    """Parallel coordinates over the settings that varied, the most important next to the score."""
    rows = board[board["score"].notna()]
    varied = [name for name in settings_columns(board) if rows[name].astype(object).nunique(dropna=False) > 1]
    # The settings of a loss (with a dot) exist for some strategies only: they give way to those that all have.
    varied.sort(key=lambda name: (importance.get(name, 0.0), "." not in name))
    varied = varied[-_AXES_AT_MOST:]
    if len(rows) < 2 or not varied:
        return None
    scores = rows["score"].round(4)
    axes = [_axis(name, rows[name]) for name in varied]
    axes.append({"label": "score", "values": scores.tolist(), "tickformat": ".3~g"})
    low = float(scores.quantile(0.1))
    lines = go.Parcoords(
        dimensions=axes,
        line={
            "color": scores.tolist(),
            "colorscale": [[0, "#aab1b9"], [0.5, "#6f9fd0"], [0.8, "#2f6fb0"], [1, "#d9480f"]],
            "cmin": low if low < scores.max() else None,
            "cmax": float(scores.max()),
        },
        labelangle=-18,
        labelside="top",
        tickfont={"size": 11},
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},  # repeats what the ticks say
    )
    return _figure([lines], height=440, margin={"l": 70, "r": 60, "t": 90, "b": 24})


def importances(found: dict[str, float]) -> go.Figure:
    """Bars of the settings' importance, in percent."""
    names = list(found)[:12][::-1]
    values = [100 * found[name] for name in names]
    bars = go.Bar(
        x=values,
        y=names,
        orientation="h",
        marker_color=BEST,
        text=[f"{value:.0f} %" for value in values],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure = _figure([bars], height=70 + 30 * len(names), bargap=0.35, margin={"l": 10, "r": 50, "t": 10, "b": 40})
    figure.update_xaxes(title="importance, %", rangemode="tozero")
    return figure.update_yaxes(automargin=True, ticksuffix="  ")


def most_confused(counts: np.ndarray) -> list[int]:
    """The classes that a confusion matrix is drawn of: all, or the ``CONFUSED_AT_MOST`` with most mistakes, in order.

    counts: (k, k). A mistake counts for the true class and for the predicted one.
    """
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return sorted(order[:CONFUSED_AT_MOST].tolist())


def confusion(counts: np.ndarray, classes: list[str]) -> go.Figure:
    """Confusion matrix, rows true, columns predicted: hits in blue, mistakes in red, shaded by the share of their row.

    counts: (k, k) numbers of test images. Of very many classes it is drawn of the most confused ones.
    """
    chosen = most_confused(counts)
    size = len(chosen)
    shares = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[np.ix_(chosen, chosen)]  # of all of the row
    drawn = counts[np.ix_(chosen, chosen)]
    names = [escape(classes[index]) for index in chosen]
    hit = np.eye(size, dtype=bool)
    traces = []
    for mask, shade, colours in [
        (hit, shares, [[0, "#dbe9f6"], [1, "#08519c"]]),
        (~hit, np.sqrt(shares), [[0, "#fde4dc"], [1, "#b2182b"]]),  # the root: a few mistakes are still to be seen
    ]:
        # Most cells of a large matrix are empty: words and addresses for each would be megabytes.
        cells = [(int(i), int(j)) for i, j in np.argwhere(mask & (drawn > 0))]
        z: list[list[float | None]] = [[None] * size for _ in chosen]
        text, custom, hover = ([[""] * size for _ in chosen] for _ in range(3))
        for i, j in cells:
            z[i][j] = round(float(shade[i, j]), 4)
            text[i][j] = str(drawn[i, j])
            custom[i][j] = f"{chosen[i]},{chosen[j]}"
            hover[i][j] = f"{names[i]} taken for {names[j]}: {drawn[i, j]}"
        written = size <= 25
        traces.append(
            go.Heatmap(
                z=z,
                text=text if written else None,
                customdata=custom,
                hovertext=hover,
                hoverinfo="text",
                texttemplate="%{text}" if written else None,
                colorscale=colours,
                zmin=0,
                zmax=1,
                showscale=False,
                xgap=1,
                ygap=1,
                hoverongaps=False,
            )
        )
    figure = _figure(traces, height=max(300, min(900, 130 + 34 * size)))
    ticks: dict[str, Any] = {"tickvals": list(range(size)), "ticktext": [_short(classes[index]) for index in chosen]}
    figure.update_xaxes(title="predicted", showgrid=False, zeroline=False, automargin=True, **ticks)
    return figure.update_yaxes(
        title="true", autorange="reversed", showgrid=False, zeroline=False, automargin=True, **ticks
    )


_LEGEND_ABOVE = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}


def _figure(traces: list[Any], **layout: Any) -> go.Figure:
    """A figure without template: Plotly's own carries thirty kilobytes that the page's theme replaces."""
    figure = go.Figure(traces)
    defaults = {"template": "none", "margin": {"l": 56, "r": 20, "t": 20, "b": 50}, "showlegend": len(traces) > 1}
    return figure.update_layout(**(defaults | layout))


def _axis(name: str, values: pd.Series) -> dict[str, Any]:
    """One axis of the parallel coordinates; a null is drawn below the others, ticked ``none``."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return _numeric_axis(name, values.astype(float))
    words = [
        wording.source(wording.setting(value)) if name == "source_model" else wording.setting(value) for value in values
    ]
    options = sorted(set(words), key=lambda word: (word != "none", word))
    return {
        "label": name,
        "values": [options.index(word) for word in words],
        "tickvals": list(range(len(options))),
        "ticktext": [_short(option, 19) for option in options],
        "range": [-0.05 * max(1, len(options) - 1), 1.05 * max(1, len(options) - 1)],
    }


def _numeric_axis(name: str, values: pd.Series) -> dict[str, Any]:
    known = values.dropna()
    low, high = float(known.min()), float(known.max())
    logarithmic = low > 0 and high / low >= 30
    shown = values.map(math.log10) if logarithmic else values
    low, high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    width = (high - low) or 1.0
    if known.nunique() <= 6:
        ticks = sorted(shown.dropna().unique().tolist())
    else:
        ticks = [low + width * share for share in (0, 0.25, 0.5, 0.75, 1)]
    texts = [f"{10**tick if logarithmic else tick:.2g}" for tick in ticks]
    bottom = low
    if len(known) < len(values):
        bottom = low + _ABSENT * width
        shown, ticks, texts = shown.fillna(bottom), [bottom, *ticks], ["none", *texts]
    return {"label": name, "values": shown.round(6).tolist(), "tickvals": ticks, "ticktext": texts} | {
        "range": [bottom - 0.03 * width, high + 0.03 * width]
    }


def _short(name: str, limit: int = 22) -> str:
    """A label that Plotly shows as it is written: it would take ``<b>`` for markup."""
    return escape(name if len(name) <= limit else name[: limit - 1] + "…", quote=False)
