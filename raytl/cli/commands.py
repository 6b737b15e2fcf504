"""All commands of ``raytl``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from raytl.cli.output import Output
from raytl.core.errors import UserError

app = typer.Typer(
    name="raytl",
    help="Transfer-learning search on Ray: from a few labelled images to a served model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
sources_app = typer.Typer(help="Source models that a search can start from.", no_args_is_help=True)
runs_app = typer.Typer(help="Searches on disk.", no_args_is_help=True)
spaces_app = typer.Typer(help="Search spaces that come with raytl.", no_args_is_help=True)
app.add_typer(sources_app, name="sources")
app.add_typer(runs_app, name="runs")
app.add_typer(spaces_app, name="spaces")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
Storage = Annotated[Path | None, typer.Option(help="Folder of runs (default RAYTL_STORAGE or ./raytl-runs).")]
Seed = Annotated[int, typer.Option(help="All randomness comes from it.")]
Lanes = Annotated[int | None, typer.Option(min=1, help="Trials at a time (default: as many as fit).")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Let Ray speak.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the endpoint, on loopback.")]


def _time(text: str | None) -> float | None:
    """``90``, ``90s``, ``10m``, ``2h`` to seconds."""
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"--time-budget {text}: give a time above zero, such as 90s, 10m or 2h")
    return seconds


@app.command()
def demo(
    seed: Seed = 0,
    storage: Storage = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the endpoint; 0 takes a free one.")] = 0,
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
def search(
    target: Annotated[str | None, typer.Option(help="Labelled images of the domain the model is for.")] = None,
    source_domain: Annotated[
        list[str] | None, typer.Option(help="Labelled images of another domain; may be given several times.")
    ] = None,
    unlabelled: Annotated[str | None, typer.Option(help="Images of the target domain without labels.")] = None,
    test: Annotated[
        str | None, typer.Option(help="Labelled images for the final test (default: a fifth of the target).")
    ] = None,
    space: Annotated[
        str, typer.Option(help="Search space: a shipped name (see 'raytl spaces list') or a YAML file.")
    ] = "vision-small",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Narrow the space: key=value, for example cut=0.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Strategies to try (default: the space's).")] = None,
    time_budget: Annotated[str | None, typer.Option(help="For everything: 90s, 10m, 2h.")] = None,
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after so many trials without a better one.")] = None,
    lanes: Lanes = None,
    gpus_per_trial: Annotated[float, typer.Option(min=0, help="May be a fraction.")] = 0.0,
    workers_per_trial: Annotated[int, typer.Option(min=1, help="Data-parallel workers of each trial.")] = 1,
    seed: Seed = 0,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: date and number).")] = None,
    storage: Storage = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster (default RAY_ADDRESS, else this machine).")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Search for the best way to transfer to your data.

    PATH is a folder with one subfolder per class (flat for unlabelled images), a Parquet or CSV file, local or a URI.

    [bold]Examples:[/bold]

      raytl search --target photos/

      raytl search --target photos/ --unlabelled from-the-camera/ --source-domain catalogue/ --time-budget 20m

      raytl search --source-domain catalogue/ --unlabelled from-the-camera/ --space domain-adaptation
    """
    from raytl import api
    from raytl.cli.results import show_run
    from raytl.cli.running import listening, show_problems
    from raytl.search.space import load_space

    output = Output.current
    loaded = load_space(space, set_ or [])
    budget = _time(time_budget)
    task = api.Task(target, source_domain or [], unlabelled, test, seed=seed)
    show_problems(output, task.problems)
    with listening(output, trials or loaded.settings.trials, budget) as progress:
        run = api.search(
            task, loaded, trials=trials, time_budget_s=budget, lanes=lanes, gpus_per_trial=gpus_per_trial,
            workers_per_trial=workers_per_trial, seed=seed, patience=patience, name=name, storage=storage,
            address=address, verbose=verbose, listeners=[progress],
        )  # fmt: skip
    show_run(output, run)
    output.document(run.summary())
    if run.status == "interrupted":
        raise typer.Exit(130)


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="Image folder, Parquet or CSV file, local or a URI.")],
    json: Json = False,
) -> None:
    """Report what is in a data set and what is wrong with it.

    [bold]Example:[/bold]  raytl check photos/
    """
    from raytl.tasks.checks import check as check_data

    report = check_data(path)
    Output.current.say(report.table())
    Output.current.document(report.to_json())


@app.command()
def pretrain(
    data: Annotated[str, typer.Option(help="Labelled images to learn from.")],
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    arch: Annotated[str, typer.Option(help="URI of the network to start from.")] = "scratch:cnn-small",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 0.05,
    image_size: Annotated[int | None, typer.Option(min=8, help="Pixels (default: the network's own).")] = None,
    augmentation: Annotated[str, typer.Option(help="Augmentation policy.")] = "shift",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a source model from your own larger labelled data; searches take it as file:OUT.

    [bold]Example:[/bold]  raytl pretrain --data catalogue/ --arch scratch:cnn-small --out catalogue-model/
    """
    from rich.progress import Progress as Bar

    from raytl import api

    output = Output.current
    with Bar(console=output.progress_console, transient=True) as bar:
        line = bar.add_task(f"training {arch}", total=steps)
        path, accuracy = api.pretrain(
            data, arch, out, steps=steps, batch_size=batch_size, learning_rate=learning_rate, image_size=image_size,
            augmentation=augmentation, seed=seed, progress=lambda step, loss: bar.update(line, completed=step),
        )  # fmt: skip
    known = accuracy == accuracy
    held = f"accuracy {accuracy:.3f} on held-out images" if known else "too few images to hold any out"
    output.say(f"wrote {path} ({held}); use it as file:{path}")
    output.document({"path": str(path), "accuracy": accuracy if known else None, "uri": f"file:{path}"})


@sources_app.command("list")
def sources_list(
    match: Annotated[str, typer.Argument(help="Only those whose URI contains this.")] = "",
    json: Json = False,
) -> None:
    """Show the catalogue of source models.

    [bold]Example:[/bold]  raytl sources list resnet
    """
    from dataclasses import asdict

    from raytl.sources import catalogue

    entries = [entry for entry in catalogue() if match in entry.uri]
    if match and not entries:
        raise UserError(f"no source model's URI contains '{match}'; 'raytl sources list' shows all")
    table = Table("source model", "parameters", "stages", "pixels", "weights", "on this machine")
    for entry in entries:
        table.add_row(
            entry.uri,
            f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "",
            str(len(entry.stages)) if entry.stages else "",
            str(entry.image_size or ""),
            entry.weights or "untrained",
            {True: "yes", False: "no", None: ""}[entry.cached],
        )
    Output.current.say(table)
    Output.current.document({"sources": [asdict(entry) for entry in entries]})


@spaces_app.command("list")
def spaces_list(json: Json = False) -> None:
    """Show the search spaces that come with raytl."""
    from raytl.search.space import load_space
    from raytl.search.space_file import find_space, shipped_spaces

    spaces = [
        {"name": name, "about": load_space(name).about, "path": str(find_space(name))} for name in shipped_spaces()
    ]
    table = Table("space", "for")
    for space in spaces:
        table.add_row(space["name"], space["about"])
    Output.current.say(table)
    Output.current.document({"spaces": spaces})


@runs_app.command("list")
def runs_list(storage: Storage = None, json: Json = False) -> None:
    """Show all runs, newest first."""
    from raytl.cli.results import show_runs

    show_runs(Output.current, storage)


@runs_app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")], storage: Storage = None, json: Json = False
) -> None:
    """Show a run: leaderboard, what was chosen and why, whether transfer helped."""
    from raytl import api
    from raytl.cli.results import show_run

    opened = api.open_run(run, storage)
    show_run(Output.current, opened)
    Output.current.document(opened.summary())


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")], storage: Storage = None, json: Json = False
) -> None:
    """Write a run's report.html again.

    [bold]Example:[/bold]  raytl report 2026-01-31-01
    """
    from raytl import api

    path = api.report(api.open_run(run, storage))
    Output.current.say(f"wrote {path}")
    Output.current.document({"report": str(path)})


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")],
    directory: Annotated[Path, typer.Argument(help="Folder for the bundle.")],
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Copy the model of a run: weights as safetensors, settings as JSON.

    [bold]Example:[/bold]  raytl export 2026-01-31-01 model/
    """
    from raytl import api

    path = api.open_run(run, storage).best.export(directory)
    Output.current.say(f"wrote {path}")
    Output.current.document({"path": str(path)})


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Bundle, run name or run folder.")],
    paths: Annotated[list[Path], typer.Argument(help="Images or folders.")],
    out: Annotated[Path | None, typer.Option(help="Write a .csv or .parquet file.")] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Classify images.

    [bold]Example:[/bold]  raytl predict model/ new-photos/ --out predictions.csv
    """
    from raytl.cli.results import show_predictions

    show_predictions(Output.current, model, paths, out, storage)


@app.command()
def deploy(
    model: Annotated[str, typer.Argument(help="Bundle, run name or run folder.")],
    port: Port = 8000,
    host: Annotated[str, typer.Option(help="Interface; loopback unless you open it.")] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="Name of the endpoint.")] = "raytl",
    min_replicas: Annotated[int, typer.Option(min=0)] = 1,
    max_replicas: Annotated[int, typer.Option(min=1)] = 2,
    num_gpus: Annotated[float, typer.Option(min=0, help="Of each replica; may be a fraction.")] = 0.0,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Serve a model behind an autoscaling endpoint, or update the one that is there without dropping a request.

    [bold]Examples:[/bold]

      raytl deploy model/ --port 8000

      curl -T photo.jpg -X POST http://127.0.0.1:8000/v1/predict
    """
    from raytl import api

    endpoint = api.deploy(
        model, storage=storage, port=port, host=host, name=name, min_replicas=min_replicas,
        max_replicas=max_replicas, num_gpus=num_gpus,
    )  # fmt: skip
    output = Output.current
    output.say(f"serving at {endpoint.url}; try: curl -T photo.jpg -X POST {endpoint.url}/v1/predict")
    output.say("take it down with: raytl undeploy" + (f" --name {name}" if name != "raytl" else ""))
    output.document(endpoint.to_json())


@app.command()
def undeploy(name: Annotated[str, typer.Option(help="Name of the endpoint.")] = "raytl", json: Json = False) -> None:
    """Take an endpoint down, and what was started for it."""
    from raytl.serving import undeploy as take_down

    if not take_down(name):
        raise UserError(f"no endpoint '{name}' is served from this machine")
    Output.current.say(f"endpoint '{name}' is down")
    Output.current.document({"name": name, "stopped": True})
