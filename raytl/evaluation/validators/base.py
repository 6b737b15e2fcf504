"""What a validator is: a function of a trained model's outputs, and a statement of what it looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np

from raytl.core.errors import cause
from raytl.core.plugins import warn_left_out
from raytl.core.registry import Registry
from raytl.evaluation.selection import MADE_OF


class Touch(StrEnum):
    """What a validator looks at, so that a setting can refuse what it must not see."""

    TARGET_LABELS = "target_labels"
    SOURCE_LABELS = "source_labels"
    UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Outputs:
    """A model's outputs in evaluation mode, as far as the setting has them.

    target_*: the validation fold of the labelled target images; source_*: held-out images of the source domain;
    unlabelled_*: unlabelled target images; unlabelled_moved_probabilities: of slightly moved versions of them.
    class_frequencies: of the unlabelled target, where they are known or reliably estimated; None is unknown, not even.
    probabilities: float (n, k); labels: int64 (n,); features: float (n, d); frequencies: float (k,), not all 0.
    """

    target_probabilities: np.ndarray | None = None
    target_labels: np.ndarray | None = None
    source_probabilities: np.ndarray | None = None
    source_labels: np.ndarray | None = None
    unlabelled_probabilities: np.ndarray | None = None
    unlabelled_features: np.ndarray | None = None
    unlabelled_moved_probabilities: np.ndarray | None = None
    class_frequencies: np.ndarray | None = None


_FIELDS = tuple(spec.name for spec in fields(Outputs))
Score = Callable[..., float]


@dataclass(frozen=True)
class ValidatorEntry:
    """A registered validator.

    function: takes the arrays named by ``inputs`` in that order, returns a finite number, higher is better.
    inputs: fields of :class:`Outputs`.
    every_epoch: whether it is worth its time after every epoch; others are computed after the last one.
    """

    name: str
    function: Score
    inputs: tuple[str, ...]
    every_epoch: bool = False

    @property
    def touches(self) -> frozenset[str]:
        """Which of :class:`Touch` the inputs amount to."""
        return frozenset(touch.value for touch in Touch if any(name.startswith(touch.value) for name in self.inputs))

    def applies(self, outputs: Outputs) -> bool:
        """Whether every input is there and none is empty."""
        arrays = [getattr(outputs, name) for name in self.inputs]
        return all(array is not None and len(array) > 0 for array in arrays)

    def score(self, outputs: Outputs) -> float:
        """The score. Call only where :meth:`applies`."""
        return float(self.function(*(getattr(outputs, name) for name in self.inputs)))


registry: Registry[ValidatorEntry] = Registry("validator", "raytl.evaluation.validators")
_TOLD: set[str] = set()
"""Validators of which this process has said that they raise."""


def validator(name: str, *inputs: str, every_epoch: bool = False) -> Callable[[Score], Score]:
    """Decorator that registers a function of the given :class:`Outputs` fields under ``name``.

    Every trial is measured by it from then on, as far as the task has the inputs: after the last epoch, and after every
    other one too where ``every_epoch``, which is for what takes a millisecond and is needed to tell who falls behind.
    """
    unknown = set(inputs) - set(_FIELDS)
    if unknown or not inputs:
        raise ValueError(f"validator '{name}': inputs must be among {', '.join(_FIELDS)}")

    def register(function: Score) -> Score:
        registry.add(name, ValidatorEntry(name, function, inputs, every_epoch))
        return function

    return register


def names() -> list[str]:
    """The registered validators."""
    return registry.names()


def get(name: str) -> ValidatorEntry:
    """The entry for ``name``. Raises UserError that names the nearest known validator."""
    return registry.get(name)


def score_all(outputs: Outputs, *, last: bool = True) -> dict[str, float]:
    """Every registered validator whose inputs are all there, by name.

    last: whether this is after the last epoch; before it only those that are worth computing every epoch.
    One that raises is left out, and a warning says so once in this process; one that the selection score is made of
    raises here, too.
    """
    entries = [entry for entry in map(get, names()) if last or entry.every_epoch]
    found: dict[str, float] = {}
    for entry in entries:
        if not entry.applies(outputs):
            continue
        try:
            found[entry.name] = entry.score(outputs)
        # Whatever somebody's function may raise: for a figure that decides nothing no trial is to fail.
        except Exception as error:
            if entry.name in MADE_OF:
                raise
            _tell(entry.name, error)
    return found


def _tell(name: str, error: Exception) -> None:
    if name in _TOLD:
        return
    _TOLD.add(name)
    owner = registry.brought_by(name)
    whose = f" of {owner}" if owner is not None else ""
    warn_left_out(f"validator '{name}'{whose} where it raises, as it did now ({type(error).__name__}: {cause(error)})")
