"""What is said and done while a replica has no node, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raytl.core.errors import UserError
from raytl.serving import room
from raytl.serving.room import GROWN_S, Need, Nodes, Patience, Waiting

NONE = ((0.0, 0.0),)
ONE = (((1.0, 0.0), 1),)


def config(least: int = 1, version: str = "v1", **options: float) -> dict[str, Any]:
    deployment = {"autoscaling_config": {"min_replicas": least}, "ray_actor_options": {"num_cpus": 1.0, **options}}
    return {"name": "raytl", "deployments": [{**deployment, "user_config": {"version": version}}]}


def application(status: str, *states: str) -> dict[str, Any]:
    """As Serve tells it; a replica in state ``waiting`` is on no node yet."""
    replicas = [
        {"state": "STARTING"} if state == "waiting" else {"state": state, "node_id": "a node"} for state in states
    ]
    return {"status": status, "deployments": {"Classifier": {"replicas": replicas}}}


@pytest.mark.parametrize(
    ("need", "nodes", "said"),
    [
        (Need(), Nodes(NONE, NONE), "a node with 1 free CPU: the cluster has no CPUs"),
        (Need(2), Nodes(((4, 0),), ((1, 0),)), "a node with 2 free CPUs: 1 of the cluster's 4 CPUs are free"),
        (
            Need(2),
            Nodes(((2, 0), (2, 0)), ((1, 0), (1, 0))),
            "a node with 2 free CPUs: 2 of the cluster's 4 CPUs are free (at most 1 on one node)",
        ),
        (
            Need(1, 0.25),
            Nodes(((4, 0),), ((3, 0),)),
            "a node with 1 free CPU and 0.25 free GPUs: 3 of the cluster's 4 CPUs are free and the cluster has no GPUs",
        ),
        (
            Need(0, 1),
            Nodes(((4, 2),), ((3, 0.5),)),
            "a node with 1 free GPU: 0.5 of the cluster's 2 GPUs are free",
        ),
    ],
)
def test_what_is_asked_for_and_what_there_is(need: Need, nodes: Nodes, said: str) -> None:
    assert f"a node with {need}: {nodes.told(need)}" == said


class Clock:
    """Of a waiting: seconds that pass by themselves, and the cluster as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, grows: bool) -> None:
        self.now, self.nodes, self.told = 0.0, Nodes(NONE, NONE, ONE), list[str]()
        monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(room.Nodes, "now", lambda: self.nodes)
        monkeypatch.setattr(room, "autoscales", lambda: grows)

    def lasts(self, waiting: Waiting, seen: dict[str, Any]) -> float:
        """Seconds for which it goes on."""
        began = self.now
        while waiting.goes_on(seen):
            self.now += 1.0
        return self.now - began


@pytest.mark.parametrize(("grows", "room_s", "lasts"), [(True, None, GROWN_S), (False, None, 100), (True, 30, 30)])
def test_for_room_is_waited_longer_where_an_autoscaler_may_add_a_node(
    grows: bool, room_s: float | None, lasts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, grows=grows)
    waiting = Waiting(Patience(100, room_s, clock.told.append), config(), None)
    with pytest.raises(UserError, match=r"found no node with 1 free CPU within .* the cluster has no CPUs, and "):
        clock.lasts(waiting, application("DEPLOYING", "waiting"))
    assert clock.now == lasts + 1 and len(clock.told) == 1
    assert ("an autoscaler may add nodes" if grows else "no autoscaler adds nodes") in clock.told[0]


def test_once_there_is_room_all_of_the_time_to_become_ready_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, grows=True)
    waiting = Waiting(Patience(100), config(), None)
    for _ in range(500):
        assert waiting.goes_on(application("DEPLOYING", "waiting"))
        clock.now += 1.0
    clock.nodes = Nodes(((1.0, 0.0),), NONE)  # its process is started, which Serve does not see yet
    assert clock.lasts(waiting, application("DEPLOYING", "waiting")) == 99
    assert clock.told == []


def test_what_this_machine_alone_can_never_hold_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, grows=False)
    clock.nodes = Nodes(((2.0, 0.0),), ((2.0, 0.0),), (((64.0, 0.0), 1),))
    waiting = Waiting(Patience(), config(num_cpus=64), None, joinable=False)
    with pytest.raises(UserError, match="needs a node with 64 free CPUs for each replica, and this machine alone"):
        waiting.goes_on(application("DEPLOYING", "waiting"))


@pytest.mark.parametrize(
    ("before", "after", "seen", "enough"),
    [
        (config(), config(version="v2"), ["RUNNING", "waiting"], True),
        (config(), config(version="v2"), ["UPDATING", "waiting"], False),
        (config(), config(version="v2"), ["RUNNING", "STARTING"], False),
        (config(), config(version="v2"), ["waiting"], False),
        (config(2), config(2, version="v2"), ["RUNNING", "waiting"], False),
        (config(), config(num_gpus=1.0), ["RUNNING", "waiting"], False),  # what runs is without what was asked for
        (None, config(), ["RUNNING", "waiting"], False),
    ],
)
def test_replicas_beyond_those_kept_hold_up_no_change_that_needs_none_of_them(
    before: dict[str, Any] | None, after: dict[str, Any], seen: list[str], enough: bool
) -> None:
    assert Waiting(Patience(), after, before).enough(application("DEPLOYING", *seen)) is enough
