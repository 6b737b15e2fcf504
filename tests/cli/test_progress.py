"""What a search says while it goes on reads as sentences, line by line where there is no terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from raytl.cli.progress import Progress


def test_times_are_told_from_when_the_command_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raytl.cli.progress.time", SimpleNamespace(monotonic=lambda: 1000.0))
    written = io.StringIO()
    with Progress(Console(file=written), 4, 60.0, begun=980.0) as progress:
        progress.on_phase("probe", "")
    assert written.getvalue().startswith("   20 s  ")


def test_that_there_is_a_first_model_stays_on_a_terminal() -> None:
    written = io.StringIO()
    with Progress(Console(file=written, force_terminal=True, color_system=None, width=100), 4) as progress:
        progress.on_phase("first-model", "3 s after the data was read")
        progress.on_phase("search", "")
    assert "s  there is a first model (3 s after the data was read)\n" in written.getvalue()


def test_what_is_said_of_the_metric_is_a_sentence_of_its_own() -> None:
    """It stood in parentheses after "judging by", which then had no object."""
    written = io.StringIO()
    with Progress(Console(file=written, width=40), trials=4) as progress:
        progress.on_phase("metric", "judging by balanced accuracy, for one class has at least 3 times the images")
        progress.on_phase("pretrain", "on two domains")
    lines = [line.split(" s  ")[1] for line in written.getvalue().splitlines()]
    assert lines == [
        "judging by balanced accuracy, for one class has at least 3 times the images",
        "pretraining source models (on two domains)",
    ]
