"""Taking a model away: as a bundle, with ONNX files beside it that are measured on the test images of its run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raytl.api.models import Run, copy_bundle, find_model
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
    model: str | os.PathLike[str] | Run,
    directory: str | os.PathLike[str],
    *,
    images: bool = True,
    features: bool = True,
    onnx: bool = False,
    int8: bool = False,
    moved: Mapping[str, str] | None = None,
    storage: str | os.PathLike[str] | None = None,
) -> Exported:
    """Copy a model to ``directory``. An older bundle there is replaced.

    model: a run by name, folder, URI or object, or the folder of a bundle, such as one that was extended; a bundle may
    be exported over itself, to put an ONNX file beside it. What is the name of both is the run's.
    images: whether the reference predictions go with it; features: whether the training images' features do. onnx: an
    ONNX file beside it; int8: one of 8 bits as well. They are measured on the run's test images where these can be read
    and the model was not trained on them, else on the reference images; the bundle's card says which, and what it
    costs. moved: where the run's data is now, old place by new one. storage: where runs are found by
    name.
    Raises UserError where the run has no model, the place holds something else, or no ONNX file can be made; a file of
    8 bits that costs too much is left out without, see :class:`~raytl.bundles.shipping.Shipped`.
    """
    found = find_model(model, storage, runs_first=True)
    if moved and not isinstance(found, Run):
        raise UserError(f"{found}: --moved says where the data of a run went, and this is a bundle without one")
    bundle = found.best.bundle_path if isinstance(found, Run) else found
    reference = Reference.read(bundle)
    # What lies beside a bundle in its place is nothing to be replaced.
    in_place = images and features and bundle.resolve() == Path(directory).resolve()
    path = bundle if in_place else copy_bundle(bundle, directory, images=images, features=features)
    if not onnx and not int8:
        return Exported(path)
    test, known, why = _images(found, moved) if isinstance(found, Run) else (None, None, "a bundle knows of none")
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
