"""Labels out of the files' names, where these begin or end with them: ``cat_001.jpg``, ``17_dog.png``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.names import few, printable
from raytl.tasks.readers.tree import name_of

FILENAME = "filename"
"""What ``--label`` says where labels are to be taken from there; ``filename:REGEX`` says how."""
BY_NAMES = "images with labels in their names"
"""What a folder is called that was read so."""
_NAMED = 4
_MOST_WORDS = 1000
_EXAMPLE = r"(.+)_\d+"
_PARTS = {"digits": r"\d+", "word": r"[^\W\d_]+", "mark": r"[\W_]+"}
_PART = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PARTS.items()))
_MARK = re.compile("[ _-]+")
"""What a pattern has as it is: it is to be typed between quotes."""
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


def advice(images: Sequence[str]) -> str:
    """How to have labels read out of these files' names: with a pattern that finds some in them, where there is one."""
    found = pattern_of(images)
    if found is None:
        return (
            f"--label '{FILENAME}:REGEX' takes the part in brackets, as '{FILENAME}:{_EXAMPLE}' does cat of cat_17.jpg"
        )
    pattern, words = found
    return f"--label '{FILENAME}:{pattern}' takes the part in brackets ({few(words, _NAMED)})"


def pattern_of(images: Sequence[str]) -> tuple[str, list[str]] | None:
    """A regular expression whose group finds words that come again in most files' names, and the words, sorted.

    Of the names that are made alike the one word that differs among them is the label; None where there is none.
    """
    stems = [PurePosixPath(name_of(path)).stem for path in images]
    parts = [[(str(found.lastgroup), found[0]) for found in _PART.finditer(stem)] for stem in stems]
    shapes = Counter(tuple(kind for kind, _ in split) for split in parts)
    if not shapes:
        return None
    (shape, _), *_ = shapes.most_common(1)
    alike = [[text for _, text in split] for split in parts if tuple(kind for kind, _ in split) == shape]
    columns = list(zip(*alike, strict=True))
    for place, kind in enumerate(shape):
        apart = all(shape[n] == "mark" for n in (place - 1, place + 1) if 0 <= n < len(shape))  # no letter of a hash
        if kind != "word" or not apart or len(set(columns[place])) < 2:
            continue
        pattern = "".join(
            ("(.+)" if number in (0, len(shape) - 1) else f"({_PARTS[kind]})")
            if number == place
            else re.escape(column[0]).replace("\\-", "-")
            if shape[number] != "digits" and len(set(column)) == 1
            else _PARTS[shape[number]]
            for number, column in enumerate(columns)
        )
        found = Counter(told[1] for stem in stems if (told := re.search(pattern, stem)))
        words = sorted(found)
        if 1 < len(words) <= len(stems) // 2 and 2 * found.total() > len(stems):
            return pattern, words
    return None


def crossed(images: Sequence[str]) -> list[Spoken]:
    """The parts of most files' names that come again across each other, as of ``clap_hall_1``, ``kick_hall_2``.

    Empty where there are not two such parts, or one alone is what ``--label filename`` takes anyway. ``shiba inu`` and
    ``great dane`` are of two words and one name each: parts are two things where words of both make more pairs than it
    takes to name each once.
    """
    stems = [PurePosixPath(name_of(path)).stem for path in images]
    split = [re.split(r"([\W_]+)", stem) for stem in stems]
    shapes = Counter(tuple(map(str.isdecimal, names[::2])) for names in split)
    if not shapes:
        return []
    (numbers, often), *_ = shapes.most_common(1)
    if 2 * often <= len(stems):
        return []
    columns = list(zip(*(names for names in split if tuple(map(str.isdecimal, names[::2])) == numbers), strict=True))
    places = [2 * n for n, number in enumerate(numbers) if not number and 1 < len(set(columns[2 * n])) <= often // 2]
    across = {
        place
        for one, other in combinations(places, 2)
        if len(set(zip(columns[one], columns[other], strict=True))) >= len({*columns[one]}) + len({*columns[other]})
        for place in (one, other)
    }
    parts = [Spoken("say", *_part(columns, place)) for place in sorted(across)]
    whole = spoken(images)
    if whole is not None and any(set(whole.words) <= set(part.words) for part in parts):
        return []
    return parts


def _part(columns: Sequence[Sequence[str]], place: int) -> tuple[re.Pattern[str], list[str]]:
    """What finds one part of names that are made alike, between the others, and the words that it is."""
    made = []
    for number, column in enumerate(columns):
        if number % 2:
            found = column[0] if len(set(column)) == 1 and _MARK.fullmatch(column[0]) else r"[\W_]+"
        elif column[0].isdecimal():
            found = r"\d+"
        else:
            found = r"[^\W_]*" if "" in column else r"[^\W_]+"
        made.append(f"({found})" if number == place else found)
    return re.compile("".join(made)), sorted(set(columns[place]))


def say_crossed(parts: Sequence[Spoken]) -> str:
    """Which option takes each of the parts for the label, in words."""
    return " and ".join(
        f"--label '{FILENAME}:{part.pattern.pattern}' takes {few(part.words, _NAMED, quoted=True)}" for part in parts
    )


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
