"""The Ray cluster that a search runs on: the one at hand, or one of this machine's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private import ray_constants

from raytl.core.errors import UserError


@dataclass(frozen=True)
class Lanes:
    """How many jobs run at a time and what each of them gets.

    exact: whether the cluster holds no more than these lanes, so that Tune cannot start a process beyond them.
    """

    count: int
    cpus: float
    gpus: float
    exact: bool


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
    lanes: int | None, gpus_per_trial: float, *, verbose: bool = False, address: str | None = None
) -> Iterator[Lanes]:
    """A running Ray and the lanes to use on it.

    Uses a Ray that this process is connected to or that ``address`` (or RAY_ADDRESS) names; otherwise starts one for
    this machine with exactly as many slots as lanes, and stops it at the end.
    """
    quiet_environment(verbose)
    mine = not ray.is_initialized()
    if mine:
        start(lanes, gpus_per_trial, verbose=verbose, address=address)
    try:
        yield _lanes(lanes, gpus_per_trial)
    finally:
        if mine:
            ray.shutdown()


def start(lanes: int | None, gpus_per_trial: float, *, verbose: bool = False, address: str | None = None) -> None:
    """Connect to a cluster or start a local one."""
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
        cores = max(os.cpu_count() or 1, lanes or 1)
        with _on_loopback():
            ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=verbose, logging_level=level)


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


def _lanes(wanted: int | None, gpus_per_trial: float) -> Lanes:
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if gpus_per_trial > gpus:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}, but the cluster has {gpus:g} GPUs")
    if gpus and not gpus_per_trial and wanted is None:
        gpus_per_trial = 1.0
    fitting = int(gpus / gpus_per_trial) if gpus_per_trial else int(cpus)
    count = max(1, wanted or fitting)
    per_lane = max(1.0, cpus // count) if not gpus_per_trial else 1.0
    # One CPU more than the lanes need is room for a process too many.
    exact = count * per_lane + per_lane > cpus if not gpus_per_trial else (count + 1) * gpus_per_trial > gpus
    return Lanes(count, per_lane, gpus_per_trial, exact)
