"""Packages as pip leaves them: modules, and a ``.dist-info`` folder that says which entry points they have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, package: str, modules: Mapping[str, str], entry_points: str) -> None:
    """Install a package into a folder that is, or comes, on the module path. modules: name -> source."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, as a lane is one, where the packages of ``folder`` are installed."""
    path = os.pathsep.join(map(str, [folder, *Path(__file__).parents[:2]]))
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
