"""How many lanes a machine or a cluster holds, and what each of them gets. No Ray in here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from raytl.core.errors import UserError

GPU_PARTS = 10_000
"""Parts of a GPU that Ray counts in."""
MOST_SHARING = 100
"""Workers that are put on one GPU, at most, where nobody said what each is to have."""
MOST_FOR_HEADS = 4
"""CPUs of a lane that has no GPU beside lanes that have: more make a head that is solved for little faster."""


@dataclass(frozen=True)
class Lanes:
    """How many jobs run at a time and what each of them gets.

    cpus, gpus: of each of a lane's ``workers`` processes. wanted: whether the user said how many; otherwise there are
    as many as fit the cluster, more or fewer when nodes come or go. most: what the memory holds, where that is less and
    the user did not say. threads: that each process computes with, or less on a node that came later and leaves it less
    (:func:`own_threads`); None for as many as ``cpus``, and with GPUs where no node that has some was known. head_cpus:
    of one lane more on each node with GPUs that has so many CPUs to spare, for heads that are solved for; 0 for none.
    """

    count: int
    cpus: float
    gpus: float
    workers: int = 1
    wanted: bool = True
    most: int | None = None
    threads: int | None = None
    head_cpus: int = 0


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

    gpus_per_trial: of each of a lane's workers, at most 1; below, several share a GPU. Where there are GPUs and the
    user says nothing of them, each worker gets one, or the share with which as many lanes fit as are wanted. Without
    GPUs the CPUs of the nodes are divided evenly; with them a lane asks for one CPU, so that the smallest node with a
    GPU can host it, and computes with its share of those of its node. held: processes that the memory holds, None where
    that is not known. grows: whether an autoscaler may add nodes: it is then asked for a lane that none has room for.
    Raises UserError where no lane fits, or a worker is to have more GPUs than it uses.
    """
    all_cpus, gpus = (sum(node[kind] for node in nodes) for kind in (0, 1))
    if gpus_per_trial > 1:
        several = f"to train each trial on {ceil(gpus_per_trial)} pass --workers-per-trial {ceil(gpus_per_trial)}"
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}: a worker computes on one GPU, or on a share; {several}")
    if gpus_per_trial > gpus and not grows:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}, but the cluster has {gpus:g} GPUs")
    if gpus and not gpus_per_trial:
        gpus_per_trial = 1.0 if grows else _gpu_share(nodes, workers, wanted or 1)
        if not fitting(nodes, 1.0, gpus_per_trial, workers) and not grows:
            gpus_per_trial = 0.0  # where there are GPUs there is no CPU to use them with
    fit = fitting(nodes, 1.0, gpus_per_trial, workers)
    if not fit and not grows:
        if workers > 1:
            raise UserError(
                f"--workers-per-trial {workers}, but the cluster's {all_cpus:g} CPUs and {gpus:g} GPUs hold fewer "
                "workers"
            )
        if gpus_per_trial:
            raise UserError(f"--gpus-per-trial {gpus_per_trial:g}, but no node of the cluster has so many beside a CPU")
        raise UserError("the cluster has no node with a CPU for a trial, and none that could be added")
    most = None if held is None or wanted is not None or held >= fit * workers else max(1, held // workers)
    count = max(1, wanted or most or fit)
    cpus = 1.0
    if not gpus_per_trial:
        largest = int(max((node[0] for node in nodes), default=1.0))
        cpus = float(next((c for c in range(largest, 0, -1) if fitting(nodes, c, 0.0, workers) >= count), 1))
    threads = None
    if gpus_per_trial:
        # The same for all, or lanes would not give the same numbers: a sum depends on how it is divided.
        used = _used(nodes, gpus_per_trial, count * workers)
        threads = min((int(node_cpus // there) for node_cpus, there in used), default=None)
    return Lanes(count, cpus, gpus_per_trial, workers, wanted is not None, most, threads)


def _used(nodes: list[tuple[float, float]], gpus: float, processes: int) -> list[tuple[float, int]]:
    """Of each node that holds processes with so much of a GPU: its CPUs, and how many there may come to be."""
    there = [(node[0], min(fitting([node], 1.0, gpus), processes)) for node in nodes]
    return [(cpus, count) for cpus, count in there if count]


def own_threads(node: tuple[float, float], gpus: float) -> int:
    """What a lane with so much of a GPU computes with on a node that came after the search was planned."""
    return min((int(cpus // there) for cpus, there in _used([node], gpus, MOST_SHARING)), default=1)


def with_head_lanes(lanes: Lanes, nodes: list[tuple[float, float]], held: int | None = None) -> Lanes:
    """The same, with a lane for heads on each node where lanes have a GPU; it has its fair share of the CPUs there.

    nodes, held: as of :func:`plan_lanes`. None where no CPU is left or the memory has no room for another process, nor
    where workers train together: their trials are done by groups.
    """
    used = _used(nodes, lanes.gpus, lanes.count) if lanes.gpus and lanes.workers == 1 else []
    shares = [min(MOST_FOR_HEADS, int(cpus // (there + 1))) for cpus, there in used]
    head_cpus, more = min(filter(None, shares), default=0), sum(map(bool, shares))
    if not head_cpus or (held is not None and lanes.count + more > held):
        return lanes
    left = [cpus - (head_cpus if share else 0) for (cpus, _), share in zip(used, shares, strict=True)]
    threads = min(int(cpus // there) for cpus, (_, there) in zip(left, used, strict=True))
    return replace(lanes, threads=threads, head_cpus=head_cpus)


def holds_head_lane(node: tuple[float, float], lanes: Lanes) -> bool:
    """Whether a node has lanes with GPUs, and room beside them for one without.

    On a node that came later there may be more of them than were planned, unless the user said how many.
    """
    most = lanes.count if lanes.wanted else lanes.most or MOST_SHARING
    used = _used([node], lanes.gpus, most) if lanes.head_cpus else []
    return any(cpus - there >= lanes.head_cpus for cpus, there in used)


def counted(lanes: int) -> str:
    """So many lanes, in words."""
    return "a single lane" if lanes == 1 else f"{lanes} lanes"


def room_for(nodes: list[tuple[float, float]], gpus_per_trial: float, workers: int = 1) -> int:
    """How many lanes nodes hold where each worker has the GPUs that it is to have: one where nothing is said."""
    return fitting(nodes, 1.0, gpus_per_trial or float(any(gpus for _, gpus in nodes)), workers)


def _gpu_share(nodes: list[tuple[float, float]], workers: int, lanes: int) -> float:
    """The largest share of a GPU, for each worker, with which so many lanes fit, or else as many of them as can."""
    # Rounded down to what Ray can tell apart: of 0.1667 a GPU holds five and not six.
    shares = [int(GPU_PARTS / sharing) / GPU_PARTS for sharing in range(1, min(lanes * workers, MOST_SHARING) + 1)]
    return max(shares, key=lambda share: (min(lanes, fitting(nodes, 1.0, share, workers)), share))


def fitting(nodes: list[tuple[float, float]], cpus: float, gpus: float, workers: int = 1) -> int:
    """How many lanes of ``workers`` processes, each with so many CPUs and GPUs, fit. A share lies on one GPU."""
    slots = 0
    for node_cpus, node_gpus in nodes:
        here = int(node_cpus / cpus)
        if gpus:
            per_gpu = int(1 / gpus + 1e-6)
            part = int(node_gpus % 1 / gpus + 1e-6)  # what others leave of one
            here = min(here, int(node_gpus) * per_gpu + part if gpus <= 1 else int(node_gpus / gpus))
        slots += here
    return slots // workers
