"""Rooms whose names are imported at first use have all of them, and do not bring what they do not need."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("room", ["tasks", "sources", "bundles", "judging", "evaluation"])
def test_every_name_is_there_and_nothing_else(room):
    package = importlib.import_module(f"raytl.{room}")
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"raytl.{room}.*'nothing'"):
        _ = package.nothing


def test_a_light_module_of_a_room_does_not_bring_the_heavy_ones():
    modules = ("raytl.tasks.decoding", "raytl.sources.manifest", "raytl.judging.health", "raytl.bundles.yardstick")
    code = f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'pandas', 'ray', 'scipy'}} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
