"""Commands about the runs of a storage, in this process: on runs that were not searched for."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from raytl.evaluation.intervals import Interval
from raytl.runs import RunStore

sys.path.append(str(Path(__file__).parents[1] / "runs"))
from example import SETTINGS, outcome_of, play, write_example


@pytest.fixture
def runs(tmp_path):
    for name, seed in (("first", 0), ("second", 1)):
        write_example(tmp_path / "raytl-runs", name, trials=6, settings=SETTINGS | {"seed": seed})


def test_two_runs_side_by_side_fit_a_terminal(raytl, runs):
    done = raytl("runs", "compare", "first", "second")
    assert done.code == 0, done.err
    assert "settings: seed" in done.out and "# first" in done.out
    assert "96" in done.out and "strategy" in done.out


@pytest.fixture
def by_loss(runs, tmp_path):
    """A third run, judged by log loss."""
    with RunStore(tmp_path / "raytl-runs").create("third", SETTINGS | {"metric": "log-loss"}) as writer:
        outcome = outcome_of(play(writer, 2))
        outcome.metric, outcome.best.test = "log-loss", Interval(0.412, 0.4, 0.43)
        writer.finish(outcome)


def test_each_run_is_listed_in_its_own_metric(raytl, by_loss, tmp_path):
    lines = {line.split()[0]: line for line in raytl("runs", "list").out.splitlines()}
    assert lines["run"].split()[-1] == "test"
    assert lines["third"].rstrip().endswith(" 0.412") and lines["first"].rstrip().endswith(" %")
    listed = {run["name"]: run["metric"] for run in raytl("runs", "list", "--json").document["runs"]}
    assert listed == {"first": "accuracy", "second": "accuracy", "third": "log-loss"}
    path = tmp_path / "raytl-runs" / "third" / "outcome.json"
    path.write_text(path.read_text().replace('"log-loss"', '"of-a-plugin"'))
    assert " 0.412" in raytl("runs", "list").out  # its metric is not known here


@pytest.mark.parametrize("names", [("first", "third"), ("third", "first")])
def test_runs_by_different_metrics_are_compared_each_in_its_own(raytl, by_loss, names):
    done = raytl("runs", "compare", *names)
    assert done.code == 0, done.err
    told = next(line for line in done.out.splitlines() if line.split()[:1] == ["test"])
    share, loss = (told, told.split(")")[names.index("third")])
    assert "0.412 (0.400 to 0.430" in loss and "%" not in loss and share.count("%") == 1


def test_tags_are_listed_and_shown_with_the_note(raytl, runs):
    assert raytl("runs", "tag", "first", "production").out == "first: production\n"
    assert raytl("runs", "note", "first", "the first one").out == "first: the first one\n"
    assert "production" in raytl("runs", "list").out
    shown = raytl("runs", "show", "first").out
    assert "tags: production" in shown and "note: the first one" in shown
    assert raytl("runs", "tag", "first", "--remove", "production").out == "first: no tags\n"
    assert raytl("runs", "note", "first", "").out == "first: no note\n"


def test_what_is_said_to_do_next_finds_a_run_whose_storage_says_how_it_is_reached(raytl, tmp_path, monkeypatch):
    """Pasted into a shell: what follows a URI's ``?`` is part of it, and has signs that a shell reads."""
    query = "?region=us-east-1&scheme=http"
    storage, there = f"file://{tmp_path}/bucket{query}", f"file://{tmp_path}/bucket/NAME{query}"
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    settings = SETTINGS | {"given": {"target": "photos"}}
    for name, finished in (("whole", True), ("cut-short", False), ("bare", False)):
        with RunStore(storage).create(name, settings) as writer:
            play(writer, 3)
            if name != "bare":
                (writer.path / "model").mkdir()
                (writer.path / "model" / "model.json").write_text("{}")
                writer.keep("model")
            if finished:
                writer.finish(outcome_of(writer.trials))
    for name, count in (("whole", 3), ("cut-short", 3), ("bare", 2)):
        where = there.replace("NAME", name)
        shown = raytl("runs", "show", name, "--storage", storage).out
        commands = [line.partition(": ")[2] for line in shown.splitlines() if ": raytl " in line]
        assert len(commands) == count and all(shlex.split(command)[1:].count(where) == 1 for command in commands)
        document = raytl("runs", "show", where, "--json").document
        assert document["path"] == where
    assert raytl("report", where, "--json").document["report"] == there.replace("NAME", "bare/report.html")
    listed = raytl("runs", "list", "--storage", storage, "--json").document["runs"]
    assert {run["path"] for run in listed} == {there.replace("NAME", name) for name in ("whole", "cut-short", "bare")}
    error = raytl("runs", "show", there.replace("NAME", "other")).err
    assert shlex.split(error.partition("shows: ")[2]) == ["raytl", "runs", "list", "--storage", storage]
    monkeypatch.setenv("RAYTL_STORAGE", storage)
    assert "to go on: raytl search --resume bare\n" in raytl("runs", "show", "bare").out


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


class TestOddNames:
    """Folders of runs that somebody copied, moved or linked."""

    @pytest.mark.parametrize("name", ["my run", "-dash", "a[b]c", "r\N{LATIN SMALL LETTER O WITH DIAERESIS}sser"])
    def test_a_run_that_is_listed_is_found_by_its_name(self, raytl, runs, tmp_path, name):
        (tmp_path / "raytl-runs" / "first").rename(tmp_path / "raytl-runs" / name)
        assert name in raytl("runs", "list").out
        assert raytl("runs", "tag", "--", name, "best").out == f"{name}: best\n"
        done = raytl("runs", "compare", "--", name, "second")
        assert done.code == 0 and f"# {name}" in done.out
        assert raytl("runs", "delete", "--yes", "--", name).out == f"removed {name}\n"
        assert [path.name for path in (tmp_path / "raytl-runs").iterdir()] == ["second"]

    def test_what_a_command_to_copy_names_is_one_word_of_it(self, raytl, tmp_path):
        RunStore(tmp_path / "my runs").create("first", SETTINGS | {"given": {"demo": "digits"}}).interrupt()
        said = raytl("runs", "show", "my runs/first").out
        assert "to go on: raytl search --resume 'my runs/first'\n" in said

    def test_what_is_no_utf_8(self, raytl, runs, tmp_path):
        name = os.fsdecode(b"b\xff")
        (tmp_path / "raytl-runs" / "first").rename(tmp_path / "raytl-runs" / name)
        listed = raytl("runs", "list", "--json")
        assert [run["name"] for run in listed.document["runs"]] == ["second", name]
        assert raytl("runs", "show", f"raytl-runs/{name}").code == 0
        assert raytl("runs", "note", "second", name).code == 0
        assert raytl("runs", "show", "second").code == 0

    @pytest.mark.parametrize("name", ["x" * 300, "~nobody-of-that-name/x", "..", "", "first/..", "raytl-runs"])
    def test_what_is_no_run_is_one_sentence(self, raytl, runs, tmp_path, name):
        done = raytl("runs", "delete", name, "--yes")
        assert done.code == 2 and f"no run '{name}' in raytl-runs" in done.err
        assert len(list((tmp_path / "raytl-runs").iterdir())) == 2

    def test_a_run_named_twice_is_removed_once(self, raytl, runs, tmp_path):
        done = raytl("runs", "delete", "first", "raytl-runs/first", "second", "--yes")
        assert (done.code, done.out) == (0, "removed first, second\n"), done.err

    def test_what_was_removed_before_one_could_not_be_is_said(self, raytl, runs, tmp_path):
        with RunStore(tmp_path / "raytl-runs").create("now", {}):
            done = raytl("runs", "delete", "first", "now", "--yes")
        assert done.code == 2 and "removed first" in done.err and "is being written" in done.err

    def test_pruning_goes_by_the_folder_and_not_by_a_name_that_another_has(self, raytl, runs, tmp_path, monkeypatch):
        (tmp_path / "raytl-runs" / "first").rename(tmp_path / "raytl-runs" / "my run")
        shutil.copytree(tmp_path / "raytl-runs" / "second", tmp_path / "my run")  # in the folder of the command
        assert raytl("runs", "prune", "--keep", "0", "--yes").code == 0
        assert (tmp_path / "my run").is_dir() and not list((tmp_path / "raytl-runs").iterdir())

    def test_pruning_neither_counts_nor_follows_links(self, raytl, runs, tmp_path):
        write_example(tmp_path / "elsewhere", "third", trials=2)
        (tmp_path / "raytl-runs" / "latest").symlink_to("second")
        (tmp_path / "raytl-runs" / "third").symlink_to(tmp_path / "elsewhere" / "third")
        listed = [run["name"] for run in raytl("runs", "list", "--json").document["runs"]]
        assert sorted(listed) == ["first", "second", "third"]
        assert raytl("runs", "prune", "--keep", "0", "--dry-run").out in (
            "would remove second, first\n",
            "would remove first, second\n",
        )
        assert raytl("runs", "prune", "--keep", "0", "--yes").code == 0
        assert (tmp_path / "elsewhere" / "third" / "run.json").exists()

    def test_what_is_left_of_a_removal_cut_short_is_no_run(self, raytl, runs, tmp_path):
        (tmp_path / "raytl-runs" / "first").rename(tmp_path / "raytl-runs" / ".first.deleted")
        assert [run["name"] for run in raytl("runs", "list", "--json").document["runs"]] == ["second"]


def test_runs_by_a_metric_that_is_not_here_are_shown(raytl, tmp_path):
    """As from a machine that has a package of somebody's own."""
    for name in ("first", "second"):
        with RunStore(tmp_path / "raytl-runs").create(name, SETTINGS | {"metric": "own-figure"}) as writer:
            outcome = outcome_of(play(writer, 4))
            outcome.metric = "own-figure"
            writer.finish(outcome)
    shown = raytl("runs", "show", "first")
    assert shown.code == 0, shown.err
    assert "own-figure" in shown.out
    compared = raytl("runs", "compare", "first", "second")
    assert compared.code == 0, compared.err
    assert "own-figure" in compared.out and "same test images" not in compared.out
