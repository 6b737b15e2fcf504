"""How quotes and budgets are held against the searches that followed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from budgets import Line, command, data_options, figures_of, judged, main
from tasks import Case, dump
from tiny import pool, shapes


def record(quoted_s: float, search_s: float, budget: float | None = None, trial_s: float = 0.0):
    return judged(quoted_s, search_s, budget, trial_s)


@pytest.mark.parametrize(("quoted_s", "foretold"), [(60, True), (90, True), (40, True), (91, False), (39, False)])
def test_a_quote_may_be_out_by_a_factor_of_a_half_either_way(quoted_s, foretold):
    assert record(quoted_s, 60)["foretold"] is foretold


def test_a_budget_may_be_exceeded_by_a_tenth_and_the_longest_trial():
    assert record(30, 29, 30.0)["kept"] and record(30, 33, 30.0)["kept"] and record(30, 38, 30.0, 5.0)["kept"]
    late = record(30, 39, 30.0, 5.0)
    assert not late["kept"] and late["overrun"] == pytest.approx(0.3)
    assert "kept" not in record(30, 39)  # of a search by a number of trials


def test_one_line_beyond_a_floor_breaks_it_and_refused_ones_are_told():
    good = [record(60, 60), record(30, 29, 30.0)]
    assert figures_of(good)["floors"] == {"ratio": True, "overrun": True, "refused": True}
    short, late = record(20, 60), record(40, 50, 30.0)
    assert figures_of([*good, short])["floors"] == {"ratio": False, "overrun": True, "refused": True}
    assert figures_of([*good, late])["floors"] == {"ratio": True, "overrun": False, "refused": True}
    # Too little is as wrong as too much.
    assert figures_of([record(120, 60), short])["worst_ratio"] == pytest.approx(1 / 3)
    refused = {"refused": "search: no trial succeeded"}
    nothing = figures_of([refused])
    assert (nothing["refused"], nothing["floors"]) == (1, {"ratio": None, "overrun": None, "refused": False})
    assert figures_of([*good, refused])["floors"] == {"ratio": True, "overrun": True, "refused": False}
    assert figures_of([])["floors"] == {"ratio": None, "overrun": None, "refused": None}


@pytest.mark.parametrize("labels", [True, False])
def test_a_case_is_given_by_the_roles_that_it_has(labels, tmp_path: Path):
    images = shapes(2)
    made = Case("shapes", images if labels else None, pool(images), {"b": images, "a": images}, images, {})
    dump(made, tmp_path)
    given = data_options(tmp_path)
    flags = ["--target"] * labels + ["--unlabelled", "--source-domain", "--source-domain"]
    assert given[::2] == flags
    assert all(Path(place).is_dir() for place in given[1::2])
    assert str(tmp_path / "truth") not in given


def test_what_a_command_refuses_is_its_own_sentence_and_files_are_seen(tmp_path: Path):
    there = tmp_path / "there"
    there.touch()
    watched = {"there": there, "never": tmp_path / "never"}
    document, seconds, seen = command("quote", "--target", str(tmp_path / "none"), watched=watched)
    assert "none" in document["error"]
    assert set(seen) == {"there"} and 0 <= seen["there"] <= seconds


def write_raytl(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """What ``python -m raytl`` does is this program from now on."""
    package = folder / "root" / "raytl"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    monkeypatch.setattr("budgets._ROOT", package.parent)
    monkeypatch.chdir(package.parent)  # it has what is here before what is anywhere else


def test_the_exit_status_tells_of_the_floors_of_the_last_line(tmp_path: Path, monkeypatch, capsys) -> None:
    write_raytl(tmp_path, monkeypatch, """print('{"error": "no room"}'); raise SystemExit(2)""")
    images = shapes(1)
    shapes_only = Line(lambda seed: Case("", images, None, {}, images, {}), networks=lambda folder: [])
    monkeypatch.setattr("budgets.LINES", {"shapes": shapes_only})
    with pytest.raises(typer.Exit) as ended:
        main(only="shapes", budget=[60.0], trials=0)
    assert ended.value.exit_code == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["floors"] == {"ratio": None, "overrun": None, "refused": False}
    assert told["results"] == [{"task": "shapes", "budget_s": 60.0, "trials": None, "refused": "quote: no room"}]


class Interrupts(os.PathLike[str]):
    """A watched file: who looks for it once a command has begun is interrupted."""

    def __init__(self, begun: Path) -> None:
        self._begun = begun

    def __fspath__(self) -> str:
        return str(self._begun)

    def exists(self) -> bool:
        if self._begun.exists():
            raise KeyboardInterrupt
        return False


def test_an_interrupted_command_is_let_say_all_that_it_says_at_its_end(tmp_path: Path, monkeypatch) -> None:
    """More than a pipe holds; one that nobody reads would be waited for without an end, or here, for ten seconds."""
    begun, said = tmp_path / "begun", tmp_path / "said"
    program = f"""if True:
        import os, signal, sys, threading, time
        from pathlib import Path
        def end(*_):
            threading.Thread(target=lambda: (time.sleep(10), os._exit(1)), daemon=True).start()
            print("x" * 1_000_000, file=sys.stderr, flush=True)
            Path({str(said)!r}).touch()
            os._exit(0)
        signal.signal(signal.SIGTERM, end)
        Path({str(begun)!r}).touch()
        time.sleep(60)
    """
    write_raytl(tmp_path, monkeypatch, program)
    with pytest.raises(KeyboardInterrupt):
        command("search", watched={"model": Interrupts(begun)})
    assert said.exists()
