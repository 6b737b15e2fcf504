"""Whether the cluster at hand grows by itself, which costs somebody money."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import ray
from ray._private import ray_constants
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler._private.util import format_readonly_node_type
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2


def autoscales(patience_s: float = 0.0) -> bool:
    """Whether an autoscaler may add nodes to the cluster that this process is connected to.

    patience_s: how long to wait for Ray to tell, where it only just started. Ray watches over other clusters likewise,
    and then calls each node a type of its own.
    """
    until = time.monotonic() + patience_s
    while not (kinds := _known_node_types()) and time.monotonic() < until:
        time.sleep(0.2)
    anonymous = {format_readonly_node_type(node["NodeID"]) for node in ray.nodes()}
    return not kinds <= anonymous


def _known_node_types() -> set[str]:
    try:
        return set(_node_types())
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError):
        return set()  # it may not be up yet


def _node_types() -> Iterable[str]:
    address = ray.get_runtime_context().gcs_address
    gcs = GcsClient(address)
    if is_autoscaler_v2(fetch_from_server=True, gcs_client=gcs):
        status = get_cluster_status(address)
        return [node.ray_node_type_name for node in [*status.active_nodes, *status.idle_nodes]]
    written = gcs.internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS.encode())
    report = json.loads(written).get("autoscaler_report", {}) if written else {}
    return [*report.get("active_nodes", ()), *(report.get("idle_nodes") or ())]
