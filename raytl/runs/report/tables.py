"""The report's tables, as HTML."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from raytl.evaluation.intervals import Interval
from raytl.runs import wording
from raytl.runs.leaderboard import settings_columns

_STACKED = " class=stacked"  # on a phone each row becomes a card
_OPEN_ROWS = 8  # leaderboard rows before the fold


def leaderboard_table(board: pd.DataFrame, reasons: dict[str, str], *, share: bool = True) -> str:
    """The leaderboard: the first rows and all baselines in sight, the rest to be unfolded.

    reasons: by strategy key, why a trial was stopped or failed. share: whether the metric is one, told in percent.
    """
    settings = [name for name in settings_columns(board) if _varies(board[name])]
    head = ["", "", "source model", "cut", "adaptation", "score", "validation", "test"]
    in_sight = (board["rank"] <= _OPEN_ROWS) | board["baseline"].notna()
    rest = board[~in_sight]
    html = _table(
        head,
        _leaderboard_rows(board[in_sight], reasons, settings, share),
        "Best strategies and baselines",
        kind=_STACKED,
    )
    if len(rest):
        rows = _leaderboard_rows(rest, reasons, settings, share)
        folded = _table(head, rows, "Other strategies", kind=_STACKED)
        html += f"<details><summary>{len(rest)} more strategies</summary>{folded}</details>"
    return html


def class_table(counts: np.ndarray, classes: list[str]) -> str:
    """How well each class is recognised. counts: confusion matrix (k, k), rows true, columns predicted."""
    rows = []
    for index, name in enumerate(classes):
        hits, images, claimed = counts[index, index], counts[index].sum(), counts[:, index].sum()
        wrong = counts[index].copy()
        wrong[index] = 0
        most = f"{classes[int(wrong.argmax())]} ({int(wrong.max())})" if wrong.max() else "–"
        cells = [
            f'<th scope="row" class="value">{escape(name)}</th>',
            f'<td class="number">{int(images)}</td>',
            f'<td class="number">{_ratio(hits, images)}</td>',
            f'<td class="number">{_ratio(hits, claimed)}</td>',
            f'<td class="value">{escape(most)}</td>',
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = ["class", "test images", "recall", "precision", "most often taken for"]
    return _table(head, rows, "Each class on the test images", numbers=(1, 2, 3))


def settings_table(values: dict[str, Any], caption: str) -> str:
    """Names and values, nested ones as JSON."""
    rows = [
        f'<tr><th scope="row">{escape(str(name).replace("_", " "))}</th>'
        f'<td class="value">{escape(_plain(value))}</td></tr>'
        for name, value in values.items()
    ]
    return _table(["", ""], rows, caption, kind=" class=pairs") if rows else ""


def _leaderboard_rows(board: pd.DataFrame, reasons: dict[str, str], settings: list[str], share: bool) -> list[str]:
    rows = []
    for _, row in board.iterrows():
        kind = "best" if str(row["label"]).startswith("best") else "baseline" if row["label"] else str(row["status"])
        tag = f' <span class="tag">{escape(str(row["label"]))}</span>' if row["label"] else ""
        others = [
            name for name in settings if name not in ("source_model", "cut", "adaptation") and not pd.isna(row[name])
        ]
        detail = ", ".join(f"{name} {wording.setting(row[name])}" for name in others)
        rows.append(
            f'<tr class="{kind}"><td class="number">{row["rank"]}</td>'
            f'<td class="keep">trial {row["trial"]}{tag}</td>'
            f'<td class="value source">{escape(wording.listed_source(row.get("source_model", "")))}'
            f'<br><small class="detail">{escape(detail)}</small></td>'
            f'<td data-label="cut">{escape(wording.setting(row.get("cut")))}</td>'
            f'<td class="keep">{escape(wording.setting(row.get("adaptation")))}</td>'
            f'<td class="score" data-label="score">{_score(row, reasons)}</td>'
            f'<td class="keep validation" data-label="validation">{_bounded(row, "validation", share)}</td>'
            f'<td class="keep test" data-label="test">{_bounded(row, "test", share)}</td>'
            "</tr>"
        )
    return rows


def _score(row: pd.Series, reasons: dict[str, str]) -> str:
    text = wording.score(row["score"])
    if row["status"] != "completed":
        reason = reasons.get(str(row["strategy_key"]), "")
        words = {"pruned": "stopped early"}.get(str(row["status"]), str(row["status"]))
        return f"{text} <br><small>{escape(words)}{': ' if reason else ''}{escape(reason)}</small>"
    return f"{text}<br><small>mean of {row['folds']} folds</small>" if row["folds"] > 1 else text


def _bounded(row: pd.Series, name: str, share: bool) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    limits = "" if pd.isna(low) else wording.limits(Interval(row[name], low, high), share=share)
    return wording.value(row[name], share=share) + (f"<br><small>{limits}</small>" if limits else "")


def _table(head: list[str], rows: list[str], caption: str, numbers: tuple[int, ...] = (), kind: str = "") -> str:
    cells = "".join(
        f'<th scope="col"{" class=number" if index in numbers else ""}>{escape(name)}</th>' if name else "<td></td>"
        for index, name in enumerate(head)
    )
    top = f"<thead><tr>{cells}</tr></thead>" if any(head) else ""
    body = "\n".join(rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{kind}><caption>{escape(caption)}</caption>{top}<tbody>\n{body}\n</tbody></table></div>"
    )


def _varies(values: pd.Series) -> bool:
    return bool(values.astype(object).nunique(dropna=False) > 1)


def _ratio(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) if value else "none"
    if isinstance(value, dict) and not any(isinstance(item, dict | list) for item in value.values()):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return json.dumps(value, ensure_ascii=False)
