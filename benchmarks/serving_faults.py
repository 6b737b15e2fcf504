"""What clients notice when parts of an endpoint are killed or changed under 20 requests a second.

    python benchmarks/serving_faults.py [--old-way] [--seconds 25] [--only "proxy killed"]

Two replicas; each fault has a load of its own, an open loop: a request starts every 50 ms whatever became of the ones
before. Every answer is held against what the bundle that it names says without a server. Told are the requests that
failed (of these those that were refused a connection, and those whose connection was cut off; the rest were not 200),
the answers that were others than offline, the longest wait for an answer, the longest time in which no request was
answered, and how many answers each bundle gave.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from common import finish, say, scratch_home, simulated
from endpoints import OLD_WAY, Server, command, free_port, make_bundle, picture, processes, raytl

from raytl.bundles import Bundle
from raytl.serving import deploy, undeploy

RATE = 20
_FAULT_AT_S = 3.0
_AFTER_S = 8.0
_NEAR = 1e-4  # batches of other sizes round otherwise
_NODE = "node with a replica killed"
Fault = Callable[[], None]


def kill(server: Server, mark: str) -> Fault:
    """A fault: one process whose name has the mark dies."""

    def fault() -> None:
        while not (found := [pid for pid, line in processes(server.marks).items() if mark in line]):
            time.sleep(0.2)  # it was killed before, and is not back yet
        os.kill(max(found), signal.SIGKILL)  # the newest: HAProxies that were replaced finish their connections

    return fault


class Load:
    """Requests of one picture. bundles: that may answer, by the name that answers tell; read before they are served."""

    def __init__(self, bundles: Mapping[str, Path]) -> None:
        self._body = picture(1, 32)
        self._offline = {name: Bundle.load(path).predict([self._body])[0] for name, path in bundles.items()}

    def run(self, url: str, seconds: float, fault: Fault) -> dict[str, Any]:
        """Send requests for so long, with the fault after three seconds, and for some after it has come to its end."""
        return asyncio.run(self._run(url, seconds, fault))

    async def _run(self, url: str, seconds: float, fault: Fault) -> dict[str, Any]:
        answers: list[tuple[float, float, bool]] = []
        failures: Counter[str] = Counter()
        why: list[str] = []
        by: Counter[str] = Counter()
        wrong = 0

        async def ask(client: httpx.AsyncClient) -> None:
            nonlocal wrong
            start, fine = time.perf_counter(), False
            try:
                answer = await client.post(f"{url}/v1/predict", content=self._body)
            except httpx.HTTPError as error:
                failures["refused" if isinstance(error, httpx.ConnectError) else "cut off"] += 1
                why.append(f"{error!r} {start - begin:.2f} s to {time.perf_counter() - begin:.2f} s")
            else:
                fine = answer.status_code == 200
                if fine:
                    by[answer.json()["model"]] += 1
                    wrong += not self._as_offline(answer.json())
                else:
                    why.append(f"{answer.status_code} {start - begin:.2f} s to {time.perf_counter() - begin:.2f} s")
            answers.append((start, time.perf_counter(), fine))

        async with httpx.AsyncClient(trust_env=False, timeout=90) as client, asyncio.TaskGroup() as tasks:
            begin = time.perf_counter()
            end, done = begin + seconds, None
            while (now := time.perf_counter()) < end:
                tasks.create_task(ask(client))
                if now - begin > _FAULT_AT_S and done is None:
                    done = tasks.create_task(asyncio.to_thread(fault))
                if done is not None and not done.done():
                    end = max(end, now + _AFTER_S)
                await asyncio.sleep(1 / RATE)
        over = max([end, *(until for _, until, _ in answers)])
        answered = [begin, *sorted(until for _, until, fine in answers if fine), over]
        return {
            "requests": len(answers),
            "failed": sum(not fine for *_, fine in answers),
            "refused": failures["refused"],
            "cut_off": failures["cut off"],
            "wrong": wrong,
            "longest_wait_s": max((until - start for start, until, fine in answers if fine), default=float("nan")),
            "longest_silence_s": max(b - a for a, b in itertools.pairwise(answered)),
            "answered_by": dict(by),
            "why": why,
        }

    def _as_offline(self, told: Mapping[str, Any]) -> bool:
        offline = self._offline.get(told["model"])
        (said,) = told["predictions"]
        return (
            offline is not None
            and said["label"] == offline.label
            and said["probabilities"].keys() == offline.probabilities.keys()
            and all(abs(said["probabilities"][label] - p) < _NEAR for label, p in offline.probabilities.items())
        )


def trial_is_over(url: str) -> None:
    """Wait until no replica tells of a version on trial."""
    without = 0
    while without < 10:
        time.sleep(0.2)
        told = httpx.get(f"{url}/healthz", trust_env=False, timeout=60).json()
        without = 0 if "candidate" in told else without + 1


def changes(server: Server, home: Path, bundles: Mapping[str, Path], options: Mapping[str, Any]) -> dict[str, Fault]:
    """What people do to an endpoint, the folder of ``first`` gone at the end."""
    where = f"port={server.url.rpartition(':')[2]}"
    kept = "".join(f", {key}={value!r}" for key, value in options.items())

    def tell(code: str) -> Fault:
        return lambda: void(command(home, f"{code}.to_json()"))

    def on_trial(name: str, rules: str) -> Fault:
        def fault() -> None:
            command(home, f"try_out({str(bundles[name])!r}, {rules}).to_json()")
            trial_is_over(server.url)

        return fault

    def scaled(*counts: int) -> Fault:
        def fault() -> None:
            for count in counts:
                bounds = {**options, "min_replicas": count, "max_replicas": count}
                given = "".join(f", {key}={value!r}" for key, value in bounds.items())
                command(home, f"deploy({str(bundles['first'])!r}, {where}{given}).to_json()")
                while replicas(server) != count:
                    time.sleep(0.2)

        return fault

    def folder_deleted() -> None:
        shutil.rmtree(bundles["first"])
        kill(server, "ray::ServeReplica")()  # the next one has to find its model elsewhere

    return {
        "another bundle deployed": tell(f"deploy({str(bundles['second'])!r}, {where}{kept})"),
        "rolled back": tell("rollback()"),
        "a worse canary, taken back by itself": on_trial("second", "canary=0.2"),
        "a canary as good, promoted by itself": on_trial("alike", "canary=0.2, promote_after=60, max_slowdown=20"),
        "rolled back again": tell("rollback()"),
        "scaled up to 3 and down to 2": scaled(3, 2),
        "model's folder deleted, replica killed": folder_deleted,
    }


def void(_: object) -> None:
    """Nothing of it is needed."""


def replicas(server: Server) -> int:
    """How many live."""
    return sum("ray::ServeReplica" in line for line in processes(server.marks).values())


@contextlib.contextmanager
def two_nodes(bundle: Path) -> Iterator[tuple[str, Fault]]:
    """An endpoint with a replica on the head node and one on another; its address, and the other node's end."""
    with simulated(1, 1, head_cpus=1) as (started, (other,)):
        endpoint = deploy(bundle, port=free_port(), min_replicas=2, max_replicas=2, num_cpus=1)
        yield endpoint.url, lambda: void(started.remove_node(other, allow_graceful=False))
        undeploy()


def _print(figures: Mapping[str, Mapping[str, Any]], old_way: bool) -> None:
    rows = [
        [
            name,
            *(str(f[key]) for key in ("requests", "failed", "refused", "cut_off", "wrong")),
            f"{f['longest_wait_s']:.2f}",
            f"{f['longest_silence_s']:.2f}",
            ", ".join(f"{bundle} {count}" for bundle, count in sorted(f["answered_by"].items())),
        ]
        for name, f in figures.items()
    ]
    header = ["fault", "requests", "failed", "refused", "cut off", "wrong", "longest wait s", "silence s", "answers"]
    title = f"{RATE} requests/s, two replicas" + (", through Ray Serve's own proxy" if old_way else "")
    finish("serving_faults", title, header, rows, {"old_way": old_way, "faults": figures})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--old-way", action="store_true", help="through Ray Serve's own proxy, with its defaults")
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--only", action="append", help="a fault, by its name in the table; may be given again")
    given = parser.parse_args()
    environment = {**OLD_WAY, "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "10"} if given.old_way else {}
    os.environ |= {"OMP_NUM_THREADS": "1", **environment}
    options = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.5}
    figures: dict[str, dict[str, Any]] = {}
    try:
        with scratch_home() as home, tempfile.TemporaryDirectory() as scratch:
            seeds = {"first": 0, "second": 1, "alike": 0}
            bundles = {
                name: make_bundle(Path(scratch) / name, "scratch:cnn-small", 1, 32, seed, note=name)
                for name, seed in seeds.items()
            }
            load = Load(bundles)
            if not given.only or _NODE in given.only:
                say(_NODE)
                with two_nodes(bundles["first"]) as (url, fault):
                    figures[_NODE] = load.run(url, given.seconds, fault)
                say(f"  {figures[_NODE]}")
            if given.only != [_NODE]:
                say("starting the endpoint")
                with raytl("raytl", bundles["first"], home / "raytl", environment, **options) as server:
                    faults: dict[str, Fault] = {
                        "nothing": lambda: None,
                        "replica killed": kill(server, "ray::ServeReplica"),
                        "proxy killed": kill(server, "ray::ProxyActor" if given.old_way else "bin/haproxy -db"),
                    }
                    if not given.old_way:
                        faults["HAProxy's actor killed"] = kill(server, "ray::HAProxyManager")
                    faults["controller killed"] = kill(server, "ray::ServeController")
                    faults |= changes(server, home / "raytl", bundles, options)
                    for name, fault in faults.items():
                        if given.only and name not in given.only:
                            continue
                        say(name)
                        figures[name] = load.run(server.url, given.seconds, fault)
                        say(f"  {figures[name]}")
                        time.sleep(20)  # whatever the fault set going has come to its end
    finally:  # what is known is worth telling, whatever ended it
        _print(figures, given.old_way)


if __name__ == "__main__":
    main()
