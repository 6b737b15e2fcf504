"""How runs and predictions look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from raytl import api
from raytl.bundles import Bundle, predict_files, write_predictions
from raytl.cli.output import Output
from raytl.core.paths import default_storage
from raytl.runs import RunStore, render_leaderboard

SHOWN = 20


def show_run(output: Output, run: api.Run) -> None:
    """Leaderboard, the choice and its grounds, gains, and where to go from here."""
    summary = run.summary()
    output.say(render_leaderboard(run))
    output.say(f"chosen: {summary['why']}")
    best = summary["best"] or {}
    if best.get("test_metric"):
        output.say(f"test accuracy: {_figure(best['test_metric'])}")
    elif best.get("validation_metric"):
        output.say(f"validation accuracy: {_figure(best['validation_metric'])} (no test split)")
    for name, gain in (summary["gains"] or {}).items():
        output.say(f"  over {name}: {_gain(gain)}")
    if run.report_path.exists():
        output.say(f"report: {run.report_path}")
    if run.status == "interrupted":
        output.say(
            f"The search was interrupted; what it learned is in {run.path}. "
            "To go on, search again: pretrained source models and cached activations are kept."
        )
    elif run.bundle_path.exists():
        output.say(f"next: raytl deploy {run.path}   or   raytl export {run.path} model/")


def show_runs(output: Output, storage: Path | None) -> None:
    """One line per run, newest first."""
    store = RunStore(storage or default_storage())
    found = store.list()
    table = Table("run", "started", "status", "trials", "best")
    for run in found:
        values: dict[str, Any] = run.to_json()
        table.add_row(*(str(values.get(key, "") or "") for key in ("name", "started", "status", "trials", "best")))
    output.say(table if found else f"no runs in {store.storage} yet; begin with: raytl search --target PATH")
    output.document({"storage": str(store.storage), "runs": [run.to_json() for run in found]})


def show_predictions(output: Output, model: str, paths: Sequence[Path], out: Path | None, storage: Path | None) -> None:
    """Classify files and show, or write, the table."""
    bundle = Bundle.load(api.find_bundle(model, storage))
    frame = predict_files(bundle, paths)
    if out is not None:
        write_predictions(frame, out)
        output.say(f"wrote {len(frame)} predictions to {out}")
    else:
        table = Table("file", "label", "confidence", "")
        for _, row in frame.head(SHOWN).iterrows():
            error = row.get("error")
            sure = "" if row["label"] is None or row["label"] != row["label"] else f"{row['confidence']:.3f}"
            table.add_row(str(row["file"]), str(row["label"] or ""), sure, str(error) if isinstance(error, str) else "")
        output.say(table)
        if len(frame) > SHOWN:
            output.say(f"… and {len(frame) - SHOWN} more; --out predictions.csv writes them all")
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    output.document({"model": str(model), "out": str(out) if out else None, "predictions": records})


def _figure(metric: dict[str, float]) -> str:
    return f"{metric['value']:.3f} (95 % interval {metric['low']:.3f} to {metric['high']:.3f})"


def _gain(gain: dict[str, float]) -> str:
    sure = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "no sure difference"
    return f"{100 * gain['value']:+.1f} points (95 % interval {100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}): {sure}"
