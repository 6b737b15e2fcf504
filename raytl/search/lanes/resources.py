"""What lanes ask Ray for.

Every lane asks for resources of its own. Tune keeps warm processes by the resources that they hold; with equal requests
it gives the process of one lane to a trial that waits for another lane to start, and throws the half-started process
away, so that quick trials would keep the search in a single lane for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import PlacementGroupFactory

from raytl.search.lanes.sizing import Lanes

NODE_ID = "ray.io/node-id"
"""The label that Ray itself gives a node."""


class LaneRequest(PlacementGroupFactory):  # type: ignore[misc]
    """What a lane asks Ray for, told from what the other lanes ask for by its number alone.

    A resource more to tell them apart, however little of it, would be one that node types of an autoscaler need not
    list, and it would then add no node.
    """

    def __init__(self, lane: int, resources: dict[str, float], node: str | None = None) -> None:
        """node: Ray's id of the one that the lane is to be on; None for any."""
        super().__init__([resources], **({} if node is None else {"bundle_label_selector": [{NODE_ID: node}]}))
        self._lane = lane

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaneRequest) and self._lane == other._lane and bool(super().__eq__(other))

    def __hash__(self) -> int:
        return hash((self._lane, super().__hash__()))


def lane_resources(lanes: Lanes) -> Callable[[dict[str, Any]], LaneRequest]:
    """What a trial asks for, by its config.

    A lane of several workers asks for a byte of memory, as it may not ask for nothing: its worker group has resources
    of its own. One for heads asks for CPUs of its node.
    """
    own = {"CPU": lanes.cpus, "GPU": lanes.gpus} if lanes.workers == 1 else {"memory": 1.0}

    def resources(config: dict[str, Any]) -> LaneRequest:
        if "node" in config:
            return LaneRequest(config["lane"], {"CPU": float(lanes.head_cpus)}, config["node"])
        return LaneRequest(config["lane"], own)

    return resources
