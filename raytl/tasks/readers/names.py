"""Class names that may not be meant: nearly the same ones, words for a missing label, splits, dates, parts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.split_names import split_of

_MISSING = frozenset(
    {
        *("nan", "none", "null", "na", "n/a", "<na>", "#n/a", "nil", "?", "-"),
        *("unlabelled", "unlabeled", "unknown", "unsorted", "todo"),
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
_DATE = re.compile(r"^(19|20)\d\d([-_.]?[01]\d([-_.]?[0-3]\d)?)?$")
_MONTH = re.compile(
    r"^(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|dec(ember)?)$"
)
_COPY = re.compile(r"( - copy| copy|\s*\(\d+\))$", re.IGNORECASE)
_PART = re.compile(r"^(.*[ _-])?(part|batch|fold|chunk|images?|img|folder|new folder|session|page)[-_ ]*\(?\d+\)?$")


def judge_names(where: str, names: Sequence[str]) -> list[Problem]:
    """What is odd about a data set's class names, as warnings that are to be seen first."""
    said = []
    plain: dict[str, list[str]] = {}
    for name in names:
        plain.setdefault(re.sub(r"[\s_-]+", " ", _COPY.sub("", name)).strip().casefold(), []).append(name)
    for alike in plain.values():
        if len(alike) > 1:
            listed = " and ".join(f"'{name}'" for name in alike)
            said.append(f"classes {listed} differ only in case, spaces, hyphens or as copies do, and are learned apart")
    for name in names:
        if name.strip().casefold() in _MISSING:
            said.append(
                f"class '{name}' looks like a missing label, and is learned as a class; if it is one leave it out"
            )
    for names_alike, what in (
        ([name for name in names if (found := split_of(name)) and not found[1]], "splits"),
        (names if all(_DATE.match(name) or _MONTH.match(name.casefold()) for name in names) else [], "dates"),
        (names if all(_PART.match(name.casefold()) for name in names) else [], "parts of one collection"),
        (names if all(name.casefold() in _FILES for name in names) else [], "kinds of files"),
    ):
        if names_alike:
            listed = ", ".join(f"'{name}'" for name in names_alike[:4])
            said.append(f"classes {listed} have names of {what}; are they classes?")
    return [Problem(Severity.WARNING, where, message, leading=True) for message in said]
