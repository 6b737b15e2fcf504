"""The leaderboard on a terminal."""

from __future__ import annotations

import pandas as pd
from rich.table import Column, Table
from rich.text import Text

from raytl.core.names import so_many
from raytl.evaluation import metrics
from raytl.runs import wording
from raytl.runs.run import Run

_STATUS_WORDS = {"pruned": "stopped"}


def render_leaderboard(run: Run, rows: int = 12, width: int = 80) -> Table:
    """The leaderboard for a terminal of ``width`` columns: the first ``rows`` strategies and every baseline.

    Each with its rank and with the number of its first trial, by which ``recipe``, ``runs replay`` and ``runs try``
    know it.
    """
    board = run.leaderboard()
    share = metrics.recorded(run.metric).share
    told = so_many(len(board), "strategy", "strategies")
    told += f", the first {rows} and the baselines" if len(board) > rows else ""
    table = Table(
        *("#", "trial", Column("", overflow="ellipsis", max_width=14 if width < 100 else 30)),
        *(Column("source model", overflow="ellipsis", ratio=1), "cut"),
        *(
            Column("adaptation", overflow="ellipsis", max_width=12 if width < 100 else None),
            "score",
            "val %" if share else "val",
            "test %" if share else "test",
            "folds",
        ),
        box=None,
        title=Text(f"{run.name}: {told}"),
        title_justify="left",
        padding=(0, 1, 0, 0),
        width=min(width, 110),
    )
    for column, least in zip(table.columns, (2, 5, 12, 12, 3, 10, 6, 5, 6, 5), strict=True):
        column.no_wrap, column.min_width = True, least
        column.justify = "left" if column.header in ("", "source model", "adaptation") else "right"
    for _, row in board[(board["rank"] <= rows) | board["baseline"].notna()].iterrows():
        best = str(row["label"]).startswith("best")
        done = row["status"] == "completed"
        table.add_row(
            str(row["rank"]),
            str(row["trial"]),
            Text(_mark(row)),
            Text(wording.listed_source(row.get("source_model", ""))),
            wording.setting(row.get("cut")),
            Text(wording.setting(row.get("adaptation"))),
            wording.score(row["score"]),
            wording.value(row["validation"], share=share).removesuffix(" %"),
            wording.value(row["test"], share=share).removesuffix(" %"),
            str(row["folds"]),
            style="bold green" if best else "cyan" if row["label"] else "" if done else "dim",
        )
    return table


def _mark(row: pd.Series) -> str:
    """Best, baseline (with a star where it is the best), or how it ended."""
    if not row["label"]:
        return "" if row["status"] == "completed" else _STATUS_WORDS.get(row["status"], row["status"])
    return str(row["label"]).replace("best, ", "* ")
