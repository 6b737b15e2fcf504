"""What runs on the cluster: puts the data that came along where it stays, and becomes ``raytl search``.

    python -P -m raytl.jobs.launch [--run NAME] [--storage DIR] -- search …

The job's own folder is Ray's, which may clear it; a run is resumed and replayed from data that is still there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from raytl.core.errors import UserError
from raytl.core.machine import user_folder
from raytl.core.paths import RUNS, below, lot_with, renew, submitted
from raytl.core.tidying import SUBMITTED_BYTES, size_bytes
from raytl.jobs.packing import DATA, DIGEST

LINKS = "raytl-runs"
"""Folder of links to runs in the log directory, of which the dashboard hands out files to whoever has the token."""
SPARED_S = 7 * 24 * 3600.0
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""In which Ray tells a job's command what its lanes are to find in their folder."""
_NEEDED = ("ray", "torch", "torchvision", "optuna", "pandas", "pyarrow", "sklearn", "safetensors", "pydantic", "typer")


def main(arguments: list[str]) -> None:
    """Make ready and run the command; with no command, only make a run's files reachable."""
    parser = argparse.ArgumentParser(prog="raytl.jobs.launch")
    parser.add_argument("--run")
    parser.add_argument("--storage")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args(arguments)
    try:
        storage = resolve_storage(given.storage)
        if given.run is not None and "://" not in storage:
            link(Path(storage) / given.run, logs())
        if not given.command:
            return
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            raise UserError(
                f"the cluster's Python ({sys.executable}) has no {', '.join(missing)}: install there what raytl needs "
                "(pip install with raytl's wheel, or in a checkout of it), raytl itself comes along"
            )
        place = settle(Path.cwd())
        if place is None and given.run is not None and "--resume" in given.command:
            place = come_back(given.run if "://" in given.run else below(storage, given.run), Path.cwd())
    except UserError as error:
        print(f"raytl: {error}", file=sys.stderr)
        sys.exit(2)
    command = [sys.executable, "-P", "-m", "raytl", *given.command, "--storage", storage]
    if place is not None:
        os.chdir(place)
    os.execv(sys.executable, command)


def resolve_storage(given: str | None) -> str:
    """Where runs go on this machine: a URI as it is, a path counted from the home folder, and ~/raytl-runs by default.

    The job's own folder, where a search would put them, does not last.
    """
    wanted = given or os.environ.get("RAYTL_STORAGE") or "raytl-runs"
    return wanted if "://" in wanted else str(user_folder() / Path(wanted).expanduser())


def settle(job: Path) -> Path | None:
    """Copy the data of a job's folder to where it stays; returns its place, None where no data came along."""
    if not (job / DIGEST).exists():
        return None
    place = submitted() / (job / DIGEST).read_text().strip()
    if not place.exists():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
                shutil.copytree(job / DATA, Path(temporary) / DATA)
                # Source models are named by their place below the job's folder, where lanes on other nodes find them.
                (Path(temporary) / DATA / DATA).symlink_to(".")
                (Path(temporary) / DATA).rename(place)
        except OSError as error:
            if not place.is_dir():  # else another job was first
                raise UserError(f"{place}: the data cannot be written there ({error.strerror or error})") from None
    renew(place)
    clear(place.parent)
    return place


def come_back(run: str, job: Path) -> Path | None:
    """Where the data of a run's first job lies, which lanes of this one then find as those of the first did.

    run: its folder or URI. job: this job's folder. Returns None where nothing came along with the run.
    """
    place = lot_with(run)
    if place is None:
        return None
    renew(place)
    document = json.loads(os.environ[JOB_CONFIG])
    document["runtime_env"] |= {
        "working_dir": str(place),
        # Lanes find all of it below DATA, which is a link to where it lies.
        "excludes": [RUNS, f"/{DATA}/{DATA}", *(f"/{path.name}" for path in place.iterdir() if path.name != DATA)],
        "py_modules": [str(job / "raytl")],
    }
    os.environ[JOB_CONFIG] = json.dumps(document)
    return place


def clear(folder: Path, limit_bytes: int = SUBMITTED_BYTES, spared_s: float = SPARED_S) -> None:
    """Remove the data of jobs that was not used for longest, until the rest is within the limit.

    folder: of all of it. spared_s: what was used no longer ago stays whatever there is: searches may be at it.
    """
    found = []
    for path in folder.iterdir():
        with suppress(OSError):  # another job may be clearing too
            found.append((path.stat().st_mtime, size_bytes(path), path))
    total = sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        if time.time() - used <= spared_s or (total <= limit_bytes and (path / DATA).is_symlink()):
            continue  # what has no such link was never whole: a job was killed while it copied
        shutil.rmtree(path, ignore_errors=True)
        total -= size


def link(run: Path, logs: Path) -> None:
    """Make a run's folder reachable through the dashboard, before it is there or after."""
    path = logs / LINKS / run.name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(run, target_is_directory=True)


def logs() -> Path:
    """Ray's log directory on this node: a job's standard output goes to a file in there."""
    out = Path("/proc/self/fd/1").resolve()
    if not out.name.startswith("job-driver-"):
        raise UserError("this is started by Ray Jobs (raytl submit), and by nobody else")
    return out.parent


if __name__ == "__main__":
    main(sys.argv[1:])
