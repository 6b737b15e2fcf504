"""What the benchmarks share: a scratch folder, one table, the JSON line, a model's accuracy."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
import ray
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from raytl.search.jobs import JobKind
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.tasks import LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem

WIDTH = 110
CLASSES = ("cross", "disc", "ring", "square")


@contextmanager
def scratch_home() -> Iterator[Path]:
    """A fresh RAYTL_HOME that is gone afterwards: nothing computed by an earlier run helps this one."""
    before = os.environ.get("RAYTL_HOME")
    with tempfile.TemporaryDirectory(prefix="raytl-benchmark-") as folder:
        os.environ["RAYTL_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["RAYTL_HOME"]
            else:
                os.environ["RAYTL_HOME"] = before


def finish(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: dict[str, Any]
) -> None:
    """Print the table and, as the last line, the JSON document of ``figures``."""
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=WIDTH).print(table)
    print(json.dumps({"benchmark": name, **machine(), **_rounded(figures)}), flush=True)


def _rounded(value: Any) -> Any:
    """Four significant digits are more than these figures have; JSON has no word for what is not a number."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def exit_status(floors: Mapping[str, bool | None]) -> int:
    """1 where a floor was not kept, or none was; one that was not measured (None) was neither kept nor missed."""
    missed = [name for name, kept in floors.items() if kept is False]
    for name in missed:
        say(f"floor not kept: {name}")
    if not missed and not any(floors.values()):
        say("no floor was measured")
    return 1 if missed or not any(floors.values()) else 0


def machine() -> dict[str, Any]:
    """On what and when."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cores": os.cpu_count(),
        "load_15_min": round(os.getloadavg()[2], 2),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def say(text: str) -> None:
    """Progress, on its own line above the table."""
    Console(width=WIDTH, stderr=True).print(text, highlight=False)


T = TypeVar("T")


def patiently(start: Callable[[], T], attempts: int = 6) -> T:
    """What ``start`` makes of a simulated cluster: on a busy machine Ray gives a node up that is not there in 30 s."""
    for attempt in range(1, attempts):
        try:
            return start()
        except Exception as error:  # noqa: BLE001 - Ray raises nothing narrower
            say(f"a node did not come up, and is tried again ({attempt}): {str(error).splitlines()[0]}")
    return start()


@contextmanager
def simulated(cpus: int, nodes: int, head_cpus: int) -> Iterator[tuple[Cluster, list[Any]]]:
    """A simulated cluster and its nodes of so many CPUs each, beside the head; this process is connected to it.

    Nothing of it is left afterwards, also where a node did not come up.
    """
    head = {"num_cpus": head_cpus, "include_dashboard": False}
    # Ray's own hooks at the exit need the main thread.
    started = patiently(lambda: Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False))
    try:
        others = [patiently(lambda: started.add_node(num_cpus=cpus)) for _ in range(nodes)]
        ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
        yield started, others
    finally:
        ray.shutdown()
        started.shutdown()


def median(values: Sequence[float]) -> float:
    """Of at least one value."""
    return float(statistics.median(values))


def accuracy(model: Any, images: Any) -> float:
    """Share of labelled images that a :class:`SourceModel` gets right, on the CPU."""
    import torch

    model = model.cpu().eval()
    pixels = images.tensor(model.preprocessing)
    with torch.no_grad():
        chunks = [model(model.preprocessing.normalise(chunk)).argmax(1) for chunk in pixels.split(256)]
    return float(np.mean(torch.cat(chunks).numpy() == images.labels))


class Silent:
    """Nobody listens."""

    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        """Nothing."""


class Ends(Silent):
    """When the trials of the search ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial(self, record: TrialRecord) -> None:
        """Note the moment of an end."""
        if record.kind == JobKind.SEARCH and record.status == TrialStatus.COMPLETED:
            self.times.append(time.perf_counter())


class RandomSampler(TpeSampler):
    """Learns nothing; starts with the same first strategies."""

    def make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """As for TPE."""
        return optuna.samplers.RandomSampler(self._seed + number)


def shapes(count: int, side: int, seed: int = 0) -> LabelledImages:
    """Colour images of a cross, a disc, a ring or a square on noise, one class each; ``side`` pixels."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:side, 0:side] / side
    labels = np.arange(count, dtype=np.int64) % 4
    items = []
    for number, label in enumerate(labels):
        y, x, size = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.3)
        dy, dx = np.abs(down - y), np.abs(across - x)
        radius = np.hypot(dy, dx)
        inside = [
            (np.minimum(dy, dx) < 0.3 * size) & (np.maximum(dy, dx) < size),
            radius < size,
            (radius < size) & (radius > 0.6 * size),
            np.maximum(dy, dx) < size,
        ][label]
        image = rng.uniform(0, 140, (side, side, 3)) + inside[..., None] * rng.uniform(40, 110, 3)
        items.append(PixelsItem(f"shape {number}", image.astype(np.uint8)))
    return LabelledImages("shapes", items, None, CLASSES, labels)


def task_of(target: LabelledImages) -> TrainingData:
    """A task of nothing but labelled target images."""
    return TrainingData(target.name, target.classes, target, None, {}, 3)
