"""Commands that train: ``demo``, ``search``, ``check`` before it, ``pretrain``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytl.cli.app import (
    READ,
    AllowedLicence,
    Assignments,
    ClusterAddress,
    GpusPerTrial,
    GroupBy,
    ImageColumn,
    ImagesFolder,
    Json,
    LabelColumn,
    Lanes,
    Seed,
    Space,
    Split,
    Storage,
    Verbose,
    app,
    narrowed,
    read_moves,
)
from raytl.cli.options import data_options, parse_seconds, task_of, with_options_of
from raytl.cli.output import Output
from raytl.cli.promoting import Promotion, promote, read_promotion
from raytl.core.errors import UserError

if TYPE_CHECKING:
    from raytl.api import Run

NOT_DEPLOYED = 4
"""Exit code of a search that came to its end and whose winner --deploy-when does not deploy."""


@app.command()
def demo(
    seed: Seed = 0,
    storage: Storage = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run.")] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port of the endpoint; 0 takes a free one.")
    ] = 0,
    lanes: Lanes = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """The whole way once, on real data: search, report, bundle, endpoint, test through HTTP.

    Handwritten digits, five labelled images a class; printed digits, printed letters and textures are offered as source
    domains, and the search has to find out which is any good. Stops all that it started.

    [bold]Example:[/bold]  raytl demo --seed 1
    """
    from raytl.cli.demo import run_demo

    run_demo(Output.current, seed=seed, storage=storage, name=name, port=port, lanes=lanes, verbose=verbose)


@app.command()
@with_options_of(data_options, first=True)
def search(
    context: typer.Context,
    space: Space = "vision-small",
    set_: Assignments = None,
    licence: AllowedLicence = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Strategies to try (default: the space's, or all that --time-budget has time for); +N more of them "
            "with --resume.",
        ),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="For everything, from now on: 90s, 10m, 2h; +10m of further time with --resume."
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many trials without a better one.")
    ] = None,
    min_gain: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Stop when another trial is expected to raise the score by less."),
    ] = None,
    cost_aware: Annotated[
        bool, typer.Option("--cost-aware", help="Prefer strategies that promise more per second.")
    ] = False,
    warm_start: Annotated[
        bool, typer.Option("--warm-start/--no-warm-start", help="Begin with what did best in similar earlier runs.")
    ] = True,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run; data and space are its own.")
    ] = None,
    moved: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="With --resume: the data, or a folder above it, is in NEW now."),
    ] = None,
    lanes: Lanes = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What good means: accuracy, balanced-accuracy, macro-f1, auroc, average-precision or log-loss "
            "(default: accuracy; balanced-accuracy where one class has three times the images of another).",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="GOAL",
            help="Two classes: decide where the rarer one has recall=0.95, or precision=0.9; CLASS:recall=0.95 for the "
            "one that is named.",
        ),
    ] = None,
    deploy_when: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC>=X",
            help="Deploy the winner if the low end of its interval reaches X: balanced-accuracy>=0.9.",
        ),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="With it, where a model is served: of its requests, on trial (default: 5%)."
        ),
    ] = None,
    promote_after: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="On trial: take over after N compared requests if not worse (500)."),
    ] = None,
    ship: Annotated[
        str,
        typer.Option(
            metavar="tested|all",
            help="Leave the model that was tested, or one trained again on all labels.",
        ),
    ] = "tested",
    gpus_per_trial: GpusPerTrial = 0.0,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, metavar="N", help="Data-parallel workers of each trial.")
    ] = 1,
    seed: Seed = 0,
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="Also log to mlflow[=URI] or tensorboard[=DIR]; may be given twice."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the run (default: date and number).")
    ] = None,
    storage: Storage = None,
    address: ClusterAddress = None,
    json: Json = False,
    verbose: Verbose = False,
    **data: Any,
) -> None:
    """Search for the best way to transfer to your data: leaderboard, report, and a model to serve.

    PATH is a folder with one subfolder of images per class (flat for images without labels), also inside folders of
    splits (train, valid, test), a folder with a table beside its images, or a Parquet, CSV or JSON-lines file; local,
    or at a URI.

    [bold]Examples:[/bold]

    raytl search --target photos/

    raytl search --target photos/ --time-budget 20m --set cut=all

    raytl search --target photos/ --unlabelled more/ --source-domain catalogue/

    raytl search --source-domain catalogue/ --unlabelled more/

    raytl search --resume 2026-01-31-01

    raytl search --resume 2026-01-31-01 --trials +50

    raytl search --resume 2026-01-31-01 --moved /data/photos=/mnt/photos
    """
    from raytl import api
    from raytl.api.searching import check_wishes
    from raytl.cli.running import listening, show_problems
    from raytl.search.planning import most_trials
    from raytl.search.space.definition import load_space

    output = Output.current
    wanted, further = parse_trials(trials)
    budget, more_time = parse_time(time_budget)
    promotion = read_promotion(deploy_when, metric, canary, promote_after)
    if resume is not None:
        refuse_beside_resume(context)
        known = _trials_of(resume, storage)
        with listening(output, wanted or known + (further or 0), budget or more_time) as progress:
            run = api.resume(
                resume, trials=wanted, time_budget_s=budget, more_trials=further, more_time_s=more_time, lanes=lanes,
                storage=storage, address=address, moved=read_moves(moved), log=log or None, verbose=verbose,
                listeners=[progress], begun=output.begun,
            )  # fmt: skip
        _show_end(output, run, promotion)
        return
    refuse_more_of_nothing(trials, time_budget)
    if moved:
        raise UserError("--moved says where the data of a run went, and goes with --resume RUN")
    loaded = load_space(space, narrowed(set_, licence))
    check_wishes(name=name, storage=storage, metric=metric, at=at, ship=ship, log=log or (), address=address)
    task = task_of(data, seed)
    bound = api.bind(task, loaded)
    show_problems(output, [*bound.problems, *task.problems], "the run's report")
    with listening(output, most_trials(loaded.settings.trials, wanted, budget), budget) as progress:
        run = api.search(
            task, bound, trials=wanted, time_budget_s=budget, lanes=lanes, gpus_per_trial=gpus_per_trial,
            workers_per_trial=workers_per_trial, seed=seed, patience=patience, min_gain=min_gain,
            metric=metric if promotion is None else promotion.condition.metric.name, at=at, ship=ship,
            cost_aware=cost_aware, warm_start=warm_start, log=log or (), name=name, storage=storage, address=address,
            verbose=verbose, listeners=[progress], begun=output.begun,
        )  # fmt: skip
    _show_end(output, run, promotion)


_WITH_RESUME = {
    "resume",
    "trials",
    "time_budget",
    "lanes",
    "storage",
    "address",
    "moved",
    "log",
    "deploy_when",
    "canary",
    "promote_after",
    "json",
    "verbose",
}


def refuse_beside_resume(context: typer.Context, more: Collection[str] = ()) -> None:
    """Raise for an option that an interrupted run has its own value of."""
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name == "COMMANDLINE" and option.name not in {*_WITH_RESUME, *more}:
            raise UserError(f"--resume goes on with the run's own data and settings; leave out {option.opts[0]}")


def _trials_of(name: str, storage: str | None) -> int:
    """How many strategies a run set out to try."""
    from raytl import api
    from raytl.search.planning import UNLIMITED, most_trials

    settings = api.open_run(name, storage).settings
    search, usual = settings["search"], settings.get("space_settings", {}).get("trials", UNLIMITED)
    return most_trials(usual, search.get("trials"), search.get("time_budget_s"))


def _show_end(output: Output, run: Run, promotion: Promotion | None) -> None:
    from raytl.cli.results import show_run

    show_run(output, run)
    document, deployment = run.summary(), None
    code = 130 if run.status == "interrupted" else 0
    if promotion is not None:
        deployment = promote(output, run, promotion)
        if deployment["why_not"] is not None:
            code = code or NOT_DEPLOYED
    output.document(document | {"deployment": deployment})
    if code:
        raise typer.Exit(code)


@app.command()
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Images, labelled or not: " + READ + ".")],
    split: Split = None,
    images: ImagesFolder = None,
    label: LabelColumn = None,
    image_column: ImageColumn = None,
    group_by: GroupBy = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the findings as pictures, one page.")
    ] = None,
    json: Json = False,
) -> None:
    """Report what is in a data set and what is wrong with it, likely wrong labels included.

    Exits with 2 where a search would not take the data as it is.

    [bold]Examples:[/bold]

    raytl check photos/

    raytl check photos/ --html findings.html
    """
    from raytl import api

    report = api.check(
        path, split=split, images=images, label=label, image_column=image_column, group_by=group_by, html=html
    )
    Output.current.say(report.table())
    if html is not None:
        Output.current.say(f"wrote {html}")
    Output.current.document(report.to_json())
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def pretrain(
    data: Annotated[str, typer.Option(metavar="PATH", help="Labelled images to learn from.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the bundle.")],
    split: Split = None,
    images: ImagesFolder = None,
    label: LabelColumn = None,
    image_column: ImageColumn = None,
    group_by: GroupBy = None,
    arch: Annotated[str, typer.Option(metavar="URI", help="Network to start from.")] = "scratch:cnn-small",
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Optimizer steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=2, metavar="N", help="Images per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0.0, metavar="X", help="At its peak.")] = 0.05,
    image_size: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Pixels (default: the network's own).")
    ] = None,
    augmentation: Annotated[
        str, typer.Option(metavar="NAME", help="none, shift, flip, color, strong, crop or crop-flip.")
    ] = "shift",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a source model from your own larger labelled data; searches take it as file:OUT.

    [bold]Example:[/bold]  raytl pretrain --data catalogue/ --out catalogue-model/
    """
    from rich.progress import Progress as Bar

    from raytl import api
    from raytl.cli.running import show_problems

    output = Output.current
    console = output.progress_console
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(f"training {arch}", total=steps)
        path, accuracy = api.pretrain(
            data, arch, out, steps=steps, batch_size=batch_size, learning_rate=learning_rate, image_size=image_size,
            augmentation=augmentation, seed=seed, split=split, images=images, label=label, image_column=image_column,
            group_by=group_by, progress=lambda step, loss: bar.update(line, completed=step),
            noticed=lambda problems: show_problems(output, problems, "'raytl check --json'"),
        )  # fmt: skip
    known = accuracy == accuracy
    held = f"accuracy {accuracy:.3f} on held-out images" if known else "too few images to hold any out"
    output.say(f"wrote {path} ({held}); use it as file:{path}")
    output.document({"path": str(path.resolve()), "accuracy": accuracy if known else None, "uri": f"file:{path}"})


def refuse_more_of_nothing(*asked: str | None) -> None:
    """Raise for a ``+`` where there is no earlier search to have more of."""
    if any(text is not None and text.startswith("+") for text in asked):
        raise UserError("+ asks for more than an earlier search had: name it with --resume RUN, or leave out the +")


def parse_trials(text: str | None) -> tuple[int | None, int | None]:
    """``50`` to strategies in all, ``+50`` to further ones."""
    if text is None:
        return None, None
    digits = text.removeprefix("+")
    if not digits.isascii() or not digits.isdigit() or int(digits) < 1:
        raise UserError(f"--trials {text}: give a whole number above zero, such as 50, or +50 with --resume")
    return (None, int(digits)) if text.startswith("+") else (int(digits), None)


def parse_time(text: str | None) -> tuple[float | None, float | None]:
    """``90``, ``90s``, ``10m``, ``2h`` to seconds in all, with a ``+`` to further ones."""
    if text is None:
        return None, None
    seconds = parse_seconds("--time-budget", text, sign="+")
    return (None, seconds) if text.startswith("+") else (seconds, None)
