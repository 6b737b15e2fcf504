"""What names hold is seen on a terminal, and never obeyed."""

from __future__ import annotations

import unicodedata

import pytest
from photos import picture
from rich.table import Table
from rich.text import Text

from raytl.cli.output import Output

RED = "\x1b[31m"


def control_characters(text: str) -> set[str]:
    return {letter for letter in text if unicodedata.category(letter) == "Cc"} - {"\n"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Output:
    """The output of a command on a terminal of colours."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Output(as_json=False)


def test_styles_are_obeyed_and_names_are_not(terminal, capsys):
    table = Table("name", box=None)
    table.add_row(Text(f"cell{RED}", style="green"))
    terminal.say(f"line{RED}\x9b1m\rover")
    terminal.say(table)
    terminal.note(f"note{RED}", "yellow")
    said = capsys.readouterr()
    assert r"line\x1b[31m\x9b1m" in said.out and r"cell\x1b" in said.out and r"note\x1b[31m" in said.err
    assert RED not in said.out + said.err
    assert "\x1b[32m" in said.out and "\x1b[33m" in said.err  # the table's and the note's own


def test_a_table_stays_straight(terminal, capsys):
    table = Table("name", "count", box=None)
    table.add_row(Text(f"a{RED}"), "1")
    table.add_row("a much longer name", "2")
    terminal.say(table)
    _, *rows = capsys.readouterr().out.splitlines()
    assert len({max(row.find("1 "), row.find("2 ")) for row in rows}) == 1


def test_an_error_is_seen_line_by_line(capsys):
    with pytest.raises(SystemExit):
        Output(as_json=False).fail(f"one{RED}\ntwo", code=2)
    assert capsys.readouterr().err == "raytl: one\\x1b[31m\ntwo\n"


def test_what_a_job_said_keeps_its_colours_and_moves_no_cursor(terminal, capsys):
    terminal.pass_on("\x1b[36m(lane pid=7)\x1b[0m begun\n\x1b[2Jdone")
    said = capsys.readouterr().out
    assert "\x1b[36m(lane pid=7)\x1b[0m begun\n" in said
    assert "\x1b[2J" not in said and said.endswith("done\n")


def test_names_in_a_table_of_images(raytl, tmp_path):
    (tmp_path / "img").mkdir()
    rows = []
    for number in range(12):
        picture(["daisy", "poppy"][number % 2], number).save(tmp_path / "img" / f"{number}.png")
        label, part = [f"a{RED}", "b"][number % 2], [f"one{RED}", "two"][number // 6]
        rows.append(f"img/{number}.png,{label},{part}")
    (tmp_path / "t.csv").write_text("\n".join([f"path,kind{RED},split", *rows]))
    done = raytl("check", "t.csv", "--html", "page.html")
    assert done.code == 0, done.err
    assert not control_characters(done.out + done.err + (tmp_path / "page.html").read_text())
    for name in (r"a\x1b[31m", r"'kind\x1b[31m'", r"one\x1b[31m"):
        assert name in done.out
