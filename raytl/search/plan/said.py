"""What strategies said of the labelled target images, by trials that did not train on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raytl.evaluation.calibration import LEAST_CALIBRATING, apply_temperature, cross_temperatures, fit_temperature
from raytl.evaluation.intervals import average_repeats
from raytl.evaluation.metrics import Metric
from raytl.search.records import TrialRecord

_KEPT_BYTES, _LEAST_KEPT = 2**28, 4
"""Of what was said of the images, as much is kept at hand, and of so many strategies at least."""


@dataclass(frozen=True)
class Labels:
    """What strategies are judged by: the target's labels (n,), their groups (n,) or None, and the metric."""

    labels: np.ndarray
    groups: np.ndarray | None
    classes: int
    metric: Metric

    def groups_of(self, mask: np.ndarray) -> np.ndarray | None:
        """The groups of some images; mask: bool (n,)."""
        return None if self.groups is None else self.groups[mask]


class Said:
    """Of each strategy, by its key.

    labels: None where there are none, and then nothing was asked. completed: of a strategy, its completed trials.
    """

    def __init__(self, labels: Labels | None, completed: Callable[[str], list[TrialRecord]]) -> None:
        self.labels = labels
        self._completed = completed
        self._temperatures: dict[tuple[int, ...], np.ndarray] = {}  # of each image, by the trials that were asked
        self._kept: dict[tuple[int, ...], np.ndarray] = {}  # likewise, what was asked for last being the last

    def out_of_fold(self, key: str, folds: set[int] | None = None) -> np.ndarray | None:
        """Probabilities (n, k) of the labelled target images by trials that did not train on them; repeats averaged.

        Rows of NaN for images that no trial was asked; None where nothing was validated. folds: only these. Read-only.
        """
        records = self._asked(key, folds)
        if self.labels is None or not records:
            return None
        # Asked for several times a job: of thousands of images it would take longer each time than a head takes.
        of = tuple(record.number for record in records)
        said = self._kept.pop(of, None)
        if said is None:
            said = average_repeats(
                [np.asarray(record.validated, dtype=np.int64) for record in records],
                [np.asarray(record.predicted, dtype=np.float64) for record in records],
                len(self.labels.labels),
            )
            said.setflags(write=False)
        self._kept[of] = said
        while len(self._kept) > max(_LEAST_KEPT, _KEPT_BYTES // max(1, said.nbytes)):
            self._kept.pop(next(iter(self._kept)))
        return said

    def _asked(self, key: str, folds: set[int] | None) -> list[TrialRecord]:
        """A strategy's completed trials that were asked of labelled images."""
        return [r for r in self._completed(key) if len(r.predicted) and (folds is None or r.fold in folds)]

    def judged(self, key: str, folds: set[int] | None = None) -> np.ndarray | None:
        """The same as the metric is to see it: as sure as the strategy's model will be, where it goes by that.

        A model is left behind at one temperature, which is not known before the end; each image has that of the others.
        """
        said = self.out_of_fold(key, folds)
        if said is None or self.labels is None or not self.labels.metric.goes_by_certainty(self.labels.classes):
            return said
        of = tuple(record.number for record in self._asked(key, folds))
        if of not in self._temperatures:
            self._temperatures[of] = cross_temperatures(said, self.labels.labels, self.labels.groups)
        return apply_temperature(said, self._temperatures[of])

    def temperature(self, key: str) -> float | None:
        """By which a strategy's logits are to be divided, by all images that were asked of it; None of too few."""
        said = self.out_of_fold(key)
        if said is None or self.labels is None:
            return None
        known = ~np.isnan(said[:, 0])
        if known.sum() < LEAST_CALIBRATING:
            return None
        return fit_temperature(np.log(np.clip(said[known], 1e-7, 1)), self.labels.labels[known])
