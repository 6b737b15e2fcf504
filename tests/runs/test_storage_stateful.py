"""Drivers and readers of one run on three machines, with a fault between any two writes.

What must hold at any moment: whoever reads the run sees a beginning of what the driver that has it wrote, with all that
was kept before; and it can be gone on with from there. On a disk, on an object store made of files, and on S3.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pyarrow import fs
from s3 import s3_server

from raytl import sources
from raytl.runs import Run, RunStore, RunWriter, lock
from raytl.runs.lock import TakenError
from raytl.runs.storage import lease, segments
from raytl.runs.storage.lease import LostError
from raytl.runs.storage.mirror import Outbox
from raytl.runs.storage.objects import Objects
from raytl.runs.storage.remote import ObjectStorage
from raytl.search.records import Candidate, SearchOutcome, TrialRecord, TrialStatus
from raytl.sources import SourceModel
from raytl.sources.checkpoint import read_checkpoint, write_checkpoint

HOSTS = st.sampled_from(["a", "b"])
MANY_WRITES = 10**6
DEAD_PID = 2**30
"""Of no process: beyond what Linux gives. That of one that has ended is another's within minutes, where many begin."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """Drivers that begin tidy up what was read of runs, and are not to look through this user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


class Fuse:
    """How many more writes the store takes."""

    left = MANY_WRITES

    def burn(self) -> None:
        if not self.left:
            raise OSError("the store does not answer")
        self.left -= 1


class Fragile(Objects):
    """A store that may stop taking writes at any of them."""

    fuse: Fuse

    def below(self, name):
        found = Fragile(self._filesystem, self._path(name), f"{self.shown}/{name}")
        found.fuse = self.fuse
        return found

    def put(self, key, content):
        self.fuse.burn()
        super().put(key, content)

    def delete(self, key):
        self.fuse.burn()
        super().delete(key)


class Stepwise:
    """Sends when it is told to, instead of in a thread."""

    trouble = None

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    def wake(self) -> None:
        pass

    def send(self) -> None:
        while self.outbox.send_one():
            pass

    def finish(self, patience_s: float) -> list[str]:
        try:
            self.send()
        except (OSError, LostError) as error:
            self.trouble = error
        return self.outbox.waiting()


@dataclass
class Driver:
    """A process that writes the run. mirror: None on a disk, where there is nothing to send."""

    writer: RunWriter
    mirror: Stepwise | None

    taken_over: bool = False

    def numbers(self) -> list[int]:
        return [record.number for record in self.writer.trials]

    def end(self) -> Run:
        """The search comes to its end, where it tried anything."""
        numbers = self.numbers()
        if not numbers:
            return self.writer.interrupt()
        best = Candidate("best", {"cut": 1}, "key", numbers[:1], None)
        return self.writer.finish(SearchOutcome(self.writer.trials, best, [], "it led", 1.0))


class Runs(RuleBasedStateMachine):
    """What the storages have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.driver: tuple[str, Driver] | None = None
        self.paused: list[tuple[str, Driver]] = []
        self.kept: set[int] = set()
        self.next = 0
        self.ended: str | None = None

    def teardown(self) -> None:
        for _, driver in [*([self.driver] if self.driver else []), *self.paused]:
            driver.writer._keeper.release()
        shutil.rmtree(self.root)

    # --- what the storages differ in

    def store(self, host: str) -> RunStore: ...
    def driver_of(self, writer: RunWriter) -> Driver: ...
    def kill_process(self, driver: Driver) -> None: ...

    def read(self) -> Run | None:
        found = [place for place in self.store("reader").places() if place.name == "run"]
        return Run(found[0]) if found else None

    # --- what happens

    @rule(host=HOSTS)
    def begin_or_go_on(self, host):
        seen = self.read()
        occupied = self.driver is not None or any(where == host for where, _ in self.paused)
        try:
            writer = self.store(host).create("run", {}, resume=seen is not None)
        except TakenError:
            assert occupied
            return
        assert self.driver is None
        found = self.driver_of(writer)
        assert set(found.numbers()) >= self.kept
        self.driver, self.ended = (host, found), None
        for _, other in self.paused:
            other.taken_over = True

    @precondition(lambda self: self.driver)
    @rule()
    def trial(self):
        self.train(self.driver[1])
        self.note_kept()

    def train(self, driver: Driver) -> None:
        self.next += 1
        record = TrialRecord(self.next, "search", {"cut": 1}, "key", status=TrialStatus.COMPLETED, score=0.5)
        driver.writer.on_trial(record)

    @precondition(lambda self: self.driver)
    @rule()
    def finish(self):
        _, driver = self.driver
        numbers = driver.numbers()
        run = driver.end()
        self.driver = None
        assert driver.writer.unkept is None
        seen = self.read()
        assert seen.status == run.status
        assert list(seen.trials()["number"]) == [record.number for record in seen.records()] == numbers
        self.kept, self.ended = set(numbers), run.status

    @precondition(lambda self: self.driver)
    @rule()
    def kill(self):
        self.kill_process(self.driver[1])
        self.driver = None

    @invariant()
    def a_reader_sees_a_beginning_with_all_that_was_kept(self):
        run = self.read()
        if run is None:
            assert not self.kept
            return
        numbers = [record.number for record in run.records()]
        assert set(numbers) >= self.kept
        if self.driver is None:
            assert run.status != "running" and run.status == (self.ended or run.status)
        elif self.has_put_its_journal():
            assert run.status == "running" and numbers == self.driver[1].numbers()[: len(numbers)]
        if run.status == "finished":
            assert run.outcome["best"]["trials"] and len(run.trials()) == len(numbers)

    def has_put_its_journal(self) -> bool:
        return True

    def note_kept(self) -> None:
        run = self.read()
        if run is not None:
            self.kept = {record.number for record in run.records()}


class Killed(BaseException):
    """The process is gone: from here on nothing of it reaches the disk, whatever it would clean up."""


class Disk(Fuse):
    """A disk that a process may be gone before any write to."""

    WRITES = (
        (os, ("write", "fsync", "ftruncate")),
        (Path, ("open", "replace", "rename", "unlink", "mkdir", "chmod")),
        (shutil, ("rmtree",)),
    )

    def burn(self) -> None:
        if not self.left:
            raise Killed
        self.left -= 1

    @contextmanager
    def wired(self) -> Iterator[None]:
        """Each step by which this thread writes burns it, but those of the file lock, which goes with its process."""
        before = [(place, name, getattr(place, name)) for place, names in self.WRITES for name in names]
        for place, name, write in before:
            setattr(place, name, self._burning(write, threading.get_ident()))
        try:
            yield
        finally:
            for place, name, write in before:
                setattr(place, name, write)

    def _burning(self, write: Callable[..., Any], thread: int) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            reads = write.__name__ == "open" and "w" not in f"{arguments[1:]}{options}"
            locks = sys._getframe(1).f_globals["__name__"] == lock.__name__
            if threading.get_ident() == thread and not reads and not locks:
                self.burn()
            return write(*arguments, **options)

        return step


class OnDisk(Runs):
    """Killed in the middle of a line, or before any of the steps by which journal, tables, study, model are written."""

    model: SourceModel

    def __init__(self) -> None:
        super().__init__()
        self.fuse = Disk()
        self.modelled = False

    def store(self, host):
        return RunStore(self.root / "runs")

    def driver_of(self, writer):
        return Driver(writer, None)

    def kill_process(self, driver):
        """It dies in the middle of a line; its file lock goes with it, and its process number is no more."""
        with (driver.writer.path / "trials.jsonl").open("ab") as journal:
            journal.write(b'{"trial":7,"set":{"sta')
        self.bury(driver)

    def lapse(self) -> None:
        """What claims the run is a process that has ended."""
        for path in (self.root / "runs" / "run" / "lock").glob("*.claim"):
            claim = {"pid": DEAD_PID, "host": "a", "machine": lease._machine()}
            path.write_text(json.dumps(claim))

    def bury(self, driver: Driver) -> None:
        self.lapse()
        os.close(driver.writer._keeper._lock._file)
        driver.writer._keeper._lock._file = -1

    @precondition(lambda self: not self.driver)
    @rule(writes=st.integers(0, 8))
    def killed_while_it_begins(self, writes):
        seen = self.read()
        self.fuse.left = writes
        try:
            with self.fuse.wired():
                writer = self.store("a").create("run", {}, resume=seen is not None)
        except Killed:  # its file lock is let go of on the way
            self.lapse()
            self.ended = None
            return
        finally:
            self.fuse.left = MANY_WRITES
        self.driver, self.ended = ("a", self.driver_of(writer)), None

    @precondition(lambda self: self.driver)
    @rule(writes=st.integers(0, 40), trials=st.integers(0, 2), ends=st.booleans())
    def killed_at_any_write(self, writes, trials, ends):
        driver = self.driver[1]
        self.fuse.left = writes
        try:
            with self.fuse.wired():
                for _ in range(trials):
                    self.train(driver)
                write_checkpoint(driver.writer.path / "model", self.model, {"provenance": {"trial": self.next}})
                driver.writer.keep("model")
                self.modelled = True
                if ends:
                    self.ended = driver.end().status
                    self.driver = None
        except Killed:
            self.bury(driver)
            self.driver = self.ended = None
        finally:
            self.fuse.left = MANY_WRITES
        self.note_kept()

    @invariant()
    def a_model_is_whole_and_not_lost_with_the_one_that_takes_its_place(self):
        run = self.read()
        if run is None:
            return
        if run.has_model:
            assert read_checkpoint(run.bundle_path)[0].provenance["trial"] <= self.next
        assert run.has_model or not (self.driver and self.modelled)
        if self.driver:  # what it died over is gone when the run goes on
            assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


class OnObjects(Runs):
    """Killed at any write, or paused for so long that it is taken for dead, and then awake again."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = Fuse()
        self.mirrors: list[Stepwise] = []
        self.begun_with = 0
        segments.MANY = 3

    def teardown(self) -> None:
        self.fuse.left = MANY_WRITES
        super().teardown()
        segments.MANY = 64

    def objects(self) -> Objects:
        return Objects(fs.LocalFileSystem(), str(self.root / "store"), "file")

    def store(self, host):
        place = self.objects()
        place.__class__, place.fuse = Fragile, self.fuse
        store = RunStore.__new__(RunStore)
        store._storage = ObjectStorage("file", objects=place, copies=self.root / host, mirror=self.mirror)
        store.shown = "file"
        return store

    def mirror(self, outbox):
        self.mirrors.append(Stepwise(outbox))
        return self.mirrors[-1]

    def driver_of(self, writer):
        return Driver(writer, self.mirrors[-1])

    def kill_process(self, driver):
        self.lapse()
        os.close(driver.writer._keeper._locks[0]._file)
        driver.writer._keeper._locks[0]._file = -1

    def lapse(self) -> None:
        """The driver's claim is that of a process that has ended."""
        place = self.objects().below("run")
        for key in place.list("lock"):
            if key.endswith(".claim"):
                place.put(key, json.dumps(json.loads(place.get(key)) | {"pid": DEAD_PID}).encode())

    @precondition(lambda self: self.driver)
    @rule(writes=st.integers(0, 12))
    def send(self, writes):
        self.send_some(self.driver[1], writes)
        self.note_kept()

    @precondition(lambda self: self.driver)
    @rule()
    def pause(self):
        self.lapse()
        self.paused.append(self.driver)
        self.driver = None

    @precondition(lambda self: self.paused)
    @rule(writes=st.integers(0, 12), data=st.data())
    def one_that_was_taken_for_dead_wakes_up(self, writes, data):
        _, driver = data.draw(st.sampled_from(self.paused))
        if data.draw(st.booleans()):
            self.train(driver)
        self.send_some(driver, writes)
        if self.driver is None:
            self.note_kept()

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def one_that_was_taken_for_dead_ends(self, data):
        _, driver = entry = data.draw(st.sampled_from(self.paused))
        self.paused.remove(entry)
        run = driver.end()
        assert (driver.writer.unkept is None) == (not driver.taken_over)
        if not driver.taken_over:
            self.ended = run.status
            self.note_kept()

    @precondition(lambda self: self.driver)
    @rule(writes=st.integers(0, 12))
    def killed_at_the_end(self, writes):
        _, driver = self.driver
        self.fuse.left = writes
        driver.end()
        self.fuse.left = MANY_WRITES
        self.lapse()  # the store did not take that it let go, either
        self.driver = None
        self.note_kept()

    def send_some(self, driver: Driver, writes: int) -> None:
        self.fuse.left = writes
        try:
            driver.mirror.send()
        except OSError:
            pass
        except LostError:
            assert driver is not (self.driver or (None, None))[1]
        finally:
            self.fuse.left = MANY_WRITES

    def has_put_its_journal(self) -> bool:
        """Before that, what is there is still that of the driver before."""
        session = self.driver[1].mirror.outbox._journal._next
        return session.number > 0


WHOLE = [Phase.explicit, Phase.reuse, Phase.generate]  # each step is many files: making a case shorter takes minutes
FAST = settings(max_examples=25, stateful_step_count=30, phases=WHOLE, suppress_health_check=list(HealthCheck))
SLOW = settings(FAST, max_examples=4, stateful_step_count=25)


def check(machine: type[Runs], how: settings) -> None:
    case = machine.TestCase
    case.settings = how
    case("runTest").runTest()


def test_on_a_disk():
    OnDisk.model = sources.load("scratch:cnn-small", channels=1, image_size=16)
    check(OnDisk, FAST)


def test_on_an_object_store_made_of_files():
    check(OnObjects, FAST)


@pytest.mark.slow
def test_on_s3():
    with s3_server() as server:

        class OnS3(OnObjects):
            def objects(self) -> Objects:
                return Objects.at(server.uri(self.root.name))

        check(OnS3, SLOW)
