"""Commands about the runs of a storage: ``runs compare``, ``tag``, ``note``, ``delete``, ``prune``, ``send``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytl.cli.app import Json, RunName, Storage, runs_app
from raytl.cli.output import Output
from raytl.core.errors import UserError
from raytl.core.paths import default_storage

if TYPE_CHECKING:
    from raytl.runs.storage import Place

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DAY_S = 24 * 3600.0


@runs_app.command("compare")
def runs_compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Name, folder or URI of a run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Of another.")],
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Show what differs between two runs (settings, space, data, versions), and what that changed.

    [bold]Example:[/bold]  raytl runs compare 2026-01-31-01 2026-01-31-02
    """
    from raytl.cli.results import open_run, show_comparison
    from raytl.runs.comparing import compare

    compared = compare(open_run(a, storage), open_run(b, storage))
    show_comparison(Output.current, compared)
    Output.current.document(compared.to_json())


@runs_app.command("tag")
def runs_tag(
    run: RunName,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="To put on the run.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="TAG", help="To take off it.")] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Put tags on a run, or take them off; without any, show them. What is tagged is never pruned.

    [bold]Example:[/bold]  raytl runs tag 2026-01-31-01 in-production
    """
    from raytl.cli.results import open_run
    from raytl.runs.labels import tag

    opened = open_run(run, storage)
    found = tag(opened.place, tags or [], remove or [])
    Output.current.say(f"{opened.name}: {', '.join(found) or 'no tags'}")
    Output.current.document({"run": opened.name, "tags": found})


@runs_app.command("note")
def runs_note(
    run: RunName,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="In place of the note that is there.")] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Put a note on a run, an empty one to take it off; without a text, show it.

    [bold]Example:[/bold]  raytl runs note 2026-01-31-01 "the first with the new camera"
    """
    from raytl.cli.results import open_run
    from raytl.runs.labels import note_of, write_note

    opened = open_run(run, storage)
    if text is not None:
        write_note(opened.place, text)
    found = note_of(opened.place)
    Output.current.say(f"{opened.name}: {found or 'no note'}")
    Output.current.document({"run": opened.name, "note": found})


@runs_app.command("delete")
def runs_delete(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names, folders or URIs of runs.")],
    yes: Yes = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Remove runs for good, with their models. One that is being written is refused.

    [bold]Example:[/bold]  raytl runs delete 2026-01-31-01
    """
    store = _store(storage)
    places = [store.find(name) for name in runs]  # a name that is not there is said before anything goes
    _delete(places, yes)


@runs_app.command("prune")
def runs_prune(
    keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="Spare the newest so many.")] = None,
    older_than: Annotated[str | None, typer.Option(metavar="TIME", help="Only those begun before: 12h, 30d.")] = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="Only interrupted, finished or damaged ones.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Remove the runs that every given rule lets go; never one that is tagged, running, or a link to elsewhere.

    [bold]Examples:[/bold]

    raytl runs prune --keep 20

    raytl runs prune --status interrupted --older-than 30d --dry-run
    """
    from raytl.runs.pruning import prunable
    from raytl.runs.store import location

    known = {"interrupted", "finished", "damaged"}
    if keep is None and older_than is None and not status:
        raise UserError("give at least one rule: --keep 20, --older-than 30d or --status interrupted")
    for name in status or ():
        if name not in known:
            raise UserError(f"--status {name}: give one of {', '.join(sorted(known))}")
    store = _store(storage)
    found = prunable(store.list(), keep=keep, older_than_s=age(older_than), statuses=status or ())
    places = {location(place): place for place in store.places() if not place.folder.is_symlink()}
    found = [run for run in found if run.path in places]
    if dry_run or not found:
        names = ", ".join(run.name for run in found)
        Output.current.say(f"would remove {names}" if found else f"nothing to remove in {store.shown}")
        Output.current.document({"runs": [run.name for run in found], "deleted": False})
        return
    _delete([places[run.path] for run in found], yes)


@runs_app.command("send")
def runs_send(run: RunName, storage: Storage = None, json: Json = False) -> None:
    """Send to a storage what a search on this machine could not, because the storage did not answer.

    [bold]Example:[/bold]  raytl runs send 2026-01-31-01 --storage s3://bucket/runs
    """
    store = _store(storage)
    unkept = store.send(run)
    if unkept is not None:
        raise UserError(unkept)
    Output.current.say(f"run '{run}' is whole in {store.shown}")
    Output.current.document({"run": run, "storage": store.shown})


def _store(storage: str | None) -> Any:
    from raytl.runs import RunStore

    return RunStore(storage or default_storage())


def _delete(places: Sequence[Place], yes: bool) -> None:
    from raytl.runs.store import location

    output = Output.current
    places = list({location(place): place for place in places}.values())  # each once, by whatever names
    names = [place.name for place in places]
    if not yes:
        output.note(f"removes {', '.join(names)} for good, with the models")
        if not output.asks("remove?"):
            raise UserError("nothing was removed; --yes removes without asking")
    for number, place in enumerate(places):
        try:
            place.delete()
        except UserError:
            if number:
                output.note(f"removed {', '.join(names[:number])}")
            raise
    output.say(f"removed {', '.join(names)}")
    output.document({"runs": names, "deleted": True})


def age(text: str | None) -> float | None:
    """``12h``, ``30d`` to seconds. Raises UserError for what is no age."""
    if text is None:
        return None
    units = {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"--older-than {text}: give an age such as 12h, 30d or 8w")
    return seconds
