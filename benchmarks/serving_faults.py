"""What clients notice when parts of an endpoint are killed or changed under 20 requests a second.

    python benchmarks/serving_faults.py                 # a quarter of an hour on two cores; --quick: half of that
    python benchmarks/serving_faults.py --only "proxy killed" --only "controller killed" [--old-way]

Two replicas are kept. Each fault has a load of its own, an open loop: a request is due every 50 ms whatever became of
the ones before, and is waited for from the moment that it was due. Every answer is held against what the bundle that it
names says without a server.

failed    requests without an answer of 200, but for the busy ones; of these so many were refused a connection, and so
          many cut off while they waited
busy      answers of 503 with Retry-After, which the docs tell of: come again
wrong     answers that are others than offline
stall s   the longest wait for an answer, or the longest time in which no request was answered, whichever is longer;
          "load late" of the JSON document says by how much the load itself was late at most
answers   how many each bundle gave

The last line is one JSON document, with the floors: see ``Fault`` and ``judged``. Exits with 1 where one was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from common import exit_status, finish, say, scratch_home, simulated
from endpoints import OLD_WAY, Server, command, free_port, make_bundle, picture, processes, raytl

from raytl.bundles import Bundle
from raytl.serving import deploy, undeploy

RATE = 20
CHANGED_S = 0.5
"""Longest stall where the version is changed."""
KILLED_S = 2.0
"""Longest stall where something is killed that there are two of, or that is at once replaced."""
_NEAR = 1e-4  # batches of other sizes round otherwise
_PATIENCE_S = 300.0  # on a busy machine a replica takes long to come
_NODE = "node with a replica killed"
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What is done to an endpoint.

    act: does it, and returns when it is done. stall_s: the longest stall allowed, None where it is only told.
    then: the bundle that answers all requests at the end. answers: all bundles that answer any, from before it on.
    """

    act: Callable[[], object]
    stall_s: float | None = KILLED_S
    then: str = "first"
    answers: tuple[str, ...] = ("first",)


def kill(server: Server, mark: str) -> Callable[[], None]:
    """The end of one process whose name has the mark."""

    def act() -> None:
        found = wait_for(
            lambda: [pid for pid, line in processes(server.marks).items() if mark in line],
            f"a {mark} to kill",  # it was killed before, perhaps, and is not back yet
        )
        os.kill(max(found), signal.SIGKILL)  # the newest: HAProxies that were replaced finish their connections

    return act


def wait_for(look: Callable[[], T], what: str) -> T:
    """What ``look`` finds, once it finds something. Raises TimeoutError."""
    stop = time.monotonic() + _PATIENCE_S
    while not (found := look()):
        if time.monotonic() > stop:
            raise TimeoutError(f"there was not {what} within {_PATIENCE_S:g} s")
        time.sleep(0.2)
    return found


class Load:
    """Requests of one picture. bundles: that may answer, by the name that answers tell; read before they are served.

    lead_s: from the first request to the fault. after_s: for which requests go on, at least, once it is done.
    """

    def __init__(self, bundles: Mapping[str, Path], lead_s: float = 3.0, after_s: float = 8.0) -> None:
        self._body = picture(1, 32)
        self._offline = {name: Bundle.load(path).predict([self._body])[0] for name, path in bundles.items()}
        self._lead_s, self._after_s = lead_s, after_s

    def run(self, url: str, seconds: float, act: Callable[[], object]) -> dict[str, Any]:
        """What became of the requests of at least so long, and of as long as a fault among them takes."""
        return asyncio.run(self._run(url, seconds, act))

    async def _run(self, url: str, seconds: float, act: Callable[[], object]) -> dict[str, Any]:
        told = _Told()
        async with httpx.AsyncClient(trust_env=False, timeout=90) as client, asyncio.TaskGroup() as tasks:
            begin = time.perf_counter()
            end, done = begin + max(seconds, self._lead_s + self._after_s), None
            for number in itertools.count():
                due = begin + number / RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if due >= end:
                    break
                told.late_s = max(told.late_s, time.perf_counter() - due)
                tasks.create_task(self._ask(client, url, due, told))
                if due - begin > self._lead_s and done is None:
                    done = tasks.create_task(asyncio.to_thread(act))
                if done is not None and not done.done():
                    end = max(end, due + self._after_s)
        return {"done": done is not None, **told.figures(begin, end)}

    async def _ask(self, client: httpx.AsyncClient, url: str, due: float, told: _Told) -> None:
        try:
            answer = await client.post(f"{url}/v1/predict", content=self._body)
        except httpx.HTTPError as error:
            told.note(due, "refused" if isinstance(error, httpx.ConnectError) else "cut off", repr(error))
            return
        if answer.status_code == 200:
            document = answer.json()
            told.note(due, "fine", document["model"])
            told.wrong += not self._as_offline(document)
        else:
            busy = answer.status_code == 503 and "retry-after" in answer.headers
            told.note(due, "busy" if busy else "other", f"{answer.status_code} {answer.text[:200]}")

    def _as_offline(self, told: Mapping[str, Any]) -> bool:
        offline = self._offline.get(told["model"])
        (said,) = told["predictions"]
        return (
            offline is not None
            and said["label"] == offline.label
            and said["probabilities"].keys() == offline.probabilities.keys()
            and all(abs(said["probabilities"][label] - p) < _NEAR for label, p in offline.probabilities.items())
        )


class _Told:
    """What became of a load's requests."""

    def __init__(self) -> None:
        self._ended: list[tuple[float, float, str, str]] = []  # due, until, what became of it, by whom or why
        self.wrong = 0
        self.late_s = 0.0

    def note(self, due: float, became: str, more: str) -> None:
        """One request. became: fine, busy, or how it failed. more: the bundle that answered, or why it failed."""
        self._ended.append((due, time.perf_counter(), became, more))

    def figures(self, begin: float, end: float) -> dict[str, Any]:
        """In all."""
        count = Counter(became for *_, became, _ in self._ended)
        fine = [(due, until, by) for due, until, became, by in self._ended if became == "fine"]
        failed = [one for one in self._ended if one[2] not in ("fine", "busy")]
        over = max([end, *(until for _, until, *_ in self._ended)])
        answered = [begin, *sorted(until for _, until, _ in fine), over]
        longest_wait_s = max((until - due for due, until, *_ in self._ended), default=0.0)
        longest_silence_s = max(b - a for a, b in itertools.pairwise(answered))
        return {
            "requests": len(self._ended),
            "failed": len(failed),
            "refused": count["refused"],
            "cut_off": count["cut off"],
            "busy": count["busy"],
            "wrong": self.wrong,
            "longest_wait_s": longest_wait_s,
            "longest_silence_s": longest_silence_s,
            "stall_s": max(longest_wait_s, longest_silence_s),
            "load_late_s": self.late_s,
            "answered_by": dict(Counter(by for *_, by in fine)),
            "at_the_end_by": sorted({by for due, _, by in fine if due > end - 1}),
            "why": [f"{why} {due - begin:.2f} s to {until - begin:.2f} s" for due, until, _, why in failed[:20]],
        }


def judged(faults: Mapping[str, Fault], figures: Mapping[str, Mapping[str, Any]]) -> dict[str, bool | None]:
    """Whether the floors were kept, by fault and figure.

    It was done, no request fails, every answer is that of the bundle offline, and no stall is longer than the fault may
    bring. Each bundle that is to answer did, and no other: a version that got no request tells nothing of its change.
    In the end all requests are answered by the one that is to.
    """
    kept: dict[str, bool | None] = {}
    for name, found in figures.items():
        limit = faults[name].stall_s
        kept |= {
            f"{name}: done": found["done"],
            f"{name}: failed": found["failed"] == 0,
            f"{name}: wrong": found["wrong"] == 0,
            f"{name}: stall": None if limit is None else found["stall_s"] <= limit,
            f"{name}: answers": set(found["answered_by"]) == set(faults[name].answers),
            f"{name}: at the end": found["at_the_end_by"] == [faults[name].then],
        }
    return kept


def trial_is_over(url: str) -> None:
    """Wait until no replica tells of a version on trial. Raises TimeoutError."""
    without = 0

    def none_tells() -> bool:
        nonlocal without
        told = httpx.get(f"{url}/healthz", trust_env=False, timeout=60)
        without = without + 1 if told.status_code == 200 and "candidate" not in told.json() else 0
        return without == 10

    wait_for(none_tells, "an end of the trial")


def kills(server: Server, old_way: bool) -> dict[str, Fault]:
    """What can die of an endpoint; nothing at first, for what the load alone comes to."""
    faults = {
        "nothing": Fault(lambda: None, stall_s=None),
        "replica killed": Fault(kill(server, "ray::ServeReplica")),
        "proxy killed": Fault(kill(server, "ray::ProxyActor" if old_way else "bin/haproxy -db")),
    }
    if not old_way:
        faults["HAProxy's actor killed"] = Fault(kill(server, "ray::HAProxyManager"))
    faults["controller killed"] = Fault(kill(server, "ray::ServeController"))
    return faults


def changes(server: Server, home: Path, bundles: Mapping[str, Path], options: Mapping[str, Any]) -> dict[str, Fault]:
    """What people do to an endpoint, in this order, the folder of ``first`` gone at the end."""
    where = f"port={server.url.rpartition(':')[2]}"
    kept = "".join(f", {key}={value!r}" for key, value in options.items())

    def tell(code: str) -> Callable[[], object]:
        return lambda: command(home, f"{code}.to_json()")

    def on_trial(name: str, rules: str) -> Callable[[], None]:
        def act() -> None:
            command(home, f"try_out({str(bundles[name])!r}, {rules}).to_json()")
            trial_is_over(server.url)

        return act

    def scaled(*counts: int) -> Callable[[], None]:
        def act() -> None:
            for count in counts:
                bounds = {**options, "min_replicas": count, "max_replicas": count}
                given = "".join(f", {key}={value!r}" for key, value in bounds.items())
                command(home, f"deploy({str(bundles['first'])!r}, {where}{given}).to_json()")
                wait_for(lambda count=count: replicas(server) == count, f"an endpoint of {count} replicas")

        return act

    def folder_deleted() -> None:
        shutil.rmtree(bundles["first"])
        kill(server, "ray::ServeReplica")()  # the next one has to find its model elsewhere

    deployed = tell(f"deploy({str(bundles['second'])!r}, {where}{kept})")
    worse = on_trial("second", "canary=0.2")
    promoted = on_trial("alike", "canary=0.2, promote_after=60, max_slowdown=20")
    return {
        "another bundle deployed": Fault(deployed, CHANGED_S, "second", ("first", "second")),
        "rolled back": Fault(tell("rollback()"), CHANGED_S, answers=("first", "second")),
        "a worse canary, taken back by itself": Fault(worse, CHANGED_S, answers=("first", "second")),
        "a canary as good, promoted by itself": Fault(promoted, CHANGED_S, "alike", ("first", "alike")),
        "rolled back again": Fault(tell("rollback()"), CHANGED_S, answers=("first", "alike")),
        "scaled up to 3 and down to 2": Fault(scaled(3, 2)),
        "model's folder deleted, replica killed": Fault(folder_deleted),
    }


def replicas(server: Server) -> int:
    """How many live."""
    return sum("ray::ServeReplica" in line for line in processes(server.marks).values())


@contextlib.contextmanager
def two_nodes(bundle: Path) -> Iterator[tuple[str, Fault]]:
    """An endpoint with a replica on the head node and one on another; its address, and the other node's end."""
    with simulated(1, 1, head_cpus=1) as (started, (other,)):
        endpoint = deploy(bundle, port=free_port(), min_replicas=2, max_replicas=2, num_cpus=1)
        yield endpoint.url, Fault(lambda: started.remove_node(other, allow_graceful=False))
        undeploy()


def report(faults: Mapping[str, Fault], figures: Mapping[str, Mapping[str, Any]], given: argparse.Namespace) -> int:
    """Print the table and the figures. Returns the exit status."""
    rows = [
        [
            name,
            *(str(f[key]) for key in ("requests", "failed", "refused", "cut_off", "busy", "wrong")),
            f"{f['stall_s']:.2f}",
            f"{limit:g}" if (limit := faults[name].stall_s) is not None else "",
            ", ".join(f"{bundle} {count}" for bundle, count in sorted(f["answered_by"].items())),
        ]
        for name, f in figures.items()
    ]
    header = ["fault", "requests", "failed", "refused", "cut off", "busy", "wrong", "stall s", "at most", "answers"]
    title = f"{RATE} requests/s, two replicas" + (", through Ray Serve's own proxy" if given.old_way else "")
    floors = judged(faults, figures)
    settings = {"quick": given.quick, "old_way": given.old_way, "seconds": given.seconds}
    finish("serving_faults", title, header, rows, {**settings, "faults": figures, "floors": floors})
    return exit_status(floors)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="10 s of load for each fault, and less rest between them")
    parser.add_argument("--old-way", action="store_true", help="through Ray Serve's own proxy, with its defaults")
    parser.add_argument("--seconds", type=float, help="of load for each fault, at least (default 25; quick 10)")
    parser.add_argument("--only", action="append", help="a fault, by its name in the table; may be given again")
    given = parser.parse_args()
    given.seconds = given.seconds or (10.0 if given.quick else 25.0)
    environment = {**OLD_WAY, "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "10"} if given.old_way else {}
    os.environ |= {"OMP_NUM_THREADS": "1", **environment}
    options = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.5}
    faults: dict[str, Fault] = {}
    figures: dict[str, dict[str, Any]] = {}
    status = 1
    try:
        with scratch_home() as home, tempfile.TemporaryDirectory() as scratch:
            seeds = {"first": 0, "second": 1, "alike": 0}
            bundles = {
                name: make_bundle(Path(scratch) / name, "scratch:cnn-small", 1, 32, seed, note=name)
                for name, seed in seeds.items()
            }
            load = Load(bundles, after_s=5.0 if given.quick else 8.0)

            def run(name: str, url: str, fault: Fault) -> None:
                say(name)
                faults[name] = fault
                figures[name] = load.run(url, given.seconds, fault.act)
                say(f"  {figures[name]}")

            if not given.only or _NODE in given.only:
                with two_nodes(bundles["first"]) as (url, fault):
                    run(_NODE, url, fault)
            if given.only != [_NODE]:
                say("starting the endpoint")
                with raytl("raytl", bundles["first"], home / "raytl", environment, **options) as server:
                    known = kills(server, given.old_way) | changes(server, home / "raytl", bundles, options)
                    for name, fault in known.items():
                        if given.only and name not in given.only:
                            continue
                        run(name, server.url, fault)
                        # Whatever the fault set going is to come to its end.
                        time.sleep(8 if given.quick else 20)
                        wait_for(lambda: replicas(server) == 2, "an endpoint of two replicas")
    finally:  # what is known is worth telling, whatever ended it
        status = report(faults, figures, given)
    sys.exit(status)


if __name__ == "__main__":
    main()
