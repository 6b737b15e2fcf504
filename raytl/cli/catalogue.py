"""Commands about what a search can choose from: ``sources``, ``spaces``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from raytl.cli.app import AllowedLicence, Json, Licence, sources_app, spaces_app
from raytl.cli.output import Output
from raytl.core.errors import UserError

if TYPE_CHECKING:
    from raytl.sources import SourceEntry
    from raytl.tasks.preprocessing import Preprocessing


@sources_app.command("list")
def sources_list(
    match: Annotated[str, typer.Argument(metavar="[TEXT]", help="Only those whose URI contains this.")] = "",
    licence: AllowedLicence = None,
    json: Json = False,
) -> None:
    """Show the catalogue of source models.

    A licence is that of the weights, as their publisher states it; terms of the data they learned from may hold too.

    [bold]Examples:[/bold]

    raytl sources list resnet

    raytl sources list timm:convnext

    raytl sources list --licence commercial

    raytl sources list file:model/
    """
    from dataclasses import asdict

    from raytl.sources import allows_commercial, catalogue

    kind, colon, _ = match.partition(":")
    entries = catalogue(kind if colon else None, match)
    if match and not entries:
        raise UserError(f"no source model's URI contains '{match}'; 'raytl sources list' shows all")
    if licence is Licence.COMMERCIAL:
        entries = [entry for entry in entries if allows_commercial(entry.licence)]
        if not entries:
            raise UserError("no licence here is known to allow commercial use; leave --licence away to see all")
    table = Table(
        "source model",
        *(Column(figure, no_wrap=True) for figure in ("params", "stages", "pixels")),
        *("weights", "licence"),
        box=None,
    )
    for entry in entries:
        table.add_row(
            Text(entry.uri),
            f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "",
            str(len(entry.stages)) if entry.stages else "",
            str(entry.image_size or ""),
            _weights(entry),
            entry.licence,
        )
    Output.current.say(table)
    if len(entries) == 1 and entries[0].preprocessing is not None:
        Output.current.say(f"images: {_preprocessing(entries[0].preprocessing)}")
    Output.current.document({"sources": [asdict(entry) for entry in entries]})


def _preprocessing(preprocessing: Preprocessing) -> str:
    numbers = [", ".join(f"{number:.3g}" for number in values) for values in (preprocessing.mean, preprocessing.std)]
    crop = f" to {preprocessing.crop_fraction:.3g} of the short side" if preprocessing.resize == "crop" else ""
    shown = f"{preprocessing.resize}{crop}"
    if preprocessing.tiles > 1:
        shown = f"{preprocessing.tiles} x {preprocessing.tiles} pieces of the image"
    return f"{preprocessing.size} pixels, {preprocessing.interpolation}, {shown}; mean {numbers[0]}; std {numbers[1]}"


def _weights(entry: SourceEntry) -> str:
    if entry.weights is None:
        return "untrained" if entry.trainable else "none needed"
    if entry.cached is None:
        return entry.weights
    return "on this machine" if entry.cached else entry.install or "to be fetched"


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
