"""What is imported with what: files of one room in one direction (import-linter holds the rooms apart), and no more."""

from __future__ import annotations

import subprocess
import sys

import grimp

LANE = "import sys, raytl.search.lanes.lane"
SEARCH = "import sys, raytl, raytl.search.driver; raytl.search, raytl.resume, raytl.Task"


def test_no_two_files_import_each_other_however_far_the_way_around() -> None:
    graph = grimp.build_graph("raytl", exclude_type_checking_imports=False, cache_dir=None)
    waits_for = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    # Whoever imports nobody who is left can be in no circle.
    while free := {name for name, imported in waits_for.items() if not imported & waits_for.keys()}:
        waits_for = {name: imported for name, imported in waits_for.items() if name not in free}
    assert sorted(waits_for) == []


def test_what_begins_a_search_or_a_lane_waits_for_nothing_that_it_does_not_need() -> None:
    """A driver that was killed is started again, and so is every lane: each import costs seconds many times over."""
    for begins in (LANE, SEARCH):
        done = subprocess.run(
            [sys.executable, "-c", f"{begins}; print(*sys.modules)"], capture_output=True, text=True, check=True
        )
        assert not {"ray.serve", "fastapi", "httpx", "scipy.stats"} & set(done.stdout.split())
