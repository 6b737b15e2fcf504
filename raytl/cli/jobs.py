"""Commands for searches on a cluster elsewhere: ``submit``, ``fetch``, ``jobs``."""

from __future__ import annotations

import inspect
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytl.cli.app import Json, RunName, Storage, app, jobs_app
from raytl.cli.options import given_options, with_options_of
from raytl.cli.output import Output
from raytl.cli.promoting import read_promotion
from raytl.cli.searching import (
    NOT_DEPLOYED,
    parse_time,
    parse_trials,
    refuse_beside_resume,
    refuse_more_of_nothing,
    search,
)

if TYPE_CHECKING:
    from raytl.jobs import Job, JobHandle

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Dashboard of the cluster's head, http://HEAD:8265 (default RAY_API_SERVER_ADDRESS, else this machine's).",
    ),
]


@app.command()
@with_options_of(search)
def submit(
    context: typer.Context,
    address: Address = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URI|DIR", help="Runs on the cluster: s3://bucket/runs, or a folder (~/raytl-runs)."),
    ] = None,
    on_cluster: Annotated[
        bool, typer.Option("--on-cluster", help="Paths of data are the cluster's; nothing is sent along.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once instead of following the search.")] = False,
    json: Json = False,
    **options: Any,
) -> None:
    """Search on a cluster elsewhere: send raytl and small data there, follow, walk away, come back.

    Takes the options of 'raytl search'. URIs are read by the cluster. Ctrl-C leaves the search going on; 'raytl jobs'
    finds it again, and 'raytl fetch' brings report and model home. Needs the cluster's token in ~/.ray/auth_token.

    [bold]Examples:[/bold]

    raytl submit --target photos/ --address http://127.0.0.1:8265

    raytl submit --target s3://bucket/photos --space vision-gpu --gpus-per-trial 1 --storage s3://bucket/runs --detach
    """
    from raytl import api

    output = Output.current
    names = [name for name in inspect.signature(search).parameters if name not in ("context", "address", "json")]
    given = given_options(context, names)
    parse_trials(given.get("trials"))
    parse_time(given.get("time_budget"))
    read_promotion(*(given.get(name) for name in ("deploy_when", "metric", "canary", "promote_after")))
    if "resume" in given:
        refuse_beside_resume(context, {"on_cluster", "detach"})
    else:
        refuse_more_of_nothing(given.get("trials"), given.get("time_budget"))
    handle = api.submit_options(given, address=address, on_cluster=on_cluster, width=output.console.width)
    flags = f" --address {address}" if address else ""
    output.note(f"submitted: {handle.run} (job {handle.id})")
    if detach:
        output.say(f"follow it: raytl jobs follow {shlex.quote(handle.run)}{flags}")
        output.document({**handle.job.to_json(), "followed_to_the_end": False})
        return
    _follow(output, handle, flags)


@app.command()
def fetch(
    run: RunName,
    address: Address = None,
    storage: Storage = None,
    cluster_storage: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of runs on the cluster, for a run that no job is known of."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring a run home from a cluster: report, tables and model, for 'raytl runs show', 'report' and 'deploy' here.

    [bold]Example:[/bold]  raytl fetch flowers --address http://127.0.0.1:8265
    """
    from raytl import api
    from raytl.cli.results import show_run

    output = Output.current
    handle = api.find_run(run, address=address, storage=cluster_storage)
    going_on = handle.job.status in ("pending", "running")
    with output.progress_console.status("fetching"):
        got = handle.fetch(storage)
    show_run(output, got)
    if going_on:
        output.say("the search is still going on; this is what there is so far")
    output.document({"fetched": str(got.path.resolve()), "job": handle.job.to_json(), **got.summary()})


@jobs_app.command("list")
def jobs_list(address: Address = None, json: Json = False) -> None:
    """Show the searches that were submitted to a cluster, newest first.

    [bold]Example:[/bold]  raytl jobs list --address http://127.0.0.1:8265
    """
    from rich.table import Column, Table
    from rich.text import Text

    from raytl.jobs import list_jobs
    from raytl.jobs.dashboard import Dashboard
    from raytl.runs import wording

    output = Output.current
    dashboard = Dashboard(address)
    found = list_jobs(dashboard)
    table = Table("run", "status", "started (UTC)", Column("took", justify="right"), "command", box=None)
    for job in found:
        started = f"{job.started:%Y-%m-%d %H:%M}" if job.started else ""
        took = wording.duration(job.seconds) if job.seconds is not None else ""
        table.add_row(Text(job.run), _status(job), started, took, Text(job.command))
    output.say(
        table if found else f"no search was submitted to {dashboard.url}; begin with: raytl submit --target PATH"
    )
    output.document({"address": dashboard.url, "jobs": [job.to_json() for job in found]})


@jobs_app.command("logs")
def jobs_logs(run: RunName, address: Address = None, json: Json = False) -> None:
    """Print what a search has said so far.

    [bold]Example:[/bold]  raytl jobs logs flowers --address http://127.0.0.1:8265
    """
    output = Output.current
    handle = _find(run, address)
    said = handle.logs()
    output.pass_on(said.rstrip("\n"))
    output.document({**handle.job.to_json(), "logs": said})


@jobs_app.command("follow")
def jobs_follow(run: RunName, address: Address = None, json: Json = False) -> None:
    """Follow a search from its first line on until it ends. Ctrl-C leaves it going on.

    [bold]Example:[/bold]  raytl jobs follow flowers --address http://127.0.0.1:8265
    """
    _follow(Output.current, _find(run, address), f" --address {address}" if address else "")


@jobs_app.command("stop")
def jobs_stop(run: RunName, address: Address = None, json: Json = False) -> None:
    """End a search early, as Ctrl-C would: it keeps the best model so far, and can be resumed.

    [bold]Example:[/bold]  raytl jobs stop flowers --address http://127.0.0.1:8265
    """
    from raytl.jobs.submission import STOP_S

    output = Output.current
    handle = _find(run, address)
    stopped = handle.stop()
    with output.progress_console.status("it keeps its best model"):
        ended = handle.wait(STOP_S + 15)
    if not stopped:
        output.say(f"{handle.run} had ended before ({handle.job.status})")
    else:
        output.say(f"{handle.run} is stopped" if ended else f"{handle.run} has been told to stop, and takes its time")
    output.document({**handle.job.to_json(), "stopped": stopped})


def _find(run: str, address: str | None) -> JobHandle:
    """Without what the API imports: these commands are quick."""
    from raytl.jobs import find_job
    from raytl.jobs.dashboard import Dashboard

    return find_job(Dashboard(address), run)


def _follow(output: Output, handle: JobHandle, flags: str) -> None:
    """Print the lines of a search until it ends, and end as it does."""
    run = shlex.quote(handle.run)
    try:
        for line in handle.follow():
            output.pass_on(line.rstrip())
    except KeyboardInterrupt:
        output.note(f"{handle.run} goes on without this terminal")
        output.note(f"  come back: raytl jobs follow {run}{flags}")
        output.note(f"  end it:    raytl jobs stop {run}{flags}")
        output.document({**handle.job.to_json(), "followed_to_the_end": False})
        raise typer.Exit(130) from None
    job = handle.job
    if job.status == "succeeded" or job.exit_code == NOT_DEPLOYED:
        output.say(f"bring it home: raytl fetch {run}{flags}")
    elif job.status == "stopped":
        output.note(f"stopped; to go on: raytl submit --resume {run}{flags}")
    else:
        output.note(f"the job has failed: {job.message or 'Ray gives no reason'}")
    output.document({**job.to_json(), "followed_to_the_end": True})
    if job.status != "succeeded":
        raise typer.Exit(130 if job.status == "stopped" else job.exit_code or 1)


def _status(job: Job) -> str:
    """In words. A search whose winner was not deployed has come to its end, whatever Ray calls that."""
    return "succeeded, not deployed" if job.exit_code == NOT_DEPLOYED else job.status
