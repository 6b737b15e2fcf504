"""What all tests share."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# One Ray session per module starts several processes: keep each of them to one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Last, as the scripts beside the package are named like others: what searches in virtual time are played with is there.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

# Property tests measure behaviour, not time: a busy machine must not fail them.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(autouse=True, scope="session")
def _hypothesis_is_whole() -> None:
    """It imports this part when it is first used, and pytest compiles it then.

    Python 3.11 fails at that where a thread that writes a traceback, say, reads source at that moment (SystemError: AST
    constructor recursion depth).
    """
    importlib.import_module("hypothesis.strategies._internal.regex")


@pytest.fixture(autouse=True, scope="module")
def _no_ray_is_left() -> Iterator[None]:
    """A Ray that a module leaves connected would be used by the tests that come after it, in whatever order."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
        pytest.fail("this module leaves a Ray connected; end what it began, or have it begin none", pytrace=False)


def pytest_configure() -> None:
    """Two test files of one name clash where all tests are collected, and only there: who runs a few hears of it."""
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    names = Counter(file.name for file in files)
    if twice := [str(file) for file in files if names[file.name] > 1]:
        raise pytest.UsageError(f"test files must not share a name; rename one of {', '.join(twice)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: none that takes minutes is left for the end, beside a process without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
