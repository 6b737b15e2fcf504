"""Which images belong together, by the names of their files and folders: of one patient, or versions of one picture.

Such images on both sides of a split flatter every figure, so they become one group, which is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import PurePosixPath

from raytl.core.names import few
from raytl.tasks.items import FileItem
from raytl.tasks.readers.listing import Entry, Listing, Picture
from raytl.tasks.readers.tree import name_of
from raytl.tasks.readers.versions import OF_ONE, calls_any, kept, named_like

# The widest first: studies, slides and videos lie inside patients.
_WIDEST_FIRST = (
    *("patient", "pat", "subject", "subj", "sub", "participant", "person", "individual", "donor", "animal", "case"),
    *("specimen", "lesion", "study", "slide", "video", "clip"),
)
_OF_WHOM = f"({'|'.join(_WIDEST_FIRST)})"
_FOLDER = re.compile(rf"^{_OF_WHOM}[-_ ]*(id)?[-_ ]*\(?\d+\)?$", re.IGNORECASE)
_FILE = re.compile(rf"^({_OF_WHOM}[-_ ]*\d+)(?!\d).+", re.IGNORECASE)
_CHANGED = (
    r"(aug|augmented|augmentation|flip|flipped|hflip|vflip|mirror|mirrored|rot|rotate|rotated|rotation|crop|cropped"
    r"|bright|brightness|dark|darker|blur|blurred|noise|noisy|zoom|zoomed|shift|shifted|shear|scale|scaled|resize"
    r"|resized|grey|gray|greyscale|grayscale|contrast|saturation|hue|jitter|edited|copy|thumb|thumbnail"
    r"|tile|patch|roi|slice|frame|burst)"
)
NOT_KEPT = "which are not kept together"
_WORD = 3  # letters that a name of a class has at least, to be told in a file's name
_FRAME = re.compile(r"^(frame|frm|vid|video|snapshot)[ _-]?\d+$", re.IGNORECASE)
_VERSIONS = (
    re.compile(r"^(?P<root>.+)\.rf\.[0-9a-f]{16,}$"),  # as Roboflow names what it makes of a picture
    re.compile(rf"^(?P<root>.*\d.*?)[ _.-]+{_CHANGED}[ _-]*(\d+([ _.-]\d+)*)?$", re.IGNORECASE),
    re.compile(r"^(?P<root>.*\d.*?)[ _-]+x[ _-]?\d+[ _-]+y[ _-]?\d+$", re.IGNORECASE),
    re.compile(rf"^{_CHANGED}[ _-]+(?P<root>.*\d.*?)$", re.IGNORECASE),
)


def group_by_names(listing: Listing) -> None:
    """Give the entries of a folder of class folders the groups that their names speak of, and announce it.

    Nothing where the entries have groups, or a class would be left with one group, which could not be validated; then
    it is a warning.
    """
    entries = [entry for entry in listing.entries if entry.label is not None and entry.certain]
    if not entries or any(entry.group is not None for entry in listing.entries):
        return
    owners = _owners(listing, entries)
    names = list(dict.fromkeys(owners.values()))
    if 2 * len(owners) > len(entries) and 1 < len(names) < len(owners):
        what = f"its names speak of {len(names)} {_several(names)} ({few(names)})"
        if _group(listing, entries, owners, what, "images of one"):
            return
    several = {
        id(entry): listing.samples[entry.item.path]
        for entry in entries
        if isinstance(entry.item, FileItem) and entry.item.path in listing.samples
    }
    if several:
        what = f"{len(several)} images are of {len(set(several.values()))} samples with several"
        if _group(listing, entries, several, what, "those of one sample"):
            return
    known = {str(PurePosixPath(entry.item.name).with_suffix("")) for entry in entries}
    roots = {id(entry): _root(entry, known) for entry in entries}
    versions = Counter(root for root, _ in roots.values())
    marked = {root for root, changed in roots.values() if changed and versions[root] > 1}
    together = {key: root for key, (root, _) in roots.items() if root in marked}
    if together:
        pictures: dict[str, Picture] = {}
        for entry in entries:
            root, changed = roots[id(entry)]
            if changed and root in marked:
                own = root in known or not calls_any(root)
                pictures.setdefault(root, Picture(versions[root], name_of(entry.item.name), own))
        unsure = {root for root, picture in pictures.items() if not picture.own}
        if _group(listing, entries, together, named_like(pictures), OF_ONE, unsure):
            listing.pictures = pictures
    frames = [entry for entry in entries if _FRAME.match(PurePosixPath(entry.item.name).stem)]
    if 2 * len(frames) > len(entries):
        what = f"{len(frames)} images are named like frames of a film ({name_of(frames[0].item.name)}, …)"
        listing.announce_warning(
            f"{what}: neighbours may lie on both sides of a split, and flatter; --group-by, or a column "
            "'group' of a table, keeps them together"
        )


def owner_names(root: str, entries: Sequence[Entry], *, labelled: bool = False) -> list[str | None]:
    """Of whom each image is by its name, None where that does not say, to be compared with the groups of the test.

    root: the path that was given, as messages show it. A folder of one patient's images alone is that patient's.
    labelled: whether folders may be classes, which are nobody: ``person_7`` of faces.
    """
    folder = _folder(root).name
    whole = folder.lower() if _FOLDER.match(folder) and not labelled else None
    return [
        _widest(_told(below(entry.item.name, root), entry.label if labelled else None)) or whole for entry in entries
    ]


def below(name: str, root: str) -> PurePosixPath:
    """An image's path from the folder that was given or that the table lies in; if it is elsewhere, all of it."""
    folder, path = _folder(root), PurePosixPath(name)
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def say_misnamed(listing: Listing) -> None:
    """Say which files are named after another class than the one that they are in: ``cat/dog_12.jpg``."""
    entries = [entry for entry in listing.entries if entry.label is not None and entry.certain]
    classes = {_letters(str(entry.label)): str(entry.label) for entry in entries}
    odd = []
    for entry in entries:
        first = re.match(r"[^\W\d_]+", PurePosixPath(entry.item.name).stem)
        told = classes.get(_letters(first[0])) if first and len(first[0]) >= _WORD else None
        if told not in {None, entry.label}:
            odd.append((entry, told))
    if odd and 2 * len(odd) < len(entries):
        entry, told = odd[0]
        what = f"named like another class ('{name_of(entry.item.name)}' is in '{entry.label}'"
        if len(odd) == 1:
            listing.announce_warning(f"1 image is {what}); is it '{told}'?")
        else:
            listing.announce_warning(f"{len(odd)} images are {what}, …); are they in the wrong class?")


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _group(
    listing: Listing,
    entries: Sequence[Entry],
    groups: Mapping[int, str],
    what: str,
    whose: str,
    unsure: Set[str] = frozenset(),
) -> bool:
    """Whether the entries got the groups, which is said either way.

    groups: by the identity of entries; who has none is alone. unsure: those that are looked at again once the images
    are read (:mod:`raytl.tasks.readers.versions`), and keep no others from being kept together.
    """
    of_class: dict[str | None, set[object]] = {}
    for entry in entries:
        of_class.setdefault(entry.label, set()).add(groups.get(id(entry), id(entry)))
    if any(len(found) < 2 and not found <= unsure for found in of_class.values()):
        listing.announce_warning(f"{what}, {NOT_KEPT}: a class would have {whose} alone; validation may flatter")
        return False
    listing.announce(kept(what, whose))
    listing.entries = [replace(entry, group=groups.get(id(entry))) for entry in listing.entries]
    return True


def _owners(listing: Listing, entries: Sequence[Entry]) -> dict[int, str]:
    """Of whom images are, by the identity of entries: by the folders that each lies in or by how its name begins.

    The patient comes before the study. What lies above the data, or is said of every image, tells none from another.
    """
    told = {id(entry): _told(below(entry.item.name, listing.name), entry.label) for entry in entries}
    of_all = set.intersection(*map(set, told.values())) if told else set()
    widest = {key: _widest([name for name in names if name not in of_all]) for key, names in told.items()}
    return {key: name for key, name in widest.items() if name is not None}


def _widest(names: Sequence[str]) -> str | None:
    return min(names, key=lambda name: _WIDEST_FIRST.index(_word(name)), default=None)


def _folder(root: str) -> PurePosixPath:
    """The folder that was given, or that the given table lies in."""
    return PurePosixPath(root) if root.endswith("/") else PurePosixPath(root).parent


def _told(path: PurePosixPath, label: str | None) -> list[str]:
    """All that a path says of whom an image is, the outermost folder first, the file's name last."""
    told: list[str] = []
    for folder in reversed(path.parts[:-1]):
        if folder == label:
            break
        if _FOLDER.match(folder):
            told.insert(0, folder.lower())
    named = _FILE.match(path.stem)
    return [*told, named[1].lower()] if named else told


def _word(name: str) -> str:
    """``patient`` of ``patient_1`` and of ``patientid1``."""
    found = re.match(_OF_WHOM, name)
    return found[1] if found else name


def _root(entry: Entry, known: Set[str]) -> tuple[str, bool]:
    """The picture that an image is a version of, as a path without ending, and whether its name says that it is one.

    known: of all images, to tell the number of a version (``aug_7_1``, of ``7``) from one of the picture's own.
    """
    path = PurePosixPath(entry.item.name)
    stem, changed = path.stem, False
    while (found := next((told for pattern in _VERSIONS if (told := pattern.match(stem))), None)) is not None:
        stem, changed = found["root"], True
    shorter = re.sub(r"[ _-]\d+$", "", stem)
    if changed and str(path.with_name(stem)) not in known and shorter and str(path.with_name(shorter)) in known:
        stem = shorter
    return str(path.with_name(stem)), changed


def _several(names: Sequence[str]) -> str:
    """``patients`` for ``patient_1``."""
    words = {match[0] for name in names if (match := re.match(r"[a-z]+", name))}
    word = {"pat": "patient", "sub": "subject", "subj": "subject"}.get(first := min(words), first)
    return "groups" if len(words) > 1 else "studies" if word == "study" else f"{word}s"
