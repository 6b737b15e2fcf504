"""How fast a served model answers, beside the same model behind other servers.

    python benchmarks/serving.py                        # three quarters of an hour on two cores; --quick: eight minutes
    python benchmarks/serving.py --network tiny --seconds 5 --rounds 3 --connections 1,8,32,128 --shares 0.5,0.8

Each server runs in processes of its own, one at work at a time, in rounds that take turns, so that what else the
machine does falls on all alike; every figure is the median of the rounds, every ratio that of the rounds' ratios. The
load comes from one more process on the same cores, see ``http_load.py``:

connections  a closed loop: each sends the next request when it has its answer
shares       ("x 0.8") an open loop: requests at random moments, at such a share of what the same server answered a
             second in the same round's closed loop of 32 connections, whatever becomes of them. The latencies count
             from the moment that a request was due

"raytl / this": by how many times raytl answers more a second. "FastAPI's CPU / this": how many times as much processor
time FastAPI takes for a request. LitServe is fetched from PyPI into a folder of the benchmark's own, and left out where
it cannot be had. The last line is one JSON document, with the floors; exits with 1 where one was not kept.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import exit_status, finish, median, say, scratch_home
from endpoints import OLD_WAY, Server, make_bundle, peer, picture, raytl

from raytl.bundles import Bundle
from raytl.bundles.shipping import ship_onnx

LITSERVE_PACKAGE = "litserve==0.2.19"
RAYTL, RUNTIME, INT8, LITSERVE, FASTAPI = (
    "raytl", "raytl-serve", "raytl-serve --int8", "LitServe", "FastAPI, uvicorn",
)  # fmt: skip
OURS = (RAYTL, RUNTIME, INT8)
MANY = 32
"""Connections of the closed loop that the floors are about, and that the open loops take their rates from."""
_BATCH = 32


@dataclass(frozen=True)
class Network:
    """What is served. lead_s: seconds after which a closed loop is in its stride, as long as some batches take."""

    name: str
    channels: int
    size: int
    lead_s: float


NETWORKS = {"tiny": Network("scratch:cnn-small", 1, 32, 1), "resnet": Network("torchvision:resnet18", 3, 224, 4)}


@dataclass(frozen=True)
class Floors:
    """What the figures are held against; ratios, at 32 connections where nothing else is said.

    over_litserve, over_fastapi: raytl's requests a second over theirs, tiny network. p99_over_p50: of raytl's latency,
    tiny network. p50_over_litserve: at one connection, tiny network. of_raw: raytl's requests a second over the images
    a second that ResNet-18 alone computes in batches. runtime_cpu: FastAPI's processor time for a request over that of
    the runtime without torch and Ray, either network. No request to raytl or its runtime may fail, under any load, and
    no round of theirs be without an answer.
    """

    over_litserve: float = 2.0
    over_fastapi: float = 2.0
    p99_over_p50: float = 3.0
    p50_over_litserve: float = 1.0
    of_raw: float = 0.9
    runtime_cpu: float = 2.0


@dataclass(frozen=True)
class Cell:
    """A load: of a closed loop its connections, of an open one its share of the closed loop's rate."""

    connections: int = 0
    share: float = 0.0

    def __str__(self) -> str:
        if not self.connections:
            return f"{self.share:g} of its rate"
        return f"{self.connections} connection{'s' if self.connections > 1 else ''}"


Measured = dict[str, float]
Rounds = dict[tuple[str, Cell], list[Measured]]


def measure(server: Server, body: Path, load: Sequence[str], seconds: float, lead_s: float) -> Measured:
    """One round of one server. load: arguments of ``http_load.py`` that say which."""
    script = Path(__file__).with_name("http_load.py")
    kind = "application/json" if server.json_body else "image/png"
    where = [f"{server.url}/v1/predict", str(body.with_suffix(".json" if server.json_body else ".png")), kind]
    before = server.cpu_s()
    done = subprocess.run(
        [sys.executable, str(script), *where, *load, "--seconds", str(seconds), "--lead", str(lead_s)],
        capture_output=True,
        text=True,
        check=True,
    )
    cpu_s = server.cpu_s() - before
    told: Measured = json.loads(done.stdout.splitlines()[-1])
    return {
        "requests_per_s": told["requests"] / seconds,
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "late_ms": told["late_ms"],
        "cpu_ms_per_request": 1000 * cpu_s / told["answers"] if told["answers"] else math.nan,
        "errors": told["errors"],
    }


def raw_images_per_s(model: Bundle, seconds: float) -> float:
    """What the network alone computes in batches on one thread, for comparison."""
    torch.set_num_threads(1)
    manifest = model.manifest
    images = torch.zeros(_BATCH, manifest.channels, manifest.image_size, manifest.image_size, dtype=torch.uint8)
    model.probabilities(images)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        model.probabilities(images)
        count += _BATCH
    return count / (time.perf_counter() - start)


def litserve_folder(folder: Path) -> Path | None:
    """Where LitServe was installed, or None where it cannot be had."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*install, "--target", str(folder), LITSERVE_PACKAGE], capture_output=True, text=True)
    if done.returncode:
        say(f"without LitServe: {done.stderr.strip().splitlines()[-1]}")
    return None if done.returncode else folder


def measured(
    network: Network, rounds: Rounds, packages: Path | None, home: Path, folder: Path, given: argparse.Namespace
) -> None:
    """All rounds of a network, into ``rounds``, so that an end before the last loses none; of equal length otherwise.

    packages: with LitServe. folder: for the bundle. The network alone is named "raw".
    """
    body = folder / "body"
    bundle = make_bundle(folder / "bundle", network.name, network.channels, network.size)
    image = picture(network.channels, network.size)
    body.with_suffix(".png").write_bytes(image)
    body.with_suffix(".json").write_text(json.dumps({"image": base64.b64encode(image).decode()}))
    shipped = ship_onnx(bundle, None, why="there are none", int8=True)
    assert shipped.int8 is not None and shipped.int8["kept"], shipped
    closed = [Cell(connections=count) for count in given.connections]
    opened = [Cell(share=share) for share in given.shares]
    with ExitStack() as stack:
        say(f"starting the servers of {network.name}")
        servers = [
            stack.enter_context(raytl(RAYTL, bundle, home / "fast", max_replicas=1)),
            stack.enter_context(peer("Ray Serve", "ray_serve_server.py", bundle)),
            stack.enter_context(peer(FASTAPI, "fastapi_server.py", bundle)),
            stack.enter_context(peer(RUNTIME, "runtime_server.py", bundle)),
            stack.enter_context(peer(INT8, "runtime_int8_server.py", bundle)),
        ]
        if given.old_way:
            servers.append(
                stack.enter_context(raytl("raytl, Serve's proxy", bundle, home / "old", OLD_WAY, max_replicas=1))
            )
        if packages is not None:
            servers.append(stack.enter_context(peer(LITSERVE, "litserve_server.py", bundle, packages, True)))
        for server in servers:
            measure(server, body, ["--connections", "8"], 2, 0)
        alone = Bundle.load(bundle)
        for number in range(given.rounds):
            say(f"round {number + 1} of {given.rounds}")
            rounds.setdefault(("raw", Cell()), []).append({"images_per_s": raw_images_per_s(alone, given.seconds)})
            for cell in [*closed, *opened]:
                for server in servers[:: -1 if number % 2 else 1]:
                    load = ["--connections", str(cell.connections)]
                    if not cell.connections:
                        answered = rounds[server.name, Cell(MANY)][number]["requests_per_s"]
                        load = ["--rate", str(max(1.0, cell.share * answered))]
                    found = measure(server, body, load, given.seconds, network.lead_s)
                    rounds.setdefault((server.name, cell), []).append(found)


def ratio(above: Sequence[Measured] | None, below: Sequence[Measured] | None, key: str, of: str = "") -> float:
    """Median of one figure over another, over the rounds that have both; NaN where none has. of: the second one's key.

    A round that was interrupted has some servers only.
    """
    pairs = zip(above or (), below or (), strict=False)
    return _median([a[key] / b[of or key] if b[of or key] else math.nan for a, b in pairs])


def _median(values: Sequence[float]) -> float:
    """Of the rounds that have the figure: one without answers has no latency."""
    there = [value for value in values if not math.isnan(value)]
    return median(there) if there else math.nan


def judged(network: str, rounds: Rounds, floors: Floors) -> tuple[dict[str, float], dict[str, bool | None]]:
    """The ratios that there are floors for, by name, and whether each was kept; None where it was not measured."""
    ratios: dict[str, float] = {}
    kept: dict[str, bool | None] = {}
    many, one = Cell(MANY), Cell(1)

    def hold(name: str, value: float, keeps: Callable[[float], bool]) -> None:
        ratios[name] = value
        kept[name] = None if math.isnan(value) else bool(keeps(value))

    ours = rounds.get((RAYTL, many))
    if network == "tiny":
        for name, floor in ((LITSERVE, floors.over_litserve), (FASTAPI, floors.over_fastapi)):
            answered = ratio(ours, rounds.get((name, many)), "requests_per_s")
            hold(f"raytl over {name}", answered, lambda value, floor=floor: value >= floor)
        hold("p99 over p50", ratio(ours, ours, "p99_ms", "p50_ms"), lambda value: value <= floors.p99_over_p50)
        alone = ratio(rounds.get((RAYTL, one)), rounds.get((LITSERVE, one)), "p50_ms")
        hold("p50 over LitServe's at 1", alone, lambda value: value <= floors.p50_over_litserve)
    else:
        share = ratio(ours, rounds.get(("raw", Cell())), "requests_per_s", "images_per_s")
        hold("raytl over the network alone", share, lambda value: value >= floors.of_raw)
    cpu = ratio(rounds.get((FASTAPI, many)), rounds.get((RUNTIME, many)), "cpu_ms_per_request")
    hold("FastAPI's CPU over raytl-serve's", cpu, lambda value: value >= floors.runtime_cpu)
    of_ours = [found for (name, _), of in rounds.items() if name in OURS for found in of]
    hold("errors", sum(found["errors"] for found in of_ours) if of_ours else math.nan, lambda value: value == 0)
    # Where there is no answer there is no figure either, and the other rounds' median may be a good one.
    fewest = min((found["requests_per_s"] for found in of_ours), default=math.nan)
    hold("fewest answers a second", fewest, lambda value: value > 0)
    return ratios, kept


def table(network: str, rounds: Rounds) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows and figures of a network."""
    rows, figures = [], {}
    for (name, cell), of in sorted(rounds.items(), key=lambda item: (item[0][1].share, item[0][1].connections)):
        if name == "raw":
            continue
        figure: dict[str, Any] = {key: _median([one[key] for one in of]) for key in of[0]}
        figure["errors"] = sum(one["errors"] for one in of)
        figure["raytl_is_times_as_fast"] = ratio(rounds.get((RAYTL, cell)), of, "requests_per_s")
        figure["fastapi_cpu_is_times_as_much"] = ratio(rounds.get((FASTAPI, cell)), of, "cpu_ms_per_request")
        figures[f"{name}, {cell}"] = figure
        rows.append(
            [
                network,
                name,
                str(cell.connections or f"x {cell.share:g}"),
                f"{figure['requests_per_s']:.0f}",
                f"{figure['p50_ms']:.1f}",
                f"{figure['p99_ms']:.1f}",
                f"{figure['cpu_ms_per_request']:.2f}",
                str(int(figure["errors"])),
                f"{figure['raytl_is_times_as_fast']:.2f}" if cell.connections else "",
                f"{figure['fastapi_cpu_is_times_as_much']:.2f}",
            ]
        )
    return rows, figures


def report(found: Mapping[str, Rounds], given: argparse.Namespace) -> dict[str, bool | None]:
    """Print the table and the figures. Returns the floors."""
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    floors: dict[str, bool | None] = {}
    alone = []
    for network, rounds in found.items():
        more, servers = table(network, rounds)
        rows += more
        raw = _median([one["images_per_s"] for one in rounds.get(("raw", Cell()), ())])
        alone.append(f"{raw:.0f} ({network})")
        ratios, kept = judged(network, rounds, Floors())
        floors |= {f"{network}: {name}": held for name, held in kept.items()}
        figures[network] = {"raw_images_per_s": raw, "ratios": ratios, "servers": servers}
    header = [
        "network",
        "server",
        "load",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        "errors",
        "raytl / this",
        "FastAPI's CPU / this",
    ]
    title = f"Single PNGs; the network alone, in batches of {_BATCH}: {', '.join(alone)} images/s"
    settings = {"quick": given.quick, "seconds": given.seconds, "rounds": given.rounds}
    finish("serving", title, header, rows, {**settings, "networks": figures, "floors": floors})
    return floors


def _parse() -> argparse.Namespace:
    """The command line; lists of numbers as such."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one round, fewer loads, 2 s each")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="may be given again; both by default")
    parser.add_argument("--seconds", type=float, help="of each load, beside its lead")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--connections", help="of the closed loops; 1 and 32 are always among them")
    parser.add_argument("--shares", help="of the open loops; an empty list has none")
    parser.add_argument("--old-way", action="store_true", help="raytl through Ray Serve's own proxy as well")
    given = parser.parse_args()
    given.seconds = given.seconds or (2 if given.quick else 5)
    given.rounds = given.rounds or (1 if given.quick else 3)
    counts = given.connections or ("1,32" if given.quick else "1,8,32,128")
    given.connections = sorted({1, MANY, *map(int, counts.split(","))})
    shares = ("0.8" if given.quick else "0.5,0.8") if given.shares is None else given.shares
    given.shares = [float(share) for share in shares.split(",") if share]
    return given


def main() -> None:
    """Run the benchmark."""
    given = _parse()
    os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for a replica of one CPU; peers get the same
    found: dict[str, Rounds] = {}
    floors: dict[str, bool | None] = {}
    try:
        with scratch_home() as home, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            packages = litserve_folder(Path(scratch) / "litserve")
            for name in given.network or list(NETWORKS):
                (Path(scratch) / name).mkdir()
                found[name] = {}
                measured(NETWORKS[name], found[name], packages, home / name, Path(scratch) / name, given)
    finally:  # what is known is worth telling, whatever ended it
        floors = report(found, given)
    sys.exit(exit_status(floors))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
