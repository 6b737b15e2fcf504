"""What is imported with what: files of one room in one direction (import-linter holds the rooms apart), and no more."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
LANE = "import raytl.search.lanes.lane"
SEARCH = "import raytl, raytl.search.driver; raytl.search, raytl.resume, raytl.Task"


def test_no_two_files_import_each_other_however_far_the_way_around() -> None:
    graph = grimp.build_graph("raytl", exclude_type_checking_imports=False, cache_dir=None)
    waits_for = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    # Whoever imports nobody who is left can be in no circle.
    while free := {name for name, imported in waits_for.items() if not imported & waits_for.keys()}:
        waits_for = {name: imported for name, imported in waits_for.items() if name not in free}
    assert sorted(waits_for) == []


def test_what_begins_a_search_or_a_lane_waits_for_nothing_that_it_does_not_need() -> None:
    """A driver that was killed is started again, and so is every lane: each import costs seconds many times over."""
    program = f"import sys; {LANE}; {SEARCH}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"ray.serve", "fastapi", "httpx", "scipy.stats"} & set(done.stdout.split())


def imported_at_once(file: Path) -> set[str]:
    """The packages of others that a module imports when it is imported itself."""
    nodes = ast.parse(file.read_text("utf-8")).body
    names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names} - {"raytl", *sys.stdlib_module_names}


@pytest.mark.parametrize("project", [".", "serve/runtime"])
def test_what_is_imported_at_once_is_declared(project: str) -> None:
    told = tomllib.loads((ROOT / project / "pyproject.toml").read_text("utf-8"))
    declared = {re.split(r"[\[<>=; ]", wish)[0].lower() for wish in told["project"]["dependencies"]}
    copied = told["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    files = [ROOT / project / file for file in copied if file.endswith(".py")] or [*(ROOT / "raytl").rglob("*.py")]
    imported = {name for file in files if "testing" not in file.parts for name in imported_at_once(file)}
    known = packages_distributions()
    missing = {name for name in imported if not declared & {one.lower() for one in known[name]}}
    assert missing <= {"pydantic_core", "mlflow"}  # which pydantic pins; of a tracker that is asked for by name
