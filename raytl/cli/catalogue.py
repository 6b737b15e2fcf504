"""Commands about what a search can choose from: ``sources``, ``spaces``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from raytl.cli.app import Json, sources_app, spaces_app
from raytl.cli.output import Output
from raytl.core.errors import UserError


@sources_app.command("list")
def sources_list(
    match: Annotated[str, typer.Argument(metavar="[TEXT]", help="Only those whose URI contains this.")] = "",
    json: Json = False,
) -> None:
    """Show the catalogue of source models.

    [bold]Examples:[/bold]

    raytl sources list resnet

    raytl sources list timm:convnext
    """
    from dataclasses import asdict

    from raytl.sources import catalogue

    kind, colon, _ = match.partition(":")
    entries = catalogue(kind if colon else None, match)
    if match and not entries:
        raise UserError(f"no source model's URI contains '{match}'; 'raytl sources list' shows all")
    table = Table(Column("source model", overflow="fold"), "parameters", "stages", "pixels", "weights", box=None)
    for entry in entries:
        table.add_row(
            Text(entry.uri),
            f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "",
            str(len(entry.stages)) if entry.stages else "",
            str(entry.image_size or ""),
            {True: "on this machine", False: "to be fetched", None: entry.weights}[entry.cached] or "untrained",
        )
    Output.current.say(table)
    Output.current.document({"sources": [asdict(entry) for entry in entries]})


@spaces_app.command("list")
def spaces_list(json: Json = False) -> None:
    """Show the search spaces that come with raytl, with the files to copy and edit.

    [bold]Example:[/bold]  raytl spaces list --json
    """
    from raytl.search.space.definition import load_space
    from raytl.search.space.files import find_space, shipped_spaces

    spaces = [
        {"name": name, "about": load_space(name).about, "path": str(find_space(name))} for name in shipped_spaces()
    ]
    table = Table("space", "for", box=None)
    for space in spaces:
        table.add_row(space["name"], space["about"])
    Output.current.say(table)
    Output.current.say(f"the files, to copy and edit: {Path(spaces[0]['path']).parent}")
    Output.current.document({"spaces": spaces})
