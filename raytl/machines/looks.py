"""Looks at the machine before a long search: one function for each question, one finding for each answer."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from raytl.core.errors import UserError
from raytl.core.gpus import unusable_gpus, usable_gpus
from raytl.core.machine import cores, short_temp_dir, takes_files, user_folder, writable
from raytl.core.memory import LANE_BYTES, in_units, memory
from raytl.core.names import so_many
from raytl.core.paths import home
from raytl.machines.reaching import address_of, look, mismatch

GIB = 2**30
LEAST_DISK_BYTES = GIB // 4
"""Below it a search can hardly keep what it finds."""
SCARCE_DISK_BYTES = 4 * GIB
LEAST_SHM_BYTES = GIB
FULL = 0.95
"""Share of its disk from which on Ray keeps nothing more in its temporary folder."""
_LOOKED_AT = ("ray", "torch", "torchvision")


class Mark(StrEnum):
    """How bad a finding is, worst first."""

    PROBLEM = "problem"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True)
class Finding:
    """What was found. name: of what was looked at; advice: what to do, empty where all is well."""

    name: str
    mark: Mark
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """The findings in the order in which to read them."""
    return sorted(findings, key=lambda finding: list(Mark).index(finding.mark))


def python_version() -> Finding:
    """Whether raytl is made for this Python."""
    return Finding("python", Mark.OK, f"{platform.python_version()}, {sys.executable}")


def package(name: str) -> Finding:
    """Whether a package is of a version that raytl is made for."""
    from packaging.requirements import Requirement

    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(
            name,
            Mark.PROBLEM,
            "not installed",
            "install raytl anew: pip install with its wheel, or pip install . in its checkout",
        )
    try:
        asked = [Requirement(line) for line in requires("raytl") or []]
    except PackageNotFoundError:  # run from its sources
        asked = []
    wanted = next((line.specifier for line in asked if line.name == name and line.marker is None), None)
    if wanted is not None and not wanted.contains(found, prereleases=True):
        return Finding(name, Mark.PROBLEM, f"{found}, and raytl takes {wanted}", f"pip install '{name}{wanted}'")
    return Finding(name, Mark.OK, found)


def pair() -> Finding:
    """Whether torch and torchvision are builds that work together; they are often installed from two places."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        advice = "install both anew, from one place and in one command: pip install --force-reinstall torch torchvision"
        return Finding("torch with torchvision", Mark.PROBLEM, f"cannot be imported: {first}", advice)
    return Finding("torch with torchvision", Mark.OK, "import together")


def cluster(address: str | None) -> Finding:
    """What answers at the address of a cluster, and whether a search here can use it."""
    used = address_of(address)
    if used is None:
        return Finding("cluster", Mark.OK, "none named: a Ray of this machine's own will be started")
    try:
        found = look(used)
    except UserError as error:
        what, _, advice = str(error).partition(": ")
        return Finding("cluster", Mark.PROBLEM, what, advice)
    cpus, gpus = (sum(node[index] for node in found.nodes) for index in (0, 1))
    nodes = so_many(len(found.nodes), "node", "nodes")
    told = f"{used}: {nodes}, {cpus:g} CPUs, {gpus:g} GPUs, Ray {found.ray_version}"
    told += f", takes the token in {found.token}" if found.token else ", wants no token"
    other = mismatch(found)
    if other is not None:
        what, _, advice = other.partition(": ")
        return Finding("cluster", Mark.PROBLEM, f"{used} runs {what}", advice)
    if not found.here:
        return Finding("cluster", Mark.PROBLEM, f"{told}; none of them here", "run raytl on one of its nodes")
    if found.token is None:
        return Finding("cluster", Mark.WARNING, told, "whoever reaches it may run code: see docs/clusters.md")
    return Finding("cluster", Mark.OK, told)


def free_memory() -> Finding:
    """How many lanes the memory holds, beside what other programs have taken."""
    found = memory()
    if found is None:
        return Finding("memory", Mark.OK, "this system does not tell")
    told = f"{in_units(found.available)} of {in_units(found.total)} not in use"
    count = cores()
    if found.for_lanes < LANE_BYTES // 2:
        return Finding("memory", Mark.PROBLEM, told, "close other programs: a single lane takes a GiB")
    if found.lanes < count:
        lanes = "one lane" if found.lanes == 1 else f"{found.lanes} lanes"
        return Finding(
            "memory", Mark.WARNING, told, f"room for {lanes} on {count} cores: close other programs for more"
        )
    return Finding("memory", Mark.OK, told)


def disk(name: str, folder: Path, option: str) -> Finding:
    """Whether a folder can be written to, and what its disk holds. option: what names another folder."""
    above = next((path for path in [folder, *folder.absolute().parents] if path.exists()), Path("/"))
    if not (os.access(above, os.W_OK | os.X_OK) and above.is_dir()) or not takes_files(above):
        return Finding(name, Mark.PROBLEM, f"{folder} cannot be written to", f"point {option} at a folder of yours")
    usage = shutil.disk_usage(above)
    told = f"{folder}: {in_units(usage.free)} of {in_units(usage.total)} free"
    if usage.free < LEAST_DISK_BYTES:
        return Finding(name, Mark.PROBLEM, told, f"make room, or point {option} at a larger disk")
    if usage.free < SCARCE_DISK_BYTES:
        return Finding(name, Mark.WARNING, told, f"make room, or point {option} at a larger disk")
    return Finding(name, Mark.OK, told)


def temporary() -> Finding:
    """Whether Ray's sockets and logs have a place."""
    try:
        instead = short_temp_dir()
    except UserError as error:
        what, _, advice = str(error).partition("; ")
        return Finding("temporary files", Mark.PROBLEM, what, advice)
    folder = Path(os.environ.get("RAY_TMPDIR") or instead or tempfile.gettempdir())
    found = disk("temporary files", folder, "TMPDIR")
    if found.mark is Mark.OK and instead is not None:
        told = f"{found.found}; {tempfile.gettempdir()} is too long for Ray's sockets"
        return Finding("temporary files", Mark.OK, told)
    usage = shutil.disk_usage(folder) if folder.exists() else None
    if found.mark is Mark.OK and usage is not None and usage.used > FULL * usage.total:
        advice = "Ray keeps nothing on a disk that is 95 % full: make room, or point TMPDIR elsewhere"
        return Finding("temporary files", Mark.WARNING, found.found, advice)
    return found


def home_folder() -> Finding:
    """Whether there is a home folder, for Ray's token and caches."""
    try:
        found = user_folder()
    except UserError as error:
        what, _, advice = str(error).partition("; ")
        return Finding("home folder", Mark.PROBLEM, what, advice)
    given = os.environ.get("HOME")
    if given != str(found):
        told = f"{given or 'HOME is not set'}: {found} takes its place"
        advice = "what is kept there may go with the machine: set HOME to a folder that stays"
        return Finding("home folder", Mark.WARNING, told, advice)
    return Finding("home folder", Mark.OK, str(found))


def cache() -> Finding:
    """Whether what is computed once can be kept."""
    try:
        return disk("cache", home(), "RAYTL_HOME")
    except UserError as error:
        what, _, advice = str(error).partition("; ")
        return Finding("cache", Mark.PROBLEM, what, advice)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Whether Ray's object store fits the memory that processes share."""
    if not folder.is_dir():
        return Finding("shared memory", Mark.OK, f"no {folder} on this system: Ray has another way")
    usage = shutil.disk_usage(folder)
    told = f"{folder}: {in_units(usage.free)} of {in_units(usage.total)} free"
    if usage.free < LEAST_SHM_BYTES or not writable(folder):
        advice = "Ray keeps its objects on disk then, which is slower; start a container with --shm-size=2g"
        return Finding("shared memory", Mark.WARNING, told, advice)
    return Finding("shared memory", Mark.OK, told)


def gpu() -> Finding:
    """Whether torch sees the GPUs that are there."""
    try:
        import torch
    except (ImportError, RuntimeError, OSError):
        return Finding("GPU", Mark.WARNING, "torch cannot be imported", "see torch")
    if usable_gpus() and not unusable_gpus():
        return Finding("GPU", Mark.OK, ", ".join(usable_gpus()))
    if unusable_gpus():
        instead = ", ".join(usable_gpus()) or "the processors"
        told = f"{', '.join(unusable_gpus())}: this torch has no code for it, and trains on {instead}"
        return Finding(
            "GPU", Mark.WARNING, told, f"it is built for {', '.join(torch.cuda.get_arch_list())}: install one that fits"
        )
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        advice = "install a torch that fits the driver (nvidia-smi shows it), or free the GPU"
        return Finding("GPU", Mark.WARNING, f"there is a driver, and torch sees no GPU; {built}", advice)
    return Finding("GPU", Mark.OK, "none: trains on the processors")


def packages() -> list[Finding]:
    """Of the packages that have to fit raytl and each other."""
    return [*(package(name) for name in _LOOKED_AT), pair()]
