"""What ``raytl check`` found, as values, as JSON and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raytl.tasks.problems import Problem, Severity

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 30  # problems in the table
_SHOWN_CLASSES = 40
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


@dataclass(frozen=True)
class Range:
    """Smallest, median and largest of a number of pixels."""

    least: int
    median: int
    most: int


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong.

    name: of the image. label: what it has, fits: what fits better. probability: of that, by a model that did not see
    the image.
    """

    name: str
    label: str
    fits: str
    probability: float


@dataclass(frozen=True)
class CheckReport:
    """What :func:`raytl.tasks.checks.check` found.

    layout: what the path was taken for. splits: readable images per split that the data has of itself.
    counts: readable images per class, empty for unlabelled data. width, height: in pixels, None without any image.
    modes: images per Pillow mode. corrupt: files that do not decode, each with its reason.
    exact_duplicates, near_duplicates: names of images that are the same bytes, or look the same (not both).
    label_conflicts: pairs of names of the same image under two labels. lookalike_conflicts: likewise of one picture
        that is not the same bytes, beyond reasonable doubt.
    problems: everything worth saying, the gravest first. suspects: labels that are likely wrong, the surest first;
    None where nobody looked for them.
    """

    path: str
    layout: str
    splits: dict[str, int]
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
    lookalike_conflicts: list[tuple[str, str]]
    problems: list[Problem]
    suspects: list[Suspect] | None = None

    @property
    def ok(self) -> bool:
        """Whether a search would take this data as it is."""
        return all(problem.severity is not Severity.ERROR for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with ``ok`` beside them."""
        lists = {key: [problem.to_json() for problem in getattr(self, key)] for key in ("corrupt", "problems")}
        conflicts = ("label_conflicts", "lookalike_conflicts")
        pairs = {key: [list(pair) for pair in getattr(self, key)] for key in conflicts}
        return {**asdict(self), **lists, **pairs, "ok": self.ok}

    def table(self) -> RenderableType:
        """The report for a terminal."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        facts = Table(title=escape(self.path), show_header=False, title_justify="left")
        facts.add_row("layout", escape(self.layout))
        facts.add_row("images", f"{self.images:,}")
        if self.splits:
            facts.add_row("splits", ", ".join(f"{name} ({count})" for name, count in self.splits.items()))
        for side, found in (("width", self.width), ("height", self.height)):
            if found is not None:
                facts.add_row(f"{side}, pixels", f"{found.least} to {found.most}, median {found.median}")
        facts.add_row("modes", ", ".join(f"{mode} ({count})" for mode, count in self.modes.items()) or "none")
        facts.add_row("damaged files", str(len(self.corrupt)))
        facts.add_row("duplicates", f"{_extra(self.exact_duplicates)} exact, {_extra(self.near_duplicates)} near")
        classes = Table("class", "images", "", title="classes", title_justify="left")
        top = max(self.counts.values(), default=1)
        if len(self.counts) > _SHOWN_CLASSES:
            classes.caption = f"and {len(self.counts) - _SHOWN_CLASSES} more; the JSON form has all"
        for name, count in list(self.counts.items())[:_SHOWN_CLASSES]:
            classes.add_row(escape(name), str(count), "█" * max(1, round(20 * count / top)))
        problems = Table("", "where", "what", title="problems", title_justify="left")
        for column in (*facts.columns, *classes.columns, *problems.columns):
            column.overflow = "fold"  # or names of files would be cut
        if len(self.problems) > _SHOWN:
            problems.caption = f"and {len(self.problems) - _SHOWN} more; the JSON form has all"
        for problem in self.problems[:_SHOWN]:
            grade = f"[{_COLOURS[problem.severity]}]{problem.severity.value}[/]"
            problems.add_row(grade, escape(problem.where), escape(problem.message))
        closing = [problems] if self.problems else ["no problems found"]
        return Group(facts, *([classes] if self.counts else []), *closing)


def gravest_first(problems: Iterable[Problem]) -> list[Problem]:
    """Errors before warnings, and what something was taken for before other things as grave."""
    order = list(Severity)
    return sorted(problems, key=lambda problem: (order.index(problem.severity), not problem.leading))


def range_of(values: Sequence[int]) -> Range | None:
    """Smallest, median and largest, None of nothing."""
    return Range(min(values), int(np.median(values)), max(values)) if values else None


def _extra(groups: Sequence[Sequence[str]]) -> int:
    return sum(len(group) - 1 for group in groups)
