"""A search made into a job: what is sent, what is run there, under which name it is found again."""

from __future__ import annotations

import re
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from raytl.core.errors import UserError
from raytl.jobs.dashboard import Dashboard
from raytl.jobs.handle import RUN, STORAGE, Job, JobHandle, list_jobs
from raytl.jobs.packing import Parcel

STOP_S = 120
"""What a search that is told to stop may take to keep its best model."""
_LINK_S = 60.0


@dataclass(frozen=True)
class Submission:
    """A search to send.

    arguments: of ``raytl``, local data by its place in the parcel. run: name of the run, in arguments too. storage: of
    runs, on the cluster: a URI or a folder; None for its own.
    width: columns of the lines that it writes.
    """

    arguments: Sequence[str]
    run: str
    storage: str | None = None
    parcel: Parcel = field(default_factory=Parcel)
    width: int = 100


def fresh_name() -> str:
    """A run's name where none is given. The numbers that are free are not known here, so it ends with a random one."""
    return f"{datetime.now():%Y-%m-%d}-{secrets.token_hex(2)}"


def submit(dashboard: Dashboard, submission: Submission) -> JobHandle:
    """Send a search and return at once. Raises UserError where the head does not take it."""
    metadata = {RUN: submission.run}
    if submission.storage is not None:
        metadata[STORAGE] = submission.storage
    command = entrypoint(submission.run, submission.storage, submission.arguments)
    return _send(dashboard, f"raytl-{submission.run}", command, metadata, submission.parcel, submission.width)


def submit_link(dashboard: Dashboard, run: str, storage: str | None) -> JobHandle:
    """Make the files of a run reachable that no job of this head is known for; takes seconds.

    Raises UserError where that fails.
    """
    handle = _send(dashboard, f"raytl-link-{run}", entrypoint(run, storage, ()), {}, Parcel())
    if not handle.wait(_LINK_S) or handle.job.status != "succeeded":
        said = handle.logs().strip().splitlines()
        raise UserError(f"run '{run}' cannot be reached on {dashboard.url}: {said[-1] if said else handle.job.message}")
    return JobHandle(dashboard, replace(handle.job, run=run, storage=storage))


def _send(
    dashboard: Dashboard, name: str, command: str, metadata: dict[str, str], parcel: Parcel, width: int = 100
) -> JobHandle:
    taken = {job.id for job in list_jobs(dashboard, of_all=True)}
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "raytl.zip"
        parcel.write(archive)
        job = dashboard.submit_job(
            entrypoint=command,
            submission_id=_free_id(name, taken),
            metadata=metadata,
            runtime_env={"working_dir": str(archive), "env_vars": _environment(width)},
        )
    return JobHandle(dashboard, Job.of(dashboard.get_job_info(job)))


def entrypoint(run: str, storage: str | None, arguments: Sequence[str]) -> str:
    """The job's command line."""
    own = ["python", "-P", "-m", "raytl.jobs.launch", "--run", run, *(["--storage", storage] if storage else [])]
    return shlex.join([*own, *(["--", *arguments] if arguments else [])])


def _environment(width: int) -> dict[str, str]:
    # As with Ctrl-C, a search that is stopped keeps its best model; Ray would kill it after three seconds.
    return {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), "COLUMNS": str(width)}


def _free_id(name: str, taken: set[str]) -> str:
    """A run may take several jobs: one that failed at once, one that goes on with it."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    number, found = 2, name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found
