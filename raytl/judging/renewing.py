"""A yardstick for a model whose head was fitted anew, from what was kept of its labelled images."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.second_opinions import OPINIONS, SecondOpinions
from raytl.judging.health import LEAST_IMAGES, MOST_ASKED, Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.tasks.splits import folds, spread

_FOLDS = 5


def renewed_yardstick(
    yardstick: Yardstick, kept: KeptFeatures, probabilities: np.ndarray, chosen: np.ndarray
) -> Yardstick | None:
    """What is known of the model now; None where too few images were judged by a head that did not know them.

    kept: n images, of the target domain. probabilities: (n, k), calibrated, out of fold, rows of NaN for images that
    were in every training part; chosen: (n,) predicted classes. How far an estimate may be off under changes is taken
    over: the images themselves, which would have to be changed, are not kept.
    """
    told = np.full((len(kept), OPINIONS), np.nan)
    classes = probabilities.shape[1]
    judged = np.isfinite(probabilities[:, 0])
    for training, validation in folds(kept.labels, kept.groups, _FOLDS, 1, 0):
        rows = validation[judged[validation]]
        if len(rows):
            known = spread(training, MOST_ASKED)
            asked = SecondOpinions(kept.thumbnails[known], kept.statistics[known], kept.labels[known], classes)
            told[rows] = asked.about(probabilities[rows], chosen[rows], kept.thumbnails[rows], kept.statistics[rows])
    seen = np.flatnonzero(np.isfinite(told[:, 0]))
    if len(seen) < LEAST_IMAGES:
        return None
    most = spread(np.arange(len(kept)), MOST_ASKED)
    return Yardstick(
        probabilities=probabilities[seen],
        chosen=chosen[seen],
        labels=kept.labels[seen],
        opinions=told[seen],
        statistics=kept.statistics[seen],
        thumbnails=kept.thumbnails[most],
        thumbnail_statistics=kept.statistics[most],
        thumbnail_labels=kept.labels[most],
        correctness=yardstick.correctness.renewed(told[seen], chosen[seen] == kept.labels[seen], chosen[seen]),
    )
