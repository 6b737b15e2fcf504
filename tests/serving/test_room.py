"""What is said and done while a replica has no node, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RpcError

from raytl.core.errors import UserError
from raytl.serving import room
from raytl.serving.room import GROWN_S, Need, Nodes, NotInTimeError, Patience, Waiting, nodes_come_later

NONE = ((0.0, 0.0),)
ONE = (((1.0, 0.0), 1),)


def config(least: int = 1, version: str = "v1", **options: float) -> dict[str, Any]:
    deployment = {"autoscaling_config": {"min_replicas": least}, "ray_actor_options": {"num_cpus": 1.0, **options}}
    return {"name": "raytl", "deployments": [{**deployment, "user_config": {"version": version}}]}


def application(status: str, *states: str) -> dict[str, Any]:
    """As Serve tells it; a replica in state ``waiting`` is on no node yet."""
    replicas = [
        {"replica_id": str(number), "state": "STARTING"}
        if state == "waiting"
        else {"replica_id": str(number), "state": state, "node_id": "a node"}
        for number, state in enumerate(states)
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
    assert f"a node with {need}: {nodes.report(need)}" == said


class Clock:
    """Of a waiting: seconds that pass by themselves, and the cluster as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, grows: bool) -> None:
        self.now, self.nodes, self.heard = 0.0, Nodes(NONE, NONE, ONE), list[str]()
        monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.looks = 0
        monkeypatch.setattr(room.Nodes, "now", self.look)
        monkeypatch.setattr(room, "autoscales", lambda: grows)

    def look(self) -> Nodes:
        self.looks += 1
        return self.nodes

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
    waiting = Waiting(Patience(100, room_s, clock.heard.append), config(), None)
    with pytest.raises(UserError, match=r"found no node with 1 free CPU within .* the cluster has no CPUs, and "):
        clock.lasts(waiting, application("DEPLOYING", "waiting"))
    assert clock.now == lasts + 1 and len(clock.heard) == 1
    assert ("an autoscaler may add nodes" if grows else "no autoscaler adds nodes") in clock.heard[0]


def test_once_there_is_room_all_of_the_time_to_become_ready_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, grows=True)
    waiting = Waiting(Patience(100), config(), None)
    for _ in range(500):
        assert waiting.goes_on(application("DEPLOYING", "waiting"))
        clock.now += 1.0
    clock.nodes = Nodes(((1.0, 0.0),), NONE)  # its process is started, which Serve does not see yet
    assert clock.lasts(waiting, application("DEPLOYING", "waiting")) == 99
    assert clock.heard == []


def test_what_this_machine_alone_can_never_hold_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, grows=False)
    clock.nodes = Nodes(((2.0, 0.0),), ((2.0, 0.0),), (((64.0, 0.0), 1),))
    waiting = Waiting(Patience(), config(num_cpus=64), None, joinable=False)
    with pytest.raises(UserError, match="needs 64 free CPUs for each replica, and this machine alone"):
        waiting.goes_on(application("DEPLOYING", "waiting"))


@pytest.mark.parametrize(
    ("name", "cpus", "running", "said"),
    [
        ("raytl", 2, 1, r"2 free CPUs for its new replica, and its own replica holds 0.5 CPUs .* \(raytl undeploy\)"),
        (
            "b",
            1,
            3,
            r"1 free CPU for its new replica, and its own 3 replicas hold 1.5 CPUs .* \(raytl undeploy --name b\)",
        ),
        ("raytl", 1.5, 1, None),
        ("raytl", 2, 0, None),  # it died
    ],
)
def test_what_has_no_room_beside_its_own_replicas_is_not_waited_for(
    name: str, cpus: float, running: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, grows=False)
    clock.nodes = Nodes(((2.0, 0.0),), ((1.0, 0.0),), (((cpus, 0.0), 1),))
    kept = max(1, running)
    after, before = config(kept, num_cpus=cpus) | {"name": name}, config(kept, num_cpus=0.5) | {"name": name}
    waiting = Waiting(Patience(), after, before, running=running, joinable=False)
    seen = application("DEPLOYING", *["RUNNING"] * running, "waiting")
    if said is None:
        assert waiting.goes_on(seen)
    else:
        with pytest.raises(UserError, match=said):
            waiting.goes_on(seen)


def test_on_a_machine_that_nobody_can_join_no_node_and_no_autoscaler_is_spoken_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch, grows=True)
    clock.nodes = Nodes(((2.0, 0.0),), ((0.0, 0.0),), ONE)
    waiting = Waiting(Patience(notice=clock.heard.append), config(), None, joinable=False)
    with pytest.raises(NotInTimeError) as said:
        clock.lasts(waiting, application("DEPLOYING", "waiting"))
    assert clock.heard == [
        "'raytl' waits for 1 free CPU on this machine, for 2 min at most: 0 of this machine's 2 CPUs are free"
    ]
    assert str(said.value) == (
        "'raytl' found no room on this machine for a replica with 1 CPU within 2 min: 0 of this machine's 2 CPUs are "
        "free; take another endpoint down (raytl undeploy --name NAME), give that fewer --max-replicas, or ask for "
        "less with --num-cpus, and try again"
    )


@pytest.mark.parametrize("what", ["a replica gets its node", "a node comes"])
def test_the_time_for_room_begins_anew_when_there_is_more(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, grows=True)
    waiting = Waiting(Patience(100), config(2), None)
    seen = application("DEPLOYING", "waiting", "waiting")
    for _ in range(int(GROWN_S) - 10):
        assert waiting.goes_on(seen)
        clock.now += 1.0
    if what == "a node comes":
        clock.nodes = Nodes((*NONE, (0.5, 0.0)), (*NONE, (0.5, 0.0)), ONE)
    else:
        seen = application("DEPLOYING", "STARTING", "waiting")
    began = clock.now
    with pytest.raises(NotInTimeError, match="the autoscaler has added none with room"):
        clock.lasts(waiting, seen)
    assert clock.now - began == GROWN_S


def test_nodes_are_asked_for_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, grows=True)
    waiting = Waiting(Patience(100), config(), None)
    for _ in range(80):
        assert waiting.goes_on(application("DEPLOYING", "waiting"))
        clock.now += 0.125
    assert clock.looks == 10


@pytest.mark.parametrize("away", [0, 2, 100])
def test_a_head_that_does_not_tell_its_nodes_for_a_moment_is_asked_again(
    away: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """away: times that it is asked in vain."""
    now, answers = 0.0, iter(range(1000))

    def look() -> Nodes:
        if next(answers) < away:
            raise RpcError("the store is away")
        return Nodes(((2.0, 0.0),), ((0.0, 0.0),))

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(room.Nodes, "now", look)
    monkeypatch.setattr(room, "autoscales", lambda: False)
    if away < 10:
        assert not nodes_come_later(Need()) and nodes_come_later(Need(3))
    else:
        with pytest.raises(UserError, match="the head of the Ray cluster does not say which nodes it has"):
            nodes_come_later(Need())


@pytest.mark.parametrize(
    ("before", "running", "after", "seen", "enough"),
    [
        (config(), 1, config(version="v2"), ["RUNNING", "waiting"], True),
        (config(), 1, config(version="v2"), ["UPDATING", "waiting"], False),
        (config(), 1, config(version="v2"), ["RUNNING"], False),  # whether it has taken the change Serve tells
        (config(), 1, config(version="v2"), ["RUNNING", "STARTING"], False),
        (config(), 1, config(version="v2"), ["waiting"], False),
        (config(), 0, config(version="v2"), ["waiting"], False),
        (config(2), 2, config(2, version="v2"), ["RUNNING", "waiting"], False),
        (config(2), 1, config(2, version="v2"), ["RUNNING", "waiting"], True),  # one was lost before
        (config(3), 2, config(3, version="v2"), ["RUNNING", "RUNNING", "waiting"], True),
        (config(1), 1, config(2), ["RUNNING", "waiting"], False),  # which is asked for
        (config(2), 1, config(2, num_cpus=2.0), ["RUNNING", "waiting"], False),
        (config(), 1, config(num_gpus=1.0), ["RUNNING", "waiting"], False),  # what runs is without what was asked for
        (None, 0, config(), ["RUNNING", "waiting"], False),
    ],
)
def test_replicas_beyond_those_kept_hold_up_no_change_that_needs_none_of_them(
    before: dict[str, Any] | None, running: int, after: dict[str, Any], seen: list[str], enough: bool
) -> None:
    assert Waiting(Patience(), after, before, running=running).enough(application("DEPLOYING", *seen)) is enough
