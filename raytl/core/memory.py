"""How much memory this machine has left for a search: what its kernel says, within what its container may take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RAY_KILLS_AT = 0.95
"""Share of the memory from which on Ray ends processes to keep the node alive."""
LANE_BYTES = 2**30
"""What a lane takes at least: torch and Ray in a process of its own, and a small network in training."""

_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def in_units(size_bytes: float) -> str:
    """So many bytes, in words."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"


@dataclass(frozen=True)
class Memory:
    """Bytes: in all, and not in use. The container's, where it has a limit of its own."""

    total: int
    available: int

    @property
    def for_lanes(self) -> int:
        """Bytes that lanes may take before Ray ends one of them."""
        return max(0, self.available - int((1 - RAY_KILLS_AT) * self.total))

    @property
    def lanes(self) -> int:
        """How many lanes that holds; one in any case, for otherwise there is no search."""
        return max(1, self.for_lanes // LANE_BYTES)


def memory(root: Path = Path("/")) -> Memory | None:
    """This machine's memory, None where its kernel does not tell. root: of the file system that tells."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    told = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    if "MemTotal" not in told or "MemAvailable" not in told:
        return None
    total, available = told["MemTotal"], told["MemAvailable"]
    for names in _CGROUP_FILES:
        limit, used = _limit(root / "sys/fs/cgroup", *names)
        if limit is not None and limit < total:
            total, available = limit, min(available, max(0, limit - used))
    return Memory(total, available)


def _limit(folder: Path, limit: str, usage: str, statistics: str, cached: str) -> tuple[int | None, int]:
    """A container's limit, None where it has none, and what it uses; files that are only cached do not count."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        lines = (folder / statistics).read_text().splitlines()
    except (OSError, ValueError):
        return None, 0
    kept = next((int(line.split()[1]) for line in lines if line.startswith(f"{cached} ")), 0)
    return (int(most), max(0, used - kept)) if most.isdecimal() else (None, 0)
