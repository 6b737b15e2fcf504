"""Whether a search loses anything to kills: a lane, a node, the driver, one after the other, every few seconds.

    python benchmarks/chaos.py
    python benchmarks/chaos.py --trials 12 --every 10        # two minutes

The same search twice, on the same simulated nodes (ray.cluster_utils.Cluster), undisturbed and with kills (-9). A
driver that was killed is started again with what `raytl search --resume` does. Strategies are listed beforehand and
nobody is stopped early, so that both searches train the same; what is compared is every trial that ever ended, by its
score to the last bit, the time, and the choice.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import finish, patiently, say, scratch_home
from PIL import Image
from ray.cluster_utils import Cluster

from raytl.runs import Run, RunStore

LIMIT = 1.5
"""Times of the undisturbed search that a disturbed one may take."""
SIDE = 16
BY_ITSELF = 5
"""Ends of a driver that nobody killed, after which the benchmark gives up."""
DRIVER = """
import sys
from pathlib import Path
import raytl
folder, name, trials, lanes, address = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
if (folder / "runs" / name / "run.json").exists():
    raytl.resume(name, storage=folder / "runs", address=address)
else:
    task = raytl.Task(folder / "photos", holdout=0.0)
    raytl.search(task, str(folder / "space.yaml"), trials=trials, lanes=lanes, name=name, storage=folder / "runs",
                 warm_start=False, address=address)
"""


def prepare(folder: Path, trials: int, epochs: int) -> None:
    """Photographs of noise in three colours, and a space that is a list of strategies."""
    rng = np.random.default_rng(0)
    for name, colour in {"red": (150, 90, 90), "green": (90, 150, 90), "blue": (90, 90, 150)}.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.array(colour) + rng.normal(0, 70, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "photos" / name / f"{number}.png")
    rates = [round(0.01 * 1.05**number, 6) for number in range(trials)]
    first = "\n".join(f"  - {{head_lr: {rate}, cut: {number % 3}}}" for number, rate in enumerate(rates))
    (folder / "space.yaml").write_text(
        f"image_size: {SIDE}\nepochs: {epochs}\ngrace_epochs: {epochs}\nsteps_per_epoch: 4\nbatch_size: 16\n"
        f"space:\n  source_model: [scratch:cnn-small]\n  cut: [0, 1, 2]\n  optimizer: [sgd]\n"
        f"  head_lr: {{low: 0.001, high: 1.0, log: true}}\nfirst:\n{first}\n"
    )


class Search:
    """A search in a process of its own, that is started again whenever it was killed."""

    def __init__(self, folder: Path, name: str, trials: int, cluster: Cluster, nodes: int) -> None:
        self.folder, self.name, self.cluster = folder, name, cluster
        self.nodes = [self._add_node() for _ in range(nodes)]
        self.by_itself = 0
        self.kills: dict[str, int] = {}
        self.seen: dict[tuple[str, int], float] = {}
        self._arguments = [str(folder), name, str(trials), str(nodes), cluster.address]
        self._driver = self._start()

    def run_to_end(self, every: float | None) -> float:
        """Seconds to the end. every: between two kills; None for none."""
        started = time.monotonic()
        kinds = self._kinds()
        kind, kill = next(kinds)
        last = started
        while True:
            code = self._driver.poll()
            self._note()
            if code == 0:
                return time.monotonic() - started
            if code is not None:
                if code != -signal.SIGKILL:
                    self.by_itself += 1
                    said = (self.folder / f"{self.name}.log").read_text().strip().splitlines()
                    say(f"{time.monotonic() - started:.0f} s: the driver ended by itself ({code}): {said[-1:]}")
                    if self.by_itself > BY_ITSELF:
                        raise SystemExit("the driver ends again and again; see above")
                self._driver = self._start()
            if every is not None and time.monotonic() - last >= every and kill():  # a lane may not be up yet
                self.kills[kind] = self.kills.get(kind, 0) + 1
                say(f"{time.monotonic() - started:.0f} s: killed a {kind}; {len(self.seen)} trials had ended")
                last = time.monotonic()
                kind, kill = next(kinds)
            time.sleep(0.2)

    def close(self) -> None:
        """End its driver and take its nodes away."""
        if self._driver.poll() is None:
            self._kill_driver()
        for node in self.nodes:
            self.cluster.remove_node(node)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        with (self.folder / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", DRIVER, *self._arguments], env=environment, start_new_session=True,
                stdout=log, stderr=log,
            )  # fmt: skip

    def _kinds(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        return itertools.cycle([("lane", self._kill_lane), ("node", self._kill_node), ("driver", self._kill_driver)])

    def _kill_lane(self) -> bool:
        nodes = {node.all_processes["raylet"][0].process.pid for node in self.nodes}
        for path in Path("/proc").glob("[0-9]*"):
            if _parent(path) in nodes and b"ray::ImplicitFunc" in _command(path):
                os.kill(int(path.name), signal.SIGKILL)
                return True
        return False

    def _kill_node(self) -> bool:
        node = self.nodes.pop(0)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self._add_node())
        return True

    def _add_node(self) -> Any:
        return patiently(lambda: self.cluster.add_node(num_cpus=1))

    def _kill_driver(self) -> bool:
        os.killpg(self._driver.pid, signal.SIGKILL)
        self._driver.wait()
        return True

    def _note(self) -> None:
        """Every trial whose end was written, with its score."""
        folder = self.folder / "runs" / self.name
        if (folder / "run.json").exists() and (folder / "trials.jsonl").exists():
            for record in RunStore(self.folder / "runs").open(self.name).records():
                if str(record.status) == "completed" and record.score is not None:
                    self.seen.setdefault((record.strategy_key, record.fold), record.score)


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def scores(run: Run) -> dict[tuple[str, int], float]:
    """Of every trial that was completed."""
    return {(r.strategy_key, r.fold): float(r.score or 0.0) for r in run.records() if str(r.status) == "completed"}


def main(
    trials: int = 60,
    every: Annotated[float, typer.Option(help="seconds between two kills")] = 20.0,
    nodes: Annotated[int, typer.Option(help="of one CPU each, beside the head")] = 2,
    epochs: Annotated[int, typer.Option(help="of each trial; few end before much can be killed")] = 120,
) -> None:
    """The search undisturbed, then with kills."""
    seconds: dict[str, float] = {}
    found: dict[str, Search] = {}
    runs: dict[str, Run] = {}
    with scratch_home() as home:
        prepare(home, trials, epochs)
        head = {"num_cpus": 0, "include_dashboard": False}
        cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        try:
            for name, between in (("undisturbed", None), ("disturbed", every)):
                search = found[name] = Search(home, name, trials, cluster, nodes)
                try:
                    seconds[name] = search.run_to_end(between)
                finally:
                    search.close()
                runs[name] = RunStore(home / "runs").open(name)
                say(f"{name}: {seconds[name]:.0f} s, {len(runs[name].records())} trials")
        finally:
            cluster.shutdown()
        kept, expected = scores(runs["disturbed"]), scores(runs["undisturbed"])
        seen = found["disturbed"].seen
        lost = [key for key, score in seen.items() if kept.get(key) != score]
        both = kept.keys() & expected.keys()
        other = [key for key in both if kept[key] != expected[key]]
        best: dict[str, Any] = {name: (run.outcome or {})["best"]["strategy_key"] for name, run in runs.items()}
    ratio = seconds["disturbed"] / seconds["undisturbed"]
    kills = found["disturbed"].kills
    rows = [
        ["kills", ", ".join(f"{count} {kind}s" for kind, count in kills.items()), ""],
        ["trials that had ended and were lost", str(len(lost)), "0"],
        ["trials with another score than undisturbed", f"{len(other)} of {len(both)}", "0"],
        ["ends of the driver that nobody killed", str(found["disturbed"].by_itself), "0"],
        ["time, disturbed over undisturbed", f"{ratio:.2f}", f"<= {LIMIT}"],
        ["the same choice", "yes" if best["undisturbed"] == best["disturbed"] else "no", "yes"],
    ]
    figures = {
        "kills": kills, "ended": len(seen), "lost": len(lost), "other_score": len(other), "ratio": ratio,
        "by_itself": found["disturbed"].by_itself,
        "seconds": seconds, "same_choice": best["undisturbed"] == best["disturbed"], "every_s": every, "trials": trials,
    }  # fmt: skip
    finish("chaos", "A search under kills", ["what", "measured", "wanted"], rows, figures)


if __name__ == "__main__":
    typer.run(main)
