"""Lanes of several workers: one Ray Train worker group per lane, kept alive from trial to trial.

A trainer that starts its workers for each trial costs many seconds a time. Here each lane is one long run of a
``TorchTrainer`` whose workers take jobs from a :class:`~raytl.search.lanes.pool.JobPool`: rank 0 asks for a job, every
rank trains its share of each batch, and rank 0 reports, hears whether to go on, and tells the others. Ray Train
rebuilds a group whose worker died; the pool then hands the job out again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from raytl.core.errors import UserError
from raytl.search.jobs import EpochReport, JobResult, LaneJob
from raytl.search.lanes.lane import HeldData, in_store, known_nodes, threads_here
from raytl.search.lanes.pool import JobPool, Ticket, starved
from raytl.search.lanes.sizing import Lanes
from raytl.search.lanes.work import do_job
from raytl.tasks import TrainingData
from raytl.training.devices import OUT_OF_MEMORY
from raytl.training.distributed import Group
from raytl.training.workspace import Workspace, WorkspaceSettings

REBUILDS = 20
"""Times that Ray Train rebuilds a group before its trainer is started anew."""
CLOSING_S = 60.0
MEETING_S = 30.0
"""How long a worker whose trial failed waits for the others to say the same; they fail at about the same moment."""


class _StoppedError(BaseException):
    """The trial is not to go on; raised on all ranks alike. No Exception: nothing went wrong with it."""


@contextmanager
def worker_groups(lanes: Lanes, data: TrainingData, settings: WorkspaceSettings, directory: Path) -> Iterator[Any]:
    """A pool with a worker group per lane behind it; yields the pool's handle. Ends the groups on leaving.

    directory: for what Ray Train writes, on storage that every node sees.
    """
    pool = ray.remote(JobPool).options(num_cpus=0, max_concurrency=1000).remote(lanes.count)
    given = {"pool": pool, "data": HeldData.put(data), "settings": settings, "known": known_nodes()}
    threads = [
        threading.Thread(target=_keep_group, args=(lanes, {**given, "group": number}, directory), daemon=True)
        for number in range(lanes.count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield pool
    finally:
        with suppress(RayError):  # ended for its memory, and the groups with it
            ray.get(pool.close.remote())
        for thread in threads:
            thread.join(CLOSING_S)


def _keep_group(lanes: Lanes, config: dict[str, Any], directory: Path) -> None:
    """Run a lane's trainer until the pool closes."""
    resources = {"CPU": lanes.cpus} | ({"GPU": lanes.gpus} if lanes.gpus else {})
    # NCCL wants a GPU per rank; ranks that share one talk through gloo.
    backend = "nccl" if lanes.gpus >= 1 else "gloo"
    while True:
        trainer = TorchTrainer(
            work,
            train_loop_config=config,
            scaling_config=ScalingConfig(
                num_workers=lanes.workers, use_gpu=lanes.gpus > 0, resources_per_worker=resources
            ),
            torch_config=TorchConfig(backend=backend),
            run_config=RunConfig(
                name=f"workers-{config['group']}",
                storage_path=str(directory.resolve()),
                failure_config=FailureConfig(max_failures=REBUILDS),
                callbacks=[_Starving(config["pool"], config["group"])],
            ),
        )
        try:
            trainer.fit()
            return
        except (TrainingFailedError, RayError) as error:
            try:
                if starved(error):
                    ray.get(config["pool"].starved.remote(config["group"]))
                if not ray.get(config["pool"].lost.remote(config["group"])):
                    return
            except RayError:
                return  # the pool was ended for its memory: its trials say so


class _Starving(UserCallback):  # type: ignore[misc]
    """Tells the pool that Ray ended a worker for its memory: to Ray Train it is a failure like any other."""

    def __init__(self, pool: Any, group: int) -> None:
        self._pool = pool
        self._group = group

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called before the group is rebuilt."""
        if any(map(starved, worker_exceptions.values())):
            ray.get(self._pool.starved.remote(self._group))


def work(config: dict[str, Any]) -> None:
    """What every worker does: jobs, together with the others, until there are no more."""
    import torch
    from torch import distributed

    context = get_context()
    group = Group(context.get_world_rank(), context.get_world_size())
    settings: WorkspaceSettings = config["settings"]
    if settings.device != "cpu":
        device = get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        threads = threads_here(settings.gpu_share, settings.threads, config["known"])
        settings = replace(settings, device=str(device), threads=threads)
    workspace = Workspace(config["data"].get(), settings)
    # Verdicts travel beside the gradients, on the CPU whatever the backend. An evaluation may keep the others waiting.
    control = distributed.new_group(backend="gloo", timeout=timedelta(days=1))
    meeting = distributed.new_group(backend="gloo", timeout=timedelta(seconds=MEETING_S))
    member = _Member(config["pool"], config["group"], group, control, meeting)
    while True:
        ticket = member.agreed(ray.get(member.pool.take.remote(member.number)) if group.rank == 0 else None)
        if ticket is False:
            return
        if isinstance(ticket, Ticket):
            member.do(workspace, ticket)


class _Member:
    """A worker of a group."""

    def __init__(self, pool: Any, number: int, group: Group, control: Any, meeting: Any) -> None:
        self.pool = pool
        self.number = number
        self.group = group
        self._control = control
        self._meeting = meeting

    def agreed(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def missing(self, workspace: Workspace, source_model: str | None) -> str | None:
        """Why some worker's node cannot have a trial's source model; None where all have it, or none is needed.

        One that found out alone would leave the others waiting for it in a collective.
        """
        from torch import distributed

        reason = None
        try:
            if source_model is not None:
                workspace.hold(source_model)
        except UserError as error:
            reason = str(error)
        reasons: list[str | None] = [None] * self.group.size
        distributed.all_gather_object(reasons, reason, group=self._control)
        return next((told for told in reasons if told is not None), None)

    def failed_alike(self, key: str) -> bool:
        """Whether the job failed in all workers, as for what is wrong with it; in one alone its node may be full.

        Called where it failed.
        """
        from torch import distributed

        keys: list[str | None] = [None] * self.group.size
        try:
            distributed.all_gather_object(keys, key, group=self._meeting)
        except RuntimeError:  # the others wait for this one in a collective of the training
            return False
        return all(known == key for known in keys)

    def do(self, workspace: Workspace, ticket: Ticket) -> None:
        """Do a job, and on rank 0 report it."""

        def send(message: dict[str, Any]) -> None:
            report: EpochReport = message["report"]
            goes_on = self.group.rank > 0 or ray.get(self.pool.report.remote(self.number, ticket, report))
            if not self.agreed(goes_on):
                raise _StoppedError

        job = LaneJob.from_json(ticket.job)
        missing = self.missing(workspace, job.strategy.get("source_model"))
        if missing is not None:
            if self.group.rank == 0:
                ray.get(self.pool.finish.remote(self.number, ticket, in_store(JobResult(reason=missing))))
            return
        try:
            result = in_store(do_job(workspace, job, send, self.group))
        except _StoppedError:
            return
        exhausted = result.reason is not None and result.reason.startswith(OUT_OF_MEMORY)
        alone = exhausted or (result.reason is not None and not self.failed_alike(ticket.key))
        if alone or self.group.rank == 0:
            ray.get(self.pool.finish.remote(self.number, ticket, result))
        if alone:
            # The other ranks wait in a collective that will never be complete: only a new group helps them.
            raise MemoryError(result.reason) if exhausted else RuntimeError(result.reason)
