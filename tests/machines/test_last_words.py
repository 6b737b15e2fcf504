"""What is said of a process that is gone, and that nothing is said of one that came to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from raytl.machines.last_words import last_words
with last_words("gone for good"):
    {ends}
"""


def said(ends: str, folder: Path) -> tuple[int, str]:
    """Exit code of a process that ends so within the block, and all that it and who waits for it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ends=ends)], stderr=subprocess.PIPE, text=True, cwd=folder, timeout=120
    )  # that is read until nobody can write to it any more
    return done.returncode, done.stderr


@pytest.mark.parametrize("ends", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_one_that_is_gone_is_spoken_for(ends: str, tmp_path: Path) -> None:
    code, words = said(ends, tmp_path)
    assert code in (1, -signal.SIGKILL) and words == "gone for good\n"


@pytest.mark.parametrize("ends", ["pass", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_one_that_ends_by_itself_is_not(ends: str, tmp_path: Path) -> None:
    code, words = said(ends, tmp_path)
    assert "gone for good" not in words
    assert code in (0, 3, 130, -signal.SIGINT)
