"""Taking a run's model away: as a bundle, with ONNX files beside it that are measured on the run's test images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raytl.api.models import Run
from raytl.bundles import Reference
from raytl.bundles.shipping import Shipped, ship_onnx
from raytl.core.errors import UserError
from raytl.runs.resuming import read_task
from raytl.tasks import Images, LabelledImages


@dataclass(frozen=True)
class Exported:
    """path: of the bundle. onnx: what came of its ONNX files; None where none was asked for."""

    path: Path
    onnx: Shipped | None = None


def export(
    run: Run,
    directory: str | os.PathLike[str],
    *,
    images: bool = True,
    features: bool = True,
    onnx: bool = False,
    int8: bool = False,
    moved: Mapping[str, str] | None = None,
) -> Exported:
    """Copy a run's model to ``directory``. An older bundle there is replaced.

    images: whether the reference predictions go with it; features: whether the training images' features do. onnx: an
    ONNX file beside it; int8: one of 8 bits as well. They are measured on the run's test images where these can be read
    and the model was not trained on them, else on the reference images; the bundle's card says which, and what it
    costs. moved: where the run's data is now, old place by new one.
    Raises UserError where the run has no model, the place holds something else, or no ONNX file can be made; a file of
    8 bits that costs too much is left out without, see :class:`~raytl.bundles.shipping.Shipped`.
    """
    path = run.best.export(directory, images=images, features=features)
    if not onnx and not int8:
        return Exported(path)
    test, known, why = _images(run, moved)
    reference = Reference.read(run.best.bundle_path)
    return Exported(path, ship_onnx(path, test, known, why=why, reference=reference, int8=int8))


def _images(run: Run, moved: Mapping[str, str] | None) -> tuple[LabelledImages | None, Images | None, str | None]:
    """Test images, images of the training, and why there are no test images."""
    try:
        task = read_task(run, "measured anew", moved)
    except UserError as error:
        if moved:
            raise
        return None, None, str(error)
    known = task.data.target if task.data.target is not None else task.data.unlabelled
    if task.test is None:
        return None, known, "the run has no test images"
    if (run.outcome or {}).get("trained_on") == "all":
        return None, known, "the model was trained on the test images as well"
    outcome = run.outcome or {}
    if outcome.get("best", {}).get("test") is None and not outcome.get("test_undefined"):
        return None, known, "the search did not get to the test, which is opened once, after all was chosen"
    return task.test.open(), known, None
