"""Names as people read them, of files, columns and classes; how many of something there are."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What has no shape of its own, or turns the text around it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def printable(text: str) -> str:
    r"""A file name as text of one line that any terminal takes: bytes that are no UTF-8 become ``\xff``."""
    plain = encodable(text)
    return plain if plain.isprintable() else _CONTROL.sub(lambda found: repr(found[0])[1:-1], plain)


def visible(text: str) -> str:
    """A text of several lines, each as :func:`printable`: what a terminal would obey is seen instead."""
    return "\n".join(map(printable, text.split("\n")))


def few(names: Iterable[str], most: int = 3, *, quoted: bool = False) -> str:
    """``cat, dog, …``: the first of some names for a sentence, each as :func:`printable`."""
    listed = [printable(name) for name in names]
    shown = [f"'{name}'" if quoted else name for name in listed[:most]]
    return ", ".join([*shown, "…"] if len(listed) > most else shown)


def plural(number: int) -> str:
    """The ``s`` of so many images."""
    return "" if number == 1 else "s"


def so_many(number: int, one: str, several: str) -> str:
    """``1 image is`` or ``2 images are``, of ``image is`` and ``images are``."""
    return f"{number} {one if number == 1 else several}"


def encodable(text: str) -> str:
    r"""The same text where UTF-8 has it; bytes of a file's name that are none become ``\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
