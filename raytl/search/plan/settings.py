"""What a plan is told, and what it asks of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raytl.search.jobs import Survey
from raytl.search.plan.time_budget import yardstick_seconds
from raytl.search.propose.effort import Passes
from raytl.search.propose.recipes import Control
from raytl.training.strategy import Strategy


class Recipe(Protocol):
    """The strategies that a search has whatever is proposed besides (:class:`raytl.search.propose.recipes.Recipes`)."""

    def probes(self, survey: Survey) -> dict[str, list[Strategy]]:
        """Convex heads by source model."""

    def baselines(self, order: Sequence[str], survey: Survey) -> dict[str, Strategy]:
        """Baselines by name. order: of the source models, the most promising first."""

    def classical(self, order: Sequence[str], survey: Survey) -> dict[str, Strategy]:
        """Baselines by name that are among the probes."""

    def joined(self, survey: Survey, order: Sequence[str]) -> list[Strategy]:
        """Strategies that tell the source domains apart."""

    def controls(self, winner: Strategy, order: Sequence[str], survey: Survey) -> list[Control]:
        """The winner with one part taken out at a time."""


@dataclass(frozen=True)
class PlanSettings:
    """How much to search.

    trials: of the search phase. folds: validation folds there are. lanes: jobs at a time. time_budget_s: for all phases
    together, None for no limit; apart_s: of what the user gave, what goes into all that is no phase. patience: trials
    without a better one, min_gain: expected gain of another trial, at which to stop searching before that. tested:
    whether there is a test split, of so many test_images, that baselines and controls will be compared on. refits: of
    the winner, one after the other. shipped_images: that the last of them learns from after the test, all of which pass
    its network anew. surveys: whether there are domains or unlabelled images to look at first.
    folds_once: how many of the folds ask all images once, as those after them do again: on so many the winner is held
    against its controls where there is no test split. directory: where refits go. passes: of an image through its
    network, that a full training of a strategy comes to; pretrain_s: seconds that making a source model may take.
    squashed: of a source model, the same with all of an image in view,
    where it is shown but the middle. larger: the same at more pixels than the space asks for, and how many times as
    many these are; most first. closer: at more pixels than it was made for, and on pieces of the images as they are;
    fewest first. head_augmentations: policies by which heads may learn from views too. trains: whether networks are, to
    see if they do better. few: whether there are so few labelled images that heads are solved for on the CPU wherever
    they are. judged: whether there are unlabelled images of which a yardstick tells how often the winner is right.
    """

    trials: int
    folds: int
    lanes: int
    epochs: int
    directory: Path
    time_budget_s: float | None = None
    apart_s: float = 0.0
    tested: bool = True
    test_images: int = 0
    shipped_images: int = 0
    refits: int = 1
    patience: int | None = None
    min_gain: float | None = None
    surveys: bool = False
    folds_once: int = 3
    passes: Callable[[Strategy, float | None], Passes] = lambda strategy, frozen: Passes(0.0, 0.0)
    pretrain_s: float = 0.0
    squashed: Callable[[str], str | None] = lambda uri: None
    larger: Callable[[str], Sequence[tuple[str, float]]] = lambda uri: ()
    closer: Callable[[str], Sequence[tuple[str, float]]] = lambda uri: ()
    head_augmentations: Sequence[str] = ()
    trains: bool = True
    few: bool = True
    judged: bool = False

    def has_sizes(self, uri: str) -> bool:
        """Whether a source model may see images in another way than the space asks for."""
        return self.squashed(uri) is not None or bool(self.larger(uri) or self.closer(uri))

    @property
    def first_fold(self) -> int | None:
        """The fold that strategies are tried on before others; None where there are none."""
        return 0 if self.folds else None

    @property
    def yardstick_s(self) -> float:
        """Seconds of the time budget that are kept for the winner's yardstick."""
        return yardstick_seconds(self.time_budget_s, judged=self.judged)


class Wait:
    """No job now; ask again when another one has ended."""
