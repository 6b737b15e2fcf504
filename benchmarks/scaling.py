"""Whether more nodes bring as many more trials, and what a trial costs the driver when there are many.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --nodes 1 --trials 10 --tpe-trials 10 --killed-trials 500      # only with nodes killed

Nodes are simulated (ray.cluster_utils.Cluster), one CPU each, and trials sleep, so that the cores of this machine are
not what is measured. They go through the product's searcher and scheduler. Rates are taken once all lanes are up and as
long as all have work. With --killed-trials there is a search of so many trials on --killed-nodes, of which one is
killed (-9) every --kill-every seconds and replaced by another: every trial must come to its end, and the efficiency
against so many nodes at the rate of one should be EFFICIENT at least.

The driver's time is processor time of a whole search in virtual time: plan and halving with random strategies, and with
TPE, whose own cost grows with what it has to remember.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from common import Ends, RandomSampler, Silent, finish, patiently, say, scratch_home, simulated
from no_training import tiny_data, tiny_space
from ray import tune
from recorded import FixedRecipes

from raytl.core.seeding import derive_seed
from raytl.search.driver import run_plan
from raytl.search.jobs import EpochReport, JobKind, JobResult, LaneJob
from raytl.search.lanes.cluster import cluster, quiet_environment
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.simulation import Curve, VirtualClock, simulate
from raytl.search.propose.sampler import TpeSampler
from raytl.search.space.binding import BoundSpace

EPOCHS = 9
EFFICIENT = 0.85
"""Least efficiency with nodes killed."""


def sleeper(seconds: float, lanes: int, folder: Path) -> Callable[[dict[str, Any]], None]:
    """A trainable that sleeps. The lanes' first trials wait for each other."""

    def sleep(config: dict[str, Any]) -> None:
        job = LaneJob.from_json(config["job"])
        if job.number < lanes:
            (folder / f"up-{job.number}").touch()
            while len(list(folder.glob("up-*"))) < lanes:
                time.sleep(0.05)
        time.sleep(seconds)
        tune.report({"report": EpochReport({"epoch": 1.0, "score": 0.5, "seconds": seconds})})
        tune.report({"report": JobResult(seconds=seconds), "done": True})

    return sleep


def slept(trials: int, nodes: int, seconds: float, ends: Ends) -> SearchPlan:
    """A search of so many trials that sleep, come to its end on the connected cluster. ends: is told of each."""
    with cluster(None, 0.0) as lanes, tempfile.TemporaryDirectory() as folder:
        settings = PlanSettings(trials, 0, nodes, 1, Path(folder), tested=False)
        sampler = RandomSampler(tiny_space(tiny_data()), 0)
        halving = SuccessiveHalving(1, 3, 1)
        plan = SearchPlan(settings, sampler, halving, FixedRecipes(), [], ends, time.perf_counter)
        run_plan(plan, sleeper(seconds, nodes, Path(folder)), lanes, Path(folder))
    return plan


def trials_per_minute(nodes: int, seconds: float, per_lane: int) -> float:
    """On so many nodes of one CPU, while all lanes have work."""
    quiet_environment(verbose=False)
    ends = Ends()
    with simulated(1, nodes - 1, head_cpus=1):
        slept(nodes * per_lane, nodes, seconds, ends)
    times = ends.times[nodes - 1 : -nodes]  # from the end of the round that waited, as long as nobody is idle
    return 60 * (len(times) - 1) / (times[-1] - times[0])


@dataclass
class Killed:
    """A search whose nodes were killed. seconds: from when all lanes were up to the end; completed: of its trials."""

    seconds: float
    kills: int
    completed: int
    others: dict[str, int]


def with_kills(nodes: int, seconds: float, trials: int, every: float) -> Killed:
    """A search on so many nodes of one CPU, beside a head of none; one of them is killed and replaced, and so on."""
    quiet_environment(verbose=False)
    ends, over, kills = Ends(), threading.Event(), 0

    with simulated(1, nodes, head_cpus=0) as (started, alive):

        def kill() -> None:
            nonlocal kills
            while len(ends.times) < nodes and not over.wait(0.1):
                pass
            while not over.wait(every):
                started.remove_node(alive.pop(0), allow_graceful=False)
                kills += 1
                alive.append(patiently(lambda: started.add_node(num_cpus=1)))

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            plan = slept(trials, nodes, seconds, ends)
        finally:
            over.set()
            killer.join()
    statuses = Counter(str(record.status) for record in plan.records if record.kind == JobKind.SEARCH)
    completed = statuses.pop("completed", 0)
    return Killed(ends.times[-1] - ends.times[nodes - 1], kills, completed, dict(statuses))


def driver_seconds(trials: int, sampler: TpeSampler) -> float:
    """Processor seconds per trial of a search in virtual time."""
    clock = VirtualClock()
    settings = PlanSettings(trials, 1, 4, EPOCHS, Path(), tested=False)
    plan = SearchPlan(settings, sampler, SuccessiveHalving(1, 3, EPOCHS), FixedRecipes(), [], Silent(), clock)
    started = time.process_time()
    simulate(plan, _curve, clock, lanes=4)
    return (time.process_time() - started) / trials


def _curve(job: LaneJob) -> Curve:
    """Rising, to a height that depends on the job."""
    height = derive_seed("curve", job.number) / 2**31
    return Curve(tuple((height * epoch / EPOCHS, float(epoch)) for epoch in range(1, EPOCHS + 1)))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main(
    nodes: str = "1,2,4,8",
    sleep: Annotated[float, typer.Option(help="seconds that a trial sleeps")] = 2.0,
    per_lane: Annotated[int, typer.Option(help="trials per lane")] = 12,
    trials: Annotated[str, typer.Option(help="of the simulated searches with random strategies")] = "10,100,1000,10000",
    tpe_trials: Annotated[str, typer.Option(help="of those with TPE")] = "10,100,1000",
    killed_trials: Annotated[int, typer.Option(help="of a search whose nodes are killed; 0 for none")] = 0,
    killed_nodes: Annotated[int, typer.Option(help="that it has")] = 8,
    kill_every: Annotated[float, typer.Option(help="seconds between two of them")] = 20.0,
) -> None:
    """Measure the nodes, then the driver."""
    rates: dict[int, float] = {}
    with scratch_home():
        for count in _numbers(nodes):
            # A process of its own for each cluster: Ray does not like to be started over in one.
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                rates[count] = process.submit(trials_per_minute, count, sleep, per_lane).result()
            say(f"{count} nodes: {rates[count]:.1f} trials a minute")
    first = min(rates)
    efficiency = {count: rate * first / (rates[first] * count) for count, rate in rates.items()}
    rows = [[f"{count} nodes", f"{rate:.1f} trials / min", f"{efficiency[count]:.2f}"] for count, rate in rates.items()]
    space = tiny_space(tiny_data())
    kinds: dict[str, tuple[Callable[[BoundSpace, int], TpeSampler], list[int]]] = {
        "random": (RandomSampler, _numbers(trials)),
        "tpe": (TpeSampler, _numbers(tpe_trials)),
    }
    driver: dict[str, dict[int, float]] = {}
    for kind, (make, counts) in kinds.items():
        driver[kind] = {}
        for count in counts:
            driver[kind][count] = driver_seconds(count, make(space, 0))
            say(f"driver, {kind}, {count} trials: {1000 * driver[kind][count]:.2f} ms a trial")
            ratio = driver[kind][count] / driver[kind][counts[0]]
            rows.append(
                [f"driver, {kind}, {count} trials", f"{1000 * driver[kind][count]:.2f} ms / trial", f"{ratio:.2f}"]
            )
    figures = {"trials_per_minute": rates, "efficiency": efficiency, "driver_s_per_trial": driver, "sleep_s": sleep}
    if killed_trials:
        with scratch_home(), ProcessPoolExecutor(1, get_context("spawn")) as process:
            killed = process.submit(with_kills, killed_nodes, sleep, killed_trials, kill_every).result()
        ideal_s = 60 * (killed_trials - killed_nodes) * first / (rates[first] * killed_nodes)
        figures["killed"] = asdict(killed) | {"every_s": kill_every, "efficiency": ideal_s / killed.seconds}
        what = f"{killed_nodes} nodes, {killed.kills} killed, one every {kill_every:g} s"
        rows.append(
            [
                what,
                f"{killed.completed} of {killed_trials} trials completed",
                f"{ideal_s / killed.seconds:.2f} (>= {EFFICIENT})",
            ]
        )
    finish("scaling", "More nodes, more trials", ["what", "measured", "against the first"], rows, figures)


if __name__ == "__main__":
    typer.run(main)
