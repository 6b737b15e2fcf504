"""Class names that may not be meant: nearly the same ones, words for a missing label, splits, dates, parts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from raytl.core.names import few
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.split_names import split_of

_MISSING = frozenset(
    {
        *("nan", "none", "null", "na", "n/a", "<na>", "#n/a", "nil", "?", "-"),
        *("unlabelled", "unlabeled", "unknown", "unsorted", "todo"),
        *("trash", "rejected", "discarded", "discard", "ignore", "ignored", "skip", "skipped", "backup", "tmp", "temp"),
        *("untitled folder", "new folder", "neuer ordner"),
    }
)
_FILES = frozenset(
    {
        *("image", "images", "img", "imgs", "jpegimages", "jpg", "jpeg", "png", "pictures", "photos", "mask", "masks"),
        *(
            "annotation",
            "annotations",
            "label",
            "labels",
            "gt",
            "ground_truth",
            "groundtruth",
            "trimaps",
            "segmentation",
        ),
        *(
            "segmented",
            "bboxes",
            "thumbnails",
            "raw",
            "original",
            "originals",
            "augmented",
            "color",
            "colour",
            "grayscale",
        ),
    }
)
_YEAR = r"(19|20)\d\d"
_CALENDAR = (
    r"(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?"
    r"|(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?|(week|day|kw|q)[ _-]?\d+)"
)
_DATE = re.compile(
    rf"^({_YEAR}([-_.]?[01]\d([-_.]?[0-3]\d([ T_-]*\d\d[:.hm-]?\d\d.*)?)?)?"  # 2024, 2024-01, 2024-01-31 12:30
    rf"|[0-3]?\d[-_./][01]?\d[-_./]({_YEAR}|\d\d)"  # 31.01.2024
    rf"|({_YEAR}[ _.-]*)?([0-3]?\d[ _.]*)?{_CALENDAR}([ _.-]*[0-3]?\d,?)?([ _.-]*{_YEAR})?)$"  # January 2024, 31 Jan
)
_COPY = re.compile(r"( - copy| copy|\s*\(\d+\))$", re.IGNORECASE)
_PART = re.compile(
    r"^(.*[ _-])?(part|batch|fold|chunk|images?|img|folder|new folder|session|page|roll|disk|patient|pat|subject|subj"
    r"|case|study|slide|scan|visit|video|clip|scene|site|plot|camera|cam|device|user|donor|series|run)[-_ ]*\(?\d+\)?$"
    r"|^\d{3}[a-z0-9_]{5}$"  # 100CANON, as cameras and phones name them
)
_INDEX = re.compile(r"^-?\d+$")
_NUMBERED = re.compile(r"^((class|label|category|cat|cls|c|type|group|id)[ _-]?)?\d+$")
_MEASURED = re.compile(r"^-?\d+[.,]\d+$")
_ASIDE = re.compile(r"^[_~]|(~|\.bak|\.old|_old|_backup|_bak)$")
_LETTERS = 5  # names with fewer differ in one letter without being meant as the same
_NUMBER_FIRST = re.compile(r"^\d+[\s._-]+(?=[^\W\d_])")
_SCRIPTS = {"LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek"}
# Folders that programs and people keep beside data.
_PROGRAMS = frozenset(
    {
        *("venv", "env", "site-packages", "src", "scripts", "notebooks", "docs", "build", "dist", "config", "configs"),
        *("run", "runs", "output", "outputs", "result", "results", "plot", "plots", "figure", "figures", "log", "logs"),
        *(
            "checkpoint",
            "checkpoints",
            "model",
            "models",
            "weights",
            "wandb",
            "mlruns",
            "lightning_logs",
            "predictions",
        ),
        *("screenshots", "cache", "heatmaps", "gradcam", "inbox", "all", "everything", "to sort", "to label"),
    }
)
_WRITTEN = frozenset(name.replace("_", " ").replace("-", " ") for name in _PROGRAMS)
_ZERO_OR_ONE = (0, 1)  # where indices begin


def are_parts(names: Sequence[str]) -> bool:
    """Whether all names are those of parts of one collection."""
    return bool(names) and all(_PART.match(name.casefold()) for name in names)


def judge_names(where: str, names: Sequence[str]) -> list[Problem]:
    """What is odd about a data set's class names, as warnings that are to be seen first."""
    said = []
    plain: dict[str, list[str]] = {}
    for name in names:
        if not _INDEX.match(name):
            plain.setdefault(_plain(name), []).append(name)
    for alike in plain.values():
        if len(alike) > 1:
            listed = " and ".join(f"'{name}'" for name in alike)
            said.append(f"classes {listed} differ only in case, spaces, hyphens or as copies do, and are learned apart")
    said += _say_plurals(plain) + _say_numbered(names) + _say_mixed_scripts(names)
    close = _nearly_the_same(names)
    if close:
        pairs = "; ".join(f"'{one}' and '{other}'" for one, other in close[:3])
        several = "" if len(close) == 1 else f", and so {len(close) - 1} more pairs" if len(close) > 3 else ""
        said.append(f"classes {pairs} differ in one letter, and are learned apart{several}")
    numbers = [name for name in names if _INDEX.match(name)]
    worth: dict[int, list[str]] = {}
    for name in numbers:
        worth.setdefault(int(name), []).append(name)
    for alike in worth.values():
        if len(alike) > 1:
            said.append(f"classes {' and '.join(map(repr, alike))} are the same number, and are learned apart")
    said += _say_amounts(numbers) if len(numbers) == len(names) else []
    programs = [name for name in names if re.sub(r"[\s_-]+", " ", name).strip().casefold() in _WRITTEN]
    if programs and len(programs) < len(names):
        which = f"class '{programs[0]}' has the name" if len(programs) == 1 else f"{_some(programs)} have names"
        said.append(f"{which} of what is kept beside data, and is learned; if it is no class move it away")
    aside = [name for name in names if _ASIDE.search(name.casefold())]
    if aside and len(aside) < len(names):
        which = f"class '{aside[0]}' is" if len(aside) == 1 else f"{len(aside)} classes ('{aside[0]}', …) are"
        said.append(f"{which} named like what was put aside, and learned; if it is no class move it away")
    if names and all(map(_MEASURED.match, names)):
        said.append(
            f"its {len(names)} classes are amounts ({few(names, quoted=True)}), which are told apart and not measured"
        )
    for name in names:
        if name.strip(" _-").casefold() in _MISSING or (name in {"-1", "-999"} and len(numbers) == len(names)):
            said.append(
                f"class '{name}' looks like a missing label, and is learned as a class; if it is one leave it out"
            )
    for names_alike, what in (
        ([name for name in names if (found := split_of(name)) and not found[1]], "splits"),
        (names if all(_DATE.match(name.casefold()) for name in names) else [], "dates"),
        (names if are_parts(names) else [], "parts of one collection"),
        (names if all(name.casefold() in _FILES for name in names) else [], "kinds of files"),
    ):
        if names_alike:
            said.append(f"classes {few(names_alike, 4, quoted=True)} have names of {what}; are they classes?")
    return [Problem(Severity.WARNING, where, message, leading=True) for message in said]


def judge_numbers(where: str, names: Sequence[str]) -> list[Problem]:
    """Whether the classes are mere numbers, as an information: they may be digits, or indices that lost their names."""
    if not names or not all(_NUMBERED.match(name.casefold()) for name in names):
        return []
    what = f"its {len(names)} classes are numbers ({few(sorted(names))})"
    message = f"{what}, which the model will answer with; give names where there are any"
    return [Problem(Severity.INFO, where, message)]


def _plain(name: str) -> str:
    """A name without what looks the same or is not seen: width, case, spaces, hyphens, full stops, marks of copies."""
    text = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    text = re.sub(r"\\u(200b|200e|200f|20[26][0-9a-e]|feff)", "", text)  # as such are shown
    text = re.sub(r"(?<=\d)[\s_-]+(?=\d)", " ", _COPY.sub("", text).strip())
    return re.sub(r"(?<=\D)[\s_'’-]+|[\s_'’-]+(?=\D)|\.(?!\d)", "", text).casefold() or name


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({few(names, quoted=True)})"


def _say_plurals(plain: Mapping[str, Sequence[str]]) -> list[str]:
    """plain: names by what is compared of them. Longer names are compared letter by letter anyway."""
    pairs = [
        (one, other)
        for one in plain
        for other in (f"{one}s", f"{one}es", f"{one[:-1]}ies")
        if len(one) > 2 and other in plain and (len(other) != len(one) + 1 or sum(map(str.isalpha, one)) < _LETTERS - 1)
    ]
    return [
        f"classes '{plain[one][0]}' and '{plain[other][0]}' look like one and its plural, and are learned apart"
        for one, other in pairs
    ]


def _say_numbered(names: Sequence[str]) -> list[str]:
    """``1_cat`` and ``3_cat`` beside ``2_dog``."""
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(_plain(_NUMBER_FIRST.sub("", name)), []).append(name)
    if len(rests) < 2:
        return []
    same = [alike for alike in rests.values() if len(alike) > 1 and len({_plain(name) for name in alike}) == len(alike)]
    return [
        f"classes {' and '.join(map(repr, alike[:3]))} differ only in the number before, and are learned apart"
        for alike in same
    ]


def _say_mixed_scripts(names: Sequence[str]) -> list[str]:
    """A word of letters of two scripts that look alike is a slip of the keyboard."""
    said = []
    for name in names:
        for word in re.findall(r"[^\W\d_]+", name):
            scripts = {unicodedata.name(letter, " ").split()[0] for letter in word} & _SCRIPTS.keys()
            if len(scripts) > 1:
                listed = " and ".join(sorted(_SCRIPTS[script] for script in scripts))
                said.append(
                    f"class '{name}' has {listed} letters in one word; is it another class that looks the same?"
                )
                break
    return said


def _say_amounts(numbers: Sequence[str]) -> list[str]:
    """Whole numbers that are not those from 0 or 1 on: ages, counts, codes of missing values."""
    found = sorted({int(name) for name in numbers} - {-1})
    if len(found) < 2 or (found[0] in _ZERO_OR_ONE and found[-1] - found[0] == len(found) - 1):
        return []
    listed = ", ".join(map(str, found[:3])) + (f", …, {found[-1]}" if len(found) > 3 else "")
    gaps = "with gaps" if found[-1] - found[0] >= len(found) else f"from {found[0]} on"
    what = f"its {len(numbers)} classes are numbers {gaps} ({listed})"
    return [f"{what}, which are told apart and not measured; are they classes?"]


def _nearly_the_same(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in one letter, as misspelt ones and plurals do; numbers in names tell them apart."""
    without: dict[tuple[int, str], list[str]] = {}
    pairs: set[tuple[str, str]] = set()
    for name in names:
        plain = name.casefold()
        if sum(map(str.isalpha, plain)) < _LETTERS or len(plain) > 100:
            continue
        for at, letter in enumerate(plain):
            if letter.isalpha():
                without.setdefault((at, plain[:at] + plain[at + 1 :]), []).append(name)
        without.setdefault((-1, plain), []).append(name)
    for (at, rest), alike in without.items():
        same = alike if at >= 0 else []  # another letter at the same place
        longer = without.get((-1, rest), []) if at >= 0 else []  # or one more
        pairs |= {(a, b) for i, a in enumerate(same) for b in same[i + 1 :] if a.casefold() != b.casefold()}
        pairs |= {(a, b) for a in longer for b in alike}
    return sorted({(min(pair), max(pair)) for pair in pairs if len(pair[0].strip()) and pair[0] != pair[1]})
