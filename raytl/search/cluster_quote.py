"""What a search will take on a cluster that is described in a file: nodes, hours, and money at given prices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raytl.core.errors import UserError, nearest
from raytl.evaluation.intervals import Interval
from raytl.search.lanes.sizing import fitting, plan_lanes
from raytl.search.quote import Quote
from raytl.search.rehearsal import START_S
from raytl.search.space.files import read_yaml

BOOT_S = 300.0
"""Until a node that the autoscaler asked for is there and set up."""


@dataclass(frozen=True)
class NodeType:
    """Nodes of one kind. count: at most; is_head: there from the beginning to the end; price: of one for an hour."""

    name: str
    cpus: float
    gpus: float
    count: int
    is_head: bool
    price: float | None = None


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


def read_cluster(path: Path, prices: Sequence[str] = ()) -> list[NodeType]:
    """The node types of a file for Ray's cluster launcher, or of a KubeRay ``RayCluster``.

    prices: ``TYPE=PRICE`` of a node for an hour, for all types or for none.
    Raises UserError where the file does not say what its nodes have, or a price is missing, no number or of no type.
    """
    document, _ = read_yaml(path)
    types = _of_kuberay(path, document) if document.get("kind") == "RayCluster" else _of_launcher(path, document)
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

    lane_speed: how many times as fast a lane there is as one here. Raises UserError where no lane fits.
    """
    slots = [(node.cpus, node.gpus) for node in types for _ in range(node.count)]
    planned = plan_lanes(lanes, gpus_per_trial, 1, slots)
    left = wanted = min(planned.count, told.trials)  # more lanes than trials would have nothing to do
    used = {}
    for node in sorted(types, key=lambda node: not node.is_head):
        here = fitting([(node.cpus, node.gpus)], planned.cpus, planned.gpus)
        needed = min(node.count, -(-left // here)) if here and left > 0 else 0
        used[node.name] = max(needed, int(node.is_head))
        left -= needed * here
    count = wanted - max(0, left)
    if not count:
        raise UserError(f"no lane of {planned.cpus:g} CPUs and {planned.gpus:g} GPUs fits a node of this cluster")
    boot = BOOT_S if any(used[node.name] and not node.is_head for node in types) else 0.0

    def hours(here_s: float) -> float:
        work_s = (here_s - START_S) * told.lanes  # of all lanes together
        return (boot + START_S + work_s / (count * lane_speed)) / 3600

    times = told.search_s
    spent = Interval(hours(times.value), hours(times.low), hours(times.high))
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
        found.append(NodeType(name, float(resources["CPU"]), float(resources.get("GPU", 0)), count, name == head))
    if not any(node.is_head for node in found):
        raise UserError(
            f"{path.name}: has no available_node_types with a head_node_type among them; give a file for `ray up` like "
            "cluster.yaml, or a RayCluster"
        )
    return found


def _of_kuberay(path: Path, document: dict[str, Any]) -> list[NodeType]:
    spec = document.get("spec") or {}
    groups = [("head", spec.get("headGroupSpec") or {}, 1)]
    groups += [(group["groupName"], group, int(group.get("maxReplicas", 1))) for group in spec["workerGroupSpecs"]]
    found = []
    for name, group, count in groups:
        try:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            cpus = group.get("rayStartParams", {}).get("num-cpus", limits["cpu"])
            found.append(NodeType(name, _cpus(cpus), float(limits.get("nvidia.com/gpu", 0)), count, name == "head"))
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
