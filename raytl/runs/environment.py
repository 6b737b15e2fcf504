"""What a run ran on: versions and hardware, for the report and for whoever tries to repeat it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from raytl.core.gpus import usable_gpus

_PACKAGES = ("raytl", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "pandas", "pyarrow", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions, platform, cores that this process may use, memory (GiB) and GPUs of this machine."""
    return {
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": list(usable_gpus()),
    }


def changed(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What may make a difference between two environments, flat: versions by package, and the machine."""
    flat = [{**document, **document.get("versions", {})} for document in (then, now)]
    names = sorted((flat[0].keys() | flat[1].keys()) - {"versions", "memory_gib", "platform"})
    return {name: (flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
