"""What clients notice when parts of an endpoint are killed or changed under 20 requests a second.

    python benchmarks/serving_faults.py [--old-way] [--seconds 25] [--only "proxy killed"]

Two replicas; each fault has a load of its own, an open loop: a request starts every 50 ms whatever became of the ones
before. Told are the requests that failed (of these those that were refused a connection, and those whose connection was
cut off; the rest were not 200), the longest wait for an answer, and the longest time in which no request was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
from common import finish, say, scratch_home
from endpoints import OLD_WAY, Server, command, make_bundle, picture, processes, raytl

RATE = 20
_FAULT_AT_S = 3.0


def kill(server: Server, mark: str) -> Callable[[], None]:
    """A fault: one process whose name has the mark dies."""

    def fault() -> None:
        # The newest: HAProxies that were replaced finish their connections.
        pid = max(pid for pid, line in processes(server.marks).items() if mark in line)
        os.kill(pid, signal.SIGKILL)

    return fault


async def under_load(url: str, body: bytes, seconds: float, fault: Callable[[], None]) -> dict[str, float]:
    """Send requests for so long, with the fault after three seconds."""
    answers: list[tuple[float, float, bool]] = []
    failures: Counter[str] = Counter()

    async def ask(client: httpx.AsyncClient) -> None:
        start = time.perf_counter()
        try:
            fine = (await client.post(f"{url}/v1/predict", content=body)).status_code == 200
        except httpx.HTTPError as error:
            fine = False
            failures["refused" if isinstance(error, httpx.ConnectError) else "cut off"] += 1
        answers.append((start, time.perf_counter(), fine))

    async with httpx.AsyncClient(trust_env=False, timeout=90) as client, asyncio.TaskGroup() as tasks:
        begin = time.perf_counter()
        done = False
        while (now := time.perf_counter() - begin) < seconds:
            tasks.create_task(ask(client))
            if now > _FAULT_AT_S and not done:
                done = True
                tasks.create_task(asyncio.to_thread(fault))
            await asyncio.sleep(1 / RATE)
    answered = sorted(end for _, end, fine in answers if fine)
    gaps = [b - a for a, b in itertools.pairwise(answered)]
    return {
        "requests": len(answers),
        "failed": sum(not fine for *_, fine in answers),
        "refused": failures["refused"],
        "cut_off": failures["cut off"],
        "longest_wait_s": max(end - start for start, end, fine in answers if fine),
        "longest_silence_s": max(gaps),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--old-way", action="store_true", help="through Ray Serve's own proxy, with its defaults")
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--only", help="one fault, by its name in the table")
    given = parser.parse_args()
    environment = {**OLD_WAY, "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "10"} if given.old_way else {}
    os.environ["OMP_NUM_THREADS"] = "1"
    options = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.5}
    with scratch_home() as home, tempfile.TemporaryDirectory() as scratch:
        first, second = (
            make_bundle(Path(scratch) / name, "scratch:cnn-small", 1, 32, seed) for seed, name in enumerate("ab")
        )
        body = picture(1, 32)
        say("starting the endpoint")
        with raytl("raytl", first, home / "raytl", environment, **options) as server:
            port = int(server.url.rsplit(":", 1)[1])

            def deploy_another() -> None:
                command(home / "raytl", f"deploy({str(second)!r}, port={port}, **{options!r}).to_json()", environment)

            faults = {
                "nothing": lambda: None,
                "another bundle deployed": deploy_another,
                "replica killed": kill(server, "ray::ServeReplica"),
                "proxy killed": kill(server, "ray::ProxyActor" if given.old_way else "bin/haproxy -db"),
            }
            if not given.old_way:
                faults["HAProxy's actor killed"] = kill(server, "ray::HAProxyManager")
            faults["controller killed"] = kill(server, "ray::ServeController")
            figures = {}
            if given.only:
                faults = {given.only: faults[given.only]}
            for name, fault in faults.items():
                say(name)
                figures[name] = asyncio.run(under_load(server.url, body, given.seconds, fault))
                say(f"  {figures[name]}")
                time.sleep(20)  # whatever the fault set going has come to its end
    rows = [
        [
            name,
            *(str(f[key]) for key in ("requests", "failed", "refused", "cut_off")),
            f"{f['longest_wait_s']:.2f}",
            f"{f['longest_silence_s']:.2f}",
        ]
        for name, f in figures.items()
    ]
    header = ["fault", "requests", "failed", "refused", "cut off", "longest wait s", "longest silence s"]
    title = f"{RATE} requests/s, two replicas" + (", through Ray Serve's own proxy" if given.old_way else "")
    finish("serving_faults", title, header, rows, {"old_way": given.old_way, "faults": figures})


if __name__ == "__main__":
    main()
