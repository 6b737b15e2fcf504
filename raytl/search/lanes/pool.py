"""Jobs on their way to worker groups, and what comes back: an actor between Tune's trials and the groups.

A group outlives the trials, so neither side may know the other: a trial submits its job here and fetches the reports;
any group that is free takes it. Imports no torch: the processes that run Tune's trials stay small.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayError

from raytl.search.jobs import EpochReport, JobResult
from raytl.search.lanes.store import is_full

ATTEMPTS = 3
"""Times that a job is given to a group; a job that kills its workers each time has failed."""
POLL_S = 10.0
"""How long a question to the pool may stay open before it is asked again; shows that the asker is alive, as does a word
as often while the asker waits for Tune, whose process may be busy for minutes."""
ABANDONED_S = 60.0
"""A job whose trial has not been heard of for so long is stopped: the trial's process is gone."""
BEGUN_LIMIT = 3
"""Failures of a group in a row, without taking a job, after which it is given up."""


@dataclass(frozen=True)
class Ticket:
    """A job in the hands of a group. attempt: from 1; reports of earlier attempts are ignored."""

    key: str
    job: str
    attempt: int


@dataclass
class _Entry:
    job: str
    reports: asyncio.Queue[EpochReport | JobResult] = field(default_factory=asyncio.Queue)
    verdict: asyncio.Future[bool] | None = None
    attempt: int = 0
    asked: float = field(default_factory=time.monotonic)


class JobPool:
    """The actor; its methods are called remotely. One event loop, so no locks."""

    def __init__(self, groups: int) -> None:
        self._entries: dict[str, _Entry] = {}
        self._queue: deque[str] = deque()
        self._arrived = asyncio.Event()
        self._held: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        self._idle_failures = dict.fromkeys(range(groups), 0)
        self._starved: set[int] = set()
        self._closed = False

    # --- the trial's side -------------------------------------------------------------------------------------------

    async def submit(self, key: str, job: str) -> None:
        """Hand in a job under a key of its own."""
        self._entries[key] = _Entry(job)
        self._queue.append(key)
        self._arrived.set()
        if not self._idle_failures:
            self._fail(key, "no worker group could be started (see --verbose)")

    async def next_report(self, key: str, job: str) -> EpochReport | JobResult | None:
        """The job's next report, None to ask again. Asking lets the group go on after its previous report."""
        if key not in self._entries:  # given up, though the trial was only not heard of for a while: done again
            await self.submit(key, job)
        entry = self._entries[key]
        entry.asked = time.monotonic()
        self._answer(entry, goes_on=True)
        try:
            return await asyncio.wait_for(entry.reports.get(), POLL_S)
        except TimeoutError:
            return None

    async def still_there(self, key: str) -> None:
        """The trial's process lives, and waits for Tune's word on its last report."""
        if key in self._entries:
            self._entries[key].asked = time.monotonic()

    async def leave(self, key: str) -> None:
        """The trial is over, or was stopped: its job is not wanted any more."""
        entry = self._entries.pop(key, None)
        if entry is not None:  # None: given up already, because nobody asked for it any more
            self._answer(entry, goes_on=False)
        if key in self._queue:
            self._queue.remove(key)

    # --- the group's side -------------------------------------------------------------------------------------------

    async def take(self, group: int) -> Ticket | bool:
        """A job for a free group; True to ask again, False to end.

        A group that asks while it holds a job has been rebuilt after a crash: that job is due again.
        """
        self._calls[group] = call = self._calls.get(group, 0) + 1
        starved = group in self._starved
        self._died(group)
        if starved and len(self._idle_failures) > 1:
            del self._idle_failures[group]  # a lane less; the groups that are left have the memory to themselves
        if group not in self._idle_failures:
            return False
        deadline = time.monotonic() + POLL_S
        while not self._closed and time.monotonic() < deadline:
            if self._calls[group] != call:  # the worker that asked is gone, its successor asks already
                return True
            if self._queue:
                key = self._queue.popleft()
                entry = self._entries[key]
                entry.attempt += 1
                self._held[group] = key
                self._idle_failures[group] = 0
                return Ticket(key, entry.job, entry.attempt)
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        return not self._closed

    async def report(self, group: int, ticket: Ticket, report: EpochReport) -> bool:
        """Pass an epoch on and wait for the verdict; False: stop, the job is over."""
        entry = self._entries.get(ticket.key)
        if entry is None or entry.attempt != ticket.attempt or self._closed:
            self._held.pop(group, None)
            return False
        verdict = entry.verdict = asyncio.get_running_loop().create_future()
        entry.reports.put_nowait(report)
        while not verdict.done():
            await asyncio.wait([verdict], timeout=POLL_S)
            if time.monotonic() - entry.asked > ABANDONED_S:
                await self.leave(ticket.key)
        goes_on: bool = verdict.result()
        if not goes_on:
            self._held.pop(group, None)
        return goes_on

    async def finish(self, group: int, ticket: Ticket, result: JobResult) -> None:
        """Pass the result on."""
        self._held.pop(group, None)
        entry = self._entries.get(ticket.key)
        if entry is not None and entry.attempt == ticket.attempt:
            entry.reports.put_nowait(result)

    async def starved(self, group: int) -> None:
        """Ray ended a worker of the group, because its node ran out of memory; said before the group is rebuilt."""
        self._starved.add(group)

    async def lost(self, group: int) -> bool:
        """The group's trainer gave up. Whether to start another: not if this one never came as far as taking a job."""
        self._died(group)
        if group not in self._idle_failures:
            return False
        self._idle_failures[group] += 1
        again = self._idle_failures[group] < BEGUN_LIMIT and not self._closed
        if not again:
            del self._idle_failures[group]
            if not self._idle_failures:
                for key in list(self._queue):
                    self._fail(key, "no worker group could be started (see --verbose)")
        return again

    async def close(self) -> None:
        """End: groups stop after their epoch and are not given anything more."""
        self._closed = True
        self._arrived.set()
        for entry in self._entries.values():
            self._answer(entry, goes_on=False)

    # --- within -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _answer(entry: _Entry, *, goes_on: bool) -> None:
        if entry.verdict is not None and not entry.verdict.done():
            entry.verdict.set_result(goes_on)
        entry.verdict = None

    def _died(self, group: int) -> None:
        """The job that the group held, if any, goes back to the front of the queue, or has failed."""
        starved = group in self._starved
        self._starved.discard(group)
        key = self._held.pop(group, None)
        entry = self._entries.get(key) if key is not None else None
        if key is None or entry is None:
            return
        if starved:  # who gives out jobs counts how often, and with how many lanes
            entry.reports.put_nowait(JobResult(reason=_STARVED, starved=True))
        elif entry.attempt >= ATTEMPTS:
            self._fail(key, f"a worker process died in each of {ATTEMPTS} attempts (killed, or a bug: see --verbose)")
        else:
            self._queue.appendleft(key)
            self._arrived.set()

    def _fail(self, key: str, reason: str) -> None:
        if key in self._queue:
            self._queue.remove(key)
        self._entries[key].reports.put_nowait(JobResult(reason=reason))


_STARVED = "memory ran out, and Ray ended a worker"


def forward(config: dict[str, Any], pool: Any) -> None:
    """The trainable of a lane of several workers: has ``config["job"]`` done by a group, passes its reports to Tune."""
    key, job = uuid.uuid4().hex, config["job"]
    try:
        ray.get(pool.submit.remote(key, job))
        over = threading.Event()
        threading.Thread(target=_say_still_there, args=(pool, key, over), daemon=True).start()
        try:
            while True:
                report = ray.get(pool.next_report.remote(key, job))
                if report is not None:
                    # A stopped trial leaves from within this call.
                    tune.report({"report": report, "done": isinstance(report, JobResult)})
        finally:
            over.set()
            ray.get(pool.leave.remote(key))
    except RayError as error:
        if not starved(error):
            raise
        tune.report({"report": JobResult(reason=_STARVED, starved=True), "done": True})  # the pool itself was ended


def _say_still_there(pool: Any, key: str, over: threading.Event) -> None:
    while not over.wait(POLL_S):
        pool.still_there.remote(key)


def starved(error: BaseException) -> bool:
    """Whether Ray says that it ended a process because a node ran out of memory; a full object store is none."""
    says_so = isinstance(error, RayError) and "memory" in str(error).lower()
    return isinstance(error, OutOfMemoryError) or (says_so and not is_full(error))
