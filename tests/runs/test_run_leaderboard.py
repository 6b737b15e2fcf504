"""The leaderboard ranks what can be compared, and fits a terminal."""

from __future__ import annotations

import cProfile
import pstats

import pytest
from example import write_example
from rich.console import Console

from raytl.runs import RunStore, render_leaderboard
from raytl.runs.leaderboard import leaderboard
from raytl.runs.tables import trials_table
from raytl.search.records import TrialRecord, TrialStatus


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("runs"), trials=30)


def record(
    number: int, key: str, score: float | None, status: TrialStatus = TrialStatus.COMPLETED, **more
) -> TrialRecord:
    return TrialRecord(number, "search", {"cut": number}, key, status=status, score=score, **more)


def board(*records: TrialRecord):
    return leaderboard(trials_table(records).to_pandas())


def test_folds_of_a_strategy_are_pooled():
    (row,) = board(record(0, "a", 0.8), record(3, "a", 0.9, fold=1)).to_dict("records")
    assert (row["trial"], row["folds"], row["score"]) == (0, 2, pytest.approx(0.85))
    assert row["std"] == pytest.approx(0.0707, abs=1e-4)


def test_a_fold_that_was_stopped_early_does_not_spoil_the_mean():
    (row,) = board(record(0, "a", 0.8), record(3, "a", 0.2, TrialStatus.PRUNED, fold=1)).to_dict("records")
    assert (row["status"], row["folds"], row["score"]) == ("completed", 1, 0.8)


def test_scores_of_fewer_epochs_rank_below_full_ones_and_failures_last():
    found = board(
        record(0, "failed", None, TrialStatus.FAILED),
        record(1, "pruned", 0.99, TrialStatus.PRUNED),
        record(2, "low", 0.5),
        record(3, "nan", float("nan")),
        record(4, "high", 0.7),
    )
    assert list(found["strategy_key"]) == ["high", "low", "pruned", "failed", "nan"]
    assert list(found["rank"]) == [1, 2, 3, 4, 5]


def test_of_those_that_were_not_trained_to_the_end_who_got_further_comes_first():
    def stopped(number: int, key: str, score: float, epochs: int, status: TrialStatus = TrialStatus.PRUNED):
        return record(number, key, score, status, history=[{"epoch": float(e)} for e in range(1, epochs + 1)])

    found = board(
        stopped(0, "short", 0.99, 2),
        stopped(1, "cut off", -0.04, 1, TrialStatus.INTERRUPTED),
        stopped(2, "far", 0.9, 9),
    )
    assert list(found["strategy_key"]) == ["far", "short", "cut off"]


def test_the_chosen_strategy_comes_first_with_its_intervals(run):
    found = run.leaderboard()
    first = found.iloc[0]
    assert first["label"] == "best" and first["strategy_key"] == run.outcome["best"]["strategy_key"]
    assert first["test_low"] <= first["test"] <= first["test_high"]
    assert first["folds"] == 3
    assert found["strategy_key"].is_unique and set(found["strategy_key"]) == set(run.trials()["strategy_key"])


def test_baselines_are_marked(run):
    marked = run.leaderboard().set_index("baseline")
    for name in ("scratch", "linear-probe", "fine-tune", "source-only"):
        assert marked.loc[name, "label"] == name and marked.loc[name, "test"] > 0


def test_settings_stand_under_their_own_names(run):
    first = run.leaderboard().iloc[0]
    assert first["head_lr"] == run.outcome["best"]["strategy"]["head_lr"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_table_fits_and_shows_all_that_matters(run, width):
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False, stderr=True)
    with console.capture() as captured:
        console.print(render_leaderboard(run, rows=5, width=width))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in (
        "best",
        "scratch",
        "linear-probe",
        "fine-tune",
        "source-only",
        "pseudo-label",
        "score",
        "val %",
        "test %",
        "folds",
    ):
        assert word in text
    assert sum(line.lstrip()[:1].isdigit() for line in lines) == 5 + 4  # one line per row: nothing wraps


def test_a_control_with_a_long_name_leaves_the_figures_their_columns(run, monkeypatch):
    """In 80 columns "without the source domain and its loss" pushed validation, test and folds off the edge."""
    named = run.leaderboard().assign(label="without the source domain and its loss")
    monkeypatch.setattr(run, "leaderboard", lambda: named)
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(render_leaderboard(run, rows=5, width=80))
    head = captured.get().splitlines()[1]
    assert head.split()[-5:] == ["val", "%", "test", "%", "folds"]
    assert head.split()[:2] == ["#", "trial"]


def test_each_strategy_has_the_number_that_commands_know_its_trial_by(run):
    board = run.leaderboard()
    table = render_leaderboard(run, rows=len(board))
    shown = next(list(column.cells) for column in table.columns if column.header == "trial")
    assert shown == [str(number) for number in board["trial"]] != [str(rank) for rank in board["rank"]]


def test_a_run_without_trials_has_an_empty_table(tmp_path):
    run = RunStore(tmp_path).create("empty", {}).interrupt()
    assert render_leaderboard(run).row_count == 0


def test_a_thousand_strategies_are_ranked_while_somebody_looks_on():
    trials = trials_table([record(number, f"key-{number % 1000}", 0.5) for number in range(2000)]).to_pandas()
    with cProfile.Profile() as profile:
        found = leaderboard(trials)
    assert len(found) == 1000 and (found["folds"] == 1).all()
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]  # not of the typed part
    assert calls < 250_000  # a table for each strategy were three million, five seconds of them
