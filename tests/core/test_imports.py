"""Files of one room may import each other, in one direction; import-linter holds the rooms apart."""

from __future__ import annotations

import grimp


def test_no_two_files_import_each_other_however_far_the_way_around() -> None:
    graph = grimp.build_graph("raytl", exclude_type_checking_imports=False, cache_dir=None)
    waits_for = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    # Whoever imports nobody who is left can be in no circle.
    while free := {name for name, imported in waits_for.items() if not imported & waits_for.keys()}:
        waits_for = {name: imported for name, imported in waits_for.items() if name not in free}
    assert sorted(waits_for) == []
