"""Which labelled images stay on one side of every split: copies, images of one thing, and of one origin.

Groups that the user gave come first: where all images have one, or it was said by name what they are, names are not
asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from raytl.tasks.duplicates import merge_groups
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.leaks import count_are
from raytl.tasks.origins import find_origins, kept_apart, of_one_origin
from raytl.tasks.parts import I_, Part
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.belonging import NOT_KEPT
from raytl.tasks.readers.tree import name_of
from raytl.tasks.things import find_things, in_both


def grouped(
    part: Part[I_], problems: list[Problem], others: Mapping[str, Images] | None = None, *, domain: bool = False
) -> tuple[I_, bool]:
    """(the images with groups, None where every image is its own; whether names told some of them).

    problems: what was noticed, which is added to, and taken from where it is no longer so. others: images that may be
    of other origins than these, by what to call them; None where it does not matter which origins these are of. domain:
    whether these are another domain than those, and so of others unless names say that they are of the same.
    """
    images, alike = part.images, part.alike
    by_hand = part.grouped or (images.groups is not None and None not in part.group_names)
    place, groups, told = len(problems), None, False
    if isinstance(images, LabelledImages) and not by_hand:
        groups, told = _told_by_names(images, part, problems, others, domain=domain)
    if groups is None:
        groups = merge_groups(len(alike), alike, images.groups)
    copies = len(alike) - len(np.unique(alike))
    if copies:
        apart = len(np.unique(np.stack([alike, groups]), axis=1).T) > len(np.unique(alike))
        what = f"{count_are(copies)} a copy of another, or nearly; copies{' of one origin' if apart else ''} stay"
        message = f"{what} on one side of every split"
        problems.insert(place, Problem(Severity.INFO, images.name, message.replace("are a copy", "are copies")))
    return replace(images, groups=groups if len(np.unique(groups)) < len(groups) else None), told


def numbered_alike(pool: Part[Images], target: Part[LabelledImages]) -> Images:
    """The images without labels, whose groups have the numbers of the target's groups of that name, if there are any.

    All other groups have numbers that the target has not.
    """
    groups, theirs = pool.images.groups, target.images.groups
    if groups is None or theirs is None:
        return pool.images
    known = {name: number for name, number in zip(target.group_names, theirs, strict=False) if name is not None}
    names = pool.group_names or [None] * len(groups)
    first = int(theirs.max()) + 1
    numbers = [
        first + number if name is None else known.get(name, first + number)
        for name, number in zip(names, groups, strict=True)
    ]
    return replace(pool.images, groups=np.array(numbers, dtype=np.int64))


def say_things_tested(learned: LabelledImages, tested: LabelledImages) -> list[Problem]:
    """Where a given test shows things that are learned from: it does not tell how a model does on new ones."""
    names = [item.name for item in tested.items]
    known = in_both([item.name for item in learned.items], learned.labels, names, tested.labels)
    if not known:
        return []
    what = f"{count_are(len(known))} named as of things that the target shows too ({name_of(known[0])}, …)"
    message = f"{what}: the test may flatter, for it does not tell of new things"
    return [Problem(Severity.WARNING, tested.name, message)]


def _told_by_names(
    images: LabelledImages,
    part: Part[I_],
    problems: list[Problem],
    others: Mapping[str, Images] | None,
    *,
    domain: bool,
) -> tuple[np.ndarray | None, bool]:
    """(groups with copies in them or None, whether names told some of them)."""
    asked = list(others or {})
    origins = None if others is None else find_origins(images, list(others.values()))
    if origins is not None and domain:
        groups = kept_apart(origins, images.labels, images.groups, part.alike) if origins.no_known else None
        if groups is not None:
            problems.append(origins.kept_in_a_domain(images.name))
            return groups, True
        origins = None  # no figure is of these images, so that nothing flatters
    elif origins is not None and origins.others:
        what = asked[origins.others[0]]
        groups = kept_apart(origins, images.labels, images.groups, part.alike)
        problems.append((origins.not_kept if groups is None else origins.kept)(images.name, what))
        if groups is not None:
            return groups, True
    alone = of_one_origin(images, others) if origins is None and others and not domain else None
    if alone is not None:
        problems.append(alone)
    things = find_things([item.name for item in images.items], images.labels, part.facts)
    if things is not None and things.kept_together:
        problems[:] = [problem for problem in problems if NOT_KEPT not in problem.message]
    elif origins is not None:
        things = None
        if not origins.others:
            problems.append(origins.unasked(images.name, asked))
    said = None if things is None else things.problem(images.name)
    if said is not None:
        problems.append(said)
    if things is None or not things.kept_together:
        return None, False
    conflict = things.conflict(images.name, images.classes)
    problems += [] if conflict is None else [conflict]
    if origins is not None:  # a thing in two classes, one of which is learned from, is no new one in the other
        groups = kept_apart(origins, images.labels, images.groups, part.alike)
        if groups is not None:
            return groups, True
    return merge_groups(len(images), part.alike, images.groups, things.groups), True
