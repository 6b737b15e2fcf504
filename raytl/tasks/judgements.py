"""What may be wrong with images and classes, each as one sentence with a count and up to three examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from raytl.core.errors import nearest
from raytl.core.names import few, so_many
from raytl.tasks.duplicates import AcrossLabels, several
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.survey import Facts

_IMBALANCE = 10.0  # largest class over smallest
_TEST_NEEDS = 4  # as in the task: fewer images of a class leave none for a test split
_NARROW = 16  # as in the preprocessing: beyond it a centre crop shows a sixteenth
_TINY = 8  # pixels
_DARK = 20  # of 255: 12 bits of 16 are 16
_BLANK = 1  # grey levels between the darkest and the brightest place of an image that shows nothing
_MANY = 0.05  # share of unlabelled images from which on they draw what is adapted to them
_OFTEN = 3  # times that a picture is there
_MIXED = 0.1  # share of the images below which the greyscale, or the coloured, ones are odd
_TELLING = 3  # images of a class from which on their being all grey says something
_NAMED = 3  # examples
_UNSCORED = "with fewer than 2 of two classes none can be held out, and only --test tells how good a model is"


def judge_images(where: str, names: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """What is odd about the images, whatever they show. names, facts: of those that decode."""
    if not names:
        return [Problem(Severity.ERROR, where, "no image can be read; replace the files")]
    problems = []
    both = list(zip(names, facts, strict=True))
    narrow = [name for name, fact in both if max(fact.width, fact.height) > _NARROW * min(fact.width, fact.height)]
    if narrow:
        what = f"{_are(narrow)} more than {_NARROW} times as long as wide ({few(narrow)})"
        problems.append(Problem(Severity.WARNING, where, f"{what}; a network sees little of them"))
    tiny = [name for name, fact in both if min(fact.width, fact.height) < _TINY]
    if tiny and len(tiny) < len(names):
        what = f"{_are(tiny)} less than {_TINY} pixels wide or high ({few(tiny)})"
        problems.append(Problem(Severity.WARNING, where, f"{what}; a network sees next to nothing in them"))
    elif tiny:
        problems.append(Problem(Severity.WARNING, where, f"all images are less than {_TINY} pixels wide or high"))
    grey = [name for name, fact in both if fact.greyscale]
    colour = [name for name, fact in both if not fact.greyscale]
    if 0 < len(grey) < len(names) and len(colour) <= _MIXED * len(names):
        what = f"{len(grey)} images are greyscale and {len(colour)} in colour ({few(colour)})"
        problems.append(Problem(Severity.INFO, where, what))
    elif 0 < len(grey) <= _MIXED * len(names):
        what = f"{len(colour)} images are in colour and {len(grey)} greyscale ({few(grey)})"
        problems.append(Problem(Severity.INFO, where, what))
    return problems


def judge_depth(where: str, names: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """Images of 16 bits of which only the lowest 12 or so are used, as cameras and scanners write them; and fractions.

    The first are scaled by what 16 bits can hold, so that brightness stays comparable, and come out nearly black.
    """
    dark = [
        name
        for name, fact in zip(names, facts, strict=True)
        if fact.mode.startswith("I") and int(fact.thumbnail.max()) < _DARK
    ]
    said = []
    floating = [name for name, fact in zip(names, facts, strict=True) if fact.mode == "F"]
    if floating:
        hold = so_many(len(floating), "image holds", "images hold")
        what = (
            f"{hold} floating-point values ({few(floating)}): fractions are taken to lie from 0 to 1, else from "
            "-1 to 1, 0 to 16 or -4 to 4, each image by its own values; where brightness matters write 16 bits"
        )
        said.append(Problem(Severity.INFO, where, what, leading=True))
    if 2 * len(dark) <= sum(fact.mode.startswith("I") for fact in facts):
        return said
    what = f"{_are(dark)} of 16 bits and nearly black ({few(dark)}), as where only the lowest 12 are used"
    return [
        *said,
        Problem(Severity.WARNING, where, f"{what}; scale them to the full range, or to 8 bits", leading=True),
    ]


def judge_frames(where: str, names: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """Films and documents of pages, of which the first frame or page is taken."""
    several = [name for name, fact in zip(names, facts, strict=True) if fact.several]
    if not several:
        return []
    has = so_many(len(several), "image has", "images have")
    what = f"{has} several frames or pages ({few(several)}), and the first is taken"
    return [Problem(Severity.WARNING, where, f"{what}; save those that are meant as images", leading=True)]


def judge_pool(where: str, names: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """Images without labels that show nothing, or one thing over and over: what is adapted is drawn to them."""
    problems = []
    blank = [name for name, fact in zip(names, facts, strict=True) if int(np.ptp(fact.thumbnail)) <= _BLANK]
    if blank and len(blank) >= _MANY * len(names):
        what = f"{_are(blank)} of nearly one colour all over ({few(blank)})"
        problems.append(Problem(Severity.WARNING, where, f"{what}, and show none of the classes; leave them out"))
    shown = {fact.pixels: name for name, fact in zip(names, facts, strict=True) if name not in set(blank)}
    often = Counter(fact.pixels for fact in facts if fact.pixels in shown).most_common(1)
    if often and often[0][1] >= max(_OFTEN, _MANY * len(names)):
        picture, count = often[0]
        what = f"{count} of {len(names)} images are one and the same picture, as {shown[picture]} is"
        problems.append(Problem(Severity.WARNING, where, f"{what}, and count as often; leave all but one out"))
    return problems


def judge_kinds(where: str, labels: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """Whether a file's format tells its class, as its compression may."""
    kinds: dict[str, set[str]] = {}
    for label, fact in zip(labels, facts, strict=True):
        kinds.setdefault(label, set()).add(fact.kind)
    counts = Counter(labels)
    told = {label: min(found) for label, found in kinds.items() if len(found) == 1 and counts[label] >= _TELLING}
    if len(told) < len(kinds) or len(set(told.values())) < 2 or "" in told.values():
        return []
    first = min(told)
    other = next(label for label in sorted(told) if told[label] != told[first])
    what = f"all images of class '{first}' are {told[first]} files, and those of '{other}' {told[other]}"
    return [Problem(Severity.WARNING, where, f"{what}; a model may tell them apart by traces of that")]


def judge_sizes(where: str, labels: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """Whether the size of an image tells its class: each class has one size, and not all the same."""
    sizes: dict[str, Counter[tuple[int, int]]] = {}
    for label, fact in zip(labels, facts, strict=True):
        sizes.setdefault(label, Counter())[(fact.width, fact.height)] += 1
    told = {label: next(iter(found)) for label, found in sizes.items() if len(found) == 1}
    enough = [label for label in told if sum(sizes[label].values()) >= _TELLING]
    if len(enough) < 2 or len(told) < len(sizes) or len(set(told.values())) < 2:
        return []
    first = min(enough)
    other = next((label for label in sorted(enough) if told[label] != told[first]), None)
    if other is None:
        return []
    one, two = ("{} x {}".format(*told[label]) for label in (first, other))
    what = f"all images of class '{first}' have {one} pixels, and those of '{other}' {two}"
    return [Problem(Severity.WARNING, where, f"{what}; a model may tell them apart by that, and not by what they show")]


def judge_colours(where: str, labels: Sequence[str], facts: Sequence[Facts]) -> list[Problem]:
    """Whether some classes are all grey and others in colour: a model then learns that, and not what they show."""
    counts = Counter(labels)
    grey = Counter(label for label, fact in zip(labels, facts, strict=True) if fact.greyscale)
    all_grey = sorted(name for name in counts if counts[name] >= _TELLING and grey[name] == counts[name])
    coloured = sorted(
        name
        for name in counts
        if counts[name] >= _TELLING and grey[name] <= _MIXED * counts[name] and name not in all_grey
    )
    if not all_grey or not coloured:
        return []
    classes = f"class '{all_grey[0]}' are" if len(all_grey) == 1 else f"classes {few(all_grey, quoted=True)} are"
    what = f"all images of {classes} greyscale, and those of {few(coloured, quoted=True)} in colour"
    return [Problem(Severity.WARNING, where, f"{what}; a model tells them apart by that, and not by what they show")]


def judge_role_colours(grey_shares: Mapping[str, float], where: str) -> list[Problem]:
    """The same between roles. grey_shares: which share of a role's images is grey, by what the role is called."""
    grey = [role for role, share in grey_shares.items() if share == 1]
    coloured = [role for role, share in grey_shares.items() if share <= _MIXED]
    if not grey or not coloured:
        return []
    what = f"all images of {' and '.join(grey)} are greyscale, and those of {' and '.join(coloured)} in colour"
    return [Problem(Severity.WARNING, where, f"{what}; what is learned from one may not hold for the other")]


def judge_groups(where: str, counts: Mapping[str, int], groups: Mapping[str, int]) -> list[Problem]:
    """Classes of several images that are all of one group, where that leaves fewer than two that can be validated.

    counts: images per class; groups: groups per class, of duplicates or of the group column.
    """
    single = [name for name, count in groups.items() if count < 2 <= counts[name]]
    if len(counts) < 2 or not single or sum(count > 1 for count in groups.values()) > 1:
        return []
    if len(single) > _NAMED:
        what = f"in {len(single)} of {len(counts)} classes all images belong together"
        what = f"{what} (duplicates or one group: {few(single, quoted=True)})"
        return [Problem(Severity.WARNING, where, f"{what}; {_UNSCORED}")]
    return [
        Problem(
            Severity.WARNING,
            where,
            f"class '{name}' has {counts[name]} images that belong together (duplicates or one group); {_UNSCORED}",
        )
        for name in single
    ]


def judge_counts(where: str, counts: Mapping[str, int]) -> list[Problem]:
    """Classes with too few images, and imbalance. counts: readable images per class."""
    problems = []
    lonely = [name for name, count in counts.items() if count == 1]
    scarce = [name for name, count in counts.items() if 1 < count < _TEST_NEEDS]
    # Two classes that can be validated are enough to go on with.
    validated = len(counts) - len(lonely) > 1
    after = "learned, but nothing can be said of how well" if validated else _UNSCORED
    for name in lonely if len(lonely) <= _NAMED else []:
        problems.append(Problem(Severity.WARNING, where, f"class '{name}' has 1 image; {after}"))
    if len(lonely) > _NAMED:
        what = f"{len(lonely)} of {len(counts)} classes have 1 image ({few(lonely, quoted=True)}); {after}"
        problems.append(Problem(Severity.WARNING, where, what))
    for name in scarce if len(scarce) <= _NAMED else []:
        what = f"class '{name}' has {counts[name]} images, too few to spare any for a test"
        problems.append(Problem(Severity.WARNING, where, what))
    if len(scarce) > _NAMED:
        what = f"{len(scarce)} of {len(counts)} classes have 2 or 3 images ({few(scarce, quoted=True)})"
        problems.append(Problem(Severity.WARNING, where, f"{what}, too few to spare any for a test"))
    if counts and max(counts.values()) >= _IMBALANCE * min(counts.values()):
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        what = f"class '{most}' has {counts[most]} images, '{least}' {counts[least]}"
        problems.append(Problem(Severity.WARNING, where, f"{what}; accuracy will hide the small class"))
    return problems


def judge_test(where: str, learned: Mapping[str, int], others: set[str], test: set[str]) -> list[Problem]:
    """Classes that are not on both sides. others: classes of splits that are not learned from; test: of the test."""
    unknown, unseen = sorted(others - set(learned)), sorted(set(learned) - test) if test else []
    problems = []
    if unknown:
        what = f"class '{unknown[0]}' is only in a split that is not learned from{nearest(unknown[0], list(learned))}"
        problems.append(Problem(Severity.ERROR, where, what))
    if unseen:
        classes = (
            f"class '{unseen[0]}' has"
            if len(unseen) == 1
            else f"{len(unseen)} classes ({few(unseen, quoted=True)}) have"
        )
        problems.append(Problem(Severity.WARNING, where, f"{classes} no image in the test, which says nothing of them"))
    return problems


def judge_conflicts(where: str, pairs: Sequence[tuple[str, str]]) -> list[Problem]:
    """Byte-identical images under two labels, as pairs of names."""
    if len(pairs) > _NAMED:
        named = "; ".join(f"{other} and {first}" for first, other in pairs[:_NAMED])
        what = f"{len(pairs)} images are there again under another label ({named}; …)"
        return [Problem(Severity.WARNING, where, f"{what}; one of the two labels is wrong")]
    return [
        Problem(Severity.WARNING, other, f"the same image as {first}, under another label") for first, other in pairs
    ]


def judge_near(
    where: str,
    names: Sequence[str],
    splits: Sequence[str | None],
    pictures: np.ndarray,
    across: AcrossLabels,
    classes: Sequence[str],
) -> list[Problem]:
    """One picture in several classes, or in the test and beside it.

    pictures: int (n,), equal for what is one picture. across: the pairs of them under two labels, which are numbers of
    the classes; its images and first pairs are among the names.
    """
    problems = []
    if across.first:
        most, (one, other) = max(zip(across.counts.values(), across.counts, strict=True), key=lambda pair: pair[0])
        pairs, count = sum(across.counts.values()), int(across.images.sum())
        named = "; ".join(f"{names[i]} and {names[j]}" for i, j in across.first[:_NAMED])
        among = f", {most} of {pairs} pairs in '{classes[one]}' and '{classes[other]}'"
        mostly = among if len(across.counts) > 1 else ""
        what = f"{count} images look like one of another class ({named}{'; …' if pairs > _NAMED else ''}){mostly}"
        problems.append(Problem(Severity.WARNING, where, f"{what}; one of the two labels is wrong, or it shows both"))
    leaked = [
        int(index)
        for group in several(pictures)
        for index in group
        if splits[index] == "test" and any(splits[i] not in {"test", None} for i in group)
    ]
    if leaked:
        named = few([names[index] for index in leaked])
        some = so_many(len(leaked), "image of its test is", "images of its test are")
        what = f"{some} in another split too ({named})"
        problems.append(Problem(Severity.WARNING, where, f"{what}; a search leaves them out of the other"))
    return problems


def _are(names: Sequence[str]) -> str:
    return so_many(len(names), "image is", "images are")
