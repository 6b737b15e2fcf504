"""The Ray cluster that a search runs on: the one at hand, or one of this machine's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants

from raytl.core.errors import UserError
from raytl.core.machine import ray_token, short_temp_dir


@dataclass(frozen=True)
class Lanes:
    """How many jobs run at a time and what each of them gets.

    cpus, gpus: of each of a lane's ``workers`` processes. wanted: whether the user said how many; otherwise there are
    as many as fit the cluster, more or fewer when nodes come or go.
    """

    count: int
    cpus: float
    gpus: float
    workers: int = 1
    wanted: bool = True

    def room(self) -> int:
        """How many lanes may run now, at least one: a search waits for its last node to come back."""
        return self.count if self.wanted else max(1, fitting(_nodes(), self.cpus, self.gpus, self.workers))


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
    this machine with at least as many slots as the lanes need, and stops it at the end.
    """
    quiet_environment(verbose)
    # Threads of a lane that wait for each other by spinning hold up the very ones they wait for where a core is taken
    # by something else: an epoch then took up to 80 times as long. Waiting politely costs a fifth on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    mine = not ray.is_initialized()
    if mine:
        start((lanes or 1) * workers_per_trial, verbose=verbose, address=address)
    try:
        yield plan_lanes(lanes, gpus_per_trial, workers_per_trial, _nodes())
    finally:
        if mine:
            ray.shutdown()


def start(slots: int, *, verbose: bool = False, address: str | None = None) -> None:
    """Connect to a cluster or start a local one with at least so many CPU slots."""
    address = address or os.environ.get("RAY_ADDRESS")
    level = logging.INFO if verbose else logging.ERROR
    if address:
        try:
            ray.init(address=address, log_to_driver=verbose, logging_level=level)
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers at '{address}' ({error}): check RAY_ADDRESS or --address"
            ) from None
    else:
        cores = max(os.cpu_count() or 1, slots)
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": verbose, "logging_level": level}
        ray_token()
        short = short_temp_dir()
        if short is not None and "RAY_TMPDIR" not in os.environ:
            options["_temp_dir"] = f"{short}/ray"
        with _on_loopback():
            # "local", or else Ray would join a cluster that it finds on this machine: an endpoint's, say.
            ray.init(address="local", num_cpus=cores, **options)


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


def plan_lanes(wanted: int | None, gpus_per_trial: float, workers: int, nodes: list[tuple[float, float]]) -> Lanes:
    """The lanes for a cluster of ``nodes``, (CPUs, GPUs) each.

    gpus_per_trial: of a whole lane's worker; below 1, several lanes share a GPU. Where there are GPUs and the user says
    nothing, each worker gets one. Without GPUs the CPUs of the nodes are divided evenly.
    Raises UserError where no lane fits, or the GPU share is not one that Ray can give.
    """
    gpus = sum(node[1] for node in nodes)
    if gpus_per_trial > gpus:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}, but the cluster has {gpus:g} GPUs")
    if gpus_per_trial > 1 and gpus_per_trial != int(gpus_per_trial):
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}: a share of one GPU (0.25) or a whole number of GPUs")
    if gpus and not gpus_per_trial and wanted is None:
        gpus_per_trial = 1.0
    fit = fitting(nodes, 1.0, gpus_per_trial, workers)
    if not fit and workers > 1 and wanted is None:
        cpus = sum(node[0] for node in nodes)
        raise UserError(
            f"--workers-per-trial {workers}, but the cluster's {cpus:g} CPUs and {gpus:g} GPUs hold fewer workers"
        )
    count = max(1, wanted or fit)
    cpus = 1.0
    if not gpus_per_trial:
        largest = int(max((node[0] for node in nodes), default=1.0))
        cpus = float(next((c for c in range(largest, 0, -1) if fitting(nodes, c, 0.0, workers) >= count), 1))
    return Lanes(count, cpus, gpus_per_trial, workers, wanted is not None)


def fitting(nodes: list[tuple[float, float]], cpus: float, gpus: float, workers: int = 1) -> int:
    """How many lanes of ``workers`` processes, each with so many CPUs and GPUs, fit. A share lies on one GPU."""
    slots = 0
    for node_cpus, node_gpus in nodes:
        here = int(node_cpus / cpus)
        if gpus:
            per_gpu = int(1 / gpus + 1e-6)
            here = min(here, int(node_gpus) * per_gpu if gpus <= 1 else int(node_gpus / gpus))
        slots += here
    return slots // workers


def _nodes() -> list[tuple[float, float]]:
    return [
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in ray.nodes() if node["Alive"]
    ]
