"""The task as a user states it: paths (or images in memory) in, checked and split data out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Generic, TypeVar

import numpy as np

from raytl.core.errors import UserError, nearest
from raytl.core.seeding import derive_seed
from raytl.tasks.duplicates import duplicate_groups
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers import read_labelled, read_unlabelled
from raytl.tasks.splits import holdout
from raytl.tasks.survey import Facts, survey
from raytl.tasks.task import Role, SealedTest, TrainingData

I_ = TypeVar("I_", bound=Images)
Path = str | os.PathLike[str]
Labelled = Path | LabelledImages
SourceDomains = Labelled | Mapping[str, Labelled] | Iterable[Labelled | tuple[str, Labelled]]

TEST_FRACTION = 0.2
_TEST_NEEDS = 4  # images of every class, for some to be spared for the test


@dataclass
class _Part(Generic[I_]):
    """Images of one role with what one look at them told."""

    images: I_
    facts: list[Facts]
    problems: list[Problem] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> _Part[I_]:
        """Only the images where ``mask``."""
        indices = np.flatnonzero(mask)
        subset: I_ = self.images.subset(indices)  # type: ignore[assignment]
        return _Part(subset, [self.facts[i] for i in indices], self.problems)


class Task:
    """What is to be learned, from data in up to three roles, with a test split put aside.

    target: labelled images of the domain that the model will be used in: a folder with one subfolder per class, a
        Parquet or CSV file (local or a URI), or a LabelledImages.
    source_domain: labelled images of other domains: one, several, (name, images) pairs, or a mapping by name.
    unlabelled: images of the target domain without labels.
    test: labelled images for the final test. Without it, a fifth of the target is held out where each class has
        at least four images.
    name: what the task is called; the folder's name by default.
    seed: decides which images are held out.

    data: all that a search may see. test: the sealed test split, or None. problems: what was noticed about the data.
    Raises UserError where the data allows no search, saying what to do.
    """

    def __init__(
        self,
        target: Labelled | None = None,
        source_domain: SourceDomains = (),
        unlabelled: Path | Images | None = None,
        test: Labelled | None = None,
        *,
        name: str | None = None,
        seed: int = 0,
    ) -> None:
        domains = _named_domains(source_domain)
        if target is None and not domains:
            raise UserError(
                "no labelled data; pass --target PATH, or --source-domain PATH together with --unlabelled PATH"
            )
        if target is None and unlabelled is None:
            raise UserError("no data of the target domain; pass --target PATH (labelled) or --unlabelled PATH")
        self.seed = seed
        parts = {key: _labelled(place, Role.SOURCE_DOMAIN) for key, place in domains.items()}
        goal = None if target is None else _labelled(target, Role.TARGET)
        pool = None if unlabelled is None else _unlabelled(unlabelled)
        final = None if test is None else _labelled(test, "test")
        given = [part for part in (goal, pool, final, *parts.values()) if part is not None]
        self.problems: list[Problem] = [problem for part in given for problem in part.problems]

        for labelled in [goal, *parts.values()]:
            if labelled is not None:
                _two_classes(labelled.images)
        wanted = None if final is None else _occurring(final.images)
        classes = goal.images.classes if goal is not None else self._agreed(parts, wanted)
        classes = tuple(sorted(classes))
        if final is not None:
            final.images = _into_classes(final.images, classes, "the target" if goal else "any source domain")
        if goal is not None:
            goal.images = goal.images.with_classes(classes)
            self._note_conflicts(goal.images)
            if final is not None:
                goal = self._without(goal, final)
            goal.images = _grouped(goal)
            if not parts:
                _enough_to_validate(goal.images)
            if final is None:
                goal, final = self._hold_out(goal)
        if final is not None:
            pool = pool and self._without(pool, final)
            parts = {key: self._without(part, final) for key, part in parts.items()}
        for part in parts.values():
            part.images = _grouped(part)

        self.name = name or _task_name(target, unlabelled)
        self.data = TrainingData(
            name=self.name,
            classes=classes,
            target=None if goal is None else goal.images,
            unlabelled=None if pool is None else pool.images,
            source_domains={key: part.images for key, part in parts.items()},
            channels=1 if all(fact.greyscale for part in given for fact in part.facts) else 3,
        )
        self.test = None if final is None else SealedTest(final.images)

    def __repr__(self) -> str:
        data = self.data
        roles = [
            f"target={len(data.target)}" if data.target else "",
            f"unlabelled={len(data.unlabelled)}" if data.unlabelled else "",
        ]
        roles += [f"source domain {key}={len(images)}" for key, images in data.source_domains.items()]
        roles += [f"test={len(self.test)}" if self.test else ""]
        return f"Task({self.name}: {len(data.classes)} classes, {', '.join(filter(None, roles))})"

    def _note(self, where: str, message: str, severity: Severity = Severity.WARNING) -> None:
        self.problems.append(Problem(severity, where, message))

    def _agreed(self, parts: Mapping[str, _Part[LabelledImages]], wanted: set[str] | None) -> tuple[str, ...]:
        """The classes to learn where there are no target labels: the names that most source domains share.

        Where no two domains agree it is the domain with the most classes.
        wanted: the label names of a given test set, which the classes have to cover where any domain does.
        """
        sets = Counter(frozenset(part.images.classes) for part in parts.values())
        chosen = max(
            sets, key=lambda names: (wanted is None or wanted <= names, sets[names], len(names), sorted(names))
        )
        others = [key for key, part in parts.items() if not set(part.images.classes) <= chosen]
        if others:
            first = next(key for key, part in parts.items() if set(part.images.classes) == chosen)
            self._note(
                first,
                f"its {len(chosen)} classes will be learned; {', '.join(others)} can only pretrain",
            )
        return tuple(chosen)

    def _note_conflicts(self, images: LabelledImages) -> None:
        for first, other in label_conflicts(images):
            labels = f"'{images.classes[images.labels[first]]}' and '{images.classes[images.labels[other]]}'"
            self._note(images.items[other].name, f"the same image as {images.items[first].name}, but labelled {labels}")

    def _without(self, part: _Part[I_], final: _Part[LabelledImages]) -> _Part[I_]:
        digests = [item.digest for item in [*final.images.items, *part.images.items]]
        groups = duplicate_groups(digests, [*final.facts, *part.facts])
        apart = ~np.isin(groups[len(final.facts) :], groups[: len(final.facts)])
        dropped = int((~apart).sum())
        if not dropped:
            return part
        images = part.images
        lost = [] if not isinstance(images, LabelledImages) else _lost_classes(images, apart)
        if lost or dropped == len(images):
            what = f"every image of class '{lost[0]}'" if lost and dropped < len(images) else "every image"
            raise UserError(
                f"{images.name}: {what} is also in the test set {final.images.name}; give a test set of other images"
            )
        self._note(images.name, f"{_count(dropped)} also in the test set {final.images.name}; left out of the training")
        return part.keep(apart)

    def _hold_out(self, goal: _Part[LabelledImages]) -> tuple[_Part[LabelledImages], _Part[LabelledImages] | None]:
        images = goal.images
        counts = images.counts()
        scarce = min(counts, key=lambda key: (counts[key], key))
        if counts[scarce] < _TEST_NEEDS:
            self._note(
                images.name,
                f"class '{scarce}' has {counts[scarce]} image{_s(counts[scarce])}, too few to spare any for a test",
            )
            return goal, None
        lonely = _classes_in_one_group(images)
        if lonely:
            self._note(
                images.name,
                f"all images of class '{lonely[0]}' belong together; none can be spared for a test",
            )
            return goal, None
        _, held = holdout(images.labels, images.groups, TEST_FRACTION, derive_seed("test split", self.seed))
        mask = np.zeros(len(images), dtype=bool)
        mask[held] = True
        self._note(images.name, f"{_count(len(held))} held out as the test split", Severity.INFO)
        return goal.keep(~mask), goal.keep(mask)


def label_conflicts(images: LabelledImages) -> list[tuple[int, int]]:
    """Pairs (first, other) of byte-identical images under two labels."""
    seen: dict[str, int] = {}
    pairs = []
    for index, item in enumerate(images.items):
        first = seen.setdefault(item.digest, index)
        if images.labels[first] != images.labels[index]:
            pairs.append((first, index))
    return pairs


def _labelled(place: Labelled, role: str) -> _Part[LabelledImages]:
    if isinstance(place, LabelledImages):
        present = _occurring(place)
        return _in_memory(place.with_classes(tuple(name for name in place.classes if name in present)))
    result = read_labelled(place, role=role)
    return _Part(result.images, result.facts, result.problems)


def _unlabelled(place: Path | Images) -> _Part[Images]:
    if isinstance(place, LabelledImages):
        place = place.without_labels()
    if isinstance(place, Images):
        return _in_memory(place)
    result = read_unlabelled(place)
    return _Part(result.images, result.facts, result.problems)


def _in_memory(images: I_) -> _Part[I_]:
    if not len(images):
        raise UserError(f"{images.name}: it has no images; give some")
    return _Part(images, survey(images))


def _named_domains(given: SourceDomains) -> dict[str, Labelled]:
    if isinstance(given, str | os.PathLike | LabelledImages):
        given = [given]
    if isinstance(given, Mapping):
        return dict(given)
    named: dict[str, Labelled] = {}
    for entry in given:
        wish, place = entry if isinstance(entry, tuple) else (_base_name(entry), entry)
        key, number = wish, 1
        while key in named:
            number += 1
            key = f"{wish}-{number}"
        named[key] = place
    return named


def _base_name(place: Path | Images) -> str:
    text = place.name if isinstance(place, Images) else os.fspath(place)
    path = PurePosixPath(text.rstrip("/").split("://")[-1])
    if path.name in {"", ".", ".."} and not isinstance(place, Images):
        path = PurePosixPath(os.path.realpath(text))
    return (path.stem if path.suffix.lower() in {".parquet", ".pq", ".csv", ".tsv"} else path.name) or "data"


def _task_name(target: Labelled | None, unlabelled: Path | Images | None) -> str:
    place = target if target is not None else unlabelled
    return _base_name(place) if place is not None else "task"


def _occurring(images: LabelledImages) -> set[str]:
    return {images.classes[label] for label in np.unique(images.labels)}


def _two_classes(images: LabelledImages) -> None:
    if len(images.classes) < 2:
        only = images.classes[0]
        raise UserError(f"{images.name}: only one class, '{only}'; a classifier needs at least two. Add another class.")


def _into_classes(images: LabelledImages, classes: tuple[str, ...], where: str) -> LabelledImages:
    odd = sorted(_occurring(images) - set(classes))
    if odd:
        raise UserError(f"{images.name}: test class '{odd[0]}' is not a class of {where}{nearest(odd[0], classes)}")
    return images.with_classes(classes)


def _grouped(part: _Part[I_]) -> I_:
    """The images with groups that keep duplicates together; without groups where every image is its own."""
    groups = duplicate_groups([item.digest for item in part.images.items], part.facts, part.images.groups)
    return replace(part.images, groups=groups if len(np.unique(groups)) < len(groups) else None)


def _enough_to_validate(images: LabelledImages) -> None:
    lonely = _classes_in_one_group(images)
    if not lonely:
        return
    count = images.counts()[lonely[0]]
    has = f"{count} image{_s(count)}" + (" that belong together (duplicates or one group)" if count > 1 else "")
    raise UserError(
        f"{images.name}: class '{lonely[0]}' has {has}; a validation split needs 2. "
        "Add images, or pass --source-domain for one-shot transfer."
    )


def _classes_in_one_group(images: LabelledImages) -> list[str]:
    groups = np.arange(len(images)) if images.groups is None else images.groups
    return [name for index, name in enumerate(images.classes) if len(np.unique(groups[images.labels == index])) < 2]


def _lost_classes(images: LabelledImages, kept: np.ndarray) -> list[str]:
    left = set(images.labels[kept].tolist())
    return [name for index, name in enumerate(images.classes) if index not in left]


def _count(number: int) -> str:
    return "1 image is" if number == 1 else f"{number} images are"


def _s(number: int) -> str:
    return "" if number == 1 else "s"
