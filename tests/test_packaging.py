"""``pip install raytl``: the wheel holds what a checkout has, and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("raytl-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of a fresh environment with the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    # Appended behind its own, so that the raytl of this environment (a link to the checkout) cannot come first.
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(bin_folder: Path, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["RAYTL_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        [bin_folder / words[0], *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_wheel_holds_spaces_serve_files_and_the_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("search_spaces", "serve"):
        for path in (ROOT / folder).iterdir():
            assert f"raytl/_data/{folder}/{path.name}" in names
    assert {"raytl/py.typed", "raytl/runs/report/style.css", "raytl/runs/report/page.js"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/")) or name.endswith(".pyc")]


def test_the_command_works_without_the_checkout(installed, tmp_path):
    assert "search" in run(installed, tmp_path, "raytl", "--help").stdout
    listed = run(installed, tmp_path, "raytl", "spaces", "list").stdout
    assert all(path.stem in listed for path in (ROOT / "search_spaces").glob("*.yaml"))
    where = run(installed, tmp_path, "python", "-c", "import raytl; print(raytl.__file__)").stdout
    assert where.startswith(str(installed.parent))


def test_the_versions_agree(wheel):
    from raytl import __version__

    assert wheel.name.startswith(f"raytl-{__version__}-py3")
