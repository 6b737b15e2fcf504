"""The program itself, in a process of its own: how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "raytl"]
FULL = Path("/dev/full")


def test_it_leaves_once_all_is_cleaned_up_and_written(tmp_path):
    """It does not take its modules apart, which takes seconds; what is to be done at the end of a process is done."""
    code = """
import atexit, sys
from raytl.cli import commands, main

class Told:
    def __del__(self):
        print("taken apart")

def cleaned_up():
    sys.stdout.write("cleaned up")

sys.modules["told"] = Told()
@commands.app.command("quit")
def leave():
    atexit.register(cleaned_up)
    raise SystemExit(4)
sys.argv = ["raytl", "quit"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "cleaned up"), done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="the system has no file that is always full")
def test_what_cannot_be_written_is_a_sentence(tmp_path):
    with FULL.open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "runs", "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, cwd=tmp_path
        )
    assert done.returncode == 2
    assert done.stderr == "raytl: what there is to say cannot be written: No space left on device\n"


def test_nobody_reads_to_the_end(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m raytl spaces list | head -1; echo ${{PIPESTATUS[1]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.endswith("0\n") and "Traceback" not in done.stderr
