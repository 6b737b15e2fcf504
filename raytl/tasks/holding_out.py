"""Whether labelled images are given up for a test split, and which."""

from __future__ import annotations

from statistics import median_low

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import plural
from raytl.core.seeding import derive_seed
from raytl.tasks.images import LabelledImages
from raytl.tasks.leaks import count_are
from raytl.tasks.parts import Part
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.splits import holdout

TEST_FRACTION = 0.2
# A fifth of 30 images in each of two classes is a test of 12, whose accuracy is known to about ±25 points; of fewer it
# says nothing, and the images are missed more. The median: one rare class must not cost a large task its test, nor one
# frequent class take a fifth from many rare ones. Of two classes it is the rarer, by which they are told apart.
_WORTH_A_TEST = 30
_NEEDS_IMAGES = 4  # of every class, for some to be spared
_NEEDS_GROUPS = 3  # of every class: one for the test, two for training and validation


def checked_holdout(share: float | None, *, has_target: bool, has_test: bool) -> float | None:
    """The share as given. Raises UserError where it is none, or there is nothing to take it from."""
    if share is None:
        return None
    if not 0 <= share < 1:
        raise UserError(f"--holdout {share:g}: give the share of the target to test on, such as 0.2, or 0 for none")
    if share and has_test:
        raise UserError("--holdout: there is a test set already (--test, or the target's own); leave one of them out")
    if share and not has_target:
        raise UserError("--holdout takes labelled images of the target, and there is no --target; pass --test PATH")
    return share


def hold_out(
    target: Part[LabelledImages], share: float | None, seed: int
) -> tuple[Part[LabelledImages], Part[LabelledImages] | None, list[Problem]]:
    """(target, test or None, what to say about it).

    share: of every class, 0 for none; None holds out a fifth where the median class (of two, the smaller) has 30 images
    or more, copies and images of one group counted once. Nothing is held out where a class has fewer than four images,
    or three groups.
    """
    images = target.images
    if share == 0:
        return target, None, []
    counts, groups = images.counts(), groups_per_class(images)
    fewest, least = min(groups, key=lambda key: (groups[key], key)), min(counts, key=lambda key: (counts[key], key))
    possible = counts[least] >= _NEEDS_IMAGES and groups[fewest] >= _NEEDS_GROUPS
    usual = median_low(groups.values())
    if share is None and usual < _WORTH_A_TEST:
        counted = "" if groups == counts else ", copies and groups counted once"
        most = max(groups.values())
        each = f"classes have {groups[fewest]} to {most}, the median is {usual}"
        each = f"each class has {most}" if most == groups[fewest] else each
        message = f"too few labelled images to give any up for a test ({each}{counted})"
        if groups[fewest] > 1:
            message += "; cross-validation tells how good the model is"
        message += f". For a test split pass {'--holdout 0.2 or ' if possible else ''}--test PATH"
        return target, None, [Problem(Severity.INFO, images.name, message)]
    if not possible:
        message = f"class '{least}' has {counts[least]} image{plural(counts[least])}"
        if counts[least] >= _NEEDS_IMAGES:
            grouped = f"{groups[fewest]} group{plural(groups[fewest])} of duplicates, of names or of the group column"
            message = f"the {counts[fewest]} images of class '{fewest}' are {grouped}"
        return target, None, [Problem(Severity.WARNING, images.name, f"{message}, too few to spare any for a test")]
    _, held = holdout(
        images.labels, images.groups, share or TEST_FRACTION, derive_seed("test split", seed), keep=_NEEDS_GROUPS - 1
    )
    mask = np.zeros(len(images), dtype=bool)
    mask[held] = True
    said = Problem(Severity.INFO, images.name, f"{count_are(len(held))} held out as the test split")
    return target.keep(~mask), target.keep(mask), [said]


def groups_per_class(images: LabelledImages) -> dict[str, int]:
    """How many groups each class has images of; images without a group are groups of their own."""
    groups = np.arange(len(images)) if images.groups is None else images.groups
    return {name: len(np.unique(groups[images.labels == index])) for index, name in enumerate(images.classes)}
