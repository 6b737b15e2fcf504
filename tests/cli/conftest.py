"""The command line as its users run it: installed, in a process of its own, or for mere messages in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RAYTL = Path(sys.executable).with_name("raytl")
# Nothing is fetched in tests: neither cached weights nor a network are there.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found = json.loads(self.out)
        assert self.out.count("\n") == 1 and found["schema"] == 1
        return found


@dataclass(frozen=True)
class Place:
    """A working directory with caches and runs of its own, and the commands in it."""

    folder: Path

    @property
    def own(self) -> dict[str, str]:
        """What is the place's own in it."""
        return {"RAYTL_HOME": str(self.folder / "home"), "TORCH_HOME": str(self.folder / "torch"), "COLUMNS": "80"}

    @property
    def environment(self) -> dict[str, str]:
        """Of the commands. What is started in it can be told by RAYTL_HOME."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYTL_"))}
        return {**kept, **OFFLINE, **self.own}

    def run(self, *arguments: str, timeout_s: float = 600, **environment: str) -> Done:
        """The installed command, with ``environment`` besides its own."""
        done = subprocess.run(
            [RAYTL, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def make_place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    """Makes places that outlast a test."""
    return lambda name: Place(tmp_path_factory.mktemp(name))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fresh place."""
    return Place(tmp_path)


@pytest.fixture
def raytl(place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line at the place, in this process: without the seconds of imports that one of its own needs."""
    from raytl.cli import run as run_here

    for name, value in {**OFFLINE, **place.own}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAYTL_STORAGE", raising=False)
    monkeypatch.chdir(place.folder)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["raytl", *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        stdout = os.dup(1)  # --json turns it to stderr for good
        try:
            with pytest.raises(SystemExit) as stop:
                run_here()
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        out, err = capfd.readouterr()
        return Done(int(stop.value.code or 0), out, err)

    return run
