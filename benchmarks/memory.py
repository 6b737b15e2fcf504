"""Whether a search's memory grows with the data: the same search of N photographs and of four times as many.

    python benchmarks/memory.py                     # 2,000 and 8,000 images of 256 px, searches of a minute
    python benchmarks/memory.py --labels            # as many labelled ones instead

Photographs are drawn, two classes of them, and written as JPEG; a few, or most, are labelled. ``raytl search`` runs as
a user starts it, in processes of its own. Memory is the proportional set size of all of these together, so that what
they share counts once, without pages of files, which the system takes back when it needs them; the most there was at
any moment; what is in swap is not counted. Beside it: what the data would take if it were held as bytes, at the 96
pixels that the space begins with.

Both have the same time, and not the same work: where one came to have more processes busy at once than the other (look
at the trials), that is in the difference. So the machine should be idle, and the budget long enough for dozens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import finish, say, scratch_home
from PIL import Image

_LOOK_S = 0.25
_SEEN = 96  # pixels a side at which the networks of the space see photographs; a probe that leads may see more
_MIB = 1 << 20
_LABELLED = 60  # images, where they are not what there is much of


@dataclass(frozen=True)
class Measured:
    """One search. peak, largest: MiB, the most in all and in one process. trials: how many there were."""

    peak: float
    largest: float
    trials: int
    seconds: float


def draw(folder: Path, count: int, side: int, first: int) -> None:
    """Photographs of two kinds of stripes before something smooth, every one different."""
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        ground = Image.fromarray(rng.integers(0, 200, (5, 5, 3), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
        kind = ("flat", "upright")[number % 2]
        y, x = np.mgrid[:side, :side]
        waves = 40 * np.sin((y if kind == "flat" else x) / rng.uniform(2, 6) + rng.uniform(0, 6))
        noisy = np.asarray(ground, dtype=np.float64) + waves[..., None] + rng.normal(0, 8, (side, side, 1))
        place = folder / kind if folder.name == "target" else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(place / f"{number}.jpg", quality=88)


def of_all(root: int) -> list[float]:
    """Proportional set sizes without pages of files, in MiB, of a process and all below it."""
    below: dict[int, list[int]] = {}
    for process in Path("/proc").iterdir():
        with suppress(ValueError, OSError, IndexError):
            number = int(process.name)
            below.setdefault(int((process / "stat").read_text().rpartition(")")[2].split()[1]), []).append(number)
    found, layer = [], [root]
    while layer:
        for number in layer:
            with suppress(OSError):
                lines = (Path("/proc") / str(number) / "smaps_rollup").read_text().splitlines()
                kept = [line.split()[1] for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))]
                found.append(sum(map(int, kept)) / 1024)
        layer = [child for number in layer for child in below.get(number, [])]
    return found


def measured(folder: Path, budget: float) -> Measured:
    """Search a folder with ``target`` and ``unlabelled`` in it."""
    command = [
        sys.executable, "-m", "raytl", "search", "--target", str(folder / "target"),
        "--unlabelled", str(folder / "unlabelled"), "--time-budget", f"{budget:g}s", "--storage", str(folder / "runs"),
        "--json",
    ]  # fmt: skip
    peak, largest, done = [0.0], [0.0], threading.Event()
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )

    def watch() -> None:
        while not done.wait(_LOOK_S):
            sizes = of_all(process.pid)
            peak[0], largest[0] = max(peak[0], sum(sizes)), max(largest[0], *sizes, 0.0)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        told, _ = process.communicate(timeout=budget * 5 + 600)
    finally:
        done.set()
        watching.join()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    document = json.loads(told or "{}")
    if process.returncode:
        raise SystemExit(f"the search failed: {document.get('error')}")
    return Measured(peak[0], largest[0], document["trials"]["count"], time.perf_counter() - started)


def main(
    images: Annotated[int, typer.Option(help="unlabelled images; then four times as many")] = 2000,
    labels: Annotated[bool, typer.Option(help="of those with labels; 60 have none")] = False,
    side: Annotated[int, typer.Option(help="pixels of a photograph")] = 256,
    budget: Annotated[float, typer.Option(help="seconds a search")] = 60.0,
) -> None:
    """Search both, one after the other."""
    rows, figures, found = [], {}, {}
    for count in (images, 4 * images):
        with scratch_home() as home:
            draw(home / "target", count if labels else _LABELLED, side, 0)
            draw(home / "unlabelled", _LABELLED if labels else count, side, count)
            say(f"{count} photographs drawn")
            one = found[count] = measured(home, budget)
        data = count * _SEEN * _SEEN * 3 / _MIB
        rows.append(
            (
                f"{count:,}",
                f"{data:.0f}",
                f"{one.peak:.0f}",
                f"{one.largest:.0f}",
                str(one.trials),
                f"{one.seconds:.0f}",
            )
        )
        figures[str(count)] = {"data_mib": data, "peak_mib": one.peak, "largest_mib": one.largest, "s": one.seconds}
    grown = found[4 * images].peak - found[images].peak
    more = 3 * images * _SEEN * _SEEN * 3 / _MIB
    figures |= {"grown_mib": grown, "data_grown_mib": more, "ratio": found[4 * images].peak / found[images].peak}
    header = ("images", "as bytes, MiB", "peak, MiB", "largest process", "trials", "s")
    finish("memory", "memory of a whole search", header, rows, figures)


if __name__ == "__main__":
    typer.run(main)
