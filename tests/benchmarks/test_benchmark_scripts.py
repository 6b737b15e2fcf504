"""That the scripts still fit the package: nothing but a long run would tell otherwise."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from common import Silent
from inprocess import search
from tiny import shapes

import raytl
from raytl.api.planning import bind
from raytl.search.planning import SearchSettings
from raytl.search.records import SearchOutcome

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_all_that_it_names(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("tested", [False, True])
def test_a_whole_search_comes_to_its_end_in_this_process(tested: bool, tmp_path: Path) -> None:
    task = raytl.Task(shapes(6, 1), test=shapes(4, 2, name="test") if tested else None, holdout=None if tested else 0.0)
    bound = bind(task, "vision-small", ["source_model=['plain:pixels', 'scratch:cnn-small']", "epochs=1"])
    kept: list[SearchOutcome] = []

    def keep(outcome: SearchOutcome, refit: Path) -> str:
        assert (refit / "model.json").exists()
        kept.append(outcome)
        return ""

    outcome, plan = search(task, bound, SearchSettings(trials=1), tmp_path, Silent(), "cpu", keep)
    assert kept == [outcome]
    assert (outcome.best.test is not None) == tested
    assert {"probe", "search"} <= {record.kind for record in plan.records}
