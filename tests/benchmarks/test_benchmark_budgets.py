"""How quotes and budgets are held against the searches that followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from budgets import command, data_options, figures_of, judged
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
    assert figures_of(good)["floors"] == {"ratio": True, "overrun": True}
    short, late = record(20, 60), record(40, 50, 30.0)
    assert figures_of([*good, short])["floors"] == {"ratio": False, "overrun": True}
    assert figures_of([*good, late])["floors"] == {"ratio": True, "overrun": False}
    # Too little is as wrong as too much.
    assert figures_of([record(120, 60), short])["worst_ratio"] == pytest.approx(1 / 3)
    nothing = figures_of([{"refused": "search: no trial succeeded"}])
    assert (nothing["refused"], nothing["floors"]) == (1, {"ratio": None, "overrun": None})


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
