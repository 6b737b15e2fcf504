"""The pool between trials and worker groups, in one event loop without Ray."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace

import pytest

from raytl.search.jobs import EpochReport, JobResult
from raytl.search.lanes import pool as pool_module
from raytl.search.lanes.pool import ABANDONED_S, ATTEMPTS, BEGUN_LIMIT, JobPool, Ticket


class Clock(selectors.DefaultSelector):
    """Of an event loop that has nobody to wait for: the time that it would sleep has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()

    def select(self, timeout=None):
        found = super().select(None if timeout is None else 0)
        self.now += timeout or 0.0
        return found


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    """Of the pool."""
    clock = Clock()
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def play(clock: Clock) -> Callable[[Callable[[], Coroutine[None, None, None]]], None]:
    """Has a story happen."""

    def loop() -> asyncio.AbstractEventLoop:
        made = asyncio.SelectorEventLoop(clock)
        made.time = lambda: clock.now
        return made

    def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(story())

    return run


def epoch(number: int) -> EpochReport:
    return EpochReport({"epoch": float(number)})


async def taken(pool: JobPool, group: int = 0) -> Ticket:
    ticket = await pool.take(group)
    assert isinstance(ticket, Ticket)
    return ticket


def test_a_job_goes_through(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job")
        ticket = await taken(pool)
        assert ticket == Ticket("a", "job", 1)
        reporting = asyncio.create_task(pool.report(0, ticket, epoch(1)))
        assert await pool.next_report("a", "job") == epoch(1)
        assert not reporting.done()  # the verdict is the next question
        asking = asyncio.create_task(pool.next_report("a", "job"))
        assert await reporting is True
        await pool.finish(0, ticket, JobResult(seconds=3.0))
        assert (await asking).seconds == 3.0

    play(story)


def test_a_stopped_trial_stops_its_group_which_is_free_again(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job a")
        await pool.submit("b", "job b")
        ticket = await taken(pool)
        reporting = asyncio.create_task(pool.report(0, ticket, epoch(1)))
        await pool.next_report("a", "job")
        await pool.leave("a")
        assert await reporting is False
        assert (await taken(pool)).key == "b"

    play(story)


def test_a_job_that_nobody_took_can_be_left(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job a")
        await pool.leave("a")
        assert await pool.take(0) is True

    play(story)


def test_the_job_of_a_crashed_group_is_due_again_before_others_and_old_reports_are_refused(play):
    async def story():
        pool = JobPool(2)
        await pool.submit("a", "job a")
        await pool.submit("b", "job b")
        first = await taken(pool, 0)
        second = await taken(pool, 0)  # asks although it holds a job: it was rebuilt
        assert (second.key, second.attempt) == ("a", 2)
        assert await pool.report(0, first, epoch(1)) is False
        await pool.finish(0, first, JobResult(reason="late"))
        await pool.finish(0, second, JobResult(seconds=1.0))
        assert (await pool.next_report("a", "job")).reason is None

    play(story)


def test_a_job_that_kills_its_group_each_time_fails(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job")
        for _ in range(ATTEMPTS):
            await taken(pool)
        assert await pool.take(0) is True
        assert f"died in each of {ATTEMPTS} attempts" in (await pool.next_report("a", "job")).reason

    play(story)


def test_a_question_of_a_dead_worker_does_not_swallow_a_job(play):
    async def story():
        pool = JobPool(1)
        orphan = asyncio.create_task(pool.take(0))
        await asyncio.sleep(0)
        successor = asyncio.create_task(pool.take(0))
        await asyncio.sleep(0)
        await pool.submit("a", "job")
        assert await orphan is True
        assert (await successor).attempt == 1

    play(story)


def test_a_group_does_not_wait_for_a_trial_that_is_gone(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job")
        ticket = await taken(pool)
        assert await pool.report(0, ticket, epoch(1)) is False

    play(story)


def test_a_trial_that_waits_for_a_busy_driver_keeps_its_job(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job")
        ticket = await taken(pool)
        reporting = asyncio.create_task(pool.report(0, ticket, epoch(1)))
        await pool.next_report("a", "job")
        for _ in range(10):  # for twice as long as it takes to be given up
            await asyncio.sleep(ABANDONED_S / 5)
            await pool.still_there("a")
        assert not reporting.done()
        asking = asyncio.create_task(pool.next_report("a", "job"))
        assert await reporting is True
        await pool.finish(0, ticket, JobResult(seconds=3.0))
        assert (await asking).seconds == 3.0

    play(story)


def test_the_job_of_a_trial_that_was_given_up_and_asks_after_all_is_done_again(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job")
        ticket = await taken(pool)
        assert await pool.report(0, ticket, epoch(1)) is False
        asking = asyncio.create_task(pool.next_report("a", "job"))
        again = await taken(pool)
        assert again.job == "job"
        await pool.finish(0, again, JobResult(seconds=3.0))
        assert (await asking).seconds == 3.0

    play(story)


def test_jobs_fail_when_no_group_can_be_started(play):
    async def story():
        pool = JobPool(1)
        await pool.submit("a", "job a")
        for _ in range(BEGUN_LIMIT - 1):
            assert await pool.lost(0) is True
        assert await pool.lost(0) is False
        await pool.submit("b", "job b")
        for key in ("a", "b"):
            assert "no worker group could be started" in (await pool.next_report(key, "job")).reason

    play(story)


def test_closing_ends_groups_and_stops_their_trials(play):
    async def story():
        pool = JobPool(2)
        await pool.submit("a", "job")
        ticket = await taken(pool, 0)
        reporting = asyncio.create_task(pool.report(0, ticket, epoch(1)))
        waiting = asyncio.create_task(pool.take(1))
        await pool.next_report("a", "job")
        await pool.close()
        assert await reporting is False
        assert await waiting is False
        assert await pool.take(0) is False

    play(story)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_group_that_was_ended_for_its_memory_is_one_less_where_there_are_others(play, groups: int):
    """Its job goes back to who gives out jobs, at the first time: the number of attempts says nothing of memory."""

    async def story():
        pool = JobPool(groups)
        for key in ("a", "b"):
            await pool.submit(key, f"job {key}")
        lost = groups - 1
        ticket = await taken(pool, lost)
        await pool.starved(lost)
        again = await pool.take(lost)
        result = await pool.next_report(ticket.key, "job")
        assert isinstance(result, JobResult) and result.starved
        assert (again is False) == (groups == 2)
        if groups == 2:
            assert (await taken(pool, 0)).key == "b"
            assert not await pool.lost(lost)  # and it is not begun anew
        else:
            assert isinstance(again, Ticket) and again.key == "b"

    play(story)
