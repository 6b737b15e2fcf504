"""Jobs that are there: found by their run's name, followed, stopped, and their runs brought home."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from ray.dashboard.modules.job.pydantic_models import JobDetails

from raytl.core.errors import UserError, nearest
from raytl.jobs.dashboard import Dashboard
from raytl.jobs.launch import LINKS

RUN, STORAGE = "raytl_run", "raytl_storage"
"""Keys of a job's metadata."""
ENDED = ("stopped", "succeeded", "failed")
NOT_FETCHED = ("run.lock", "lock/")
"""How the names of files begin that are there for the sake of who may write the run."""
_POLL_S = 0.5
_PATIENCE_S = 60.0
# What Ray writes above the job's own words, into the same file.
_PREAMBLE = re.compile(r"Running entrypoint for job |\S+ \S+\tINFO job_manager\.py:")


@dataclass(frozen=True)
class Job:
    """A job as the head knows it.

    status: ``pending``, ``running``, ``stopped``, ``succeeded`` or ``failed``; message: of Ray, about it.
    command: of ``raytl``, as it runs there. storage: that was given for it. node: that its command runs on.
    """

    id: str
    run: str
    status: str
    message: str
    command: str
    started: datetime | None
    seconds: float | None
    exit_code: int | None
    storage: str | None
    node: str | None

    @classmethod
    def of(cls, details: JobDetails) -> Job:
        """From Ray's description."""
        metadata = details.metadata or {}
        begun, end = details.start_time, details.end_time or int(1000 * time.time())
        return cls(
            id=str(details.submission_id),
            run=metadata.get(RUN, ""),
            status=str(details.status.value).lower(),
            message=(details.message or "").partition(", last available logs")[0].strip(),
            command=_command(details.entrypoint or ""),
            started=datetime.fromtimestamp(begun / 1000, UTC) if begun else None,
            seconds=(end - begun) / 1000 if begun else None,
            exit_code=details.driver_exit_code,
            storage=metadata.get(STORAGE),
            node=details.driver_node_id,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {"started": self.started.isoformat(timespec="seconds") if self.started else None}


class JobHandle:
    """A submitted search.

    job: what was known of it last; :meth:`status` looks again.
    """

    def __init__(self, dashboard: Dashboard, job: Job) -> None:
        self.dashboard = dashboard
        self.job = job

    def __repr__(self) -> str:
        return f"JobHandle({self.id}: {self.job.status})"

    @property
    def id(self) -> str:
        """Ray's name of the job."""
        return self.job.id

    @property
    def run(self) -> str:
        """Name of the run that it searches for."""
        return self.job.run

    def status(self) -> str:
        """``pending``, ``running``, ``stopped``, ``succeeded`` or ``failed``, as it is now."""
        self.job = Job.of(self.dashboard.get_job_info(self.id))
        return self.job.status

    def logs(self) -> str:
        """All that the search has written so far."""
        lines = str(self.dashboard.get_job_logs(self.id)).splitlines(keepends=True)
        return "".join(line for line in lines if not _PREAMBLE.match(line))

    def follow(self) -> Iterator[str]:
        """The lines of the search from the first one on, as they are written, until it ends.

        A connection that breaks is taken up again. Raises UserError where the head is away for a minute; the search
        goes on either way.
        """
        seen = 0  # characters: a new connection begins at the beginning
        line = ""
        away_since: float | None = None
        while True:
            try:
                skip = seen
                for text in self._tail():
                    away_since = None
                    new, skip = text[skip:], max(0, skip - len(text))
                    seen += len(new)
                    *whole, line = (line + new).split("\n")
                    yield from (each for each in whole if not _PREAMBLE.match(each))
                if self.status() in ENDED:
                    break
            except (UserError, RuntimeError, aiohttp.ClientError, OSError) as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _PATIENCE_S:
                    raise UserError(
                        f"the connection to {self.dashboard.url} is gone ({error}); the search goes on without it, and "
                        f"is found again by: raytl jobs follow {shlex.quote(self.run)}"
                    ) from None
            time.sleep(_POLL_S)
        # Ray may close the stream of a job that ends before it has sent the last lines.
        rest = line + str(self.dashboard.get_job_logs(self.id))[seen:]
        yield from (each for each in rest.splitlines() if not _PREAMBLE.match(each))

    def stop(self) -> bool:
        """Ask the search to end, as Ctrl-C would: it keeps its best model. Returns whether it was still going on."""
        return bool(self.dashboard.stop_job(self.id))

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; returns whether it came."""
        deadline = time.monotonic() + timeout_s
        while self.status() not in ENDED:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def download(self, folder: Path) -> int:
        """Copy the run's files from the head's disk into ``folder``; returns how many.

        Raises UserError where there is none yet, or the node of the job is gone.
        """
        names = self._files()
        for name in names:
            inner = name.removeprefix(f"{LINKS}/{self.run}/")
            if Path(inner).is_absolute() or ".." in Path(inner).parts:
                raise UserError(f"{self.dashboard.url}: '{name}' is no name of a run's file; nothing more was fetched")
            if not inner.startswith(NOT_FETCHED):
                self.dashboard.download(str(self.job.node), name, folder / inner)
        return len(names)

    def _files(self) -> list[str]:
        if self.job.node is None and self.status() and self.job.node is None:
            raise UserError(f"run '{self.run}': its job has not begun ({self.job.message or self.job.status})")
        names = self.dashboard.files(str(self.job.node), f"{LINKS}/{self.run}")
        if not any(name.endswith("/run.json") for name in names):
            raise UserError(f"run '{self.run}': nothing of it is on {self.dashboard.url} yet; see: raytl jobs list")
        return names

    def _tail(self) -> Iterator[str]:
        """Chunks of the log from its beginning on, until the connection or the job ends."""
        with asyncio.Runner() as runner:
            stream = self.dashboard.tail_job_logs(self.id)
            try:
                while True:
                    yield runner.run(anext(stream))
            except StopAsyncIteration:
                pass
            finally:
                with suppress(RuntimeError):
                    runner.run(stream.aclose())


def _command(entrypoint: str) -> str:
    """What a job runs: of ``raytl`` without what starts it there, of other jobs as it was given."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:  # somebody else's, for a shell: an apostrophe in a comment is no quotation mark
        return entrypoint
    return shlex.join(["raytl", *words[words.index("--") + 1 :]] if "--" in words else words)


def list_jobs(dashboard: Dashboard, *, of_all: bool = False) -> list[Job]:
    """The searches that were submitted to a cluster, newest first. of_all: other jobs too."""
    jobs = [Job.of(details) for details in dashboard.list_jobs() if details.submission_id is not None]
    found = [job for job in jobs if of_all or job.run]
    return sorted(found, key=lambda job: job.started.timestamp() if job.started else 0.0, reverse=True)


def find_job(dashboard: Dashboard, name: str) -> JobHandle:
    """The last job of a run, or the one of that id. Raises UserError that names the nearest run."""
    jobs = list_jobs(dashboard)
    for job in jobs:
        if name in (job.run, job.id):
            return JobHandle(dashboard, job)
    hint = nearest(name, {job.run for job in jobs}) if jobs else "; none was submitted to it"
    raise UserError(f"no job of a run '{name}' on {dashboard.url}{hint}")
