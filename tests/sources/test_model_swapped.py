"""A model that takes the place of another: whatever is killed halfway, one of the two is there and whole."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from raytl.sources.checkpoint import _swap


def folder(place: Path, content: str) -> Path:
    place.mkdir()
    (place / "model.txt").write_text(content)
    return place


def killed_at(step: int, staging: Path, directory: Path) -> bool:
    """Put one folder where another is, in a process that is killed before so many steps; whether it came so far."""
    child = os.fork()
    if not child:
        left = [step]

        def kill(event: str, args: tuple[Any, ...]) -> None:
            if event in ("os.rename", "shutil.rmtree"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        _swap(staging, directory)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two folders cannot be exchanged at once")
@pytest.mark.parametrize("step", range(4))
def test_a_kill_at_any_step_leaves_a_model_in_its_place(tmp_path: Path, step: int) -> None:
    staging, directory = folder(tmp_path / ".model-1", "new"), folder(tmp_path / "model", "old")
    killed = killed_at(step, staging, directory)
    assert killed == (step < 2)
    assert (directory / "model.txt").read_text() == ("old" if step == 0 else "new")


def test_where_two_folders_cannot_be_exchanged_at_once_one_takes_the_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytl.sources.checkpoint.exchange", lambda one, other: False)
    _swap(folder(tmp_path / ".model-1", "new"), folder(tmp_path / "model", "old"))
    assert (tmp_path / "model" / "model.txt").read_text() == "new" and len(list(tmp_path.iterdir())) == 1
