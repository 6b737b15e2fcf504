"""Commands about what is served: ``deploy``, ``rollback``, ``undeploy``, ``endpoint``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from raytl.cli.app import Json, Model, Storage, app, endpoint_app
from raytl.cli.options import given_options, parse_seconds
from raytl.cli.output import Output
from raytl.cli.shares import parse_canary, parse_share
from raytl.core.errors import UserError
from raytl.core.names import so_many

# Of a model on trial: all else is the endpoint's, which is there.
_COMPARISON = ("promote_after", "max_disagreement", "max_slowdown")
_ON_TRIAL = {"model", "name", "canary", "shadow", *_COMPARISON, "new_labels", "wait", "storage", "json"}
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the served model.")]


@app.command()
def deploy(
    context: typer.Context,
    model: Model,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="N", help="Port of the endpoint (default: 8000).")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="IP", help="Interface (default: loopback, unless you open it).")
    ] = None,
    name: Name = "raytl",
    canary: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Try it: answer this share of the requests (5%), the rest as before."),
    ] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="Try it: answer nobody, only compare.")] = False,
    promote_after: Annotated[
        int, typer.Option(min=0, metavar="N", help="On trial: take over after N compared requests if not worse.")
    ] = 0,
    max_disagreement: Annotated[
        str, typer.Option(metavar="SHARE", help="On trial: requests that may get another label.")
    ] = "10%",
    max_slowdown: Annotated[
        float, typer.Option(min=1, metavar="FACTOR", help="On trial: how many times as long it may take.")
    ] = 1.5,
    new_labels: Annotated[
        bool, typer.Option("--new-labels", help="Also where its labels are not those that callers know.")
    ] = False,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a bearer token; off loopback that is so in any case.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Without a token: a name to answer to beside localhost and addresses."),
    ] = None,
    min_replicas: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Kept even without requests (default: 1).")
    ] = None,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Started under load at most (default: 2).")
    ] = None,
    num_cpus: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="CPUs kept for each replica (default: 1).")
    ] = None,
    num_gpus: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="Of each replica, may be a fraction (default: 0).")
    ] = None,
    route_prefix: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where it answers (default: the first at /, others at /v1/models/NAME)."),
    ] = None,
    capture: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the images that the model is least certain of.")
    ] = None,
    no_capture: Annotated[bool, typer.Option("--no-capture", help="Keep none any more.")] = False,
    capture_limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images kept by each replica (default: 1000).")
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For room, and until it answers (default: 2m; 15m if Ray may add a node)."),
    ] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Serve a model behind an autoscaling endpoint, or update the one that is there without dropping a request.

    What is not said of an endpoint that is there stays as it is: where it listens, replicas, resources, names, capture.

    [bold]Examples:[/bold]

    raytl deploy model/ --port 8000

    raytl deploy newer/ --canary 5% --promote-after 500

    curl -T photo.jpg -X POST http://127.0.0.1:8000/v1/predict
    """
    from raytl import api

    share = parse_canary(canary) if canary is not None else 0.0
    patience: dict[str, Any] = {} if wait is None else _patience(parse_seconds("--wait", wait))
    output = Output.current
    if canary is not None or shadow:
        if shadow and canary is not None:
            raise UserError("--shadow answers nobody and --canary some: give one of them")
        for name_of_option, given in _given(context).items():
            if name_of_option not in _ON_TRIAL:
                what = "a model on trial answers where the served one does, as that was deployed"
                raise UserError(f"{what}; leave out {given}")
        bundle = api.find_bundle(model, storage)
        most = parse_share("--max-disagreement", max_disagreement)
        with _more_with_wait():
            on_trial = api.deploy(
                bundle, name=name, canary=share, shadow=shadow, promote_after=promote_after, max_disagreement=most,
                max_slowdown=max_slowdown, new_labels=new_labels, notice=_waits, **patience,
            )  # fmt: skip
        option = "" if name == "raytl" else f" --name {name}"
        does = f"answers {share:.3g} of the requests" if share else "answers nobody"
        if on_trial.candidate:
            output.say(f"version {on_trial.candidate} is on trial at {on_trial.url}: it {does}")
            output.say(f"how it does: raytl endpoint status{option}; take it back with: raytl rollback{option}")
        else:
            output.say(f"the trial at {on_trial.url} is over already: version {on_trial.version} answers")
            output.say(f"how it went: raytl endpoint status{option}")
        _caution(output, bundle)
        output.document(on_trial.to_json())
        return
    for name_of_option, given in _given(context).items():
        if name_of_option in _COMPARISON:
            raise UserError(f"{given} is for a model on trial; give --canary SHARE or --shadow with it")
    if no_capture and capture is not None:
        raise UserError("--capture keeps images and --no-capture none: give one of them")
    bundle = api.find_bundle(model, storage)
    with _more_with_wait():
        endpoint = api.deploy(
            bundle, port=port, host=host, name=name, min_replicas=min_replicas, new_labels=new_labels,
            max_replicas=max_replicas, num_cpus=num_cpus, num_gpus=num_gpus, route_prefix=route_prefix, token=token,
            capture="" if no_capture else capture, capture_limit=capture_limit, allow_hosts=allow_host,
            notice=_waits, **patience,
        )  # fmt: skip
    secret = f' -H "Authorization: Bearer $(cat {endpoint.token_file})"' if endpoint.token_file else ""
    output.say(f"serving at {endpoint.url}; try: curl{secret} -T photo.jpg -X POST {endpoint.url}/v1/predict")
    if endpoint.notice:
        output.say(endpoint.notice)
    _caution(output, bundle)
    output.say("take it down with: raytl undeploy" + (f" --name {name}" if name != "raytl" else ""))
    output.document(endpoint.to_json())


@app.command()
def rollback(
    name: Name = "raytl",
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="An earlier version, its first digits (default: the last).")
    ] = None,
    new_labels: Annotated[
        bool, typer.Option("--new-labels", help="Also where its labels are not those that callers know.")
    ] = False,
    json: Json = False,
) -> None:
    """Take back the version on trial; where none is, serve the one before again, without dropping a request.

    [bold]Example:[/bold]  raytl rollback
    """
    from raytl import serving

    endpoint = serving.rollback(name, to=to, new_labels=new_labels, notice=Output.current.note)
    Output.current.say(f"{endpoint.url} answers with version {endpoint.version}")
    Output.current.document(endpoint.to_json())


@app.command()
def undeploy(name: Name = "raytl", json: Json = False) -> None:
    """Take an endpoint down, and what was started for it.

    [bold]Example:[/bold]  raytl undeploy
    """
    from raytl.serving import undeploy as take_down

    if not take_down(name):
        raise UserError(f"no endpoint '{name}' is served from this machine")
    Output.current.say(f"endpoint '{name}' is down")
    Output.current.document({"name": name, "stopped": True})


@endpoint_app.command("status")
def endpoint_status(name: Name = "raytl", json: Json = False) -> None:
    """Show what is served and what is on trial side by side, and the versions at hand.

    [bold]Example:[/bold]  raytl endpoint status
    """
    from raytl.serving import look

    output, known = Output.current, look(name)
    token = ", asks for its token" if known["token"] else ""
    replicas = so_many(known["replicas"], "replica", "replicas")
    output.say(f"{known['url']}: {known['status']}, {replicas}{token}")
    if known["waiting"]:
        output.say(f"{so_many(known['waiting'], 'replica waits', 'replicas wait')} for {known['waits_for']}")
    output.say(_versions(known))
    for one in known["previous"]:
        output.say(f"at hand: {one['version']} ({one['model']}), of {one['since']}")
    if known["last_trial"]:
        last = known["last_trial"]
        became = "promoted" if last["promoted"] else "taken back"
        output.say(f"last trial: {last['version']} ({last['model']}) was {became}: {last['why']}")
    output.document(known)


@endpoint_app.command("promote")
def endpoint_promote(name: Name = "raytl", json: Json = False) -> None:
    """Let the version on trial take over now.

    [bold]Example:[/bold]  raytl endpoint promote
    """
    from raytl.serving import promote

    endpoint = promote(name, notice=Output.current.note)
    Output.current.say(f"{endpoint.url} answers with version {endpoint.version}")
    Output.current.document(endpoint.to_json())


@endpoint_app.command("token")
def endpoint_token(
    name: Name = "raytl",
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one; the old one is refused at once.")] = False,
    json: Json = False,
) -> None:
    """Say where an endpoint's token is, or change it without a restart.

    [bold]Example:[/bold]  raytl endpoint token --rotate
    """
    from raytl.serving import rotate_token
    from raytl.serving.tokens import read_token, token_file

    if rotate:
        path = rotate_token(name).token_file
    else:
        path = str(token_file(name))
        if read_token(name) is None:
            raise UserError(f"there is no token of an endpoint '{name}' here; raytl deploy --token makes one")
    Output.current.say(("a new token is in " if rotate else "the token is in ") + path)
    Output.current.document({"name": name, "token_file": path, "rotated": rotate})


def _patience(wait_s: float) -> dict[str, Any]:
    """Of a deployment, for ``--wait``: a start that is slow gets no less than without it."""
    from raytl.serving.room import READY_S

    return {"room_s": wait_s, "wait_s": max(wait_s, READY_S)}


def _waits(sentence: str) -> None:
    Output.current.note(f"{sentence} (--wait gives it longer)")


@contextmanager
def _more_with_wait() -> Iterator[None]:
    """Where more time may be enough, say how to give it."""
    try:
        yield
    except UserError as error:
        from raytl.serving.room import NotInTimeError

        if isinstance(error, NotInTimeError):
            raise UserError(f"{error}, or wait longer with --wait") from None
        raise


def _caution(output: Output, bundle: Path) -> None:
    """What is to be read with the figures of a model that is served, before anybody relies on it."""
    from raytl.api.models import cautions_of

    for told in cautions_of(bundle):
        output.say(told)


def _given(context: typer.Context) -> dict[str, str]:
    """What was given on the command line: options as they are written, by the names of their parameters."""
    written = {str(option.name): option.opts[0] for option in context.command.params}
    return {name: written[name] for name in given_options(context, written)}


def _versions(known: dict[str, Any]) -> Table:
    from raytl.serving.evidence import worded

    live, candidate, compared = known["live"], known["candidate"], known["comparison"]
    if candidate is None:
        table = Table("", "serving", box=None)
        table.add_row("version", live["version"])
        table.add_row("model", Text(live["model"]))
        return table
    share = f"{candidate['share']:.3g} of requests" if candidate["share"] else "shadow"
    table = Table("", "serving", f"on trial ({share})", box=None)
    table.add_row("version", live["version"], candidate["version"])
    table.add_row("model", Text(live["model"]), Text(candidate["model"]))
    if compared is None:
        return table
    sides = [compared["live"], compared["candidate"]]
    table.add_row("answered", *(str(side["answered"]) for side in sides))
    table.add_row("confidence", *(_number(side["confidence"], 3) for side in sides))
    table.add_row("ms per image", *(_number(side["ms_per_image"], 1) for side in sides))
    after = f" of {candidate['promote_after']}" if candidate["promote_after"] else ""
    table.add_row("compared requests", "", f"{compared['compared']}{after}")
    lost = f", {compared['lost']} could not be" if compared.get("lost") else ""
    table.add_row("not compared", "", f"{compared['unseen']} came meanwhile{lost}")
    table.add_row("another label", "", f"{worded(compared['disagreement'])}, {candidate['max_disagreement']:.0%} may")
    table.add_row("estimated accuracy", "", _gain(compared))
    table.add_row("failed", "", worded(compared["errors"]))
    table.add_row(f"over {candidate['max_slowdown']:g} times as slow", "", worded(compared["slower"]))
    return table


def _gain(compared: dict[str, Any]) -> str:
    """Of the candidate over the served version."""
    from raytl.serving.evidence import MAX_ACCURACY_LOSS

    gain = compared.get("accuracy_gain")
    if gain is None:
        why = compared.get("why_no_accuracy")
        return f"not known {why}" if why else "not known yet"
    low, high, least = (100 * value for value in (gain["low"], gain["high"], -MAX_ACCURACY_LOSS))
    return f"{100 * gain['estimated']:+.1f} points ({low:+.1f} to {high:+.1f} with its own error), {least:+.0f} may"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
