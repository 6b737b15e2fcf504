"""Predictions for files and folders, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from raytl.bundles.predictor import Predictor
from raytl.core.errors import UserError
from raytl.core.names import printable
from raytl.core.places import check_folder, is_folder, is_there
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.judging.health import Health, judge_health
from raytl.tasks.formats import is_image
from raytl.tasks.readers.listing import Place
from raytl.tasks.readers.tree import walk

_BATCH = 64


@dataclass(frozen=True)
class FolderAnswer:
    """Predictions for files, and what is to be thought of them as a whole.

    frame: the table of :func:`predict_files`. health: None without a yardstick or a readable image.
    sets: by row, which labels the image may have, bool (n, k); unlike: by row, whether it looks like none of the
    classes; both None where ``health`` is.
    """

    frame: pd.DataFrame
    health: Health | None
    sets: np.ndarray | None = None
    unlike: np.ndarray | None = None


def predict_files(bundle: Predictor, paths: Iterable[str | Path]) -> pd.DataFrame:
    r"""One row per image file, in the order given; a folder stands for the images that a search finds there, sorted.

    Columns: ``file``, ``label`` and ``confidence`` (as :class:`Prediction` has them), ``p(<label>)`` for every label,
    ``error``. A file that cannot be decoded has its sentence in ``error`` and nothing in the others. Bytes of a file's
    name that are no UTF-8 are written as ``\xff``.
    Raises UserError for a path that does not exist, or where there is no image at all.
    """
    return answer_files(bundle, paths).frame


def answer_files(bundle: Predictor, paths: Iterable[str | Path]) -> FolderAnswer:
    """As :func:`predict_files`, with how often the predictions are likely right and whether the images are as usual."""
    files = _expand(paths)
    seen: list[np.ndarray] = []
    statistics: list[np.ndarray] = []
    columns = [f"p({label})" for label in bundle.labels]
    errors: list[str | None] = []
    probabilities = np.full((len(files), len(columns)), np.nan, dtype=np.float32)
    for start in range(0, len(files), _BATCH):
        arrays: dict[int, np.ndarray] = {}
        for row, file in enumerate(files[start : start + _BATCH], start):
            try:
                arrays[row] = bundle.prepare(file)
                errors.append(None)
            except UserError as error:
                errors.append(printable(str(error)))
        if arrays:
            pixels = np.stack(list(arrays.values()))
            probabilities[list(arrays)] = bundle.compute(pixels, _BATCH)
            seen.append(thumbnails(pixels))
            statistics.append(image_statistics(pixels))
    chosen = bundle.decide(np.nan_to_num(probabilities))
    labels = [None if error else bundle.labels[number] for number, error in zip(chosen, errors, strict=True)]
    frame = pd.DataFrame({"file": [printable(str(file)) for file in files], "label": pd.Series(labels, dtype="str")})
    frame["confidence"] = probabilities[np.arange(len(files)), chosen]
    frame = pd.concat([frame, pd.DataFrame(probabilities, columns=columns)], axis=1)
    frame["error"] = pd.Series(errors, dtype="str")
    yardstick, read = bundle.yardstick, np.array([error is None for error in errors])
    if yardstick is None or not read.any():
        return FolderAnswer(frame, None)
    described = np.concatenate(statistics)
    told = yardstick.asked(probabilities[read], chosen[read], np.concatenate(seen), described)
    health = judge_health(yardstick, told, chosen[read], described)
    sets, unlike = np.zeros(probabilities.shape, dtype=bool), np.zeros(len(files), dtype=bool)
    sets[read] = yardstick.sets(probabilities[read], chosen[read])
    unlike[read] = yardstick.unlike(told)
    return FolderAnswer(frame, health, sets, unlike)


def write_predictions(frame: pd.DataFrame, out: str | Path) -> Path:
    """Write the table as ``.csv`` or ``.parquet``. Raises UserError for another suffix or an unwritable place."""
    out = Path(out)
    suffix = out.suffix.lower()
    _check_suffix(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".csv":
            frame.to_csv(out, index=False)
        else:
            frame.to_parquet(out, index=False)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); choose another place") from error
    return out


def check_predictions(out: str | Path) -> None:
    """Raise what :func:`write_predictions` would, as far as it can be told before anything is classified."""
    out = Path(out)
    _check_suffix(out)
    if is_folder(out):
        raise UserError(f"{out}: is a folder; name a file, for example {out / 'predictions.csv'}")
    check_folder(out.parent)


def _check_suffix(out: Path) -> None:
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{out}: predictions are written as .csv or .parquet; choose one of these endings")


def _expand(paths: Iterable[str | Path]) -> Sequence[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        if is_folder(path):
            tree = walk(Place(None, str(path), printable(str(path)))).tree
            found = [Path(file) for file in sorted(tree.below()) if is_image(file)]
            if not found:
                raise UserError(
                    f"{printable(str(path))}: has no image files; give a folder with images or the files themselves"
                )
            files += found
        elif is_there(path):
            files.append(path)
        else:
            raise UserError(f"{printable(str(path))}: does not exist; check the path")
    if not files:
        raise UserError("predict: no image was given; name at least one file or folder")
    return files
