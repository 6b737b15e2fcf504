"""What strategies said of the labelled target images, by trials that did not train on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raytl.evaluation.calibration import (
    LEAST_CALIBRATING,
    apply_temperature,
    cross_temperatures,
    fit_temperature,
    telling_rows,
)
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
        # Likewise, as they said it and as sure as they should be; what was asked for last is the last.
        self._kept: dict[tuple[bool, tuple[int, ...]], np.ndarray] = {}

    def out_of_fold(self, key: str, folds: set[int] | None = None) -> np.ndarray | None:
        """Probabilities (n, k) of the labelled target images by trials that did not train on them; repeats averaged.

        Rows of NaN for images that no trial was asked; None where nothing was validated. folds: only these. Read-only.
        """
        return self._averaged(self._asked(key, folds), tempered=False)

    def _averaged(self, records: Sequence[TrialRecord], *, tempered: bool) -> np.ndarray | None:
        if self.labels is None or not records:
            return None
        # Asked for several times a job: of thousands of images it would take longer each time than a head takes.
        of = (tempered, tuple(record.number for record in records))
        found = self._kept.pop(of, None)
        if found is None:
            index, said = _each(records)
            said = self._tempered(index, said, of[1]) if tempered else said
            found = average_repeats([index], [said], len(self.labels.labels))
            found.setflags(write=False)
        self._kept[of] = found
        while len(self._kept) > max(_LEAST_KEPT, _KEPT_BYTES // max(1, found.nbytes)):
            self._kept.pop(next(iter(self._kept)))
        return found

    def _asked(self, key: str, folds: set[int] | None) -> list[TrialRecord]:
        """A strategy's completed trials that were asked of labelled images."""
        return [r for r in self._completed(key) if len(r.predicted) and (folds is None or r.fold in folds)]

    def judged(self, key: str, folds: set[int] | None = None) -> np.ndarray | None:
        """The same as the metric is to see it: as sure as the strategy's model will be, where it goes by that.

        A model is left behind at one temperature, which is not known before the end; each image has that of the others.
        """
        labels = self.labels
        by_certainty = labels is not None and labels.metric.goes_by_certainty(labels.classes)
        return self._averaged(self._asked(key, folds), tempered=by_certainty)

    def _tempered(self, index: np.ndarray, said: np.ndarray, of: tuple[int, ...]) -> np.ndarray:
        """What each of the trials said of the images, (r,) and (r, k), as sure as it should be."""
        assert self.labels is not None
        if of not in self._temperatures:
            groups = index if self.labels.groups is None else self.labels.groups[index]
            labels, times = self.labels.labels[index], len(index) / len(np.unique(index))
            self._temperatures[of] = cross_temperatures(said, labels, groups, times=times)
        return apply_temperature(said, self._temperatures[of])

    def each(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """What each trial by itself said: images (r,), as often as they were validated, and probabilities (r, k).

        None where nothing was validated.
        """
        records = self._asked(key, None)
        if self.labels is None or not records:
            return None
        return _each(records)

    def temperature(self, key: str) -> float | None:
        """By which a strategy's logits are to be divided, by all images that were asked of it; None of too few.

        One model is left behind, and repeats are several: their mean is less sure than it is, and more often right.
        """
        each = self.each(key)
        if each is None or self.labels is None:
            return None
        index, said = each
        images = len(np.unique(index))
        if images < LEAST_CALIBRATING:
            return None
        some = telling_rows(*said.shape)
        logits = np.log(np.clip(said[some], 1e-7, 1))
        return fit_temperature(logits, self.labels.labels[index[some]], pull=len(index) / images)


def _each(records: Sequence[TrialRecord]) -> tuple[np.ndarray, np.ndarray]:
    """The images that trials were asked, as often as they were, and what each said of them: (r,) and (r, k)."""
    return (
        np.concatenate([np.asarray(record.validated, dtype=np.int64) for record in records]),
        np.concatenate([np.asarray(record.predicted, dtype=np.float64) for record in records]),
    )
