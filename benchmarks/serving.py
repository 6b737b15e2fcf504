"""How fast a served model answers, beside the same model behind other servers.

    python benchmarks/serving.py [--network tiny|resnet] [--seconds 5] [--rounds 3] [--connections 1,8,32]

Each server runs in processes of its own, one at work at a time, in rounds that take turns, so that what else the
machine does falls on all alike; every figure is the median of the rounds. The load comes from one more process on the
same cores. LitServe is fetched from PyPI into a folder of the benchmark's own, and left out where it cannot be had.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, median, say, scratch_home
from endpoints import OLD_WAY, Server, make_bundle, peer, picture, raytl

from raytl.bundles import Bundle
from raytl.bundles.shipping import ship_onnx

NETWORKS = {"tiny": ("scratch:cnn-small", 1, 32), "resnet": ("torchvision:resnet18", 3, 224)}
LITSERVE = "litserve==0.2.19"
FASTAPI = "FastAPI, uvicorn"
_BATCH = 32


def measure(server: Server, body: Path, connections: int, seconds: float) -> dict[str, float]:
    """One round of one server."""
    script = Path(__file__).with_name("http_load.py")
    kind = "application/json" if server.json_body else "image/png"
    arguments = [f"{server.url}/v1/predict", str(body.with_suffix(".json" if server.json_body else ".png")), kind]
    before = server.cpu_s()
    done = subprocess.run(
        [sys.executable, str(script), *arguments, str(connections), str(seconds)],
        capture_output=True,
        text=True,
        check=True,
    )
    cpu_s = server.cpu_s() - before
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {
        "requests_per_s": told["requests"] / seconds,
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "cpu_ms_per_request": 1000 * cpu_s / max(told["requests"], 1),
        "errors": told["errors"],
    }


def raw_images_per_s(bundle: Path) -> float:
    """What the network alone computes in batches on one thread, for comparison."""
    model = Bundle.load(bundle)
    torch.set_num_threads(1)
    manifest = model.manifest
    images = torch.zeros(_BATCH, manifest.channels, manifest.image_size, manifest.image_size, dtype=torch.uint8)
    model.probabilities(images)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 3:
        model.probabilities(images)
        count += _BATCH
    return count / (time.perf_counter() - start)


def litserve_folder(folder: Path) -> Path | None:
    """Where LitServe was installed, or None where it cannot be had."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*install, "--target", str(folder), LITSERVE], capture_output=True, text=True)
    if done.returncode:
        say(f"without LitServe: {done.stderr.strip().splitlines()[-1]}")
    return None if done.returncode else folder


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=NETWORKS, default="tiny")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", default="1,8,32")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for a replica of one CPU; peers get the same
    connections = [int(number) for number in given.connections.split(",")]
    network, channels, size = NETWORKS[given.network]
    with scratch_home() as home, tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        bundle = make_bundle(folder / "bundle", network, channels, size)
        body = folder / "body"
        image = picture(channels, size)
        body.with_suffix(".png").write_bytes(image)
        body.with_suffix(".json").write_text(json.dumps({"image": base64.b64encode(image).decode()}))
        shipped = ship_onnx(bundle, None, why="there are none", int8=True)
        assert shipped.int8 is not None and shipped.int8["kept"], shipped
        say("starting the servers")
        servers = [
            stack.enter_context(raytl("raytl", bundle, home / "fast", max_replicas=1)),
            stack.enter_context(raytl("raytl, Serve's proxy", bundle, home / "old", OLD_WAY, max_replicas=1)),
            stack.enter_context(peer(FASTAPI, "fastapi_server.py", bundle)),
            stack.enter_context(peer("raytl-serve", "runtime_server.py", bundle)),
            stack.enter_context(peer("raytl-serve --int8", "runtime_int8_server.py", bundle)),
        ]
        packages = litserve_folder(folder / "litserve")
        if packages is not None:
            servers.append(stack.enter_context(peer("LitServe", "litserve_server.py", bundle, packages, True)))
        for server in servers:
            measure(server, body, 8, 2)
        rounds: dict[tuple[str, int], list[dict[str, float]]] = {}
        for number in range(given.rounds):
            say(f"round {number + 1} of {given.rounds}")
            for count in connections:
                for server in servers[:: -1 if number % 2 else 1]:
                    rounds.setdefault((server.name, count), []).append(measure(server, body, count, given.seconds))
        raw = raw_images_per_s(bundle)
    report([server.name for server in servers], connections, rounds, raw, given)


def report(
    names: list[str],
    connections: list[int],
    rounds: dict[tuple[str, int], list[dict[str, float]]],
    raw: float,
    given: argparse.Namespace,
) -> None:
    """Print the table and the figures; ratios are taken round by round."""
    rows, figures = [], {}
    for count in connections:
        for name in names:
            of = rounds[name, count]
            figure: dict[str, Any] = {key: median([one[key] for one in of]) for key in of[0]}
            figure["errors"] = sum(one["errors"] for one in of)
            ratios = [
                b["requests_per_s"] / a["requests_per_s"]
                for a, b in zip(of, rounds[names[0], count], strict=True)
                if a["requests_per_s"]
            ]
            figure["raytl_is_times_as_fast"] = median(ratios) if ratios else float("nan")
            cpu = [
                b["cpu_ms_per_request"] / a["cpu_ms_per_request"]
                for a, b in zip(of, rounds[FASTAPI, count], strict=True)
                if a["cpu_ms_per_request"]
            ]
            figure["fastapi_cpu_is_times_as_much"] = median(cpu) if cpu else float("nan")
            figures[f"{name} at {count}"] = figure
            rows.append(
                [
                    name,
                    str(count),
                    f"{figure['requests_per_s']:.0f}",
                    f"{figure['p50_ms']:.1f}",
                    f"{figure['p99_ms']:.1f}",
                    f"{figure['cpu_ms_per_request']:.2f}",
                    str(int(figure["errors"])),
                    f"{figure['raytl_is_times_as_fast']:.2f}",
                    f"{figure['fastapi_cpu_is_times_as_much']:.2f}",
                ]
            )
    header = [
        "server",
        "connections",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        "errors",
        "raytl / this",
        "FastAPI's CPU / this",
    ]
    title = f"{given.network}: single PNGs; the network alone, in batches of {_BATCH}: {raw:.0f} images/s"
    settings = {"network": given.network, "seconds": given.seconds, "rounds": given.rounds}
    finish("serving", title, header, rows, {**settings, "raw_images_per_s": raw, "servers": figures})


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
