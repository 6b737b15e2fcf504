"""``raytl cache``: what raytl keeps on this machine so as not to make or fetch it again."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.table import Column, Table

from raytl.cli.app import Json, cache_app
from raytl.cli.output import Output
from raytl.cli.store import Yes, age
from raytl.core import tidying
from raytl.core.errors import UserError, nearest
from raytl.core.memory import in_units
from raytl.core.names import so_many
from raytl.core.paths import home

BY_NAME = {part.name: part for part in tidying.PARTS}


@cache_app.command("list")
def cache_list(json: Json = False) -> None:
    """Show what raytl's cache holds on this machine, by part, and what each may take.

    [bold]Example:[/bold]  raytl cache list
    """
    from raytl.training.arrays import configured_budget

    root, rows = home(), []
    table = Table(
        "part", "holds", Column("entries", justify="right"), Column("size", justify="right"), "at most", box=None
    )
    for part in tidying.PARTS:
        held = tidying.entries(root, part)
        taken = sum(entry.size_bytes for entry in held)
        limit = configured_budget() if part is tidying.ARRAYS else part.limit_bytes
        most = "" if limit is None else in_units(limit)
        table.add_row(part.name, part.holds, str(len(held)), in_units(taken), most)
        rows.append({"part": part.name, "entries": len(held), "size_bytes": taken, "limit_bytes": limit})
    output = Output.current
    output.say(f"{root}:")
    output.say(table)
    output.document({"cache": str(root), "parts": rows})


@cache_app.command("clear")
def cache_clear(
    parts: Annotated[list[str] | None, typer.Argument(metavar="[PART]...", help="Of 'raytl cache list'.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was not used for: 12h, 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove what is made or fetched again, the same: 'arrays', 'runs' and 'unpacked'; other parts by name.

    Runs are resumed and replayed from 'sources' and 'submitted', and scripts name 'recipes'. Runs, exported models and
    endpoints are not touched.

    [bold]Examples:[/bold]

    raytl cache clear --older-than 30d

    raytl cache clear arrays --dry-run
    """
    names = parts or [part.name for part in tidying.PARTS if part.again]
    for name in names:
        if name not in BY_NAME:
            raise UserError(f"the cache has no part '{name}'{nearest(name, BY_NAME)}; 'raytl cache list' shows them")
    root, before = home(), time.time() - (age(older_than) or 0.0)
    found = [
        entry for name in dict.fromkeys(names) for entry in tidying.entries(root, BY_NAME[name]) if entry.used <= before
    ]
    taken, output = sum(entry.size_bytes for entry in found), Output.current
    counted = so_many(len(found), "entry", "entries")
    document = {"cache": str(root), "entries": len(found), "size_bytes": taken, "deleted": False}
    if dry_run or not found:
        output.say(f"would remove {counted}, {in_units(taken)}" if found else f"nothing to remove in {root}")
        output.document(document)
        return
    if not yes:
        output.note(f"removes {counted} of {root}, {in_units(taken)}")
        if not output.asks("remove?"):
            raise UserError("nothing was removed; --yes removes without asking")
    for entry in found:
        tidying.remove(entry)
    output.say(f"removed {counted}, {in_units(taken)}")
    output.document(document | {"deleted": True})
