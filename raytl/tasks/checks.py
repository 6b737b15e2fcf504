"""``raytl check``: what is in the data, and what is wrong with it, before any search."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import few
from raytl.tasks.check_report import CheckReport, gravest_first, range_of
from raytl.tasks.duplicates import Alike, exact_groups, find_alike, label_conflicts, merge_groups, several
from raytl.tasks.formats import KNOWN
from raytl.tasks.holding_out import groups_per_class
from raytl.tasks.images import ImageItem, LabelledImages
from raytl.tasks.judgements import (
    judge_colours,
    judge_conflicts,
    judge_counts,
    judge_depth,
    judge_frames,
    judge_groups,
    judge_images,
    judge_kinds,
    judge_near,
    judge_sizes,
    judge_test,
)
from raytl.tasks.origins import find_origins, kept_apart, of_one_origin
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers import groups_of, list_path, no_labels, note_strays
from raytl.tasks.readers.belonging import NOT_KEPT
from raytl.tasks.readers.choosing import choose_split
from raytl.tasks.readers.group_by import judge_told, read_group_by
from raytl.tasks.readers.listing import Entry, Listing
from raytl.tasks.readers.loading import decode_all, vanished
from raytl.tasks.readers.names import judge_names, judge_numbers
from raytl.tasks.readers.split_names import TEST
from raytl.tasks.readers.versions import judge_versions
from raytl.tasks.survey import Facts
from raytl.tasks.task import Role
from raytl.tasks.things import Things, find_things

_VANISHED = 3  # classes of which no image can be read that are named one by one


@dataclass(frozen=True)
class Look:
    """What one look at the data gave.

    report: what was found. images: those that a search would learn from, copies in one group; None without labels.
    items: every image that decodes, by name. labels: likewise.
    """

    report: CheckReport
    images: LabelledImages | None
    items: dict[str, ImageItem]
    labels: dict[str, str | None]


def check(path: str | os.PathLike[str], **told: Any) -> CheckReport:
    """The report of :func:`look`."""
    return look(path, **told).report


def look(
    path: str | os.PathLike[str],
    *,
    filesystem: Any = None,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    label: str | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
) -> Look:
    """Look at every image under a path, labelled or not, and say what is there and what is wrong with it.

    path, filesystem, split, images, label, image_column, group_by: as for :func:`raytl.tasks.readers.read_labelled`.
    Raises UserError where there is nothing to look at, or the path may be meant in several ways; damaged images are
    reported, even where all are.
    """
    listing = list_path(
        path, filesystem, split=split, images=images, label=label, image_column=image_column, group_by=group_by
    )
    if not listing.entries:
        raise listing.no_images()
    learned = _learned(listing, split)
    told_groups = read_group_by(group_by)
    if told_groups is not None:
        of_role = [entry for entry in listing.entries if id(entry) in learned] or listing.entries
        judge_told(listing, told_groups, of_role, Role.TARGET if listing.labelled else Role.UNLABELLED)
    entries, items, facts, corrupt = decode_all(listing)
    if not items and not corrupt:
        raise UserError(f"{listing.name}: no images found; {listing.empty_because or f'{KNOWN} files'}")
    rows = [row for row, entry in enumerate(entries) if id(entry) in learned]
    judged = judge_versions(listing, [entries[row] for row in rows], [facts[row] for row in rows])
    learned |= set(map(id, judged))
    entries = list(entries)
    for row, entry in zip(rows, judged, strict=True):
        entries[row] = entry
    names, digests = [item.name for item in items], [item.digest for item in items]
    found = [entry.label for entry in entries]
    counts = dict(sorted(Counter(label for label in found if label is not None).items()))
    in_splits = Counter(entry.split for entry in entries if entry.split is not None)

    exact = exact_groups(digests)
    number_of = {label: number for number, label in enumerate(counts)}
    numbers = np.array([-1 if label is None else number_of[label] for label in found], dtype=np.int64)
    _, firsts = np.unique(exact, return_index=True)  # one for each set of exact duplicates, as exact numbers them
    alike = find_alike([facts[i] for i in firsts], labels=numbers[firsts])
    conflicts = _conflicts(names, exact, numbers)
    same = set(conflicts)
    told = things = None
    of_origins: list[Problem] = []
    if listing.labelled:
        keep = [index for index, entry in enumerate(entries) if id(entry) in learned]
        classes = tuple(sorted({str(found[index]) for index in keep}))
        labels = np.array([classes.index(str(found[index])) for index in keep], dtype=np.int64)
        by_names = None
        ask_names = group_by is None and any(entry.group is None for entry in entries)
        if ask_names:
            things = find_things([names[index] for index in keep], labels, [facts[index] for index in keep])
        if things is not None and things.kept_together:
            by_names = len(things.groups) + np.arange(len(items))
            by_names[keep] = things.groups
        groups = merge_groups(len(items), alike.within[0][exact], groups_of(entries), by_names)
        told = LabelledImages(listing.name, [items[index] for index in keep], groups[keep], classes, labels)
        if ask_names and (things is None or not things.kept_together):
            given = groups_of([entries[index] for index in keep])
            others = _tested(listing.name, entries, items, learned)
            told, of_origins = _judge_origins(told, others, given, alike.within[0][exact][keep])
    problems = [
        *_judge_classes(listing, entries, learned),
        *([] if told is None else judge_groups(listing.name, told.counts(), groups_per_class(told))),
        *judge_images(listing.name, names, facts),
        *judge_depth(listing.name, names, facts),
        *judge_frames(listing.name, names, facts),
        *_judge_pictures(listing.name, entries, facts, learned),
        *_judge_near(listing.name, names, entries, alike, exact, tuple(counts)),
        *(p for p in listing.problems if things is None or not things.kept_together or NOT_KEPT not in p.message),
        *_judge_names(listing.name, things, of_origins, () if told is None else told.classes),
        *judge_conflicts(listing.name, conflicts),
    ]
    report = CheckReport(
        path=listing.name,
        layout=listing.layout,
        splits={name: in_splits[name] for name in listing.split_names if in_splits[name]},
        images=len(items),
        counts=counts,
        width=range_of([fact.width for fact in facts]),
        height=range_of([fact.height for fact in facts]),
        modes=dict(Counter(fact.mode for fact in facts).most_common()),
        greyscale=bool(facts) and all(fact.greyscale for fact in facts),
        corrupt=corrupt,
        exact_duplicates=[[names[i] for i in group] for group in several(exact)],
        near_duplicates=[[names[i] for i in firsts[group]] for group in several(alike.within[0])],
        label_conflicts=conflicts,
        lookalike_conflicts=[pair for pair in _conflicts(names, alike.pictures[exact], numbers) if pair not in same],
        problems=gravest_first(problems),
    )
    return Look(report, told, dict(zip(names, items, strict=True)), dict(zip(names, found, strict=True)))


def _conflicts(names: Sequence[str], pictures: np.ndarray, labels: np.ndarray) -> list[tuple[str, str]]:
    """Pairs of names of one picture under two labels.

    pictures: int (n,), equal for what is one picture. labels: int (n,), -1 for none.
    """
    labelled = np.flatnonzero(labels >= 0)
    pairs = label_conflicts(pictures[labelled].tolist(), labels[labelled])
    return [(names[labelled[first]], names[labelled[other]]) for first, other in pairs]


def _learned(listing: Listing, split: str | None) -> set[int]:
    """Which entries, by their identity, a search would learn from; what a search would announce goes to the listing."""
    if not listing.labelled:
        if listing.unlabelled_because or listing.split_names:
            listing.announce(no_labels(listing, "--target").removeprefix(f"{listing.name}: "), Severity.WARNING)
        else:
            listing.announce(
                "no labels: as they are its images are for --unlabelled; for --target put each class into a folder of "
                "its own, or add a table with a 'label' column"
            )
        return set()
    everything = list(listing.entries)
    choose_split(listing, Role.TARGET, split)
    if split is not None:
        everything = list(listing.entries)  # it was asked for this one alone
    note_strays(listing)
    learned = {id(entry) for entry in listing.entries if entry.label is not None}
    listing.entries = everything
    return learned


def _judge_classes(listing: Listing, read: Sequence[Entry], learned: set[int]) -> list[Problem]:
    """What is wrong with the classes that a search would learn from. read: the entries that decode."""
    if not listing.labelled:
        return []
    where = listing.name
    meant = Counter(str(entry.label) for entry in listing.entries if entry.certain and id(entry) in learned)
    counts = dict(sorted(Counter(str(entry.label) for entry in read if id(entry) in learned).items()))
    gone = sorted(set(meant) - set(counts))
    problems = [Problem(Severity.ERROR, where, vanished(listing, name, meant[name])) for name in gone[:_VANISHED]]
    if len(gone) > _VANISHED:
        what = f"{len(gone) - _VANISHED} more classes would vanish ({few(gone[_VANISHED:])})"
        problems.append(Problem(Severity.ERROR, where, what))
    problems += judge_names(where, tuple(counts))
    others = {entry.label for entry in read if entry.label is not None} - set(meant)
    test = {str(entry.label) for entry in read if entry.split == TEST and id(entry) not in learned and entry.label}
    problems += judge_test(where, counts, others, test)
    if len(counts) == 1:
        why = listing.unlabelled_because or "a classifier needs at least two"
        problems.insert(len(gone), Problem(Severity.ERROR, where, f"only one class, '{next(iter(counts))}'; {why}"))
    return problems + judge_counts(where, counts) + judge_numbers(where, tuple(counts))


def _judge_pictures(where: str, entries: Sequence[Entry], facts: Sequence[Facts], learned: set[int]) -> list[Problem]:
    """What the pictures tell of the labels."""
    coloured = [(str(entry.label), fact) for entry, fact in zip(entries, facts, strict=True) if id(entry) in learned]
    told = [label for label, _ in coloured], [fact for _, fact in coloured]
    return judge_colours(where, *told) + judge_sizes(where, *told) + judge_kinds(where, *told)


def _tested(
    where: str, entries: Sequence[Entry], items: Sequence[ImageItem], learned: set[int]
) -> dict[str, LabelledImages]:
    """The images of the data's own test split, by what to call them."""
    own = [n for n, entry in enumerate(entries) if entry.split == TEST and entry.label and id(entry) not in learned]
    if not own:
        return {}
    found = [str(entries[index].label) for index in own]
    classes = tuple(sorted(set(found)))
    labels = np.array([classes.index(label) for label in found], dtype=np.int64)
    return {"of the test": LabelledImages(where, [items[index] for index in own], None, classes, labels)}


def _judge_origins(
    images: LabelledImages, others: Mapping[str, LabelledImages], given: np.ndarray | None, alike: np.ndarray
) -> tuple[LabelledImages, list[Problem]]:
    """The images as a search would group them by origins, and what there is to say.

    others: further images, by what to call them. given, alike: as of :func:`raytl.tasks.origins.kept_apart`.
    """
    origins = find_origins(images, list(others.values()))
    if origins is None:
        alone = of_one_origin(images, others)
        return images, [] if alone is None else [alone]
    if not origins.others:
        return images, [origins.unasked(images.name, list(others))]
    groups = kept_apart(origins, images.labels, given, alike)
    what = list(others)[origins.others[0]]
    said = (origins.not_kept if groups is None else origins.kept)(images.name, what)
    return images if groups is None else replace(images, groups=groups), [said]


def _judge_names(where: str, things: Things | None, of_origins: list[Problem], classes: Sequence[str]) -> list[Problem]:
    """What the names of files say of images that belong together. of_origins: of those, which goes first."""
    if of_origins or things is None:
        return of_origins
    return [said for said in (things.problem(where), things.conflict(where, classes)) if said is not None]


def _judge_near(
    where: str,
    names: Sequence[str],
    entries: Sequence[Entry],
    alike: Alike,
    exact: np.ndarray,
    classes: Sequence[str],
) -> list[Problem]:
    """alike: of the first image of each set of exact duplicates."""
    _, firsts = np.unique(exact, return_index=True)
    across = replace(alike.across, first=[(int(firsts[i]), int(firsts[j])) for i, j in alike.across.first])
    return judge_near(where, names, [entry.split for entry in entries], alike.pictures[exact], across, classes)
