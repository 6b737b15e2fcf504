"""The command that opens the control room: ``ui``."""

from __future__ import annotations

from typing import Annotated

import typer

from raytl.cli.app import Json, Storage, app
from raytl.cli.output import Output
from raytl.core.paths import default_storage


@app.command()
def ui(
    storage: Storage = None,
    host: Annotated[str, typer.Option(metavar="IP", help="Interface; off loopback a token is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes a free one.")] = 8421,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="On loopback: a name to answer to beside localhost and addresses."),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Of an hour of the machines, for the cost so far."),
    ] = None,
    json: Json = False,
) -> None:
    """Open the control room: searches going on and ended, live curves, stopping, going on, comparing, deploying.

    One page that needs no network. Off loopback it asks for RAYTL_UI_TOKEN, or for a token that is made and shown.

    [bold]Examples:[/bold]

    raytl ui

    raytl ui --storage s3://bucket/runs --host 0.0.0.0
    """
    from raytl.ui import serve

    output = Output.current

    def ready(url: str) -> None:
        output.say(f"control room: {url}  (Ctrl-C ends it; searches go on)")
        output.document({"url": url})

    serve(storage or default_storage(), host, port, price, ready, allow_host or ())
