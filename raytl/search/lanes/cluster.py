"""The Ray cluster that a search runs on: the one at hand, or one of this machine's own."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray._private import ray_constants, state

from raytl.core.errors import UserError
from raytl.core.gpus import usable_alone_visible, usable_gpus
from raytl.core.machine import cores, ray_token, short_temp_dir
from raytl.core.memory import memory
from raytl.machines.entrypoint import entrypoint_as_text
from raytl.machines.few_processes import few_processes
from raytl.machines.growing import autoscales
from raytl.machines.reaching import address_of, reach
from raytl.search.lanes.lane import NODE_NAME
from raytl.search.lanes.sizing import Lanes, fitting, holds_head_lane, plan_lanes, room_for, with_head_lanes

AUTOSCALER_PATIENCE_S = 15.0
"""How long Ray may take to tell whether nodes can be added, before it is said that there is no room."""
_LOOK_S = 10.0


def quiet_environment(verbose: bool) -> None:
    """Keep Ray's own chatter off the terminal; must run before Ray starts."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if verbose:
        return
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    for name in ("ray", "ray.tune", "ray.train", "ray.serve", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def cluster(
    lanes: int | None,
    gpus_per_trial: float,
    workers_per_trial: int = 1,
    *,
    verbose: bool = False,
    address: str | None = None,
) -> Iterator[Lanes]:
    """A running Ray and the lanes to use on it.

    Uses a Ray that this process is connected to or that ``address`` (or RAY_ADDRESS) names; otherwise starts one for
    this machine with at least as many slots as the lanes need, and stops it at the end. Its files then go with it,
    unless something went wrong or ``verbose`` is on: hundreds of megabytes would gather from search to search.
    Raises UserError where nothing answers at the address, or what does will not have us.
    """
    quiet_environment(verbose)
    # Threads of a lane that wait for each other by spinning hold up the very ones they wait for where a core is taken
    # by something else: an epoch then took up to 80 times as long. Waiting politely costs a fifth on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    mine = not ray.is_initialized()
    if mine:
        start((lanes or 1) * workers_per_trial, verbose=verbose, address=address)
    node = ray._private.worker._global_node if mine and address_of(address) is None else None
    session = None if node is None or verbose else node.get_session_dir_path()
    try:
        nodes, grows = _nodes(), False
        if not (mine and address_of(address) is None):
            nodes, grows = _nodes_of_a_cluster(lanes, gpus_per_trial, workers_per_trial)
        held = _held_by_memory(mine, address)
        planned = plan_lanes(lanes, gpus_per_trial, workers_per_trial, nodes, held, grows=grows)
        yield with_head_lanes(planned, nodes, held)
    finally:
        if mine:
            ray.shutdown()
    if session is not None:
        shutil.rmtree(session, ignore_errors=True)


def check_address(address: str | None) -> None:
    """Raise UserError where a search could not use the cluster that ``address`` or RAY_ADDRESS names."""
    used = address_of(address)
    if used is not None and not ray.is_initialized():
        reach(used)


def start(slots: int, *, verbose: bool = False, address: str | None = None) -> None:
    """Connect to a cluster or start a local one with at least so many CPU slots."""
    address = address_of(address)
    level = logging.INFO if verbose else logging.ERROR
    if address is not None:
        found = reach(address)
        if not verbose:  # of a head that is gone Ray says so in lines of its own, every second for a minute
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            with found.joining(), entrypoint_as_text():
                ray.init(address=found.address, log_to_driver=verbose, logging_level=level)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise UserError(
                f"the Ray cluster at '{address}' answers, but this process cannot join it: {_first_sentence(error)}"
            ) from error
    else:
        count = max(cores(), slots)
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": verbose, "logging_level": level}
        ray_token()
        short = short_temp_dir()
        if short is not None and "RAY_TMPDIR" not in os.environ:
            options["_temp_dir"] = f"{short}/ray"
        lean = nullcontext() if verbose else few_processes()  # what lanes print is for --verbose
        with _on_loopback(), usable_alone_visible(), entrypoint_as_text(), lean:
            # "local", or else Ray would join a cluster that it finds on this machine: an endpoint's, say.
            try:
                # Ray counts GPUs by the driver, and a lane would wait for one that torch cannot use, or is not counted.
                ray.init(address="local", num_cpus=count, num_gpus=len(usable_gpus()), **options)
            except Exception as error:  # of no kind of its own where a process of Ray's is not up within 30 s
                raise UserError(
                    f"a Ray of this machine's own cannot be started: {_first_sentence(error)}; raytl doctor looks for "
                    "what is in the way"
                ) from error


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Start Ray's processes so that they listen on loopback only.

    By default a local Ray listens on every interface, and whoever reaches it may run code. Ray has a switch against
    that, meant for systems with talkative firewalls; it is read when Ray is imported, so here it is set in both places.
    """
    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, constant = os.environ.get(variable), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[variable], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def is_this_process_own() -> bool:
    """Whether this process started the Ray that it is connected to: one of this machine alone."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head()) and len(ray.nodes()) == 1


def room(lanes: Lanes) -> int:
    """How many lanes may run now, at least one: a search waits for its last node to come back."""
    if lanes.wanted:
        return lanes.count
    fit = fitting(_nodes(), lanes.cpus, lanes.gpus, lanes.workers)
    return max(1, fit if lanes.most is None else min(fit, lanes.most))


def head_nodes(lanes: Lanes) -> dict[str, str]:
    """Ray's ids of the nodes that have room for a lane for heads, by the names that lanes call them by."""
    return {
        node["NodeID"][:NODE_NAME]: node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and holds_head_lane(_slots(node), lanes)
    }


class IdleGpus:
    """Says once that nodes have GPUs that no lane uses: those of a search that began when none was free, or there.

    What lanes have they have to the end: scores of a GPU and of CPUs are not the same.
    """

    def __init__(self, lanes: Lanes, notice: Callable[[str], None]) -> None:
        self._looking = not lanes.gpus
        self._notice = notice
        self._next = 0.0

    def look(self) -> None:
        """Look, unless that was done just now."""
        if not self._looking or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_S
        if any(gpus for _, gpus in _nodes()):
            self._looking = False
            self._notice(
                "nodes have GPUs that the search does not use, for none was free when it began: one that begins with "
                "--gpus-per-trial 1 waits for them"
            )


def _held_by_memory(mine: bool, address: str | None) -> int | None:
    """How many processes the memory holds that other programs leave; of a cluster's other nodes nobody knows."""
    free = memory() if mine and address_of(address) is None else None
    return None if free is None else free.lanes


def _nodes_of_a_cluster(
    lanes: int | None, gpus_per_trial: float, workers: int
) -> tuple[list[tuple[float, float]], bool]:
    """What to plan with where raytl is not alone, and whether the cluster is to grow: where too few lanes fit it.

    Where what others leave has no room for a single lane, it is planned with all that there is, and a lane waits.
    """
    nodes = _free_nodes()
    if not fitting(nodes, 1.0, gpus_per_trial, workers):
        nodes = _nodes()
    fit = room_for(nodes, gpus_per_trial, workers)
    if not fit:
        return nodes, autoscales(AUTOSCALER_PATIENCE_S)
    return nodes, (lanes or 1) > fit and autoscales()


def _free_nodes() -> list[tuple[float, float]]:
    """CPUs and GPUs that others leave on each node; where no CPU is free now, as if all were: a lane waits then.

    What an endpoint or another search holds is not there for lanes, and one that asks for it would never start.
    """
    left = state.available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"]]
    free = [left.get(node["NodeID"], {}) for node in alive]
    nodes = [(float(int(of_node.get("CPU", 0.0))), float(of_node.get("GPU", 0.0))) for of_node in free]
    return [node for node in nodes if node[0]] or _nodes()


def _nodes() -> list[tuple[float, float]]:
    return [_slots(node) for node in ray.nodes() if node["Alive"]]


def _slots(node: dict[str, Any]) -> tuple[float, float]:
    return node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)


def lanes_here(wanted: int | None, gpus_per_trial: float, workers: int, address: str | None) -> Lanes | None:
    """The lanes that a Ray of this machine's own will have; None where there is one already, here or elsewhere.

    Arguments and errors as of :func:`cluster`.
    """
    if address_of(address) is not None or ray.is_initialized():
        return None
    count = max(cores(), (wanted or 1) * workers)
    free = memory()
    machine, held = (float(count), float(len(usable_gpus()))), None if free is None else free.lanes
    return with_head_lanes(plan_lanes(wanted, gpus_per_trial, workers, [machine], held), [machine], held)
