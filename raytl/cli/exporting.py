"""What ``raytl export`` says and prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from raytl import api
from raytl.bundles.onnx_model import INT8_FILE, ONNX_FILE
from raytl.bundles.shipping import Measured
from raytl.cli.output import Output

LEFT_OUT = 3
"""Exit code of an export without the file of 8 bits that was asked for."""


def export_model(
    output: Output, model: str, directory: Path, storage: str | None, *, moved: Mapping[str, str], **wishes: bool
) -> None:
    """Export, and tell what came of it. Exits with 3 where 8 bits were asked for and are not worth their cost."""
    with output.progress_console.status("exporting"):
        exported = api.export(model, directory, moved=moved, storage=storage, **wishes)
    path, shipped = exported.path, exported.onnx
    output.say(f"wrote {path}")
    document: dict[str, Any] = {"path": str(path.resolve()), "onnx": None}
    if shipped is not None:
        output.say(f"wrote {path / ONNX_FILE}; its probabilities differ by {shipped.difference:.1g} at most")
        kept = shipped.int8 is not None and shipped.int8["kept"]
        if kept:
            assert shipped.int8 is not None
            output.say(f"wrote {path / INT8_FILE}, {shipped.int8['size_bytes'] / 1e6:.1f} MB")
        if shipped.measured is not None:
            output.say(_told(shipped.measured))
        document["onnx"] = {"path": str((path / ONNX_FILE).resolve()), **shipped.to_json()}
        if shipped.int8 is not None:
            document["onnx"]["int8"] = {"path": str((path / INT8_FILE).resolve()) if kept else None, **shipped.int8}
    output.document(document)
    if shipped is not None and shipped.int8 is not None and not shipped.int8["kept"]:
        output.note(f"left out {path / INT8_FILE}: {shipped.int8['why_not']}")
        raise typer.Exit(LEFT_OUT)


def _told(measured: Measured) -> str:
    if measured.accuracy is not None:
        figures = ", ".join(f"{file} {value:.1%}" for file, value in measured.accuracy.items())
        return f"accuracy on {measured.images} test images: {figures}"
    figures = ", ".join(f"{file} {value:.0%}" for file, value in measured.same.items())
    return f"same label as the bundle on {measured.images} reference images ({measured.why}): {figures}"
