"""The scripts in examples/ do what they say, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raytl.serving.ports import free_port

EXAMPLES = Path(__file__).parents[1] / "examples"
SHARE = r"(\d+)%"


def said_by(name: str, home: Path, *arguments: str) -> str:
    environment = os.environ | {"RAYTL_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def shares(said: str) -> list[int]:
    return [int(share) for share in re.findall(SHARE, said)]


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"few_labels.py", "another_domain.py", "serve.py"}


@pytest.mark.slow
class TestExamples:
    def test_few_labels(self, tmp_path: Path) -> None:
        said = said_by("few_labels.py", tmp_path, "--seconds", "12")
        assert re.search(r"^accuracy 0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\), by cross-validation$", said, re.MULTILINE)
        assert shares(said)[-1] > 60  # of ten classes, from five labels each

    def test_another_domain(self, tmp_path: Path) -> None:
        said = said_by("another_domain.py", tmp_path, "--seconds", "15")
        assert "chosen without a label: " in said
        assert shares(said)[-1] > 30

    def test_serve(self, tmp_path: Path) -> None:
        said = said_by("serve.py", tmp_path, "--port", str(free_port()))
        few, many = shares(said)
        assert 60 < few < many
