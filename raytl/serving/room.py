"""Whether a node has room for a replica, and for how long that is waited for where none has.

Ray starts a replica as soon as a node has what it asks for, be it one that an autoscaler adds in minutes, or that
somebody starts by hand. Until then there is nothing to see of it but that it has no node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated.autoscaler_pb2 import NodeStatus
from ray.exceptions import RayError

from raytl.core.errors import UserError
from raytl.machines.growing import autoscales
from raytl.serving.settings import CPUS

READY_S = 120.0
"""For which an endpoint is waited for once there is room; and for room, where no autoscaler may add a node."""
GROWN_S = 900.0
"""For room, where one may: a node with a GPU takes minutes, and a machine that is short is not to be had at once."""
_SAY_AFTER_S = 2.0
_LOOK_S = 1.0  # Ray itself counts no more often
_AWAY_S = 10.0  # the store of a head that is started again
_IN_PLACE = ("user_config", "autoscaling_config")
"""Of a deployment, what Serve changes without a new replica."""


class NotInTimeError(UserError):
    """An endpoint for which more time may be enough."""


@dataclass(frozen=True)
class Patience:
    """How long somebody waits for an endpoint.

    ready_s: seconds until it answers; those for which a replica waits for room are not counted. room_s: seconds for
    these, anew with each node that comes and each replica that gets one; None for :data:`GROWN_S` where an autoscaler
    may add a node, and else for ``ready_s``. notice: hears in a sentence what is waited for.
    """

    ready_s: float = READY_S
    room_s: float | None = None
    notice: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Need:
    """CPUs and GPUs of each replica."""

    cpus: float = CPUS
    gpus: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Need:
        """That of an application's replicas."""
        first, *_ = config.get("deployments") or [{}]
        known = first.get("ray_actor_options") or {}
        cpus, gpus = known.get("num_cpus"), known.get("num_gpus")
        return cls(CPUS if cpus is None else float(cpus), float(gpus or 0.0))

    def __str__(self) -> str:
        return self.counted("free ")

    def counted(self, which: str = "") -> str:
        """In words: ``1 CPU and 0.25 GPUs``. which: that they are, ``"free "``."""
        asked = [_counted(self.cpus, f"{which}CPU")] if self.cpus or not self.gpus else []
        return " and ".join([*asked, *([_counted(self.gpus, f"{which}GPU")] if self.gpus else [])])

    def times(self, replicas: int) -> Need:
        """That of so many replicas together."""
        return Need(replicas * self.cpus, replicas * self.gpus)

    @property
    def options(self) -> str:
        """By which less can be asked for."""
        return " and ".join(["--num-cpus"] * (self.cpus > 0 or not self.gpus) + ["--num-gpus"] * (self.gpus > 0))


@dataclass(frozen=True)
class Nodes:
    """The cluster's nodes: (CPUs, GPUs) that each has, and that are free. asked: for how many that have no node yet."""

    all: tuple[tuple[float, float], ...]
    free: tuple[tuple[float, float], ...]
    asked: tuple[tuple[tuple[float, float], int], ...] = ()

    @classmethod
    def now(cls) -> Nodes:
        """Those of the cluster that this process is connected to; Ray counts about once a second."""
        state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)
        alive = [node for node in state.node_states if node.status != NodeStatus.DEAD]
        return cls(
            tuple(_slots(node.total_resources) for node in alive),
            tuple(_slots(node.available_resources) for node in alive),
            tuple((_slots(one.request.resources_bundle), one.count) for one in state.pending_resource_requests),
        )

    def waiting(self, need: Need) -> int:
        """How many wait for a node with so much; those that Ray is about to start on one do not."""
        return sum(count for asked, count in self.asked if asked == (round(need.cpus, 4), round(need.gpus, 4)))

    def hold(self, need: Need, kept: Need | None = None) -> bool:
        """Whether a node would have room if all else were gone from it. kept: what is not, of each node."""
        held = kept or Need(0.0, 0.0)
        cpus, gpus = round(need.cpus + held.cpus, 4), round(need.gpus + held.gpus, 4)
        return any(node[0] >= cpus and node[1] >= gpus for node in self.all)

    def report(self, need: Need, where: str = "the cluster") -> str:
        """What there is of what is asked for: ``0 of the cluster's 4 CPUs are free``."""
        parts = []
        for kind, (asked, what) in enumerate([(need.cpus, "CPUs"), (need.gpus, "GPUs")]):
            there, free = (sum(node[kind] for node in nodes) for nodes in (self.all, self.free))
            most = max((node[kind] for node in self.free), default=0.0)
            together = f" (at most {most:g} on one node)" if most < asked <= free else ""
            if asked:
                parts.append(
                    f"{free:g} of {where}'s {there:g} {what} are free{together}" if there else f"{where} has no {what}"
                )
        return " and ".join(parts)


class Waiting:
    """For an application that was applied: two clocks, of which one runs at a time.

    before: what it was made from. running: how many replicas of that answered. joinable: whether other nodes can join
    the cluster at all; it is this machine alone where none can.
    """

    def __init__(
        self,
        patience: Patience,
        config: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        *,
        running: int = 0,
        joinable: bool = True,
    ) -> None:
        self._patience = patience
        self._name = config["name"]
        self._need = Need.of(config)
        kept = kept_replicas(config)
        self._anew = before is None or _but_in_place(before) != _but_in_place(config)
        # Replicas that are missing since before are not needed for a change that asks for no more of them.
        more = self._anew or kept > kept_replicas(before or {})
        self._least = max(1, kept if more else min(kept, running))
        # Serve stops the replicas of before once as many new ones answer.
        self._staying = min(kept, running) if self._anew else 0
        self._held = Need.of(before or {}).times(self._staying)
        self._joinable = joinable
        self._grows: bool | None = None
        self._said = False
        self._nodes: Nodes | None = None
        self._looked: float | None = None
        self._most_nodes, self._placed = 0, set[str]()
        self._last = time.monotonic()
        self._ready_s = self._room_s = 0.0

    def enough(self, application: Mapping[str, Any]) -> bool:
        """Whether as many replicas are there as are kept, or were there, and all others have no node yet.

        Of a change for which none has to be started: those may not find room for as long as others need theirs, and
        take what was changed once they start. Where none lacks a node Serve itself tells when all have taken it.
        """
        running, lacking = running_replicas(application), without_node(application)
        all_else_is_there = running >= self._least and running + lacking == len(_replicas(application))
        return not self._anew and lacking > 0 and all_else_is_there

    def goes_on(self, application: Mapping[str, Any] | None) -> bool:
        """Whether there is time left. application: as Serve tells it now.

        Raises NotInTimeError where no node has had room for as long as that is waited for, UserError where none will.
        """
        now = time.monotonic()
        passed, self._last = now - self._last, now
        nodes = self._look(now) if application and self._lacks(application) else None
        if application and self._got_more(application, nodes):
            self._room_s = 0.0
        if nodes is None or not nodes.waiting(self._need):
            self._ready_s += passed
            return self._ready_s < self._patience.ready_s
        self._room_s += passed
        if not self._joinable:
            self._refuse_too_much(nodes)
        if self._grows is None or (not self._grows and self._room_s > self._limit_s):
            self._grows = self._joinable and autoscales()  # of a head that only just started it may not be known yet
        if self._room_s > self._limit_s:
            raise NotInTimeError(self._no_room(nodes))
        if not self._said and self._room_s > _SAY_AFTER_S and self._patience.notice is not None:
            self._said = True
            self._patience.notice(self._waits(nodes))
        return True

    def _lacks(self, application: Mapping[str, Any]) -> bool:
        """Whether what is waited for may have no room yet."""
        up = application["status"] == "RUNNING" and running_replicas(application) >= self._least
        return bool(without_node(application)) and not up and not self.enough(application)

    def _look(self, now: float) -> Nodes | None:
        if self._looked is None or now - self._looked >= _LOOK_S:
            self._nodes, self._looked = _nodes_now(), now
        return self._nodes

    def _got_more(self, application: Mapping[str, Any], nodes: Nodes | None) -> bool:
        """Whether a replica got its node since this was asked last, or the cluster one more than it ever had."""
        placed = {str(one.get("replica_id")) for one in _replicas(application) if one.get("node_id")}
        count = len(nodes.all) if nodes is not None else 0
        more = count > self._most_nodes or not placed <= self._placed
        self._most_nodes, self._placed = max(count, self._most_nodes), self._placed | placed
        return more

    @property
    def _limit_s(self) -> float:
        if self._patience.room_s is not None:
            return self._patience.room_s
        return GROWN_S if self._grows else self._patience.ready_s

    def _refuse_too_much(self, nodes: Nodes) -> None:
        """Raise UserError where this machine could not hold a replica if all others of it were gone."""
        need, less = self._need, f"ask for less with {self._need.options}"
        if not nodes.hold(need):
            raise UserError(
                f"'{self._name}' needs {need} for each replica, and this machine alone serves it: "
                f"{nodes.report(need, 'this machine')}; {less}, and try again"
            )
        if not nodes.hold(need, self._held):
            own = "its own replica holds" if self._staying == 1 else f"its own {self._staying} replicas hold"
            raise UserError(
                f"'{self._name}' needs {need} for its new replica, and {own} {self._held.counted()} until that "
                f"answers: {nodes.report(need, 'this machine')}; take it down first ({_undeploy(self._name)}), or "
                f"{less}, and try again"
            )

    def _waits(self, nodes: Nodes) -> str:
        limit = f"for {_duration(self._limit_s)} at most"
        if not self._joinable:
            return (
                f"'{self._name}' waits for {self._need} on this machine, {limit}: "
                f"{nodes.report(self._need, 'this machine')}"
            )
        grows = "an autoscaler may add nodes" if self._grows else "no autoscaler adds nodes"
        return f"'{self._name}' waits for a node with {self._need}, {limit}: {nodes.report(self._need)}, and {grows}"

    def _no_room(self, nodes: Nodes) -> str:
        within, less = f"within {_duration(self._limit_s)}", f"ask for less with {self._need.options}"
        if not self._joinable:
            return (
                f"'{self._name}' found no room on this machine for a replica with {self._need.counted()} {within}: "
                f"{nodes.report(self._need, 'this machine')}; take another endpoint down ({_undeploy('NAME')}), give "
                f"that fewer --max-replicas, or {less}, and try again"
            )
        why, do = "no autoscaler adds nodes", "add one"
        if self._grows:
            why, do = "the autoscaler has added none with room", "'ray status' may tell why"
        return (
            f"'{self._name}' found no node with {self._need} {within}: {nodes.report(self._need)}, and {why}: {do}; "
            f"stop other work, or {less}, and try again"
        )


def nodes_come_later(need: Need) -> bool:
    """Whether replicas may be on nodes that are not there yet: none of those there are can hold one, or more may come.

    On other machines than the present ones, that is. Raises UserError where the cluster's head does not tell.
    """
    until = time.monotonic() + _AWAY_S
    while (nodes := _nodes_now()) is None:
        if time.monotonic() > until:
            raise UserError("the head of the Ray cluster does not say which nodes it has: try again when it does")
        time.sleep(_LOOK_S)
    return not nodes.hold(need) or autoscales()


def free_now(need: Need) -> str:
    """What the cluster has free of what is asked for, as :meth:`Nodes.report`; "" where that is not known just now."""
    nodes = _nodes_now()
    return "" if nodes is None else nodes.report(need)


def running_replicas(application: Mapping[str, Any]) -> int:
    """How many answer; none of an application that keeps none and is not asked for anything."""
    return sum(replica["state"] == "RUNNING" for replica in _replicas(application))


def without_node(application: Mapping[str, Any]) -> int:
    """How many replicas were asked for and are on no node yet."""
    return sum(replica["state"] == "STARTING" and not replica.get("node_id") for replica in _replicas(application))


def waits_for(application: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, str]:
    """How many replicas wait for room, and for what: ``a node with 1 free CPU: …``; 0 and "" where none does."""
    need, waiting = Need.of(config), without_node(application)
    nodes = _nodes_now() if waiting else None
    if nodes is None or not nodes.waiting(need):
        return 0, ""
    return waiting, f"a node with {need}: {nodes.report(need)}"


def kept_replicas(config: Mapping[str, Any]) -> int:
    """How many replicas of an application are there even without requests."""
    first, *_ = config.get("deployments") or [{}]
    fixed = first.get("num_replicas")
    return fixed if isinstance(fixed, int) else int((first.get("autoscaling_config") or {}).get("min_replicas", 1))


def _nodes_now() -> Nodes | None:
    try:
        return Nodes.now()
    except RayError:  # the store of the cluster's head is away just now
        return None


def _replicas(application: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    deployments = application.get("deployments", {}).values()
    return [replica for deployment in deployments for replica in deployment["replicas"]]


def _but_in_place(config: Mapping[str, Any]) -> dict[str, Any]:
    deployments = config.get("deployments") or ()
    fixed = [{key: value for key, value in one.items() if key not in _IN_PLACE} for one in deployments]
    return {**config, "deployments": fixed}


def _undeploy(name: str) -> str:
    return "raytl undeploy" if name == "raytl" else f"raytl undeploy --name {name}"


def _slots(resources: Mapping[str, float]) -> tuple[float, float]:
    return round(resources.get("CPU", 0.0), 4), round(resources.get("GPU", 0.0), 4)


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 or seconds % 60 else f"{seconds / 60:g} min"
