"""How images were prepared for bare weights, as their URI states it: ``?arch=<URI>&mean=0.5&std=0.5&size=160``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from raytl.core.errors import UserError, nearest
from raytl.tasks.preprocessing import Preprocessing, Resize

KEYS = ("mean", "std", "size", "interpolation", "resize")
_WORDS = {"interpolation": ("bilinear", "bicubic"), "resize": get_args(Resize)}
_LARGEST_SIDE = 4096


def split_stated(query: str, where: str) -> tuple[str, dict[str, Any]]:
    """``<URI>&mean=0.5`` as the architecture's URI and what is stated behind it. Raises UserError for nonsense.

    An architecture may have a query of its own, as image towers have: only what stands last is taken from it.
    """
    architecture, *_ = parts = query.split("&")
    said: dict[str, str] = {}
    while len(parts) > 1 and parts[-1].partition("=")[0] in KEYS:
        key, _, text = parts.pop().partition("=")
        if key in said:
            raise UserError(f"{where}: '{key}' is given twice")
        said[key] = text
    if len(parts) > 1 and "?" not in architecture:
        key = parts[-1].partition("=")[0]
        raise UserError(f"{where}: unknown key '{key}' behind the architecture{nearest(key, KEYS)}")
    return "&".join(parts), {key: _value(key, text, where) for key, text in reversed(said.items())}


def stated(usual: Preprocessing, said: Mapping[str, Any], where: str) -> Preprocessing:
    """The architecture's usual preprocessing with what is stated; ``size`` was asked of the network before.

    Raises UserError where there is not one number for each channel.
    """
    values = {key: value for key, value in said.items() if key != "size"}
    for key in ("mean", "std"):
        if key in values and len(values[key]) not in (1, usual.channels):
            raise UserError(f"{where}: {key} has {len(values[key])} numbers for {usual.channels} channels")
        if key in values and len(values[key]) == 1:
            values[key] *= usual.channels
    return replace(usual, **values)


def assumed(preprocessing: Preprocessing, said: Mapping[str, Any], architecture: str) -> str:
    """A sentence about what was taken for granted of the images, of which a file of weights says nothing; or none."""
    shown = {
        key: ", ".join(f"{number:.3g}" for number in dict.fromkeys(value)) if isinstance(value, tuple) else value
        for key in KEYS
        if key not in said and key != "size"
        for value in [getattr(preprocessing, key)]
    }
    if not shown:
        return ""
    what = "; ".join(f"{key} {value}" for key, value in shown.items())
    return f"images are prepared as is usual for {architecture} ({what}); &mean=… behind it says otherwise"


def _value(key: str, text: str, where: str) -> Any:
    """What is written behind a key. Raises UserError."""
    if key in _WORDS:
        if text not in _WORDS[key]:
            raise UserError(f"{where}: {key} is '{text}'; give {' or '.join(_WORDS[key])}")
        return text
    try:
        if key == "size":
            size = int(text)
            if 1 <= size <= _LARGEST_SIDE:
                return size
        else:
            numbers = tuple(float(number) for number in text.split(","))
            if all(0 <= number <= 1 and (number or key == "mean") for number in numbers):
                return numbers
    except ValueError:
        pass
    rule = f"a side from 1 to {_LARGEST_SIDE} pixels"
    if key != "size":
        least = "from 0" if key == "mean" else "above 0,"
        rule = f"one number {least} to 1, or one for each channel with commas between: pixels go from 0 to 1"
    raise UserError(f"{where}: {key} is '{text}'; give {rule}")
