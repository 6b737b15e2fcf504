"""The size that a source model's URI may wish for: ``@224px`` behind it."""

from __future__ import annotations

import re

_SIZED = re.compile(r"(?P<uri>.+)@(?P<side>\d+)px")


def split_size(uri: str) -> tuple[str, int | None]:
    """A URI without its size, and the side of the input in pixels that it wishes for; None where it wishes for none."""
    found = _SIZED.fullmatch(uri)
    return (uri, None) if found is None else (found["uri"], int(found["side"]))


def at_size(uri: str, side: int) -> str:
    """URI of the same source model at an input of so many pixels, whatever size is wished for elsewhere."""
    return f"{split_size(uri)[0]}@{side}px"
