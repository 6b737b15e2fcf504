"""A storage with runs that ended, and one that is being written by this process."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raytl.runs import RunStore, RunWriter
from raytl.search.records import TrialRecord
from raytl.search.space.definition import load_space


def _example() -> ModuleType:
    """The realistic run of the tests of runs."""
    path = Path(__file__).parents[1] / "runs" / "example.py"
    spec = importlib.util.spec_from_file_location("ui_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def example() -> Any:
    return _example()


@pytest.fixture
def storage(tmp_path: Path, example: Any) -> Path:
    """Two finished runs."""
    settings = example.SETTINGS | {"test_fingerprint": "the same images"}
    example.write_example(tmp_path / "runs", "digits", trials=6, settings=settings)
    example.write_example(tmp_path / "runs", "digits-2", trials=4, helped=False, settings=settings)
    return tmp_path / "runs"


@pytest.fixture
def live(storage: Path, example: Any) -> Iterator[RunWriter]:
    """A third run, going on: two of its trials train."""
    settings = example.SETTINGS | {"search": {"trials": 10}, "space_settings": {"epochs": 12}}
    settings |= {"given": {"target": "photos"}, "space_values": load_space("demo").values}
    with RunStore(storage).create("live", settings) as writer:
        records = example.play(writer, 4)
        for record in records:
            record.ended = 5.0 + record.number
            writer.on_trial(record)
        for number in (len(records), len(records) + 1):
            record = TrialRecord(number, "search", records[-1].strategy, f"key-{number}")
            record.history = [{"epoch": float(epoch), "score": 0.1 * epoch, "seconds": 1.0} for epoch in (1, 2, 3)]
            writer.on_trial(record)
        yield writer
