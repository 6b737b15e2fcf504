"""The processes of this machine as a test sees them, from /proc."""

from __future__ import annotations

import contextlib
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """All processes below ``pid``, with their command lines."""
    parents, names = {}, {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, FileNotFoundError, ProcessLookupError):
            child = int(process.name)
            parents[child] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            names[child] = (process / "cmdline").read_bytes().decode(errors="replace")
    found: dict[int, str] = {}
    layer = {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        found |= {child: names.get(child, "") for child in layer}
    return found


def mentioning(text: str) -> dict[int, str]:
    """All processes with ``text`` in their command line."""
    found = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line:
                found[int(process.name)] = line
    return found


def open_to_the_network(pid: int) -> list[str]:
    """Local addresses, as /proc/net writes them, at which a process listens beyond loopback."""
    loopback = ("0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:")
    return [address for address in _listening(pid) if not address.startswith(loopback)]


def listens_at(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens at the port."""
    return any(address.endswith(f":{port:04X}") for address in _listening(pid))


def _listening(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
        sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        rows = [
            line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()
        ]
        return [row[1] for row in rows if row[3] == "0A" and row[9] in sockets]
    return []
