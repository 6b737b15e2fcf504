"""How much memory is left for lanes, as kernels and containers tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytl.core.memory import LANE_BYTES, Memory, memory

GIB = 2**30


def machine(root: Path, total: int, available: int, **container: str) -> Path:
    """A file system that tells so much. container: its files, ``__`` for a slash and 0 for a dot."""
    (root / "proc").mkdir()
    lines = f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\nHugePages_Total: 0\n"
    (root / "proc" / "meminfo").write_text(lines)
    for name, content in container.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("0", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_this_machine_tells():
    found = memory()
    assert found is not None and 0 < found.available <= found.total


def test_a_machine_without_containers(tmp_path: Path):
    assert memory(machine(tmp_path, 16 * GIB, 10 * GIB)) == Memory(16 * GIB, 10 * GIB)


@pytest.mark.parametrize(
    "files",
    [
        {"memory0max": f"{4 * GIB}\n", "memory0current": f"{3 * GIB}", "memory0stat": f"anon 1\ninactive_file {GIB}\n"},
        {
            "memory__memory0limit_in_bytes": f"{4 * GIB}\n",
            "memory__memory0usage_in_bytes": f"{3 * GIB}",
            "memory__memory0stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
        },
    ],
)
def test_a_container_has_less_and_what_is_cached_does_not_count(tmp_path: Path, files: dict[str, str]):
    assert memory(machine(tmp_path, 16 * GIB, 10 * GIB, **files)) == Memory(4 * GIB, 2 * GIB)


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_a_container_without_a_limit(tmp_path: Path, limit: str):
    files = {"memory0max": limit, "memory0current": str(GIB), "memory0stat": ""}
    assert memory(machine(tmp_path, 16 * GIB, 10 * GIB, **files)) == Memory(16 * GIB, 10 * GIB)


def test_a_kernel_that_does_not_tell(tmp_path: Path):
    assert memory(tmp_path) is None


def test_lanes_stay_clear_of_where_ray_ends_them():
    """Ray ends processes from 95 % on: of 20 GiB the last one is not for lanes."""
    assert Memory(20 * GIB, 4 * GIB + 2**20).for_lanes >= 3 * GIB
    assert Memory(20 * GIB, 4 * GIB + 2**20).lanes == 3 * GIB // LANE_BYTES
    assert Memory(20 * GIB, GIB // 2).lanes == 1
