"""Tables on a terminal of 80 columns, which a pipe is too: nothing is cut without a word."""

from __future__ import annotations

import re

from rich.console import Console, Group
from rich.table import Table

from raytl.cli.output import Output
from raytl.tasks.check_report import CheckReport
from raytl.tasks.problems import Problem, Severity

LONG = "/data/" + "photos-of-the-third-season/" * 6 + "example_0001.jpg"


def joined(text: str) -> str:
    """Without what breaks lines and frames cells."""
    return re.sub(r"[\s│┃]", "", text)


def test_problems_are_told_whole(capsys):
    problem = Problem(Severity.WARNING, "/data/photos/", f"1 image outside the splits (first: {LONG}); left out")
    report = CheckReport(
        "/data/photos/", "class folders", {}, 4, {"c" * 100: 4}, None, None, {}, False, [], [], [], [], [], [problem]
    )
    console = Console(width=80)
    console.print(report.table())
    told = capsys.readouterr().out
    lines = [line.split("│")[3] for line in told.splitlines() if line.count("│") == 4]
    assert LONG in joined("".join(lines))
    assert "c" * 100 in joined("".join(line.split("│")[1] for line in told.splitlines() if line.count("│") == 4))
    assert "…" not in told


def test_cells_go_on_in_the_next_line_whatever_the_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    table = Table("file", "label", box=None)
    table.add_row(LONG, "cat")
    Output(as_json=False).say(Group("before", table))
    told = capsys.readouterr().out
    assert LONG in joined(told.replace("cat", ""))
    assert "…" not in told


def test_the_catalogue_fits_with_its_licences(raytl):
    sources = raytl("sources", "list", "--json").document["sources"]
    told = raytl("sources", "list").out
    assert max(map(len, told.splitlines())) <= 80
    for licence in {str(source["licence"]) for source in sources}:
        for word in licence.split():
            assert word in told
