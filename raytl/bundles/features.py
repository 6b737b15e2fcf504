"""Features of a bundle's images for :mod:`raytl.bundles.extending`: ``features.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from raytl.core.errors import UserError
from raytl.judging.kept_features import ARRAYS, MOST_BYTES, KeptFeatures

FEATURES_FILE = "features.safetensors"
VERSION = "1"
_UNLABELLED = "unlabelled"
"""An array that files of earlier versions do not have; those versions pass it over."""
_MOST_FILE_BYTES = 4 * MOST_BYTES
_TYPES: dict[str, Any] = {
    "labels": np.int64,
    "groups": np.int64,
    "weights": np.float64,
    "target": np.bool_,
    "digests": np.uint8,
}


def features_bytes(kept: KeptFeatures, weights: str) -> bytes:
    """The file's content. weights: SHA-256 of the model's, that the features belong to."""
    arrays: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(getattr(kept, name), _TYPES.get(name, np.float32)) for name in ARRAYS
    }
    arrays[_UNLABELLED] = np.ascontiguousarray(kept.unlabelled, np.float32)
    told = {
        "version": VERSION,
        "weights": weights,
        "frozen": str(int(kept.frozen)),
        "balanced": str(int(kept.balanced)),
    }
    return bytes(safetensors.numpy.save(arrays, told))


def read_features(directory: Path, weights: str, classes: int) -> KeptFeatures | None:
    """Those of a bundle of so many classes; None of a bundle without, or with some of a newer raytl.

    weights: SHA-256 of the bundle's. Raises UserError where the file is damaged or of another model. Nothing in it is
    executed.
    """
    path = Path(directory) / FEATURES_FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise ValueError("it is too large")
        with safetensors.safe_open(path, "numpy") as file:
            told = file.metadata() or {}
            if told.get("version") != VERSION:
                return None
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
            none = arrays["features"][:0]
            arrays[_UNLABELLED] = file.get_tensor(_UNLABELLED) if _UNLABELLED in file.keys() else none  # noqa: SIM118
        if told["weights"] != weights:
            raise ValueError("it belongs to other weights")
        kept = KeptFeatures(**arrays, frozen=told["frozen"] == "1", balanced=told["balanced"] == "1")
        _check(kept, classes)
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: is damaged ({error}); export the model again") from error
    return kept


def _check(kept: KeptFeatures, classes: int) -> None:
    n = len(kept.labels)
    if not n or any(len(getattr(kept, name)) != n for name in ARRAYS):
        raise ValueError("its arrays do not fit each other")
    if any(getattr(kept, name).dtype != _TYPES.get(name, np.float32) for name in ARRAYS):
        raise ValueError("an array is of another type")
    if kept.features.ndim != 2 or kept.digests.shape != (n, 32):
        raise ValueError("its arrays do not have the right shape")
    if kept.unlabelled.dtype != np.float32 or kept.unlabelled.shape[1:] != kept.features.shape[1:]:
        raise ValueError("its features without labels do not fit the others")
    numbers = (kept.features, kept.unlabelled, kept.weights, kept.thumbnails, kept.statistics)
    if not all(np.isfinite(array).all() for array in numbers) or (kept.weights < 0).any() or not kept.weights.any():
        raise ValueError("a number in it is not one that can be")
    if kept.labels.min() < 0 or kept.labels.max() >= classes:
        raise ValueError("labels has a number that is no class")
