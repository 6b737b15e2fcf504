"""How well a probe tells two sets of images apart, whatever classes they are of."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.probes import fit_logistic

_STRENGTHS = (1e-2, 1e-1)


def told_apart(one: np.ndarray, other: np.ndarray, kinds: tuple[np.ndarray, np.ndarray], *, seed: int = 0) -> float:
    """How often logistic regression that saw neither tells which of two images is of the other set (AUC), in [0, 1].

    one, other: features (n, d) and (m, d). kinds: (n,) and (m,), the classes that a head names them: only pairs of one
    are asked, so that other frequencies of the classes alone set nothing apart. 0.5 where there are no such pairs.
    """
    rows, other_set = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
    said = fit_logistic(rows, other_set, 2, strengths=_STRENGTHS, class_balanced=True, seed=seed).out_of_fold[:, 1]
    kind = np.concatenate(kinds)
    right = pairs = 0.0
    for value in np.unique(kind):
        mine, theirs = (said[(kind == value) & (other_set == which) & np.isfinite(said)] for which in (0, 1))
        gap = theirs[:, None] - mine[None]
        right += float((gap > 0).sum() + 0.5 * (gap == 0).sum())
        pairs += gap.size
    return right / pairs if pairs else 0.5
