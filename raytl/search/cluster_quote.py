"""What a search will take on a cluster that is described in a file: nodes, hours, and money at given prices."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raytl.core.errors import UserError, nearest
from raytl.evaluation.intervals import Interval
from raytl.search.lanes.sizing import fitting, plan_lanes, room_for
from raytl.search.planning import UNLIMITED
from raytl.search.quote import Quote
from raytl.search.rehearsal import START_S
from raytl.search.space.files import read_yaml

BOOT_S = 300.0
"""Until a node that the autoscaler asked for is there and set up."""
_USED_UP = 0.9
"""Share of a time budget from which on it is taken for what ended a search: what is left is kept for its end."""


@dataclass(frozen=True)
class NodeType:
    """Nodes of one kind.

    count: at most; least: that are always there; is_head: there from the beginning to the end, one; price: of one for
    an hour.
    """

    name: str
    cpus: float
    gpus: float
    count: int
    is_head: bool
    price: float | None = None
    least: int = 0

    @property
    def at_first(self) -> int:
        """How many there are when a search begins."""
        return 1 if self.is_head else min(self.least, self.count)


@dataclass(frozen=True)
class ClusterQuote:
    """hours: from the first node's start to the end. nodes: how many of each type. money: None without prices.

    lane_speed: that was assumed, in lanes of this machine.
    """

    lanes: int
    nodes: dict[str, int]
    hours: Interval
    money: Interval | None
    lane_speed: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_cluster(path: Path, prices: Sequence[str] = (), nodes: Sequence[str] = ()) -> list[NodeType]:
    """The node types of a file for Ray's cluster launcher, or of a KubeRay ``RayCluster`` or ``RayJob``.

    prices: ``TYPE=PRICE`` of a node for an hour, for all types or for none. nodes: ``TYPE=CPUS`` or ``TYPE=CPUS:GPUS``
    of the types ``head`` and ``worker`` of machines of one's own, of which the file only has the names.
    Raises UserError where nothing says what the nodes have, or a price is missing, no number or of no type.
    """
    document, _ = read_yaml(path)
    own = _is_own(document)
    if nodes and not own:
        raise UserError(f"--node {nodes[0]}: {path.name} says itself what its nodes have; leave --node out")
    if own:
        types = _of_own(path, document, dict(_machine(text) for text in nodes))
    elif document.get("kind") in ("RayCluster", "RayJob"):
        types = _of_kuberay(path, document)
    else:
        types = _of_launcher(path, document)
    given = dict(_price(text) for text in prices)
    names = [node.name for node in types]
    for name in given:
        if name not in names:
            raise UserError(f"--price {name}: {path.name} has no such node type{nearest(name, names)}")
    if given and (without := [name for name in names if name not in given]):
        raise UserError(f"no price for the nodes '{without[0]}' of {path.name}; add --price {without[0]}=PER_HOUR")
    return [NodeType(**(asdict(node) | {"price": given.get(node.name)})) for node in types]


def reckon(
    told: Quote,
    types: Sequence[NodeType],
    *,
    lanes: int | None = None,
    gpus_per_trial: float = 0.0,
    lane_speed: float = 1.0,
) -> ClusterQuote:
    """What the search of a quote for this machine would take on such a cluster.

    lanes: as the search is told. Without, it uses the nodes that are always there, and has at most the one added that
    it cannot begin without.
    lane_speed: how many times as fast a lane there is as one here.
    A time budget, which runs from the search's start, is used up by however many lanes, where it alone ends a search;
    trials are done sooner by more of them, and never later than it ends. Raises UserError where no lane fits.
    """
    slots = [(node.cpus, node.gpus) for node in types for _ in range(node.at_first)]
    grows = room_for(slots, gpus_per_trial) < (lanes or 1) and any(node.count > node.at_first for node in types)
    planned = plan_lanes(lanes, gpus_per_trial, 1, slots, grows=grows)
    held = {node.name: fitting([(node.cpus, node.gpus)], planned.cpus, planned.gpus) for node in types}
    used = {node.name: node.at_first for node in types}
    # More lanes than trials would have nothing to do. GPUs are added for those who ask for them, or for lack of others.
    # Where nothing is trained there are probes all the same.
    most = UNLIMITED if told.trials is None else max(1, told.trials)
    left = min(lanes or 1, most) - sum(held[name] * number for name, number in used.items())
    for node in sorted(types, key=lambda node: bool(node.gpus and not planned.gpus)):
        more = min(node.count - node.at_first, -(-left // held[node.name])) if held[node.name] and left > 0 else 0
        used[node.name] += more
        left -= more * held[node.name]
    count = min(lanes or most, most, sum(held[name] * number for name, number in used.items()))
    if not count:
        raise UserError(f"no lane of {planned.cpus:g} CPUs and {planned.gpus:g} GPUs fits a node of this cluster")
    boot = BOOT_S if any(used[node.name] > node.at_first for node in types) else 0.0

    budget_s = math.inf if told.time_budget_s is None else told.time_budget_s

    def hours(here_s: float, *, at_least: bool = False) -> float:
        # Of all lanes together; there nothing is at hand of what the probe made here.
        work_s = (here_s - START_S) * told.lanes + told.kept_s
        there_s = START_S + work_s / (count * lane_speed)
        if told.trials is None:
            there_s = here_s
        elif here_s >= _USED_UP * budget_s and not at_least:
            # How many trials were left nobody knows: more lanes may have time for more of them, and be no sooner done.
            there_s = max(here_s, there_s)
        return min(boot + there_s, max(here_s, budget_s)) / 3600

    times = told.search_s
    spent = Interval(hours(times.value), hours(times.low, at_least=True), hours(times.high))
    money = None
    if all(node.price is not None for node in types):
        hourly = sum(used[node.name] * (node.price or 0.0) for node in types)
        money = Interval(hourly * spent.value, hourly * spent.low, hourly * spent.high)
    return ClusterQuote(count, {name: number for name, number in used.items() if number}, spent, money, lane_speed)


def _of_launcher(path: Path, document: dict[str, Any]) -> list[NodeType]:
    head, most = document.get("head_node_type"), document.get("max_workers")
    found = []
    for name, node in (document.get("available_node_types") or {}).items():
        resources = node.get("resources") or {}
        if "CPU" not in resources:
            raise UserError(f"{path.name}: node type '{name}' does not say its resources (CPU, GPU)")
        count = 1 if name == head else int(node.get("max_workers", most or 0))
        count = count if name == head or most is None else min(count, int(most))
        least = int(node.get("min_workers", 0))
        cpus, gpus = float(resources["CPU"]), float(resources.get("GPU", 0))
        found.append(NodeType(name, cpus, gpus, count, name == head, least=least))
    if not any(node.is_head for node in found):
        raise UserError(
            f"{path.name}: has no available_node_types with a head_node_type among them; give a file for `ray up` like "
            "cluster.yaml, a RayCluster or a RayJob"
        )
    return found


def _is_own(document: dict[str, Any]) -> bool:
    """Whether it is of machines of one's own, all of which are there, and whose sizes Ray finds out when it starts."""
    provider = document.get("provider")
    return isinstance(provider, dict) and provider.get("type") == "local"


def _of_own(path: Path, document: dict[str, Any], sizes: dict[str, tuple[float, float]]) -> list[NodeType]:
    workers = len(document["provider"].get("worker_ips") or ())
    if document["provider"].get("coordinator_address"):
        workers = int(document.get("max_workers", 0))  # the coordinator knows them
    most = min(int(document.get("max_workers", workers)), workers)
    counts = {"head": 1} | ({"worker": most} if most else {})
    for name in sizes:
        if name not in counts:
            raise UserError(f"--node {name}: {path.name} has no such nodes{nearest(name, counts)}")
    for name in counts:
        if name not in sizes:
            raise UserError(
                f"{path.name}: does not say what machines of one's own have; add --node {name}=CPUS, or "
                f"{name}=CPUS:GPUS"
            )
    usual = 0 if document["provider"].get("coordinator_address") else workers  # as Ray has it
    least = min(int(document.get("min_workers", usual)), most)
    return [
        NodeType(name, *sizes[name], count, name == "head", least=0 if name == "head" else least)
        for name, count in counts.items()
    ]


def _machine(text: str) -> tuple[str, tuple[float, float]]:
    found = re.fullmatch(r"(.+)=(\d+)(?::(\d+))?", text.strip())
    if found is None:
        raise UserError(f"--node {text}: write TYPE=CPUS of one node, or TYPE=CPUS:GPUS, such as worker=16:1")
    return found[1], (float(found[2]), float(found[3] or 0))


def _of_kuberay(path: Path, document: dict[str, Any]) -> list[NodeType]:
    spec = document.get("spec") or {}
    if document["kind"] == "RayJob":  # of the cluster that is made for the job
        spec = spec.get("rayClusterSpec")
        if not isinstance(spec, dict):
            raise UserError(f"{path.name}: this RayJob uses a cluster that is there; give the RayCluster of that")
    groups = [("head", spec.get("headGroupSpec") or {}, 1)]
    # Without an autoscaler there are as many as are asked for, and no more.
    most = "maxReplicas" if spec.get("enableInTreeAutoscaling") else "replicas"
    groups += [(group["groupName"], group, int(group.get(most, 1))) for group in spec.get("workerGroupSpecs") or ()]
    found = []
    for name, group, count in groups:
        try:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            cpus = group.get("rayStartParams", {}).get("num-cpus", limits["cpu"])
            gpus, least = float(limits.get("nvidia.com/gpu", 0)), int(group.get("minReplicas", 0))
            least = least if spec.get("enableInTreeAutoscaling") else count
            found.append(NodeType(name, _cpus(cpus), gpus, count, name == "head", least=least))
        except (KeyError, IndexError, ValueError):
            raise UserError(f"{path.name}: group '{name}' has no limit of CPUs that could be read") from None
    return found


def _cpus(text: Any) -> float:
    return float(str(text)[:-1]) / 1000 if str(text).endswith("m") else float(text)


def _price(text: str) -> tuple[str, float]:
    found = re.fullmatch(r"(.+)=(\d+(?:\.\d+)?|\.\d+)", text.strip())
    if found is None:
        raise UserError(f"--price {text}: write TYPE=PRICE of one node for an hour, such as gpu-spot=0.45")
    return found[1], float(found[2])
