"""What is known of a bundle's model from labelled images: ``yardstick.safetensors`` beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from raytl.core.errors import UserError
from raytl.evaluation.image_statistics import THUMBNAIL, WIDTH
from raytl.evaluation.nearby import Nearby
from raytl.evaluation.second_opinions import OPINIONS
from raytl.evaluation.unseen_accuracy import Correctness
from raytl.judging.health import Yardstick

YARDSTICK_FILE = "yardstick.safetensors"
NO_YARDSTICK = "no_reference_statistics"
"""In a bundle's provenance: why it has none."""
VERSION = "2"
_ARRAYS = (
    "probabilities",
    "chosen",
    "labels",
    "opinions",
    "statistics",
    "thumbnails",
    "thumbnail_statistics",
    "thumbnail_labels",
)
_FITTED = ("centre", "scale", "coefficients", "offsets")
NARROWED, ALIKE = "narrowed", "alike"
PLACES, PULLS = "places", "pulls"
"""Arrays and a figure that files of an older raytl do not have; and an older raytl passes over them."""
_MOST_BYTES = 256 * 2**20


def yardstick_bytes(yardstick: Yardstick, weights: str) -> bytes:
    """The file's content. weights: SHA-256 of the model's, that the yardstick belongs to."""
    arrays = {name: np.ascontiguousarray(getattr(yardstick, name)) for name in _ARRAYS}
    for name in ("probabilities", "opinions", "statistics", "thumbnails", "thumbnail_statistics"):
        arrays[name] = arrays[name].astype(np.float32)
    fitted = yardstick.correctness
    arrays |= {name: np.ascontiguousarray(getattr(fitted, name), dtype=np.float64) for name in (*_FITTED, NARROWED)}
    arrays |= {name: np.ascontiguousarray(getattr(fitted.nearby, name)) for name in (PLACES, PULLS)}
    figures = {"usual": fitted.usual, "images": fitted.images, "slope": fitted.slope, ALIKE: fitted.alike}
    told = {"version": VERSION, "weights": weights, "figures": json.dumps(figures)}
    return bytes(safetensors.numpy.save(arrays, told))


def why_none(provenance: Mapping[str, Any]) -> str:
    """Half a sentence about a bundle without a yardstick, by its provenance."""
    reason = provenance.get(NO_YARDSTICK)
    said = "the model was exported without reference statistics"
    return f"{said}: {reason}" if isinstance(reason, str) else said


def read_yardstick(directory: Path, weights: str, classes: int) -> Yardstick | None:
    """The yardstick of a bundle for so many classes; None without, or with that of an older or newer raytl.

    weights: SHA-256 of the bundle's; a yardstick from before it was kept names none, and is taken.
    Raises UserError where the file is damaged or of another model. Nothing in it is executed.
    """
    path = Path(directory) / YARDSTICK_FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        with safetensors.safe_open(path, "numpy") as file:
            told = file.metadata() or {}
            if told.get("version") != VERSION:
                return None
            arrays = {name: file.get_tensor(name) for name in (*_ARRAYS, *_FITTED)}
            names = set(file.keys())
            arrays |= {name: file.get_tensor(name) for name in (NARROWED, PLACES, PULLS) if name in names}
        if told.get("weights", weights) != weights:
            raise ValueError("it belongs to other weights")
        figures = json.loads(told["figures"])
        if NARROWED not in arrays:
            arrays[NARROWED], figures[ALIKE] = np.zeros(len(arrays["offsets"])), 1.0
        if PLACES not in arrays:
            nothing = Nearby.nothing(OPINIONS)
            arrays[PLACES], arrays[PULLS] = nothing.places, nothing.pulls
        _check(arrays, classes)
        fitted = Correctness(
            centre=arrays["centre"],
            scale=arrays["scale"],
            coefficients=arrays["coefficients"],
            offsets=arrays["offsets"],
            usual=float(figures["usual"]),
            images=int(figures["images"]),
            slope=float(figures["slope"]),
            alike=float(figures[ALIKE]),
            narrowed=arrays[NARROWED],
            nearby=Nearby(arrays[PLACES], arrays[PULLS]),
        )
        if not (0 <= fitted.usual <= 1 and fitted.images >= 1 and fitted.slope >= 0 and 0 < fitted.alike <= 1):
            raise ValueError("its figures are none that there can be")
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: is damaged ({error}); export the model again") from error
    return Yardstick(**{name: arrays[name] for name in _ARRAYS}, correctness=fitted)


def _check(arrays: dict[str, np.ndarray], classes: int) -> None:
    n, m = len(arrays["labels"]), len(arrays["thumbnail_labels"])
    if arrays["probabilities"].shape != (n, classes) or arrays["opinions"].shape != (n, OPINIONS) or not n or not m:
        raise ValueError("its arrays do not fit the model")
    described = len(arrays["thumbnails"]) == m == len(arrays["thumbnail_statistics"])
    if len(arrays["chosen"]) != n or len(arrays["statistics"]) != n or not described:
        raise ValueError("its arrays do not fit each other")
    # Else whatever asks it fails at every image, as the comparison of a version on trial would.
    looks = {
        "thumbnails": THUMBNAIL**2,
        "statistics": WIDTH,
        "thumbnail_statistics": WIDTH,
        "coefficients": 1 + OPINIONS,
    }
    if any(arrays[name].shape[1:] != (width,) for name, width in looks.items()):
        raise ValueError("its arrays do not describe images as this raytl does")
    if any(arrays[name].shape != (OPINIONS,) for name in ("centre", "scale")):
        raise ValueError("its arrays do not fit what is asked of it")
    drawn = (len(arrays["coefficients"]),)
    if arrays["offsets"].shape != drawn or arrays[NARROWED].shape != drawn or not drawn[0]:
        raise ValueError("its arrays do not fit what is asked of it")
    if arrays[PLACES].shape != (len(arrays[PULLS]), 2 * OPINIONS) or arrays[PULLS].ndim != 1:
        raise ValueError("its arrays do not fit what is asked of it")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a number in it is not finite")
    for name in ("chosen", "labels", "thumbnail_labels"):
        if arrays[name].min() < 0 or arrays[name].max() >= classes:
            raise ValueError(f"{name} has a number that is no class")
