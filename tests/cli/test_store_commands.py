"""Commands about the runs of a storage, in this process: on runs that were not searched for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "runs"))
from example import SETTINGS, write_example


@pytest.fixture
def runs(tmp_path):
    for name, seed in (("first", 0), ("second", 1)):
        write_example(tmp_path / "raytl-runs", name, trials=6, settings=SETTINGS | {"seed": seed})


def test_two_runs_side_by_side_fit_a_terminal(raytl, runs):
    done = raytl("runs", "compare", "first", "second")
    assert done.code == 0, done.err
    assert "settings: seed" in done.out and "# first" in done.out
    assert "96" in done.out and "strategy" in done.out


def test_tags_are_listed_and_shown_with_the_note(raytl, runs):
    assert raytl("runs", "tag", "first", "production").out == "first: production\n"
    assert raytl("runs", "note", "first", "the first one").out == "first: the first one\n"
    assert "production" in raytl("runs", "list").out
    shown = raytl("runs", "show", "first").out
    assert "tags: production" in shown and "note: the first one" in shown
    assert raytl("runs", "tag", "first", "--remove", "production").out == "first: no tags\n"
    assert raytl("runs", "note", "first", "").out == "first: no note\n"


def test_nothing_is_removed_that_was_not_said_yes_to(raytl, runs, tmp_path):
    done = raytl("runs", "delete", "first")
    assert done.code == 2 and "nothing was removed; --yes removes without asking" in done.err
    done = raytl("runs", "delete", "first", "third", "--yes")
    assert done.code == 2 and "no run 'third'" in done.err
    assert {path.name for path in (tmp_path / "raytl-runs").iterdir()} == {"first", "second"}
    assert raytl("runs", "delete", "first", "--yes").out == "removed first\n"
    assert [path.name for path in (tmp_path / "raytl-runs").iterdir()] == ["second"]


def test_pruning_says_first_and_spares_what_is_tagged(raytl, runs, tmp_path):
    raytl("runs", "tag", "first", "production")
    assert raytl("runs", "prune", "--keep", "0", "--dry-run").out == "would remove second\n"
    assert raytl("runs", "prune", "--older-than", "1d", "--yes").out == "nothing to remove in raytl-runs\n"
    assert raytl("runs", "prune", "--keep", "0", "--yes").out == "removed second\n"
    assert [path.name for path in (tmp_path / "raytl-runs").iterdir()] == ["first"]


def test_a_run_is_shown_and_removed_from_inside_its_folder(raytl, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "raytl-runs" / "first")
    assert raytl("runs", "tag", ".", "best").out == "first: best\n"
    assert "tags: best" in raytl("runs", "show", ".").out
    done = raytl("runs", "delete", ".", "--yes")
    monkeypatch.chdir(tmp_path)
    assert (done.code, done.out) == (0, "removed first\n"), done.err
    assert [path.name for path in (tmp_path / "raytl-runs").iterdir()] == ["second"]


def test_a_run_that_is_a_link_goes_with_what_it_points_to(raytl, runs, tmp_path):
    (tmp_path / "raytl-runs" / "first").rename(tmp_path / "moved")
    (tmp_path / "raytl-runs" / "first").symlink_to(tmp_path / "moved")
    done = raytl("runs", "delete", "first", "--yes")
    assert done.code == 0, done.err
    assert [path.name for path in (tmp_path / "raytl-runs").iterdir()] == ["second"]
    assert not any("moved" in path.name for path in tmp_path.iterdir())
