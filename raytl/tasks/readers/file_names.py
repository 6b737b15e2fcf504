"""Labels out of the files' names, where these begin or end with them: ``cat_001.jpg``, ``17_dog.png``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.names import printable
from raytl.tasks.readers.tree import name_of

FILENAME = "filename"
"""What ``--label`` says where labels are to be taken from there; ``filename:REGEX`` says how."""
BY_NAMES = "images with labels in their names"
"""What a folder is called that was read so."""
_MOST_WORDS = 1000
_PATTERNS = {
    "begin with": re.compile(r"^([^\W\d_](?:[^\d]*[^\W\d_])?)[\W_]*\d+.*$"),  # cat.17, american bulldog 12, cat_1_crop2
    "begin with words such as": re.compile(r"^(\w*[^\W\d_])[\W_]*\d+.*$"),  # type2_sugar_7, c1s_4
    "end with": re.compile(r"^\d+[\W_]+([^\W\d_].*)$"),  # 17_cat
}


@dataclass(frozen=True)
class Spoken:
    """What names say.

    where: how they do (``begin with``), before the words. pattern: its group finds the label in a name without ending.
    words: the labels, sorted.
    """

    where: str
    pattern: re.Pattern[str]
    words: list[str]

    def label(self, path: str) -> str | None:
        """Of one file, None where its name says nothing."""
        found = self.pattern.search(PurePosixPath(name_of(path)).stem)
        return printable(found[1]) if found and found[1] else None


def spoken(images: Sequence[str]) -> Spoken | None:
    """The words that most files' names begin, or end, with; None where there are not several that come again."""
    stems = [PurePosixPath(name_of(path)).stem for path in images]
    for where, pattern in _PATTERNS.items():
        found = Counter(told[1] for stem in stems if (told := pattern.search(stem)))
        words = sorted(word for word, count in found.items() if count > 1)
        if 1 < len(words) <= _MOST_WORDS and 2 * sum(found[word] for word in words) > len(stems):
            return Spoken(where, pattern, words)
    return None


def asked_for(option: str | None) -> bool:
    """Whether ``--label`` asks for labels out of the files' names."""
    return option is not None and option.partition(":")[0] == FILENAME


def read_by(option: str, images: Sequence[str]) -> Spoken | None:
    """How the names of these images are to be read; None where they say nothing.

    Raises UserError where the option's regular expression is none, or has no group.
    """
    _, _, given = option.partition(":")
    if not given:
        return spoken(images)
    try:
        pattern = re.compile(given)
    except re.error as error:
        raise UserError(f"--label {option}: {given!r} is not a regular expression ({error})") from None
    if pattern.groups != 1:
        raise UserError(
            rf"--label {option}: put the part that is the label in brackets, as in --label '{FILENAME}:(.+)_\d+'"
        )
    found = Spoken(f"by {given} say", pattern, [])
    words = sorted({label for path in images if (label := found.label(path)) is not None})
    return Spoken(found.where, pattern, words) if words else None
