"""Commands about what a search left: ``runs``, ``report``, ``recipe``, ``export``, ``extend``, ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raytl.cli.app import Json, Model, Moved, RunName, Storage, app, read_moves, runs_app
from raytl.cli.output import Output
from raytl.core.names import so_many
from raytl.core.paths import below

NOT_THE_SAME = 3
"""Exit code of a replay that came to other numbers."""


@app.command()
def report(run: RunName, storage: Storage = None, json: Json = False) -> None:
    """Write a run's report.html again.

    [bold]Example:[/bold]  raytl report 2026-01-31-01
    """
    from raytl.cli.results import open_run
    from raytl.runs.report import write_report

    opened = open_run(run, storage)
    path = write_report(opened)
    opened.place.save(path.name)
    Output.current.say(f"wrote {opened.where}/{path.name}")
    Output.current.document({"report": below(opened.location, path.name)})


@app.command()
def recipe(
    run: RunName,
    trial: Annotated[
        int | None, typer.Argument(min=0, metavar="[TRIAL]", help="Number of the trial (default: the winner's first).")
    ] = None,
    moved: Moved = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write images that are in no file of their own.")
    ] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Print a trial as a short plain PyTorch script that trains the same without raytl.

    Its images by path, its split, preprocessing, source model, frozen stages, optimizer, losses and seed.

    [bold]Examples:[/bold]

    raytl recipe 2026-01-31-01 > train.py

    raytl recipe 2026-01-31-01 7 --images images/ > train.py
    """
    from raytl import api

    output = Output.current
    opened = api.open_run(run, storage)
    with output.progress_console.status("looking at its data and source model"):
        written = api.recipe(opened, trial, moved=read_moves(moved), images=images)
    if not output.as_json:
        print(written.script, end="")
    output.document(written.to_json())


@app.command()
def export(
    model: Model,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the bundle.")],
    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="With reference predictions on 16 training images, made small, and the features of up to 2,000.",
        ),
    ] = True,
    features: Annotated[
        bool, typer.Option("--features/--no-features", help="With the training images' features, for raytl extend.")
    ] = True,
    onnx: Annotated[bool, typer.Option("--onnx", help="Beside it as ONNX, checked against it and measured.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="As ONNX of 8 bits too, if that costs no accuracy.")] = False,
    moved: Moved = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Copy a model: weights as safetensors, settings as JSON, and as ONNX.

    [bold]Examples:[/bold]

    raytl export 2026-01-31-01 model/

    raytl export 2026-01-31-01 model/ --onnx --int8

    raytl export model-extended/ model-extended/ --onnx
    """
    from raytl.cli.exporting import export_model

    wishes = {"images": images, "features": features, "onnx": onnx, "int8": int8}
    export_model(Output.current, model, directory, storage, moved=read_moves(moved), **wishes)


@app.command()
def extend(
    model: Model,
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Images, a folder for each --class.")],
    classes: Annotated[
        list[str], typer.Option("--class", metavar="NAME", help="What the images of the next DIR show.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the new bundle (default: MODEL-extended).")
    ] = None,
    even_if_worse: Annotated[
        bool, typer.Option("--even-if-worse", help="Also where the old classes lose beyond doubt, or may unseen.")
    ] = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Teach a model a new class, or more of one, from five images or so: in seconds, without a search.

    Its network stays as it is and gets a new head; the old classes are tested before and after.

    [bold]Example:[/bold]  raytl extend model/ --class tulip tulips/ --class iris irises/
    """
    from raytl.cli.extending import show_extension

    show_extension(Output.current, model, classes, folders, out, storage, even_if_worse=even_if_worse)


@app.command()
def predict(
    model: Model,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Images or folders.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a .csv or .parquet file.")] = None,
    sets: Annotated[bool, typer.Option("--sets", help="All labels that each image may have.")] = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Classify images, and say how often that is likely right and whether the images are as usual.

    [bold]Example:[/bold]  raytl predict model/ new-photos/ --out predictions.csv
    """
    from raytl.cli.predicting import show_predictions

    show_predictions(Output.current, model, paths, out, storage, sets=sets)


@runs_app.command("list")
def runs_list(storage: Storage = None, json: Json = False) -> None:
    """Show all runs, newest first.

    [bold]Example:[/bold]  raytl runs list --storage raytl-runs/
    """
    from raytl.cli.results import show_runs

    show_runs(Output.current, storage)


@runs_app.command("show")
def runs_show(run: RunName, storage: Storage = None, json: Json = False) -> None:
    """Show a run: leaderboard, what was chosen and why, whether transfer helped.

    [bold]Example:[/bold]  raytl runs show 2026-01-31-01
    """
    from raytl.cli.results import open_run, show_run

    opened = open_run(run, storage)
    show_run(Output.current, opened)
    Output.current.document(opened.summary())


@runs_app.command("replay")
def runs_replay(
    run: RunName,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Number of the trial (default: the winner's first).")
    ] = None,
    moved: Moved = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Train a trial of a run again and say whether it comes to the same numbers, to the last bit.

    It should, on one type of machine and with the same versions. Exits with 3 where it does not.

    [bold]Example:[/bold]  raytl runs replay 2026-01-31-01 --trial 7
    """
    from raytl import api

    output = Output.current
    opened = api.open_run(run, storage)
    with output.progress_console.status("training it again"):
        told = api.replay(opened, trial, moved=read_moves(moved))
    epochs = so_many(told.epochs, "epoch", "epochs")
    if told.same:
        output.say(f"trial {told.trial}: {epochs}, every figure the same to the last bit (score {told.score:.3f})")
    else:
        assert told.difference is not None
        at = told.difference
        now = "nothing" if at.now is None else f"{at.now:.6g}"
        output.say(f"trial {told.trial}: not the same; first in epoch {at.epoch}: {at.metric} {at.then:.6g}, now {now}")
    for name, (then, now_) in told.changed.items():
        output.say(f"  {name}: {then} then, {now_} now")
    output.document(told.to_json())
    if not told.same:
        raise typer.Exit(NOT_THE_SAME)
