"""Endpoints of the serving benchmarks: started, counted and stopped as processes of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from raytl.bundles import export_bundle
from raytl.serving.ports import free_port
from raytl.sources import build_architecture

PEERS = Path(__file__).parent / "peers"
OLD_WAY = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
"""Ray Serve's own proxy, as it is by default."""
_TRIES = 3  # on a busy machine Ray gives itself up that is not there in 30 s
_PATIENCE_S = 300.0  # there too, for raytl and its peers alike
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """What answers at ``url``; ``marks`` are found in the command lines of its processes or of their ancestors."""

    name: str
    url: str
    marks: tuple[str, ...]
    json_body: bool = False

    def cpu_s(self) -> float:
        """Processor time that its processes have used so far, seconds."""
        total = 0.0
        for pid in processes(self.marks):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) * _TICK_S
        return total


def processes(marks: tuple[str, ...]) -> dict[int, str]:
    """Processes whose command line has one of the marks, and all below them, with their command lines."""
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            lines[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf8", "replace")
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid for pid, line in lines.items() if any(mark in line for mark in marks) and pid != os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return {pid: lines[pid] for pid in found}


def make_bundle(folder: Path, network: str, channels: int, size: int, seed: int = 0, note: str = "") -> Path:
    """An untrained network with ten labels; how fast it answers does not depend on its weights.

    note: makes of the same network another version.
    """
    labels = tuple(f"class {number}" for number in range(10))
    model = build_architecture(network, num_classes=len(labels), channels=channels, image_size=size, seed=seed)
    model.labels = labels
    example = Image.open(io.BytesIO(picture(channels, size)))
    return export_bundle(folder, model, metrics={}, provenance={"note": note}, examples=[example])


def picture(channels: int, size: int) -> bytes:
    """A PNG of that size."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, channels), dtype=np.uint8).squeeze()
    file = io.BytesIO()
    Image.fromarray(pixels).resize((size, size)).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def raytl(
    name: str, bundle: Path, home: Path, environment: Mapping[str, str] | None = None, **options: object
) -> Iterator[Server]:
    """raytl's endpoint, as ``raytl deploy`` makes it."""
    port = free_port()
    given = {"port": port, "wait_s": _PATIENCE_S, **options}
    told = command(home, f"deploy({str(bundle)!r}, **{given!r}).to_json()", environment)
    try:
        head = json.loads((home / "serving" / "head.json").read_text())
        yield Server(name, str(told["url"]), (head["temp_dir"],))
    finally:
        command(home, "undeploy()")


def command(home: Path, code: str, environment: Mapping[str, str] | None = None) -> dict[str, object]:
    """What an expression of ``raytl.serving`` gives, evaluated in a process of its own."""
    names = "deploy, rollback, try_out, undeploy"
    lines = ["import json", f"from raytl.serving import {names}", f"print(json.dumps({code}))"]
    given = {**os.environ, "RAYTL_HOME": str(home), **(environment or {})}
    given.pop("RAY_ADDRESS", None)  # a head of its own, whatever cluster there is
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


@contextlib.contextmanager
def peer(
    name: str, script: str, bundle: Path, packages: Path | None = None, json_body: bool = False
) -> Iterator[Server]:
    """A peer of ``benchmarks/peers``. packages: a folder that has what it needs beside raytl."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(packages or "")]))
    with tempfile.TemporaryFile() as said, contextlib.ExitStack() as stack:
        for left in reversed(range(_TRIES)):
            port = free_port()
            arguments = [sys.executable, str(PEERS / script), str(bundle), str(port)]
            environment = {**os.environ, "PYTHONPATH": path}
            with contextlib.ExitStack() as starting:
                process = subprocess.Popen(arguments, env=environment, stdout=said, stderr=said, start_new_session=True)
                starting.callback(_end, process)
                if _answers(port, process):
                    stack.enter_context(starting.pop_all())
                    break
                if not left or process.poll() is None:
                    said.seek(0)
                    raise RuntimeError(f"{name} did not start: {said.read().decode('utf8', 'replace')[-2000:]}")
        yield Server(name, f"http://127.0.0.1:{port}", (f"{script} {bundle} {port}",), json_body)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A peer, with all that it started."""
    process.terminate()  # Ray's processes take leave of each other
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):  # all of it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers would outlive it
    process.wait(20)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether there is a server in time. Ray Serve's proxy knows no path before its application is there."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/v1/predict", trust_env=False).status_code not in (404, 503):
                return True
        time.sleep(0.2)
    return False
