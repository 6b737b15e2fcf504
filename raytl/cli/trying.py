"""The command that adds a strategy to a search by hand: ``runs try``."""

from __future__ import annotations

from typing import Annotated

import typer

from raytl.cli.app import ClusterAddress, Json, Lanes, Moved, RunName, Storage, Verbose, read_moves, runs_app
from raytl.cli.output import Output


@runs_app.command("try")
def runs_try(
    run: RunName,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Of the strategy: cut=0, adaptation=mcc, head_lr=0.01."),
    ],
    like: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="TRIAL", help="It is like this trial otherwise (default: the best that was trained)."
        ),
    ] = None,
    moved: Moved = None,
    lanes: Lanes = None,
    address: ClusterAddress = None,
    storage: Storage = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Have a strategy of your own tried: next by a search that goes on, as one more by one that ended.

    It has to be in the run's search space. Of a run that ended the test split stays shut.

    [bold]Examples:[/bold]

    raytl runs try 2026-01-31-01 --set head_lr=0.01

    raytl runs try 2026-01-31-01 --like 12 --set cut=0 --set adaptation=mcc
    """
    from raytl.api.by_hand import ask, try_strategy
    from raytl.cli.results import show_run
    from raytl.cli.running import listening
    from raytl.runs import wording

    output, moves = Output.current, read_moves(moved)
    attempt = ask(run, set_, like=like, storage=storage, moved=moves)
    output.note(f"strategy: {wording.strategy(attempt.strategy.to_dict())}")
    document = {"run": attempt.run.name, "strategy": attempt.strategy.to_dict(), "asked": attempt.asked}
    if attempt.asked:
        output.say(f"run '{attempt.run.name}' tries it next, or, where its choice is made by then, once it goes on")
        output.document({**document, "summary": None})
        return
    with listening(output, 1, None) as progress:
        done = try_strategy(
            attempt.run, set_, like=like, moved=moves, lanes=lanes, address=address, verbose=verbose,
            listeners=[progress],
        )  # fmt: skip
    show_run(output, done)
    output.document({**document, "summary": done.summary()})
    if done.status == "interrupted":
        raise typer.Exit(130)
