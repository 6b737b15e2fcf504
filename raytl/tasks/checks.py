"""``raytl check``: what is in the data, and what is wrong with it, before any search."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raytl.core.errors import UserError
from raytl.tasks.duplicates import components, exact_groups, label_conflicts, near_pairs, several
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers import decode_all, list_path, note_strays
from raytl.tasks.survey import Facts

if TYPE_CHECKING:
    from rich.console import RenderableType

_IMBALANCE = 10.0  # largest class over smallest
_TEST_NEEDS = 4  # as in the task: fewer images of a class leave none for a test split
_SHOWN = 30  # problems in the table
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


@dataclass(frozen=True)
class Range:
    """Smallest, median and largest of a number of pixels."""

    least: int
    median: int
    most: int


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found.

    counts: readable images per class, empty for unlabelled data. width, height: in pixels, None without any image.
    modes: images per Pillow mode. corrupt: files that do not decode, each with its reason.
    exact_duplicates, near_duplicates: names of images that are the same bytes, or look the same (not both).
    label_conflicts: pairs of names of the same image under two labels.
    problems: everything worth saying, the gravest first.
    """

    path: str
    images: int
    counts: dict[str, int]
    width: Range | None
    height: Range | None
    modes: dict[str, int]
    greyscale: bool
    corrupt: list[Problem]
    exact_duplicates: list[list[str]]
    near_duplicates: list[list[str]]
    label_conflicts: list[tuple[str, str]]
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether a search would take this data as it is."""
        return all(problem.severity is not Severity.ERROR for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with ``ok`` beside them."""
        lists = {key: [problem.to_json() for problem in getattr(self, key)] for key in ("corrupt", "problems")}
        pairs = [list(pair) for pair in self.label_conflicts]
        return {**asdict(self), **lists, "label_conflicts": pairs, "ok": self.ok}

    def table(self) -> RenderableType:
        """The report for a terminal."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        facts = Table(title=escape(self.path), show_header=False, title_justify="left")
        facts.add_row("images", f"{self.images:,}")
        for side, found in (("width", self.width), ("height", self.height)):
            if found is not None:
                facts.add_row(f"{side}, pixels", f"{found.least} to {found.most}, median {found.median}")
        facts.add_row("modes", ", ".join(f"{mode} ({count})" for mode, count in self.modes.items()) or "none")
        facts.add_row("damaged files", str(len(self.corrupt)))
        facts.add_row("duplicates", f"{_extra(self.exact_duplicates)} exact, {_extra(self.near_duplicates)} near")
        classes = Table("class", "images", "", title="classes", title_justify="left")
        top = max(self.counts.values(), default=1)
        for name, count in self.counts.items():
            classes.add_row(escape(name), str(count), "█" * max(1, round(20 * count / top)))
        problems = Table("", "where", "what", title="problems", title_justify="left")
        problems.columns[1].overflow = "fold"
        if len(self.problems) > _SHOWN:
            problems.caption = f"and {len(self.problems) - _SHOWN} more; the JSON form has all"
        for problem in self.problems[:_SHOWN]:
            grade = f"[{_COLOURS[problem.severity]}]{problem.severity.value}[/]"
            problems.add_row(grade, escape(problem.where), escape(problem.message))
        closing = [problems] if self.problems else ["no problems found"]
        return Group(facts, *([classes] if self.counts else []), *closing)


def check(path: str | os.PathLike[str], *, filesystem: Any = None) -> CheckReport:
    """Look at every image under a path, labelled or not, and say what is there and what is wrong.

    path, filesystem: as for :func:`raytl.tasks.readers.read_labelled`.
    Raises UserError where there is nothing to look at; damaged images are reported, even where all are.
    """
    listing = list_path(path, filesystem)
    if not listing.entries:
        raise UserError(f"{listing.name}: no images found; give a folder, Parquet or CSV file with images")
    entries, items, facts, corrupt = decode_all(listing)
    if not items and not corrupt:
        raise UserError(f"{listing.name}: no images found; give JPEG, PNG, WebP, BMP, TIFF or GIF files")
    if listing.labelled:
        note_strays(listing)
    names, digests = [item.name for item in items], [item.digest for item in items]
    found = [entry.label for entry in entries]
    counts = dict(sorted(Counter(label for label in found if label is not None).items()))
    lost = {entry.label for entry in listing.entries if entry.label is not None and entry.certain} - set(counts)

    exact = exact_groups(digests)
    conflicts: list[tuple[str, str]] = []
    if listing.labelled:
        numbers = np.array([list(counts).index(label) if label is not None else -1 for label in found], dtype=np.int64)
        conflicts = [(names[first], names[other]) for first, other in label_conflicts(digests, numbers)]
    problems = [
        *_judge_classes(listing.name, counts, lost, listing.labelled),
        *_judge_images(listing.name, len(items)),
        *listing.problems,  # before what there may be hundreds of
        *(
            Problem(Severity.WARNING, other, f"the same image as {first}, under another label")
            for first, other in conflicts
        ),
    ]
    order = list(Severity)
    return CheckReport(
        path=listing.name,
        images=len(items),
        counts=counts,
        width=_range([fact.width for fact in facts]),
        height=_range([fact.height for fact in facts]),
        modes=dict(Counter(fact.mode for fact in facts).most_common()),
        greyscale=bool(facts) and all(fact.greyscale for fact in facts),
        corrupt=corrupt,
        exact_duplicates=[[names[i] for i in group] for group in several(exact)],
        near_duplicates=_near(names, facts, exact),
        label_conflicts=conflicts,
        problems=sorted(problems, key=lambda problem: order.index(problem.severity)),
    )


def _judge_images(where: str, images: int) -> list[Problem]:
    return [] if images else [Problem(Severity.ERROR, where, "no image can be read; replace the files")]


def _judge_classes(where: str, counts: dict[str, int], lost: set[str], labelled: bool) -> list[Problem]:
    if not labelled:
        return []
    problems = [
        Problem(Severity.WARNING, where, f"class '{name}' has no image that can be read; the class is left out")
        for name in sorted(lost)
    ]
    if len(counts) == 1:
        only = next(iter(counts))
        problems.append(Problem(Severity.ERROR, where, f"only one class, '{only}'; a classifier needs at least two"))
    for name, count in counts.items():
        if count == 1:
            what = f"class '{name}' has 1 image; a validation split needs 2, unless there is a source domain"
            problems.append(Problem(Severity.ERROR, where, what))
        elif count < _TEST_NEEDS:
            what = f"class '{name}' has {count} images, too few to spare any for a test"
            problems.append(Problem(Severity.WARNING, where, what))
    if counts and max(counts.values()) >= _IMBALANCE * min(counts.values()):
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        what = (
            f"class '{most}' has {counts[most]} images, '{least}' {counts[least]}; accuracy will hide the small class"
        )
        problems.append(Problem(Severity.WARNING, where, what))
    return problems


def _near(names: Sequence[str], facts: Sequence[Facts], exact: np.ndarray) -> list[list[str]]:
    """Groups of images that look alike, one name for each set of exact duplicates."""
    _, firsts = np.unique(exact, return_index=True)
    pairs = near_pairs([facts[i] for i in firsts])
    return [[names[firsts[i]] for i in group] for group in several(components(len(firsts), pairs))]


def _range(values: Sequence[int]) -> Range | None:
    return Range(min(values), int(np.median(values)), max(values)) if values else None


def _extra(groups: Sequence[Sequence[str]]) -> int:
    return sum(len(group) - 1 for group in groups)
