"""What an estimate was off by under changes of images that opinions lie much alike under.

What opinions are worth is learned from all changes at once, and under some it is more and under others less: of
mirrored digits all who are asked agree on wrong ones. Where the opinions of images lie as they did under a change whose
outcome is known, what was missed there is a better guess than nothing. It is a Gaussian process over where they lie, in
log-odds of being right, learned by Laplace's method (Rasmussen & Williams, 2006, algorithm 3.1). It knows that of
unchanged images nothing was missed, and far from all changes it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_NEARBY = 8
"""Images of a change whose opinions are taken to lie somewhere."""
MISSED = 0.4
"""Log-odds that a change is off by (standard deviation). With this and the next, what was missed beyond chance under
made changes that were left out fell by a ninth on average, and on each of six kinds of task; with half of this by half
as much, with half of the next by three quarters of it."""
REACH = 0.5
"""How far opinions move, in standard deviations of theirs, until what one change missed tells a third of another's."""
_OWN = 0.02
"""Variance of what a change misses and one that lies just there does not."""


@dataclass(frozen=True)
class Nearby:
    """What to add to the log-odds of images by where their opinions lie.

    places: (g, 2 d) of changes, the last of unchanged images; pulls: (g,), what each adds to the log-odds at its place.
    """

    places: np.ndarray
    pulls: np.ndarray

    @classmethod
    def nothing(cls, opinions: int) -> Nearby:
        """Of no change is anything known. opinions: d."""
        return cls(np.empty((0, 2 * opinions)), np.empty(0))

    def correction(self, opinions: np.ndarray) -> float:
        """Log-odds to be added to all of these images. opinions: (m, d), standardised, m >= 1."""
        return float(_kernel(place(opinions)[None], self.places)[0] @ self.pulls)


def place(opinions: np.ndarray) -> np.ndarray:
    """Where opinions (n, d) lie, (2 d,): their means and standard deviations."""
    return np.concatenate([opinions.mean(axis=0), opinions.std(axis=0)])


def fit_nearby(unchanged: np.ndarray, changes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Nearby:
    """Learn what is missed.

    unchanged: opinions of unchanged images, (n, d), standardised; changes: of each its opinions (m, d), what is said
    of them, in log-odds (m,), and which are right, bool (m,).
    """
    if not changes:
        return Nearby.nothing(unchanged.shape[1])
    home = place(unchanged)
    places = np.array([place(opinions) for opinions, _, _ in changes])
    said = np.concatenate([log_odds for _, log_odds, _ in changes])
    right = np.concatenate([one for _, _, one in changes])
    group = np.repeat(np.arange(len(changes)), [len(one) for _, _, one in changes])
    # Nothing is missed at home: what is known there is taken out of the covariance.
    from_home = _kernel(places, home[None])[:, 0]
    covariance = _kernel(places, places) - np.outer(from_home, from_home) / MISSED**2 + _OWN * np.eye(len(places))
    missed = np.zeros(len(places))
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(said + missed[group], -30, 30)))
        slope = np.bincount(group, right - p, len(places))
        curve = np.sqrt(np.maximum(np.bincount(group, p * (1 - p), len(places)), 1e-9))
        wanted = curve**2 * missed + slope
        inner = np.eye(len(places)) + curve[:, None] * covariance * curve[None, :]
        pulls = wanted - curve * np.linalg.solve(inner, curve * (covariance @ wanted))
        step = np.clip(covariance @ pulls - missed, -1, 1)
        missed = missed + step
        if np.abs(step).max() < 1e-6:
            break
    return Nearby(np.concatenate([places, home[None]]), np.append(pulls, -(from_home @ pulls) / MISSED**2))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Covariance of what is missed at places (m, p) and (n, p), (m, n)."""
    apart = np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).mean(axis=2))
    return np.asarray(MISSED**2 * np.exp(-apart / REACH))
