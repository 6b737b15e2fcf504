"""The images of one role as a task takes them: from a path or from memory, each looked at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Generic, TypeGuard, TypeVar

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import printable
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.problems import Problem
from raytl.tasks.readers import read_labelled, read_unlabelled
from raytl.tasks.readers.annotations import ANNOTATIONS
from raytl.tasks.readers.archive import ENDINGS
from raytl.tasks.readers.split_names import NONE, SplitsOrClassesError
from raytl.tasks.readers.table import TABLES
from raytl.tasks.survey import Facts, survey
from raytl.tasks.task import TOGETHER

I_ = TypeVar("I_", bound=Images)
Path = str | os.PathLike[str]
NO_WISHES: Mapping[str, Any] = MappingProxyType({})
Labelled = Path | LabelledImages
SourceDomains = Labelled | Mapping[str, Labelled] | Iterable[Labelled | tuple[str, Labelled]]


@dataclass
class Part(Generic[I_]):
    """Images of one role with what one look at them told.

    has_test: whether the data that they were read from has labelled images of its own for the test, not among these.
    group_names: as of :class:`raytl.tasks.readers.ReadResult`; empty for images in memory, whose group numbers mean
        nothing outside of them.
    told_by: likewise; empty for images in memory. grouped: whether the user said what belongs together.
    pictures, alike: int64 (n,), see :func:`raytl.tasks.leaks.compare`.
    """

    images: I_
    facts: list[Facts]
    problems: list[Problem] = field(default_factory=list)
    has_test: bool = False
    group_names: list[str | None] = field(default_factory=list)
    told_by: dict[str, str] = field(default_factory=dict)
    grouped: bool = False
    pictures: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    alike: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def keep(self, mask: np.ndarray) -> Part[I_]:
        """Only the images where ``mask``."""
        indices = np.flatnonzero(mask)
        subset: I_ = self.images.subset(indices)  # type: ignore[assignment]
        return replace(
            self,
            images=subset,
            facts=[self.facts[i] for i in indices],
            group_names=[self.group_names[i] for i in indices] if self.group_names else [],
            pictures=self.pictures[mask],
            alike=self.alike[mask],
        )


def labelled_part(
    place: Labelled, role: str, *, split: str | None = None, tables: Mapping[str, Any] = NO_WISHES
) -> Part[LabelledImages]:
    """Labelled images from a path or from memory; classes without an image are left out.

    role: what they are for, to word the errors and to choose among the data's own splits. split, tables: as ``split``,
    and ``images``, ``label``, ``image_column`` and ``group_by``, of :func:`raytl.tasks.readers.read_labelled`.
    """
    if isinstance(place, LabelledImages):
        if tables.get("group_by") is not None:
            raise UserError(
                f"{place.name}: group_by is for images in files; those in memory have 'groups' of their own"
            )
        present = occurring(place)
        return _in_memory(place.with_classes(tuple(name for name in place.classes if name in present)))
    result = read_labelled(place, role=role, split=split, **tables)
    return Part(
        result.images,
        result.facts,
        result.problems,
        result.has_test,
        group_names=result.group_names,
        told_by=result.told_by,
        grouped=result.grouped,
    )


def further_part(
    place: Labelled, role: str, *, split: str | None = None, tables: Mapping[str, Any] = NO_WISHES
) -> Part[LabelledImages]:
    """Labelled images that are not the target; the rest as of :func:`labelled_part`.

    split: the target's. It says nothing of other data, but that names of splits are those of classes ("none") answers
    where that would be asked of this data too.
    """
    if split != NONE:
        return labelled_part(place, role, tables=tables)
    try:
        return labelled_part(place, role, tables=tables)
    except SplitsOrClassesError:
        return labelled_part(place, role, split=NONE, tables=tables)


def own_test(
    place: Labelled, target: Part[LabelledImages], *, tables: Mapping[str, Any] = NO_WISHES
) -> Part[LabelledImages]:
    """The test split of the data that the target was read from; what was said of that is not said again."""
    part = labelled_part(place, "test", tables=tables)
    part.problems = [problem for problem in part.problems if not problem.leading and problem not in target.problems]
    return part


def unlabelled_part(place: Path | Images, *, tables: Mapping[str, Any] = NO_WISHES) -> Part[Images]:
    """Images from a path or from memory; labels that are there are dropped."""
    if isinstance(place, LabelledImages):
        place = place.without_labels()
    if isinstance(place, Images):
        return _in_memory(place)
    result = read_unlabelled(place, **{name: wish for name, wish in tables.items() if name != "label"})
    return Part(result.images, result.facts, result.problems, group_names=result.group_names, grouped=result.grouped)


def _in_memory(images: I_) -> Part[I_]:
    if not len(images):
        raise UserError(f"{images.name}: it has no images; give some")
    return Part(images, survey(images))


def named_domains(given: SourceDomains) -> dict[str, Labelled]:
    """Source domains by name: the given names, else the folder or file names; a second ``x`` becomes ``x-2``."""
    entries: Iterable[Labelled | tuple[str, Labelled]]
    if isinstance(given, str | os.PathLike | LabelledImages):
        entries = [given]
    elif isinstance(given, Mapping):
        entries = given.items()
    elif _is_pair(given):
        entries = [given]
    else:
        entries = given
    named: dict[str, Labelled] = {}
    for entry in entries:
        wish, place = entry if isinstance(entry, tuple) else (base_name(entry), entry)
        wish = printable(wish).replace(TOGETHER, TOGETHER.strip())  # which stands between the names of several
        key, number = wish, 1
        while key in named:
            number += 1
            key = f"{wish}-{number}"
        named[key] = place
    return named


def _is_pair(given: Iterable[Any]) -> TypeGuard[tuple[str, LabelledImages]]:
    """Whether it is one name with its images, not two domains."""
    pair = isinstance(given, tuple) and len(given) == 2
    return pair and isinstance(given[0], str) and isinstance(given[1], LabelledImages)  # type: ignore[index]


def base_name(place: Path | Images) -> str:
    """``photos`` for ``s3://bucket/photos/``, ``train`` for ``data/train.parquet``; bytes that are no UTF-8 as text."""
    text = place.name if isinstance(place, Images) else os.fspath(place)
    path = PurePosixPath(text.rstrip("/").split("://")[-1])
    if path.name in {"", ".", ".."} and not isinstance(place, Images):
        path = PurePosixPath(os.path.realpath(text))
    archive = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
    name = path.stem if path.suffix.lower() in TABLES | ANNOTATIONS else path.name
    return printable(name[: len(name) - len(archive)]) or "data"


def occurring(images: LabelledImages) -> set[str]:
    """The names of the classes that have an image."""
    return {images.classes[label] for label in np.unique(images.labels)}
