"""Where images come from, by their names: one voice, camera, patient, site or day has images in several classes.

``yes/anna_1.png`` beside ``no/anna_2.png``. A model that learns from Anna is better on Anna than on others, and
cross-validation over images shows only that. What matters is where it will be used: the images without labels, or those
of the test, tell whether on others. A name alone does not say that it is of an origin; that it goes through the classes
while it has a few images in each does (what is part of the class's name, or numbers things within a class, does not).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from raytl.core.names import few
from raytl.tasks.duplicates import merge_groups
from raytl.tasks.formats import is_image
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.split_names import split_of
from raytl.tasks.splits import plan_folds

_BETWEEN = re.compile(r"[ _.-]+")
_ALL, _NONE = 0.9, 0.1
"""Shares that are nearly all and nearly none of some images."""
_IMAGES_OF_ONE = 3
"""Labelled images of an origin, on average: what has fewer may be each image's own name."""
_ACROSS = 0.5
"""How often two images of one origin are of different classes, over how often any two are: 1 where origins say nothing
of the class; of kinds and things within classes, a third at most on thirty data sets that were looked at."""
_ANYBODY = frozenset(
    {
        *(
            "img",
            "image",
            "photo",
            "picture",
            "pic",
            "file",
            "frame",
            "sample",
            "example",
            "item",
            "scan",
            "screenshot",
        ),
        *("imgs", "images", "photos", "pictures", "pics", "files", "frames", "samples", "examples", "items", "scans"),
        *(
            "screenshots",
            "screen",
            "shot",
            "foto",
            "fotos",
            "bild",
            "bilder",
            "bildschirmfoto",
            "capture",
            "snapshot",
            "at",
            "um",
        ),
        *(
            "dsc",
            "dscn",
            "dscf",
            "pxl",
            "dcim",
            "whatsapp",
            "raw",
            "original",
            "originals",
            "unsorted",
            "unknown",
            "unlabelled",
        ),
        *("unlabeled", "unlab", "labelled", "labeled", "new", "pool", "data", "dataset", "set", "u", "x"),
    }
)
_MOST_PARTS = 5
"""Parts of a name, from its beginning, that are asked whether they tell the origin."""


@dataclass(frozen=True)
class Origins:
    """What names say of where labelled images come from.

    groups: int64 (n,), equal for images of one origin; what has none is a group of its own. names: of the origins, in
    alphabetical order. elsewhere: for each of the other collections asked, what share of its images is of none of these
    origins, None where its names are not of that form.
    """

    groups: np.ndarray
    names: tuple[str, ...]
    elsewhere: tuple[float | None, ...] = ()

    @property
    def others(self) -> list[int]:
        """Which of the other collections are of other origins: the model is meant for such."""
        return [place for place, share in enumerate(self.elsewhere) if share is not None and share >= 1 - _NONE]

    @property
    def no_known(self) -> bool:
        """Whether none of the other collections is known to have images of these origins."""
        return all(share is None or share >= 1 - _NONE for share in self.elsewhere)

    def said(self) -> str:
        """``2 origins (a, b)``."""
        return f"{len(self.names)} origins ({few(self.names)})"

    def kept(self, where: str, other: str) -> Problem:
        """What to say where an origin stays on one side. other: what to call the images that are of other origins."""
        what = f"file names say that the labelled images come from {self.said()} and those {other} from others: an"
        what = f"{what} origin stays on one side of every split, so that figures tell what is right on new ones"
        return Problem(Severity.INFO, where, f"{what}; --group-by overrules that")

    def kept_in_a_domain(self, where: str) -> Problem:
        """What to say where an origin of a source domain stays on one side."""
        what = (
            f"file names say that its images come from {self.said()}: an origin stays on one side of every split, for"
        )
        return Problem(Severity.INFO, where, f"{what} the target's images are of others; --group-by overrules that")

    def not_kept(self, where: str, other: str) -> Problem:
        """What to say where that would leave too little to learn from or to validate."""
        what = (
            f"file names say that the labelled images come from {self.said()} and those {other} from others, but most"
        )
        what = f"{what} classes are of one origin alone: validation flatters, for it does not tell what is right on new"
        return Problem(Severity.WARNING, where, f"{what} ones; label images of every class from several origins")

    def unasked(self, where: str, others: Sequence[str] = ()) -> Problem:
        """What to say where nothing tells that the model is meant for others.

        others: what to call each of the other collections that were asked.
        """
        shares = zip(others, self.elsewhere, strict=True)
        some = [f"{100 * share:.0f} % of those {what}" for what, share in shares if share is not None and share > _NONE]
        these = f", as {' and '.join(some)} are" if some else ""
        what = (
            f"file names begin in {len(self.names)} ways that go through the classes ({few(self.names)}): if that says"
        )
        what = (
            f"{what} where images come from, figures are of new images of these and flatter for images of others{these}"
        )
        how = "--group-by keeps those of one on one side of every split, --group-by none says that they are no origins"
        return Problem(Severity.WARNING, where, f"{what}; {how}")


def find_origins(images: LabelledImages, others: Sequence[Images] = ()) -> Origins | None:
    """Where labelled images come from by the names of their files, or the folders within those of their classes.

    others: further collections that may be of the same origins or of others. None where names say nothing of it.

    Of ``site1_camera2_0001.png`` the site is told before the camera, unless other images are of other cameras of the
    same sites. The order of images does not matter.
    """
    told = _names(images)
    elsewhere = [_names(other, images.classes) for other in others]
    first = None
    for parts in range(_MOST_PARTS + 1):
        found = _told_by(parts, told, images, elsewhere)
        if found is not None and found.others:
            return found
        first = first or found
    return first


def of_one_origin(images: LabelledImages, others: Mapping[str, Images]) -> Problem | None:
    """What to say where nearly all labelled images are of one origin by name, and other images are of others.

    others: what to call them, and them. No figure can then tell what is right on these. Of two origins at least: one
    name for all of them is as often that of the collection.
    """
    told, classes = _names(images), _words(*images.classes)
    elsewhere = {what: _names(other, images.classes) for what, other in others.items()}
    for parts in range(_MOST_PARTS + 1):
        found = Counter(origin for one in told if (origin := _origin(parts, one, numbered=False)) is not None)
        name, count = found.most_common(1)[0] if found else ("", 0)
        if count < max(_ALL * len(told), _IMAGES_OF_ONE):
            continue
        for what, other in elsewhere.items():
            origins = [_origin(parts, one, classes, numbered=False) for one in other]
            share = _elsewhere(origins, {name})
            theirs = sorted({origin for origin in origins if origin is not None} - {name})
            if share is not None and share >= 1 - _NONE and len(theirs) > 1:
                said = f"file names say that the labelled images come from one origin ({name}) and those {what} from"
                said = f"{said} others ({few(theirs)}): figures are of new images of that one, and flatter for others,"
                said = f"{said} of which nothing tells; label some of several origins, or pass --group-by none if"
                said = f"{said} these names tell no origin"
                return Problem(Severity.WARNING, images.name, said)
    return None


def kept_apart(
    origins: Origins, labels: np.ndarray, given: np.ndarray | None, alike: np.ndarray | None
) -> np.ndarray | None:
    """Groups (n,) that keep the images of each origin together; None where then too few classes could be validated.

    given, alike: further groups (n,) to keep together, or None. Those that look alike are not where that would join
    nearly all origins: of two origins, one such pair would.
    """
    apart = merge_groups(len(labels), given, origins.groups)
    joined = merge_groups(len(labels), apart, alike)
    if 2 * len(np.unique(joined)) > len(np.unique(apart)) and _can_be_validated(labels, joined):
        return joined
    return apart if _can_be_validated(labels, apart) else None


def _can_be_validated(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Whether most classes have images in several groups, and there are folds."""
    several = [len(np.unique(groups[labels == label])) > 1 for label in np.unique(labels)]
    return 2 * sum(several) > len(several) and plan_folds(labels, groups)[0] > 1


def _names(images: Images, classes: Sequence[str] = ()) -> list[list[str]]:
    """What the path of each image may say of its origin, nothing of what is no image's file.

    First the folder within its class, or within what was given; then the beginnings of the file's name, each a part
    longer, without the last part, which is the image's own. The name of its class at the beginning is passed over, and
    where images have no labels that of any class.
    """
    any_class = "|".join(re.escape(name) for name in sorted(classes, key=len, reverse=True))
    label_of = [""] * len(images)
    if isinstance(images, LabelledImages):
        label_of = [images.classes[label] for label in images.labels]
    root = PurePosixPath(images.name).parts
    told: list[list[str]] = []
    for item, label in zip(images.items, label_of, strict=True):
        path = PurePosixPath(item.name)
        if not is_image(path.name):
            told.append([])
            continue
        folders = path.parts[:-1]
        if label:
            folders = folders[_last(folders, label) :]
        else:
            folders = folders[len(root) :] if folders[: len(root)] == root else ()
        begin = re.escape(label) if label else any_class
        stem = re.sub(rf"^(?:{begin}){_BETWEEN.pattern}", "", path.stem, flags=re.IGNORECASE) if begin else path.stem
        ends = [found.start() for found in _BETWEEN.finditer(stem) if found.start()]
        told.append([folders[0] if folders else "", *(stem[:end] for end in ends)])
    return told


def _last(folders: Sequence[str], label: str) -> int:
    """The place after the last folder that is named like the class; the end where none is."""
    places = [place for place, folder in enumerate(folders) if folder == label]
    return places[-1] + 1 if places else len(folders)


def _words(*names: str) -> frozenset[str]:
    return frozenset(word for name in names for word in re.findall(r"[^\W\d_]+|\d+", name.casefold()))


def _origin(
    parts: int, told: Sequence[str], classes: frozenset[str] = frozenset(), *, numbered: bool = True
) -> str | None:
    """The origin by so many parts of the file's name, or all but its last; by the folder for 0.

    None where there is none: a number alone is as often the image's, and what any image may be called is nobody's.
    classes: words of their names, which are no origin's where images have no labels. numbered: whether it is somebody's
    with a number: ``sample3`` may be, as may ``img_20240131``, where others of these go through the classes too.
    """
    name = told[min(parts, len(told) - 1)] if len(told) > bool(parts) else ""
    words = {word for word in _words(name) if numbered or not word.isdecimal()}
    if all(word in _ANYBODY or word in classes or split_of(word) is not None for word in words) or not any(
        map(str.isalpha, name)
    ):
        return None
    return name


def _told_by(
    parts: int,
    told: Sequence[Sequence[str]],
    images: LabelledImages,
    others: Sequence[Sequence[Sequence[str]]],
) -> Origins | None:
    """The origins by one way to read names, None where these are none."""
    origins = [_origin(parts, one) for one in told]
    known = np.array([origin is not None for origin in origins])
    found, codes = np.unique([origin or "" for origin in origins], return_inverse=True)
    names = tuple(str(name) for name in found if name)
    if known.sum() < _ALL * len(told) or len(names) < 2 or known.sum() < _IMAGES_OF_ONE * len(names):
        return None
    if _across(codes[known], images.labels[known]) < _ACROSS:
        return None
    groups = np.where(known, codes, len(told) + np.arange(len(told)))
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    classes = _words(*images.classes)
    elsewhere = (_elsewhere([_origin(parts, one, classes) for one in other], set(names)) for other in others)
    return Origins(groups, names, tuple(elsewhere))


def _across(codes: np.ndarray, labels: np.ndarray) -> float:
    """How often two images of one origin are of different classes, over how often any two are."""

    def pairs(*keys: np.ndarray) -> float:
        counts = np.unique(np.stack(keys), axis=1, return_counts=True)[1]
        return float((counts * (counts - 1.0)).sum())

    whole, same = len(codes) * (len(codes) - 1.0), pairs(codes)
    if not same or whole == pairs(labels):
        return 0.0
    return (1 - pairs(codes, labels) / same) / (1 - pairs(labels) / whole)


def _elsewhere(origins: Sequence[str | None], names: set[str]) -> float | None:
    """Which share of other images is of none of the named origins, None where their own tell no few origins."""
    known = [origin for origin in origins if origin is not None]
    if len(known) < _ALL * len(origins) or len(known) < 2 * len(set(known)):
        return None
    return sum(origin not in names for origin in known) / len(known)
