"""Tags and a note on a run, beside its results: several people may put them there at once.

Every tag is a file of its own, so that two who tag a run at the same time do not undo each other's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from raytl.core.errors import UserError
from raytl.runs.files import replacing
from raytl.runs.storage import Place

TAGS = "tags"
NOTE = "note.txt"
_TAG = re.compile(r"\w[\w.-]{0,49}")


def tags_of(place: Place) -> list[str]:
    """A run's tags, in order of the alphabet."""
    return sorted(place.names(TAGS))


def note_of(place: Place) -> str | None:
    """A run's note, None without."""
    if not place.has(NOTE):
        return None
    return place.file(NOTE).read_text("utf-8", errors="replace").rstrip("\n")


def tag(place: Place, add: Sequence[str] = (), remove: Sequence[str] = ()) -> list[str]:
    """Put tags on a run and take others off; those that it has then. Raises UserError for what cannot be a tag."""
    for name in [*add, *remove]:
        if not _TAG.fullmatch(name):
            raise UserError(
                f"'{name}' cannot be a tag; use up to 50 letters, digits, dots, dashes and underscores, "
                "beginning with a letter or digit"
            )
    for name in add:
        _write(place, f"{TAGS}/{name}", "")
    for name in remove:
        place.remove(f"{TAGS}/{name}")
    return tags_of(place)


def write_note(place: Place, text: str) -> None:
    """Put a note on a run, in place of any other; an empty one takes it off."""
    if text.strip():
        _write(place, NOTE, text.strip() + "\n")
    else:
        place.remove(NOTE)


def _write(place: Place, name: str, text: str) -> None:
    path = place.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # what a terminal gives that is not UTF-8
    place.save(name)
