"""Whether a search takes what `raytl quote` says of it, and keeps to the budget that it was given, as commands.

    python benchmarks/budgets.py                # two hours and a half on two cores; --quick: twenty minutes
    python benchmarks/budgets.py --only 'solar.*' --budget 120

Each line is a task and a budget: ``raytl quote`` and then ``raytl search`` with the same arguments, each in a process
of its own on images in folders, in a cache that was empty before. Without a time budget there is a number of trials,
and the quote says how long they take.

quote s     of the whole command
quoted s    what it says that the search takes, with its range
search s    of the whole command, from its call to its end
read s      of it, until the data was read and the search began
model s     until the first model was there to use
trial s     the longest single trial
ratio       quoted over search; * beyond a factor of 1.5 either way
over %      by how much of its budget the search was longer than that; * over a tenth and the longest trial

Exits with 1 where a line has a * or was refused.

The peer of a prediction is what it predicts, so both are measured in the same run, one right after the other: on a
machine that is busy with something else for one of them alone, the ratio tells of that. The line ``resnet`` has a
network of ResNet-18's size whose weights are drawn: it takes what the published one does, and is worth nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polite  # noqa: F401
import typer
from common import exit_status, finish, say, scratch_home
from measured import space_settings
from tasks import Case, case, dump, solar

from raytl import runs
from raytl.search.jobs import JobKind
from raytl.search.records import TrialStatus

BUDGETS = (30.0, 120.0, 480.0)
TRIALS = 10
QUICK = (("digits-related", 30.0), ("solar", 30.0), ("digits", None))
FACTOR = 1.5
OVERRUN = 0.1
HEADER = ("task", "budget", "quote s", "quoted s", "search s", "read s", "model s", "trial s", "ratio", "over %")
_LOOK_S = 0.05
_ROOT = Path(__file__).parents[1]
_RESNET = "torchvision:resnet18"


@dataclass(frozen=True)
class Line:
    """A task as it is measured. make: its images. networks: assignments to the space, given a folder to write in."""

    make: Callable[[int], Case]
    networks: Callable[[Path], list[str]] = lambda folder: space_settings(False)


def drawn_resnet(folder: Path) -> list[str]:
    """Assignments to a space whose one network is as large as ResNet-18; its checkpoint is written to the folder."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / "resnet18.safetensors"
    save_file(torchvision.models.resnet18(weights=None).state_dict(), path)
    return [f"source_model={[f'file:{path}?arch={_RESNET}', 'plain:pixels', 'plain:gradients']}"]


def _solar(seed: int) -> Case:
    return solar("solar", 20, seed, poly=False, unlabelled=True, side=96)


LINES: dict[str, Line] = {
    "digits": Line(lambda seed: case("digits-alone", 5, seed)),
    "digits-related": Line(lambda seed: case("digits-related", 5, seed)),
    "digits-no-label": Line(lambda seed: case("digits-related", 0, seed)),
    "letters": Line(lambda seed: case("letters-alone", 5, seed)),
    "solar": Line(_solar),
    "resnet": Line(_solar, drawn_resnet),
}


# --- the commands ----------------------------------------------------------------------------------------------------


def data_options(folder: Path) -> list[str]:
    """What a dumped case is given by on the command line."""
    roles = [f for role in ("target", "unlabelled") if (folder / role).exists() for f in (f"--{role}", folder / role)]
    domains = sorted((folder / "domains").glob("*"))
    return [str(part) for part in (*roles, *(f for domain in domains for f in ("--source-domain", domain)))]


def command(*arguments: str, watched: Mapping[str, Path]) -> tuple[dict[str, Any], float, dict[str, float]]:
    """The JSON document of a command in a fresh process, its seconds, and when each watched file was first there."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    started, seen = time.perf_counter(), dict[str, float]()
    process = subprocess.Popen(
        [sys.executable, "-m", "raytl", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while True:
            # Reads both pipes meanwhile: one that is full would hold the command up.
            with suppress(subprocess.TimeoutExpired):
                out, errors = process.communicate(timeout=_LOOK_S)
                break
            seen |= _appeared(watched, seen, time.perf_counter() - started)
    finally:
        if process.poll() is None:  # interrupted itself: it is not to go on alone
            process.terminate()
            process.communicate()  # with its pipes read, for what it says at its end may be more than one holds
    seconds = time.perf_counter() - started
    seen |= _appeared(watched, seen, seconds)
    document = json.loads(out or "{}")
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines()
        document["error"] = document.get("error") or (said[-1] if said else f"exit code {process.returncode}")
    return document, seconds, seen


def _appeared(watched: Mapping[str, Path], seen: Mapping[str, float], now: float) -> dict[str, float]:
    return {name: now for name, path in watched.items() if name not in seen and path.exists()}


def measured(line: Line, budget: float | None, trials: int, seed: int, lanes: int | None) -> dict[str, Any]:
    """A quote, and the search that follows it. budget: seconds; None for so many trials."""
    with scratch_home() as home:
        dump(line.make(seed), home / "data")
        wishes = [f"--trials={trials}"] if budget is None else [f"--time-budget={budget:g}s"]
        wishes += [f"--seed={seed}", *([] if lanes is None else [f"--lanes={lanes}"])]
        for assignment in line.networks(home):
            wishes += ["--set", assignment]
        wishes = [*data_options(home / "data"), *wishes]
        told, quote_s, _ = command("quote", *wishes, watched={})
        if "error" in told:
            return {"refused": f"quote: {told['error']}"}
        run = home / "runs" / "run"
        watched = {"read": run / "run.json", "model": run / "model" / "model.json"}
        found, search_s, seen = command(
            "search", *wishes, "--name=run", f"--storage={run.parent}", watched=watched
        )  # fmt: skip
        if "error" in found:
            return {"refused": f"search: {found['error']}"}
        records = runs.RunStore(run.parent).open("run").records()
        completed = [record.seconds for record in records if record.status == TrialStatus.COMPLETED]
        quoted, trial_s = told["search_s"], max(completed, default=0.0)
        return {
            "quote_s": quote_s,
            "quoted_s": quoted["value"],
            "quoted_range_s": [quoted["low"], quoted["high"]],
            "search_s": search_s,
            "read_s": seen.get("read"),
            "after_reading_s": search_s - seen["read"] if "read" in seen else None,
            "model_s": seen.get("model"),
            "trial_s": trial_s,
            "quoted_strategies": told["strategies"]["value"],
            "strategies": len({record.strategy_key for record in records if record.kind != JobKind.CONTROL}),
            **judged(quoted["value"], search_s, budget, trial_s),
        }


def judged(quoted_s: float, search_s: float, budget: float | None, trial_s: float) -> dict[str, Any]:
    """The two figures that have floors, and whether they are kept to; no overrun where there was no budget."""
    ratio = quoted_s / search_s
    figures: dict[str, Any] = {"ratio": ratio, "foretold": 1 / FACTOR <= ratio <= FACTOR}
    if budget is not None:
        figures["overrun"] = search_s / budget - 1
        figures["kept"] = search_s <= budget * (1 + OVERRUN) + trial_s
    return figures


# --- all lines together ----------------------------------------------------------------------------------------------


def figures_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst of each figure, and whether all keep to the floors; None where there is nothing to tell from."""
    done = [record for record in records if "ratio" in record]
    limited = [record for record in done if "overrun" in record]
    return {
        "worst_ratio": max((record["ratio"] for record in done), key=lambda ratio: max(ratio, 1 / ratio), default=None),
        "foretold": sum(record["foretold"] for record in done),
        "worst_overrun": max((record["overrun"] for record in limited), default=None),
        "kept": sum(record["kept"] for record in limited),
        "lines": len(done),
        "limited": len(limited),
        "refused": sum("refused" in record for record in records),
        "floors": {
            "ratio": all(record["foretold"] for record in done) if done else None,
            "overrun": all(record["kept"] for record in limited) if limited else None,
            "refused": not any("refused" in record for record in records) if records else None,
        },
    }


def _row(record: dict[str, Any]) -> list[str]:
    budget = f"{record['trials']} trials" if record["budget_s"] is None else f"{record['budget_s']:g} s"
    if "refused" in record:
        return [record["task"], budget, "refused", *["-"] * 7]
    low, high = record["quoted_range_s"]
    over = "-"
    if "overrun" in record:
        over = f"{100 * record['overrun']:+.0f}{'' if record['kept'] else '*'}"
    return [
        record["task"],
        budget,
        f"{record['quote_s']:.0f}",
        f"{record['quoted_s']:.0f} ({low:.0f}..{high:.0f})",
        f"{record['search_s']:.1f}",
        _seconds(record["read_s"]),
        _seconds(record["model_s"]),
        f"{record['trial_s']:.1f}",
        f"{record['ratio']:.2f}{'' if record['foretold'] else '*'}",
        over,
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main(
    quick: Annotated[bool, typer.Option("--quick", help="twenty minutes: three lines")] = False,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="tasks whose name matches this regular expression")] = "",
    budget: Annotated[list[float] | None, typer.Option(help="seconds of a search; repeat for several")] = None,
    trials: Annotated[int, typer.Option(help="of the searches without a time budget; 0 for no such")] = TRIALS,
    lanes: Annotated[int | None, typer.Option(help="trials at a time (default: as many as fit)")] = None,
    seed: int = 0,
    limit_min: Annotated[
        float | None, typer.Option(help="minutes after which no line begins (default 180; quick 7)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a file that gets a JSON line for each line")] = None,
) -> None:
    """Quote, search, compare."""
    stop = time.perf_counter() + 60 * (limit_min or (7 if quick else 180))
    budgets = [*(budget or BUDGETS), *([None] if trials else [])]
    planned = list(QUICK) if quick else [(name, seconds) for name in LINES for seconds in budgets]
    planned = [(name, seconds) for name, seconds in planned if re.search(only, name)]
    records: list[dict[str, Any]] = []
    try:
        for name, seconds in planned:
            if time.perf_counter() > stop:
                break
            found = measured(LINES[name], seconds, trials or TRIALS, seed, lanes)
            asked = {"task": name, "budget_s": seconds, "trials": None if seconds else trials or TRIALS}
            records.append({**asked, **found})
            say("  ".join(_row(records[-1])))
            if "refused" in found:
                say(f"    {found['refused']}")
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
    finally:  # what is known is worth telling, whatever ended it
        left = [f"{name}/{seconds or 'trials'}" for name, seconds in planned[len(records) :]]
        figures = figures_of(records) | {"left_out": left, "results": records}
        title = "What searches were said to take, and took"
        finish("budgets", title, HEADER, [_row(record) for record in records], figures)
    raise typer.Exit(exit_status(figures["floors"]))


if __name__ == "__main__":
    typer.run(main)
