"""``pip install raytl``: the wheel holds what a checkout has, and works without the checkout."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from PIL import Image

from raytl.bundles.onnx import export_onnx

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


def test_the_wheel_holds_spaces_and_the_type_marker_and_no_files_that_nothing_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    spaces = {f"raytl/_data/search_spaces/{path.name}" for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert spaces and spaces == {name for name in names if name.startswith("raytl/_data/")}
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


def test_the_small_runtime_serves_where_neither_raytl_nor_its_dependencies_are(tmp_path):
    """Its wheel in a fresh environment, which of this one's packages has but those that it asks for."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*build, str(ROOT / "serve" / "runtime")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("raytl_serve-*.whl")
    assert {name.split("/")[0] for name in zipfile.ZipFile(path).namelist()} == {
        "raytl_serve",
        path.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(path)]
    subprocess.run(install, check=True)
    _link_dependencies(python, "raytl-serve")
    bundle = Path(shutil.copytree(ROOT / "tests" / "bundles" / "data" / "v1", tmp_path / "model"))
    export_onnx(bundle)
    (bundle / "model.safetensors").unlink()
    command = [python.with_name("raytl-serve"), str(bundle), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            image = io.BytesIO()
            Image.new("RGB", (40, 30), "teal").save(image, "PNG")
            answer = httpx.post(f"{url}/v1/predict", content=image.getvalue(), trust_env=False, timeout=60)
        finally:
            process.terminate()
    assert answer.status_code == 200 and answer.json()["model"] == "model"
    assert process.returncode == 0
    for name in ("torch", "ray", "pandas", "raytl"):
        tried = subprocess.run([python, "-c", f"import {name}"], cwd=tmp_path, env=environment, capture_output=True)
        assert tried.returncode == 1


def _link_dependencies(python: Path, package: str) -> None:
    """Let an environment have, of the packages of this one, those that ``package`` needs, and no others."""
    code = (
        "import sysconfig; from importlib.metadata import requires; "
        f"print(sysconfig.get_path('purelib')); print('\\n'.join(requires({package!r})))"
    )
    target, *asked = subprocess.check_output([python, "-c", code], text=True).splitlines()
    waiting, seen = [Requirement(line) for line in asked], set()
    while waiting:
        requirement = waiting.pop()
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        found = distribution(requirement.name)
        waiting += [Requirement(line) for line in found.requires or ()]
        for file in found.files or ():
            top = file.parts[0]
            if top != ".." and not (Path(target) / top).exists():
                (Path(target) / top).symlink_to(found.locate_file(top))
