"""What a table's cell holds of an image: its encoded bytes, or something by which a file is found."""

from __future__ import annotations

import base64
import binascii
from typing import Any

BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")  # PNG, JPEG, GIF, WebP
NO_PATH = 4096  # characters: text longer than any path is base64


def content(value: Any) -> bytes | str | None:
    """Bytes or text of one image; of a list the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):  # Hugging Face: {"bytes": …, "path": …}
        value = value.get("bytes") or value.get("path")
    if value is None or isinstance(value, bytes):
        return value or None
    return str(value).strip() or None


def image_in(value: Any) -> bytes | None:
    """The encoded image that is in a cell itself: bytes; a data URI or base64, as cells of CSV files hold no bytes."""
    held = content(value)
    if held is None or isinstance(held, bytes):
        return held
    if not (held.startswith(("data:", *BASE64)) or len(held) >= NO_PATH):
        return None
    try:
        return base64.b64decode(held.partition(",")[2] if held.startswith("data:") else held)
    except (binascii.Error, ValueError):
        return None
