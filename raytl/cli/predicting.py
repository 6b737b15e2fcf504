"""How predictions look on a terminal, and what is said of them as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from raytl import api
from raytl.bundles import Bundle, FolderAnswer, answer_files, check_predictions, write_predictions
from raytl.bundles.yardstick import why_none
from raytl.cli.output import Output
from raytl.core.errors import UserError
from raytl.evaluation.label_sets import COVERAGE, FALSE_REFUSALS
from raytl.judging.health import Health

SHOWN = 20


def show_predictions(
    output: Output, model: str, paths: Sequence[Path], out: Path | None, storage: str | None, *, sets: bool = False
) -> None:
    """Classify files and show, or write, the table; say how good it is. sets: with all labels an image may have."""
    if out is not None:
        check_predictions(out)  # before all images are classified
    bundle = Bundle.load(api.find_bundle(model, storage))
    if sets and bundle.yardstick is None:
        raise UserError(
            f"{model}: --sets needs reference statistics, and this model has none; export it from a new run"
        )
    answer = answer_files(bundle, paths)
    frame, named = answer.frame, _named(answer, bundle.labels) if sets else None
    if named is not None:
        frame = frame.assign(labels=["|".join(row) for row in named], none_of_these=answer.unlike)
    if out is not None:
        write_predictions(frame, out)
        output.say(f"wrote {len(frame)} predictions to {out}")
    else:
        _show(output, answer, named)
    why_not = "no image could be read" if bundle.yardstick else why_none(bundle.manifest.provenance)
    for sentence in sentences(answer.health, why_not):
        output.say(sentence)
    if output.as_json:  # all probabilities of all images as text take memory that nobody else asked for
        health = None if answer.health is None else answer.health.to_json(bundle.labels)
        records = _records(answer, bundle.labels, named)
        output.document({"model": model, "out": str(out) if out else None, "predictions": records, "health": health})


def sentences(health: Health | None, why_not: str) -> list[str]:
    """What is said of predictions as a whole. why_not: said where ``health`` is None."""
    if health is None:
        return [f"how often that is right is not known, for {why_not}"]
    a = health.accuracy
    told = [
        f"about {100 * a.value:.0f} % right, {100 * a.low:.0f} to {100 * a.high:.0f} "
        f"({100 * health.usual_accuracy:.0f} % of the {health.reference_images} labelled images)"
    ]
    if health.unlike is not None:
        told.append(
            f"{100 * health.unlike:.0f} % look like none of the classes; of images like the labelled ones "
            f"{100 * FALSE_REFUSALS:.0f} % do"
        )
    if health.drift is None:
        told.append("too few images to say whether they are of another kind than the labelled ones")
    elif health.drift.alarm:
        told.append(f"these images are of another kind than the labelled ones (p = {health.drift.p:.3f})")
    else:
        told.append(f"nothing says that these images are of another kind (p = {health.drift.p:.2f})")
    if health.few:
        told.append(f"all this rests on few labelled images ({health.reference_images})")
    return told


def _show(output: Output, answer: FolderAnswer, named: list[list[str]] | None) -> None:
    frame = answer.frame
    heading = () if named is None else (f"{100 * COVERAGE:.0f} % sure to be one of",)
    table = Table("file", "label", "confidence", *heading, "", box=None)
    for number, (_, row) in enumerate(frame.head(SHOWN).iterrows()):
        error = row.get("error")
        sure = "" if row["label"] is None or row["label"] != row["label"] else f"{row['confidence']:.3f}"
        note = error if isinstance(error, str) else ""
        if named is not None and answer.unlike is not None and answer.unlike[number]:
            note = "looks like none of them"
        label = row["label"] if isinstance(row["label"], str) else ""
        among = () if named is None else (Text(", ".join(named[number])),)
        table.add_row(Text(str(row["file"])), Text(label), sure, *among, Text(note))
    output.say(table)
    if len(frame) > SHOWN:
        output.say(f"… and {len(frame) - SHOWN} more; --out predictions.csv writes them all")


def _named(answer: FolderAnswer, labels: Sequence[str]) -> list[list[str]] | None:
    if answer.sets is None:
        return None
    return [[label for label, held in zip(labels, row, strict=True) if held] for row in answer.sets]


def _records(answer: FolderAnswer, labels: Sequence[str], named: list[list[str]] | None) -> list[dict[str, Any]]:
    frame, records = answer.frame, []
    probabilities = frame[[f"p({name})" for name in labels]].to_numpy()
    chosen = zip(frame["file"], frame["label"], frame["confidence"], frame["error"], probabilities, strict=True)
    for number, (file, label, confidence, error, row) in enumerate(chosen):
        failed = isinstance(error, str)
        known: dict[str, Any] = {
            "label": label,
            "confidence": float(confidence),
            "probabilities": dict(zip(labels, row.tolist(), strict=True)),
        }
        if named is not None and answer.unlike is not None:
            known |= {"labels": named[number], "none_of_these": bool(answer.unlike[number])}
        record = {"file": file, **(dict.fromkeys(known) if failed else known)}
        records.append(record | {"error": error if failed else None})
    return records
