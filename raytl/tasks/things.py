"""Images that are several of one thing, by their names and their looks: ``bolt7_1.jpg`` beside ``bolt7_2.jpg``.

Frames, crops and further photographs of a thing on both sides of a split flatter every figure, for what is to be told
is how a model does on things that it has not seen. A name alone says little: ``tulip_1.jpg`` and ``tulip_2.jpg`` are
two flowers. So names propose, and it is looked whether such images are more alike than others of their class. Where
they are not, only names with a number of the thing's own are believed, and words are warned of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from raytl.core.names import so_many
from raytl.tasks.formats import is_image
from raytl.tasks.looks import MOST_LOOKED_AT, appearances, look_alike
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.tree import name_of
from raytl.tasks.survey import Facts

_NUMBERED = re.compile(r"^(?P<thing>.*[^\W_].*?)[ _.-]+\(?\d+\)?$")
_NEAR = 2.0
"""Times of the usual distance of a thing's images within which those of two classes may be of one."""
_LEAST_THINGS, _MOST_OF_ONE = 3, 10
"""Things in a class, on average, and images of one, at the median: of cameras and of kinds there are fewer, of more."""


@dataclass(frozen=True)
class Things:
    """What names say of images.

    groups: int64 (n,), equal for images named as of one thing. images: how many share one within a class. alike:
    whether they look it. several: whether there are several things in a class, of few images each. mostly: whether most
    images share one. numbered: whether most things have a number of their own. example: two such names. both: of each
    thing that has images of several classes, where things are kept together, two of these, as (name, label).
    """

    groups: np.ndarray
    images: int
    alike: bool
    several: bool
    mostly: bool
    numbered: bool
    example: tuple[str, str]
    both: tuple[tuple[tuple[str, int], tuple[str, int]], ...] = ()

    @property
    def kept_together(self) -> bool:
        """Whether images of one are to stay on one side of every split.

        Not for looks alone: those of one camera, or of one kind, are alike too, but these are few and of many images.
        """
        return self.several and (self.alike or (self.mostly and self.numbered))

    def problem(self, where: str) -> Problem | None:
        """What the user should know of it, None where names say too little. where: what to call the images."""
        named = f"{self.images} images are named as several of one thing ({', '.join(map(name_of, self.example))}, …)"
        if self.kept_together:
            looks = " and look it" if self.alike else ""
            return Problem(Severity.INFO, where, f"{named}{looks}; those of one thing stay on one side of every split")
        if not (self.several and self.mostly):
            return None
        advice = "if they are, validation flatters; --group-by, or a column 'group', keeps them together"
        return Problem(Severity.WARNING, where, f"{named}: {advice}")

    def conflict(self, where: str, classes: Sequence[str]) -> Problem | None:
        """What the user should know of things with images of several classes, None where there are none."""
        if not self.both:
            return None
        (first, one), (second, other) = self.both[0]
        things = so_many(len(self.both), "thing has", "things have")
        more = ", …" if len(self.both) > 1 else ""
        what = f"{name_of(first)} is '{classes[one]}', {name_of(second)} is '{classes[other]}'{more}"
        message = f"{things} images of several classes ({what}): correct the labels, unless it is of both"
        return Problem(Severity.WARNING, where, message)


def find_things(names: Sequence[str], labels: np.ndarray, facts: Sequence[Facts]) -> Things | None:
    """What names, (n,), propose within each class, and whether the images bear it out; None where they propose nothing.

    labels: int (n,). A class whose images all have one name, but for the number, proposes nothing: that is the class's.
    """
    groups, shared = _proposed(names, labels)
    if not shared.any():
        return None
    sizes = np.bincount(groups)
    first = int(np.flatnonzero(shared)[0])
    second = int(np.flatnonzero(groups == groups[first])[1])
    classes = np.unique(labels[shared])
    things = len(np.unique(groups[shared])) / len(classes)
    mostly = 2 * int(shared.sum()) > len(names)
    several = bool(things >= _LEAST_THINGS and np.median(sizes[np.unique(groups[shared])]) <= _MOST_OF_ONE)
    alone = np.unique(groups[shared], return_index=True)[1]
    named = [_thing(names[index]) or "" for index in np.flatnonzero(shared)[alone]]
    numbered = 2 * sum(any(map(str.isdigit, thing)) for thing in named) > len(named)
    alike = bool(look_alike(groups, labels, shared, facts).all())
    found = Things(groups, int(shared.sum()), alike, several, mostly, numbered, (names[first], names[second]))
    return _joined(found, names, labels, facts) if found.kept_together else found


def _joined(things: Things, names: Sequence[str], labels: np.ndarray, facts: Sequence[Facts]) -> Things:
    """The same with things in several classes as one: a label is wrong, or a thing changed.

    In one folder a name is that of one thing. Of folders each may number its own: there the images of one class have to
    be as near to those of the other as images of a thing are, and nearer than to any else.
    """
    things_of: dict[str, dict[int, int]] = {}  # by name, the group in each class
    firsts = dict(zip(*np.unique(things.groups, return_index=True), strict=True))
    for group, index in sorted(firsts.items(), key=lambda each: each[1]):
        told = _thing(names[index])
        if told is not None and len(np.unique(things.groups[labels == labels[index]])) > 1:
            things_of.setdefault(told, {}).setdefault(int(labels[index]), int(group))
    groups, both = things.groups.copy(), []
    look_the_same = _by_looks(things, labels, facts)
    for known, *others in (list(its.values()) for its in things_of.values()):
        for group in others:
            one, other = int(firsts[known]), int(firsts[group])
            together = PurePosixPath(names[one]).parent == PurePosixPath(names[other]).parent
            if together or look_the_same(known, group):
                groups[groups == group] = known
                both.append(((names[one], int(labels[one])), (names[other], int(labels[other]))))
    return replace(things, groups=np.unique(groups, return_inverse=True)[1].astype(np.int64), both=tuple(both))


def _by_looks(things: Things, labels: np.ndarray, facts: Sequence[Facts]) -> Callable[[int, int], bool]:
    """What tells of two groups, of two classes, whether they look like one thing; never, where things look no less."""
    if not things.alike:
        return lambda known, group: False
    looks, groups = appearances(facts), things.groups

    def nearest(index: int, among: np.ndarray) -> tuple[float, int]:
        """How far the nearest of other images is, and its group."""
        others = among[among != index]
        far = np.square(looks[others] - looks[index]).sum(axis=1)
        return float(far.min()), int(groups[others[far.argmin()]])

    shared = np.flatnonzero(np.bincount(groups)[groups] > 1)
    asked = shared[np.linspace(0, len(shared) - 1, min(len(shared), MOST_LOOKED_AT)).astype(int)]
    usual = float(np.median([nearest(int(index), np.flatnonzero(groups == groups[index]))[0] for index in asked]))

    def told(known: int, group: int) -> bool:
        of_class = np.flatnonzero(labels == labels[np.flatnonzero(groups == known)[0]])
        found = [nearest(int(index), of_class) for index in np.flatnonzero(groups == group)]
        return 2 * sum(its == known and far <= _NEAR * usual for far, its in found) > len(found)

    return told


def in_both(names: Sequence[str], labels: np.ndarray, others: Sequence[str], other_labels: np.ndarray) -> list[str]:
    """Which of the other images are named as of a thing that some of the first show; labels: of the same classes."""
    known = {(int(label), _thing(name)) for name, label in zip(names, labels, strict=True)}
    return [
        name
        for name, label in zip(others, other_labels, strict=True)
        if _thing(name) is not None and (int(label), _thing(name)) in known
    ]


def _thing(name: str) -> str | None:
    """What a file's name says of which thing it is: all of it but the image's number; None of what is no image's file.

    Copies are numbered after the first: ``bolt7.jpg``, ``bolt7 (1).jpg``.
    """
    path = PurePosixPath(name)
    if not is_image(path.name):
        return None
    found = _NUMBERED.match(path.stem)
    return found["thing"] if found else path.stem


def _proposed(names: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(groups, which images share theirs with another)."""
    numbers: dict[tuple[int, str], int] = {}
    groups = np.empty(len(names), dtype=np.int64)
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        told = _thing(name)
        thing = name if told is None else str(PurePosixPath(name).with_name(told))
        groups[index] = numbers.setdefault((int(label), thing), len(numbers))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(np.unique(groups[of_class])) == 1:
            groups[of_class] = len(numbers) + of_class
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return groups, np.bincount(groups)[groups] > 1
