"""How many lanes a machine or a cluster holds, and what each of them gets. No Ray in here."""

from __future__ import annotations

from dataclasses import dataclass

from raytl.core.errors import UserError


@dataclass(frozen=True)
class Lanes:
    """How many jobs run at a time and what each of them gets.

    cpus, gpus: of each of a lane's ``workers`` processes. wanted: whether the user said how many; otherwise there are
    as many as fit the cluster, more or fewer when nodes come or go. most: what the memory holds, where that is less and
    the user did not say.
    """

    count: int
    cpus: float
    gpus: float
    workers: int = 1
    wanted: bool = True
    most: int | None = None


def plan_lanes(
    wanted: int | None,
    gpus_per_trial: float,
    workers: int,
    nodes: list[tuple[float, float]],
    held: int | None = None,
    *,
    grows: bool = False,
) -> Lanes:
    """The lanes for a cluster of ``nodes``, (CPUs, GPUs) each.

    gpus_per_trial: of a whole lane's worker; below 1, several lanes share a GPU. Where there are GPUs and the user says
    nothing, each worker gets one. Without GPUs the CPUs of the nodes are divided evenly. held: processes that the
    memory holds, None where that is not known. grows: whether an autoscaler may add nodes: it is then asked for
    a lane that none has room for.
    Raises UserError where no lane fits, or the GPU share is not one that Ray can give.
    """
    gpus = sum(node[1] for node in nodes)
    if gpus_per_trial > gpus and not grows:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}, but the cluster has {gpus:g} GPUs")
    if gpus_per_trial > 1 and gpus_per_trial != int(gpus_per_trial):
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}: a share of one GPU (0.25) or a whole number of GPUs")
    if gpus and not gpus_per_trial and wanted is None:
        gpus_per_trial = 1.0
    fit = fitting(nodes, 1.0, gpus_per_trial, workers)
    if not fit and workers > 1 and wanted is None and not grows:
        cpus = sum(node[0] for node in nodes)
        raise UserError(
            f"--workers-per-trial {workers}, but the cluster's {cpus:g} CPUs and {gpus:g} GPUs hold fewer workers"
        )
    most = None if held is None or wanted is not None or held >= fit * workers else max(1, held // workers)
    count = max(1, wanted or most or fit)
    cpus = 1.0
    if not gpus_per_trial:
        largest = int(max((node[0] for node in nodes), default=1.0))
        cpus = float(next((c for c in range(largest, 0, -1) if fitting(nodes, c, 0.0, workers) >= count), 1))
    return Lanes(count, cpus, gpus_per_trial, workers, wanted is not None, most)


def counted(lanes: int) -> str:
    """So many lanes, in words."""
    return "a single lane" if lanes == 1 else f"{lanes} lanes"


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
