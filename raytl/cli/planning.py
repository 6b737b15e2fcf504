"""Commands before a search: ``sources rank`` and ``quote``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from raytl.cli.app import (
    AllowedLicence,
    Assignments,
    GpusPerTrial,
    Json,
    Lanes,
    Seed,
    Space,
    app,
    narrowed,
    sources_app,
)
from raytl.cli.options import data_options, task_of, with_options_of
from raytl.cli.output import Output
from raytl.core.errors import UserError
from raytl.core.memory import in_units
from raytl.core.names import so_many


@sources_app.command("rank")
@with_options_of(data_options, first=True)
def rank(
    space: Space = "vision-small",
    set_: Assignments = None,
    licence: AllowedLicence = None,
    seed: Seed = 0,
    json: Json = False,
    **data: Any,
) -> None:
    """Rank a space's source models for your data before training on it: which, frozen up to which cut, promises most.

    Those that learn a source domain first (pretrain:…) are trained for that, which may take minutes; they are kept.

    By what logistic regression on the features gets right of images that it was not fitted on. A search finds this out
    first, tries source models in this order, and drops none.

    [bold]Examples:[/bold]

    raytl sources rank --target photos/

    raytl sources rank --target photos/ --source-domain catalogue/ --space domain-adaptation
    """
    from raytl import api
    from raytl.cli.running import show_problems

    output = Output.current
    task = task_of(data, seed)
    bound = api.bind(task, space, narrowed(set_, licence))
    show_problems(output, [*bound.problems, *task.problems], "the report of a search")
    ranked = api.rank_sources(task, bound, seed=seed)
    table = Table(
        Column("rank", justify="right"), Column("source model", overflow="fold"), "cut",
        Column("probe", justify="right"), "95 %", Column("log loss", justify="right"),
        Column("ms/image", justify="right"), Column("trained", justify="right"), Column("s", justify="right"), box=None,
    )  # fmt: skip
    for source in ranked:
        value = source.value
        table.add_row(
            str(source.rank),
            Text(source.source_model),
            "all" if source.cut == bound.stages[source.source_model] else str(source.cut),
            "–" if value is None else f"{value.value:.3f}",
            "" if value is None else f"{value.low:.2f}-{value.high:.2f}",
            f"{source.log_loss:.3f}",
            f"{source.step_ms:.2f}",
            _count(source.parameters),
            f"{source.seconds:.1f}",
        )
    output.say(table)
    output.say("probe: logistic regression on the features. ms/image, trained: a step above the cut, its parameters.")
    output.document({"images": len(task.data.target or ()), "sources": [_ranked_document(source) for source in ranked]})


@app.command()
@with_options_of(data_options, first=True)
def quote(
    space: Space = "vision-small",
    set_: Assignments = None,
    licence: AllowedLicence = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Strategies to try (default: the space's, or what --time-budget has time for)."
        ),
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="How much the search would try in it: 90s, 10m, 2h.")
    ] = None,
    lanes: Lanes = None,
    gpus_per_trial: GpusPerTrial = 0.0,
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also for a cluster: a `ray up` file, a RayCluster or a RayJob."),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE=CPUS:GPUS", help="What the head, and a worker, of machines of your own has."),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE=PRICE", help="Of one node of the cluster for an hour; once for each node type."),
    ] = None,
    lane_speed: Annotated[
        float, typer.Option(min=0.01, metavar="X", help="How many times as fast a lane there is as one here.")
    ] = 1.0,
    seed: Seed = 0,
    json: Json = False,
    **data: Any,
) -> None:
    """Say what a search would take: time, memory, disk, a first idea of the accuracy, and money on a cluster.

    Takes about a minute, in which the heads on frozen features are solved for that a search begins with, and the
    default recipes and some strategies are trained for a few epochs; then the search is rehearsed as it would go. What
    it computes is kept, and shortens the search.

    [bold]Examples:[/bold]

    raytl quote --target photos/ --trials 40

    raytl quote --target photos/ --time-budget 10m

    raytl quote --target photos/ --cluster cluster.yaml --price head=0.1 --price gpu-spot=0.45
    """
    from raytl import api
    from raytl.cli.running import show_problems
    from raytl.cli.searching import parse_time
    from raytl.search.planning import SearchSettings, nothing_trained

    output = Output.current
    budget_s, more_s = parse_time(time_budget)
    if more_s is not None:
        raise UserError(
            f"--time-budget {time_budget}: a search that has not begun has no further time; leave out the +"
        )
    if price and cluster is None:
        raise UserError("--price is of the nodes of a cluster; say which with --cluster FILE")
    if node and cluster is None:
        raise UserError("--node is of the nodes of a cluster; say which with --cluster FILE")
    types = api.read_cluster(cluster, price or (), node or ()) if cluster is not None else None
    task = task_of(data, seed)
    bound = api.bind(task, space, narrowed(set_, licence))
    show_problems(output, [*bound.problems, *task.problems], "the report of a search")
    with output.progress_console.status("probing for about a minute"):
        # Lanes and GPUs are then the cluster's; here there may be none.
        here, gpus_here = (lanes, gpus_per_trial) if types is None else (None, 0.0)
        told = api.quote(
            task, bound, trials=trials, lanes=here, gpus_per_trial=gpus_here, time_budget_s=budget_s, seed=seed,
            begun=output.begun,
        )  # fmt: skip
    there = None
    if types is not None:
        there = api.reckon(told, types, lanes=lanes, gpus_per_trial=gpus_per_trial, lane_speed=lane_speed)
    table = Table("of the search", "expected", "range", box=None)
    if told.trial_s is not None:
        table.add_row("one full training", _time(told.trial_s.value), _range(told.trial_s))
    wished = "as many trials as there is time for" if told.trials is None else f"{told.trials} trials"
    table.add_row(f"{wished} in {_lanes(told.lanes)}", _time(told.search_s.value), _range(told.search_s))
    tried = told.strategies
    table.add_row("strategies tried, with probes", f"{tried.value:.0f}", f"{tried.low:.0f} to {tried.high:.0f}")
    if told.pretrain_s:
        table.add_row("of it, pretraining", _time(told.pretrain_s / told.lanes), "")
    table.add_row("memory", in_units(told.memory_bytes), "")
    table.add_row("disk, at most", in_units(told.disk_bytes), "")
    if told.accuracy is not None:
        low, high = 100 * told.accuracy.low, 100 * told.accuracy.high
        table.add_row(
            f"{told.metric}, to begin with", f"{100 * told.accuracy.value:.0f} %", f"{low:.0f} to {high:.0f} %"
        )
    if there is not None:
        nodes = " and ".join(f"{count} x {name}" for name, count in there.nodes.items())
        table.add_row(f"on {nodes}", _time(3600 * there.hours.value), _range(there.hours, 3600))
        if there.money is not None:
            low, high = there.money.low, there.money.high
            table.add_row("for it, as --price counts", f"{there.money.value:.2f}", f"{low:.2f} to {high:.2f}")
    output.say(table)
    epochs = sum(probe.epochs for probe in told.probed)
    if told.probed:
        output.say(f"from {len(told.probed)} strategies, {round(epochs, 1):g} epochs in {told.probe_s:.0f} s")
    else:
        output.say(nothing_trained(bound.data, SearchSettings()))
    if told.accuracy is not None:
        output.say(f"the {told.metric} is that of the best head on frozen features, which a search begins with")
    if there is not None:
        output.say(f"there: {_lanes(there.lanes)}, each {there.lane_speed:g} times as fast as one here (--lane-speed)")
    output.document({**told.to_json(), "cluster": None if there is None else there.to_json()})


def _ranked_document(source: Any) -> dict[str, Any]:
    document = asdict(source)
    infinite = document["log_loss"] == float("inf")  # JSON has no word for it
    return document | ({"log_loss": None} if infinite else {})


def _lanes(count: int) -> str:
    return so_many(count, "lane", "lanes")


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.1f} k" if number >= 1e3 else str(number)


def _range(interval: Any, unit_s: float = 1.0) -> str:
    return f"{_time(unit_s * interval.low)} to {_time(unit_s * interval.high)}"


def _time(seconds: float) -> str:
    from raytl.runs import wording

    return wording.duration(seconds, rough=True)
