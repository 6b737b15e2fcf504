"""Ports that are free are so still when somebody listens, seconds later."""

from __future__ import annotations

import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from raytl.core.machine import own_folder
from raytl.serving.ports import _OURS, free_port, free_ports


@pytest.fixture(autouse=True)
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is noted whose turn it is."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return own_folder(str(tmp_path)) / "ports"


def test_who_asks_at_once_gets_others() -> None:
    """Two endpoints that begin at the same moment, of which neither listens yet."""
    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(free_ports, [103] * 20), key=lambda ports: ports.start)
    assert all(len(ports) == 103 and ports.start in _OURS and ports[-1] in _OURS for ports in found)
    assert all(one.stop <= other.start for one, other in pairwise(found))


def test_those_on_which_somebody_listens_are_passed_by(note: Path) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first)):
        note.write_text(str(first))
        assert first not in free_ports(2)
        note.write_text(str(first))
        assert free_port() != first


@pytest.mark.parametrize("known", ["", "31999", "32000", "7", "torn by a cr"])
def test_their_turns_go_round_from_wherever(known: str, note: Path) -> None:
    note.write_text(known)
    found = free_ports(103)
    assert found.start in _OURS and found[-1] in _OURS
    assert free_ports(103) != found


def test_without_a_place_for_the_note_there_are_some_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    assert free_port() in _OURS
