"""Whether images that are said to be of one thing look more alike than others of their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raytl.tasks.survey import Facts

_CELLS = 4
"""A side of the thumbnail as it is compared: crops and turns of a thing share colours and contrast more than places."""
MOST_LOOKED_AT = 1000
_LEAST_TOLD = 0.5
"""Of the way from what chance does to certainty: how much more often the nearest image is of the same thing."""
_DOUBT = 0.001
"""That so many would be by chance, at most."""


def look_alike(
    groups: np.ndarray, labels: np.ndarray, shared: np.ndarray, facts: Sequence[Facts], of: np.ndarray | None = None
) -> np.ndarray:
    """Whether the image nearest to one, of all of its class, is of the same group far more often than by chance.

    groups, labels: int (n,). shared: bool (n,), the images that are asked, a thousand at most. of: int (n,), of which
    sort each is, to tell of each on its own; one sort by default. Returns bool, one for each sort among those asked, in
    order of their numbers; False where no class has an image of another group.
    """
    looks, asked = appearances(facts), np.flatnonzero(shared)
    sorts = np.zeros(len(labels), dtype=np.int64) if of is None else of

    def told(rows: np.ndarray, most: int) -> bool:
        hits, chances = 0, []
        for index in rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]:
            others = np.flatnonzero(labels == labels[index])
            others = others[others != index]
            mates = groups[others] == groups[index]
            if mates.all():
                continue
            nearest = np.square(looks[others] - looks[index]).sum(axis=1).argmin()
            hits += bool(mates[nearest])
            chances.append(mates.mean())
        return _no_chance(hits, chances)

    kinds = np.unique(sorts[asked])
    return np.array([told(asked[sorts[asked] == kind], MOST_LOOKED_AT // len(kinds)) for kind in kinds], dtype=bool)


def _no_chance(hits: int, chances: Sequence[float]) -> bool:
    """Whether so many hits are far more than chances, one for each image that was asked, give."""
    from scipy.special import bdtrc

    if not chances:
        return False
    chance, share = float(np.mean(chances)), hits / len(chances)
    by_chance = float(bdtrc(hits - 1, len(chances), chance)) if hits else 1.0
    return (share - chance) / (1 - chance) >= _LEAST_TOLD and by_chance <= _DOUBT


def appearances(facts: Sequence[Facts]) -> np.ndarray:
    """float64 (n, d): colour, contrast and a coarse thumbnail, each in standard deviations."""
    thumbnails = np.stack([fact.thumbnail for fact in facts]).astype(np.float64)
    side = thumbnails.shape[1] // _CELLS
    coarse = thumbnails.reshape(len(facts), _CELLS, side, _CELLS, side).mean(axis=(2, 4)).reshape(len(facts), -1)
    colours = np.array([fact.colour for fact in facts])
    columns = np.column_stack([colours, thumbnails.std(axis=(1, 2)), coarse])
    weights = np.concatenate([np.ones(4), np.full(_CELLS**2, 1 / _CELLS)])
    spread = columns.std(axis=0)
    looks: np.ndarray = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0) * weights
    return looks
