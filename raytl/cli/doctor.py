"""``raytl doctor``: what a long search would stumble over."""

from __future__ import annotations

import typer
from rich.table import Column, Table
from rich.text import Text

from raytl.cli.app import ClusterAddress, Json, Storage, app
from raytl.cli.output import Output

_STYLES = {"problem": "red", "warning": "yellow", "ok": "green"}


@app.command()
def doctor(
    storage: Storage = None,
    address: ClusterAddress = None,
    json: Json = False,
) -> None:
    """Look at this machine before a long search: versions, cluster, memory, disks, GPU, hubs, weights. Worst first.

    Exits with 1 where there is a problem that would end a search; warnings cost speed or models.

    [bold]Example:[/bold]  raytl doctor --address 10.0.0.7:6379
    """
    from raytl.api.checkup import checkup

    output = Output.current
    findings = checkup(address=address, storage=storage)
    table = Table("", "looked at", Column("found", overflow="fold"), box=None)
    for finding in findings:
        found = Text(finding.found)
        if finding.advice:
            found.append(f"\n{finding.advice}", style="bold")
        table.add_row(Text(finding.mark, style=_STYLES[finding.mark]), finding.name, found)
    output.say(table)
    counts = {mark: sum(finding.mark == mark for finding in findings) for mark in _STYLES}
    output.document(
        {
            "findings": [finding.to_json() for finding in findings],
            "problems": counts["problem"],
            "warnings": counts["warning"],
        }
    )
    if counts["problem"]:
        raise typer.Exit(1)
