"""One class against the rest: what is counted, by the definition, and how much is looked at for it."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.metrics.ranking import Ranking

N, WEIGHTINGS = 60, 5


def ranked(seed: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, which items are of the class, and weights (n, b), some of them zero."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, N) / 12, rng.random(N) < share, rng.integers(0, 4, (N, WEIGHTINGS)).astype(float)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_areas_and_precisions_are_those_of_the_pairs(seed: int, share: float) -> None:
    score, mine, weights = ranked(seed, share)
    ranking = Ranking.of(score, mine)
    above = (score[:, None] > score) + (score[:, None] == score) / 2
    for found, precision, w in zip(ranking.areas(weights), ranking.precisions(weights), weights.T, strict=True):
        own, rest = w * mine, w * ~mine
        pairs = own.sum() * rest.sum()
        assert found == pytest.approx(own @ above @ rest / pairs if pairs else np.nan, nan_ok=True)
        reached = [own[score >= s].sum() / max(w[score >= s].sum(), 1e-9) for s in score]
        expected = own @ reached / own.sum() if own.sum() else np.nan
        assert precision == pytest.approx(expected, nan_ok=True)


def test_what_comes_behind_the_class_is_not_added_up() -> None:
    """Of hundreds of classes each has few items, mostly in front: all others in every resample would take minutes."""
    score, mine, weights = np.linspace(1, 0, N), np.arange(N) < 3, np.ones((N, WEIGHTINGS))
    weights[3:] = np.nan
    assert np.isfinite(Ranking.of(score, mine).precisions(weights)).all()
