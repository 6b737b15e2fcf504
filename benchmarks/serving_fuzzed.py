"""Requests that schemathesis makes up from an endpoint's OpenAPI document, valid and not, through HAProxy and Serve.

    python benchmarks/serving_fuzzed.py [--seconds 600]

Two models are deployed, one at ``/`` and one by its name, and the documents of both are gone through. Where a path has
a model's name or version, three requests in four have one that exists, of either model. Told are the answers by kind,
the slowest, and what memory the endpoint took more. Exits with 1 where an answer was 5xx (but 503, which says to come
again), a connection was cut off, no made-up tensor was ever classified, or the endpoint does not answer afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import schemathesis
from common import finish, say, scratch_home
from endpoints import Server, command, make_bundle, picture, processes, raytl
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from requests.exceptions import RequestException
from schemathesis import GenerationMode

EXAMPLES = 100
NAMED = "letters"


@dataclass(frozen=True)
class Model:
    """One that is deployed. name: by which it is. path: below which it answers. bundle, version: of its bundle."""

    name: str
    path: str
    bundle: str
    version: str

    @property
    def in_paths(self) -> dict[str, str]:
        """Its name and version, by the names of parameters in paths."""
        return {"model_name": self.name, "name": self.name, "version": self.version}

    @property
    def by_bundle(self) -> dict[str, str]:
        """The same with the name of its bundle, by which the open inference protocol knows it too."""
        return {**self.in_paths, "name": self.bundle}

    @classmethod
    def asked(cls, url: str, name: str, path: str) -> Model:
        """As the endpoint says."""
        told = httpx.get(f"{url}{path}/healthz", trust_env=False, timeout=60).json()
        return cls(name, path, told["model"], told["version"])


def memory_mib(server: Server) -> float:
    """Resident memory of the endpoint's replicas."""
    total = 0.0
    for pid, line in processes(server.marks).items():
        if "ServeReplica" in line:
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return total


def fuzz(url: str, models: Sequence[Model], seconds: float) -> tuple[dict[str, Counter[int]], list[str], float]:
    """By operation, how often each status was answered; faults; the longest wait in seconds."""
    operations = {}
    for model in models:
        api = schemathesis.openapi.from_url(f"{url}{model.path}/openapi.json")
        for found in api.get_all_operations():
            one = found.ok()
            operations[f"{one.method.upper()} {model.path}{one.path}"] = one
    counts: dict[str, Counter[int]] = {name: Counter() for name in operations}
    faults: list[str] = []
    longest, number, begin = 0.0, 0, time.monotonic()
    made_up: Mapping[str, str] = {}
    in_paths = itertools.cycle([*(model.in_paths for model in models), models[0].by_bundle, made_up])

    def answered(case: schemathesis.Case, name: str) -> None:
        nonlocal longest
        if time.monotonic() - begin > seconds:
            return
        known = next(in_paths)
        case.path_parameters.update({key: known[key] for key in case.path_parameters.keys() & known.keys()})
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
        for name, operation in operations.items():
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                ask = partial(answered, name=name)
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


def answers(url: str, models: Sequence[Model]) -> list[object]:
    """What each model says of one picture; of one that does not answer, why."""
    body = picture(1, 32)
    given = {"content": body, "trust_env": False, "timeout": 60}
    found: list[object] = []
    for model in models:
        try:
            found.append(httpx.post(f"{url}{model.path}/v1/predict", **given).json())
        except (httpx.HTTPError, ValueError) as error:
            found.append(repr(error))
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with scratch_home() as home, tempfile.TemporaryDirectory() as scratch:
        bundle, other = (
            make_bundle(Path(scratch) / name, "scratch:cnn-small", 1, 32, seed) for seed, name in enumerate("ab")
        )
        say("starting the endpoint")
        with raytl("raytl", bundle, home / "raytl", max_replicas=1, num_cpus=0.5) as server:
            port = int(server.url.rpartition(":")[2])
            options = f"port={port}, name={NAMED!r}, max_replicas=1, num_cpus=0.5"
            command(home / "raytl", f"deploy({str(other)!r}, {options}).to_json()")
            try:
                models = [Model.asked(server.url, "raytl", ""), Model.asked(server.url, NAMED, f"/v1/models/{NAMED}")]
                expected = answers(server.url, models)
                before = memory_mib(server)
                counts, faults, longest = fuzz(server.url, models, asked.seconds)
                after = memory_mib(server)
                fine = answers(server.url, models) == expected
            finally:
                command(home / "raytl", f"undeploy({NAMED!r})")
    faults += [f"{name}: never 200" for name, found in counts.items() if name.endswith("/infer") and not found[200]]
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
