"""What a user has after a few seconds, half a minute, a minute and five: each a search of its own, with that budget.

    python benchmarks/first_minute.py           # an hour and a half on two cores; --quick: ten minutes

Photographs of solar cells (defective or not), handwritten digits alone and with printed ones as source domain, printed
letters; 1, 5 and 20 labels a class. Peers in the same run, on the same labelled images, with the same pretrained
network (raytl looks at some of the task's unlabelled images besides, and at its source domain where it has one):

30 lines    scikit-learn: logistic regression with five folds on frozen features of EfficientNet-Lite0
fine-tune   plain torch: the whole network, AdamW at 3e-4 with a cosine, 15 epochs, no augmentation

``first model`` is the earliest bundle on disk in the search with the least budget. Seconds run from the call to the
model on disk, Ray's start included; the peers' from decoded images to a fitted model, the network's load included.
Accuracy, area under the ROC curve and expected calibration error (ECE, 15 bins) are on hundreds of images that nobody
trained on; ``stated`` is what the run says of its own model, "!" where the truth is outside.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import polite  # noqa: F401
import torch
import typer
from common import finish, say, scratch_home
from controls import lite0_probe, pretrained, tensor, train
from measured import auroc, calibration_error, probabilities, searched, space_settings, stated, worth
from tasks import Case, case, solar

from raytl.bundles import Bundle

LABELS = (1, 5, 20)
BUDGETS = (30.0, 60.0, 300.0)
CASES: dict[str, Callable[[int, int, int], Case]] = {
    "solar": lambda labels, seed, side: solar("solar", labels, seed, poly=False, unlabelled=True, side=side),
    "digits": lambda labels, seed, side: case("digits-alone", labels, seed),
    "printed-to-handwritten": lambda labels, seed, side: case("digits-related", labels, seed),
    "letters": lambda labels, seed, side: case("letters-alone", labels, seed),
}


def figures_of(rows: np.ndarray, made: Case) -> dict[str, float]:
    """Of probabilities (n, k) for the truth."""
    labels = made.truth.labels
    return {
        "accuracy": worth(rows.argmax(1), labels),
        "auroc": auroc(rows, labels),
        "ece": calibration_error(rows, labels),
    }


def fine_tuned(made: Case, side: int, epochs: int) -> Callable[[], np.ndarray]:
    """The default fine-tune, done; what is returned asks it of the truth."""
    torch.manual_seed(0)
    assert made.target is not None
    network = pretrained(len(made.truth.classes))
    train(network, tensor(made.target.items, side), torch.from_numpy(made.target.labels), epochs, rate=3e-4)
    network.eval()

    @torch.inference_mode()
    def ask() -> np.ndarray:
        chunks = [network(chunk).softmax(1) for chunk in tensor(made.truth.items, side).split(64)]
        return torch.cat(chunks).numpy()

    return ask


def _timed(made: Case, way: Callable[[], Callable[[], np.ndarray]]) -> dict[str, Any]:
    """Of a peer. way: makes its model; the time that takes is what counts, as for raytl."""
    started = time.perf_counter()
    ask = way()
    return {"seconds": time.perf_counter() - started, **figures_of(ask(), made)}


def by_raytl(made: Case, budget: float, seed: int, settings: list[str], space: str) -> list[dict[str, Any]]:
    """The first model and the last of one search, in a fresh cache and a Ray of its own, as from the command line."""
    with scratch_home() as home:
        found = searched(made, home / "search", seed=seed, space=space, time_budget_s=budget, assignments=settings)
        if found.refused is not None:
            return [{"way": f"raytl, {budget:g} s", "refused": found.refused}]
        if not found.models:
            return [{"way": f"raytl, {budget:g} s", "refused": f"no model after {found.seconds:.0f} s"}]
        estimate = stated(found.summary())
        results = []
        for name, (seconds, path) in zip(
            ("first model", f"raytl, {budget:g} s"), (found.models[0], found.models[-1]), strict=True
        ):
            entry = {"way": name, "seconds": seconds, **figures_of(probabilities(Bundle.load(path), made), made)}
            if name != "first model" and estimate is not None:
                entry["stated"] = estimate
                entry["covered"] = estimate["low"] <= entry["accuracy"] <= estimate["high"]
            results.append(entry)
        return results


def _row(entry: dict[str, Any]) -> list[str]:
    start = [entry["task"], str(entry["labels"]), entry["way"]]
    if "refused" in entry:
        return [*start, "refused", *["-"] * 4]
    told, estimate = "-", entry.get("stated")
    if estimate:
        told = f"{100 * estimate['value']:.1f} ({100 * estimate['low']:.1f}..{100 * estimate['high']:.1f})"
        told += "" if entry["covered"] else " !"
    return [
        *start,
        f"{entry['seconds']:.1f}",
        f"{100 * entry['accuracy']:.1f}",
        f"{entry['auroc']:.3f}",
        f"{entry['ece']:.3f}",
        told,
    ]


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="ten minutes: five labels a class, half a minute a search")
    ] = False,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="tasks whose name matches this regular expression")] = "",
    labels: Annotated[list[int] | None, typer.Option(help="labelled images a class; repeat for several")] = None,
    budget: Annotated[list[float] | None, typer.Option(help="seconds of a search; repeat for several")] = None,
    side: Annotated[
        int, typer.Option(min=96, max=224, help="pixels of the solar cells and of the peers' network")
    ] = 96,
    epochs: Annotated[int, typer.Option(help="of the peers' fine-tune")] = 15,
    seed: int = 0,
    space: str = "vision-small",
    as_shipped: Annotated[
        bool, typer.Option("--as-shipped", help="leave the space's source models as they are")
    ] = False,
) -> None:
    """Search, fine-tune, fit; compare."""
    settings = space_settings(as_shipped) + ([] if side == 96 else [f"image_size={side}"])
    budgets = sorted(budget or (BUDGETS[:1] if quick else BUDGETS))
    entries: list[dict[str, Any]] = []

    def keep(name: str, count: int, result: dict[str, Any]) -> None:
        entries.append({"task": name, "labels": count, **result})
        say("  ".join(_row(entries[-1])))

    try:
        for name, make in CASES.items():
            if not re.search(only, name):
                continue
            for count in labels or ((5,) if quick else LABELS):
                made = make(count, seed, side)
                keep(name, count, {"way": "30 lines", **_timed(made, lambda made=made: lite0_probe(made, side))})
                keep(
                    name, count, {"way": "fine-tune", **_timed(made, lambda made=made: fine_tuned(made, side, epochs))}
                )
                for number, seconds in enumerate(budgets):
                    results = by_raytl(made, seconds, seed, settings, space)
                    for result in results if number == 0 else results[-1:]:
                        keep(name, count, result)
    finally:  # what is known is worth telling, whatever ended it
        header = ["task", "labels", "way", "s", "accuracy %", "AUROC", "ECE", "stated % (95 %)"]
        title = f"What there is after how many seconds, at {side} pixels"
        finish(
            "first_minute",
            title,
            header,
            [_row(entry) for entry in entries],
            {"side": side, "space": space, "results": entries},
        )


if __name__ == "__main__":
    typer.run(main)
