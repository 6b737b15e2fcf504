"""What docs/json.md says of each command's document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "json.md"


@cache
def keys() -> dict[str, frozenset[str]]:
    """Documented keys by command. ``a.b`` is a key below ``a``, ``a[].b`` one of each item, ``a.*`` any name."""
    found: dict[str, frozenset[str]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        rows = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in body.splitlines() if line.startswith("| `")]
        said = frozenset(key for row in rows for key in row)
        for other in re.findall(r"^All that `raytl ([^`]+)` has", body, flags=re.MULTILINE):
            said |= found[other]
        for command in re.findall(r"`raytl ([^`]+)`", title):
            found[command] = said
    return found


def undocumented(command: str, document: dict[str, Any]) -> set[str]:
    """Keys of a document that the page does not tell of, and documented keys at its top that it lacks.

    A key whose row ends its subject (nothing is documented below it) may hold anything.
    """
    known = keys()[command]
    odd = {path for path in _paths(document, "", known) if path not in known}
    top = {key for key in known if not re.search(r"[.\[]", key)}
    return odd | (top - set(document))


def _paths(value: Any, at: str, known: frozenset[str]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _paths(item, f"{at}[]", known)
    elif isinstance(value, dict) and (at == "" or any(key.startswith(f"{at}.") for key in known)):
        for key, inner in value.items():
            path = f"{at}.{key}" if at else key
            path = f"{at}.*" if f"{at}.*" in known and path not in known else path
            if path != "schema":
                yield path
            yield from _paths(inner, path, known)
