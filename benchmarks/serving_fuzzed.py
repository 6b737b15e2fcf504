"""Requests that schemathesis makes up from an endpoint's OpenAPI document, valid and not, through HAProxy and Serve.

    python benchmarks/serving_fuzzed.py [--seconds 600]

Told are the answers by kind, the slowest, and what memory the endpoint took more. Exits with 1 where an answer was 5xx
(but 503, which says to come again), a connection was cut off, or the endpoint does not answer afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import schemathesis
from common import finish, say, scratch_home
from endpoints import Server, make_bundle, picture, processes, raytl
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from requests.exceptions import RequestException
from schemathesis import GenerationMode

EXAMPLES = 100


def memory_mib(server: Server) -> float:
    """Resident memory of the endpoint's replicas."""
    total = 0.0
    for pid, line in processes(server.marks).items():
        if "ServeReplica" in line:
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return total


def fuzz(url: str, seconds: float) -> tuple[dict[str, Counter[int]], list[str], float]:
    """By operation, how often each status was answered; faults; the longest wait in seconds."""
    api = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in api.get_all_operations()]
    counts: dict[str, Counter[int]] = {f"{one.method.upper()} {one.path}": Counter() for one in operations}
    faults: list[str] = []
    longest, number, begin = 0.0, 0, time.monotonic()

    def answered(case: schemathesis.Case, name: str, *, known: bool) -> None:
        nonlocal longest
        if time.monotonic() - begin > seconds:
            return
        if known:
            named = case.path_parameters.keys() & {"model_name", "name"}
            case.path_parameters.update(dict.fromkeys(named, "raytl"))
        try:
            answer = case.call(timeout=60)
        except RequestException as error:
            faults.append(f"{name}: {error!r}"[:300])
            return
        counts[name][answer.status_code] += 1
        longest = max(longest, answer.elapsed)
        if answer.status_code >= 500 and answer.status_code != 503:
            faults.append(f"{name}: {answer.status_code}: {case.as_curl_command()}"[:300])

    while time.monotonic() - begin < seconds:
        number += 1
        for name, operation in zip(counts, operations, strict=True):
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                ask = partial(answered, name=name, known=number % 2 == 0)
                with contextlib.suppress(Unsatisfiable):  # nothing can be wrong in a request without parameters
                    _made_up(operation.as_strategy(generation_mode=mode), number, ask)
    return counts, faults, longest


def _made_up(cases: SearchStrategy[schemathesis.Case], number: int, ask: Callable[[schemathesis.Case], None]) -> None:
    @seed(number)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=cases)
    def one(case: schemathesis.Case) -> None:
        ask(case)

    one()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with scratch_home() as home, tempfile.TemporaryDirectory() as scratch:
        bundle = make_bundle(Path(scratch) / "a", "scratch:cnn-small", 1, 32)
        say("starting the endpoint")
        with raytl("raytl", bundle, home / "raytl", max_replicas=1) as server:
            body = picture(1, 32)
            expected = httpx.post(f"{server.url}/v1/predict", content=body, trust_env=False, timeout=60).json()
            before = memory_mib(server)
            counts, faults, longest = fuzz(server.url, asked.seconds)
            after = memory_mib(server)
            fine = httpx.post(f"{server.url}/v1/predict", content=body, trust_env=False, timeout=60).json() == expected
    kinds = sorted({status for found in counts.values() for status in found})
    rows = [[name, *(str(found[kind]) for kind in kinds)] for name, found in counts.items()]
    for fault in faults[:20]:
        say(fault)
    finish(
        "serving_fuzzed",
        f"answers by status in {asked.seconds:g} s; {len(faults)} faults; longest wait {longest:.2f} s; "
        f"{before:.0f} MiB before, {after:.0f} after; answers {'as before' if fine else 'otherwise than before'}",
        ["operation", *map(str, kinds)],
        rows,
        {
            "seconds": asked.seconds,
            "answers": {name: {str(kind): count for kind, count in found.items()} for name, found in counts.items()},
            "faults": len(faults),
            "longest_s": longest,
            "mib_before": before,
            "mib_after": after,
            "answers_as_before": fine,
        },
    )
    sys.exit(1 if faults or not fine else 0)


if __name__ == "__main__":
    main()
