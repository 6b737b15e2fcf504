"""Ray's parts that a machine of its own does without: there again once one has started, or has failed to."""

from __future__ import annotations

import pytest
from ray._private.node import Node

from raytl.machines.few_processes import few_processes

PARTS = ("start_monitor", "start_log_monitor", "start_api_server")


def test_what_others_start_afterwards_has_them() -> None:
    before = [getattr(Node, name) for name in PARTS]
    with pytest.raises(OSError), few_processes():
        assert not set(before) & {getattr(Node, name) for name in PARTS}
        raise OSError
    assert [getattr(Node, name) for name in PARTS] == before == [vars(Node)[name] for name in PARTS]
    assert [method.__name__ for method in before] == list(PARTS)  # of this release of Ray
