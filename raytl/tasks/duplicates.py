"""Duplicates: the same pixels twice, and near-duplicates such as a recompressed or rescaled copy.

Two copies of one picture on two sides of a split make a validation score worthless, so within a role whatever may be a
copy becomes one group: a false alarm costs nothing there. Between roles copies are left out, so there only what can
hardly be chance counts. That goes for copies that were mirrored, turned or framed in one colour anyhow, within a role
too: what is told apart may be just that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from raytl.tasks.survey import THUMBNAIL, Facts

# Measured on load_digits, whose 1,797 8x8 images are as alike as different pictures get: the closest two have
# a largest difference of 0.44 standard deviations. Copies of photographs recompressed by JPEG at quality 40, halved,
# doubled or darkened by a fifth stay below 0.22, and their correlation above 0.994.
_CORRELATION = 0.994
_LARGEST_DIFFERENCE = 0.3
_FLAT = 4.0  # grey levels of standard deviation below which a thumbnail says nothing about the picture

# Between roles. Simple pictures are alike by chance: each of 300 flat icons of six shapes had such a pair among 300 of
# twice the size and other colours, and 159 of 600 smooth gradients one among 600 others. Icons, JPEG copies of them
# included, have at most 2.6 bits of grey levels, gradients at most 0.08 of their variance outside the lowest waves.
# With the limits below no icon and no gradient has one that is not the same to the pixel; nor has any image in 22 fonts
# of matplotlib one in another font (10,857 pairs of one character at 28 and 64 px, cropped or not; 15 without the
# limits), nor any digit of load_digits among the printed digits or letters of the demo, nor one half of 5,000 of MNIST
# in the other. What is left are pure sine waves, 50 of 600, and one of 600 with the noise of the demo.
# Of 20 photographs and their quarters 87 of 100 are found again after JPEG at quality 40, halved or doubled, and 98
# when made grey. Of their 401 tiles of 128 px 211 to 282: the rest is sky, night and paper. An object alone on plain
# white has enough detail where it fills half of the picture: 70 of 100 are found at 60 % of the area, 31 at 45 %, none
# at 30 %.
_DETAIL_BITS = 3.0  # entropy of a thumbnail's grey levels, in 32 steps from its darkest to its brightest
_DETAIL_SHARE = 0.1  # of the variance that is not in the lowest waves
# Of n frames of a fixed camera n² / 2 pairs are alike: what is held of them at once must not grow with their number.
_CANDIDATES = 1 << 18  # neighbours looked up at once
_PAIRS = 8192  # compared at once
_NAMED = 3  # pairs of two labels that are kept as examples


@dataclass
class AcrossLabels:
    """Pairs that are one picture beyond reasonable doubt and have two labels.

    images: bool (n,), which are in such a pair. counts: of pairs, by the two label numbers, the smaller first, in the
    order in which they were met. first: the first pairs.
    """

    images: np.ndarray
    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    first: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Alike:
    """Which of n images look the same; all numbers count from 0 in the order of their first image.

    within: for each part int64 (n,), equal for images that chains of images in the part join, each alike to the next.
    pictures: int64 (n,), likewise for pairs that are one picture beyond reasonable doubt.
    across: those pairs under two labels.
    """

    within: list[np.ndarray]
    pictures: np.ndarray
    across: AcrossLabels


def exact_groups(digests: Sequence[str]) -> np.ndarray:
    """Group numbers, int64 (n,): equal for equal digests."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], dtype=np.int64)


def find_alike(
    facts: Sequence[Facts],
    parts: Sequence[np.ndarray] | None = None,
    labels: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> Alike:
    """Images that look the same at 16x16 pixels.

    Brightness and contrast may differ; content may not: thumbnails correlate at 0.994 or more and, standardised, differ
    nowhere by more than 0.3. Nearly uniform images are like no other, and so are images of another aspect ratio (beyond
    5 %), which a square thumbnail would hide. Two are one picture beyond reasonable doubt where both have at least 16
    pixels a side and enough detail, and the same colour where neither is grey. Of such pairs the content may be framed
    in one colour, unless they are of two classes; or mirrored or turned by quarters, where both are of one class: a 6
    is no 9, nor an arrow to the left one to the right.

    parts: bool (n,) each, the images within which some are alike; by default one of all. labels: int (n,), -1 for none.
    classes: likewise, where they are of use to nothing but that; by default the labels.
    The memory taken grows with the number of images, not with that of pairs.
    """
    parts = [np.ones(len(facts), dtype=bool)] if parts is None else parts
    labels = np.full(len(facts), -1) if labels is None else labels
    classes = labels if classes is None else classes
    within, pictures = [_Joined(len(facts)) for _ in parts], _Joined(len(facts))
    across = AcrossLabels(np.zeros(len(facts), dtype=bool))
    thumbnails = np.stack([fact.thumbnail.ravel() for fact in facts]) if facts else np.zeros((0, 1), dtype=np.uint8)
    spread = thumbnails.astype(np.float32).std(axis=1)
    telling = np.flatnonzero(spread >= _FLAT)
    if len(telling) > 1:
        standard = _standardised(thumbnails[telling])
        aspect = np.log([fact.width / fact.height for fact in facts])
        likely = _Likely(facts)
        radius = np.sqrt(2 * standard.shape[1] * (1 - _CORRELATION))
        for a, b in _candidates(standard @ _low_frequencies().T, radius):
            i, j = telling[a], telling[b]
            sure = likely(i, j)
            crossing = sure & (labels[i] != labels[j]) & (labels[i] >= 0) & (labels[j] >= 0)
            # What is joined already, as nearly all frames of a fixed camera soon are, need not be compared.
            wanted = crossing | (sure & pictures.apart(i, j))
            for joined, present in zip(within, parts, strict=True):
                wanted |= present[i] & present[j] & joined.apart(i, j)
            wanted &= np.abs(aspect[i] - aspect[j]) <= np.log(1.05)
            a, b, i, j, sure, crossing = (of_pairs[wanted] for of_pairs in (a, b, i, j, sure, crossing))
            gap = standard[a] - standard[b]
            same = ((gap**2).sum(axis=1) <= radius**2) & (np.abs(gap).max(axis=1, initial=0.0) <= _LARGEST_DIFFERENCE)
            for joined, present in zip(within, parts, strict=True):
                joined.add(i, j, same & present[i] & present[j])
            pictures.add(i, j, same & sure)
            _count(across, i[same & crossing], j[same & crossing], labels)
        for i, j in _changed(facts, classes, [pictures, *within]):
            for joined, present in zip(within, parts, strict=True):
                joined.add(i, j, present[i] & present[j])
            pictures.add(i, j, np.ones(len(i), dtype=bool))
    return Alike([joined.all_joined() for joined in within], pictures.all_joined(), across)


def _changed(
    facts: Sequence[Facts], classes: np.ndarray, known: Sequence[_Joined]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that are one picture but for a frame of one colour, or mirrored or turned: indices (k,) and (k,).

    known: what is joined already, and need not be compared.
    """
    # The contents of frames first, for only those are asked what is like them.
    framed = [(n, fact.content) for n, fact in enumerate(facts) if fact.content is not None]
    views = [*framed, *enumerate(facts)]
    detailed = np.concatenate(
        [_detailed([fact for _, fact in views[k : k + 4096]]) for k in range(0, len(views), 4096)]
    )
    views, contents = [views[k] for k in np.flatnonzero(detailed)], int(detailed[: len(framed)].sum())
    if len(views) < 2:
        return
    owner, shown = np.array([n for n, _ in views]), [fact for _, fact in views]
    standard = _standardised(np.stack([fact.thumbnail.ravel() for fact in shown]))
    aspect = np.log([fact.width / fact.height for fact in shown])
    likely, waves = _Likely(shown), _low_frequencies().T
    radius = np.sqrt(2 * standard.shape[1] * (1 - _CORRELATION))
    grid = np.arange(standard.shape[1]).reshape(THUMBNAIL, THUMBNAIL)
    turns = [np.rot90(side, turn).ravel() for side in (grid, grid[:, ::-1]) for turn in range(4)]
    lows = [standard[:, order] @ waves for order in turns]
    low = lows[0]

    def one_picture(a: np.ndarray, b: np.ndarray, turn: int) -> np.ndarray:
        shape = np.abs(aspect[a] - aspect[b] if turn % 2 == 0 else aspect[a] + aspect[b]) <= np.log(1.05)
        found = shape & (((low[a] - lows[turn][b]) ** 2).sum(axis=1) <= radius**2 * (1 + 1e-4))  # what is left are few
        gap = standard[a[found]] - standard[b[found]][:, turns[turn]]
        near = ((gap**2).sum(axis=1) <= radius**2) & (np.abs(gap).max(axis=1, initial=0.0) <= _LARGEST_DIFFERENCE)
        found[found] = near
        return np.asarray(found)

    def asked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        i, j = owner[a], owner[b]
        return np.asarray(likely(a, b) & (i != j) & np.any([joined.apart(i, j) for joined in known], axis=0))

    for a, b in _candidates(low, radius, contents):
        one, other = classes[owner[a]], classes[owner[b]]
        wanted = asked(a, b) & ((one == other) | (one < 0) | (other < 0))
        a, b = a[wanted], b[wanted]
        same = one_picture(a, b, 0)
        yield owner[a[same]], owner[b[same]]
    told = contents + np.flatnonzero(classes[owner[contents:]] >= 0)
    for members in several(classes[owner[told]]):
        of_class = told[members]
        for a, b in _candidates(_whichever_way_up(low[of_class]), radius):
            a, b = of_class[a], of_class[b]
            wanted = asked(a, b)
            a, b = a[wanted], b[wanted]
            same = np.any([one_picture(a, b, turn) for turn in range(1, 8)], axis=0)
            yield owner[a[same]], owner[b[same]]


def _whichever_way_up(low: np.ndarray) -> np.ndarray:
    """The lowest waves (n, 8) of pictures as they are the same mirrored or turned, never further apart than before.

    Mirrored, a wave has another sign; turned, the waves along the one side are those along the other.
    """
    found = np.abs(low)
    for one, other in ((0, 2), (1, 5), (4, 6)):
        pair = found[:, [one, other]]
        found[:, one], found[:, other] = pair.min(axis=1), pair.max(axis=1)
    return np.asarray(found)


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    """Float32 (n, 256), each of mean 0 and deviation 1."""
    found = thumbnails.astype(np.float32)
    return np.asarray((found - found.mean(axis=1, keepdims=True)) / np.maximum(found.std(axis=1, keepdims=True), 1e-6))


def _detailed(facts: Sequence[Facts]) -> np.ndarray:
    """Whether each thumbnail shows enough for two of the kind not to be alike by chance, bool (n,)."""
    from scipy.special import entr  # scipy.stats has it ready, and takes a second to import

    thumbnails = np.stack([fact.thumbnail.ravel() for fact in facts]).astype(np.float64)
    dark = thumbnails.min(axis=1, keepdims=True)
    span = np.maximum(thumbnails.max(axis=1, keepdims=True) - dark, 1.0)
    steps = np.minimum((thumbnails - dark) * (32 / span), 31).astype(np.int64)
    counts = np.stack([np.bincount(row, minlength=32) for row in steps])
    bits = entr(counts / counts.sum(axis=1, keepdims=True)).sum(axis=1) / np.log(2)
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    waves = _low_frequencies()
    fine = ((centred - centred @ waves.T @ waves) ** 2).sum(axis=1) / np.maximum((centred**2).sum(axis=1), 1.0)
    large = np.array([min(fact.width, fact.height) >= THUMBNAIL for fact in facts])
    return np.asarray(large & (bits >= _DETAIL_BITS) & (fine >= _DETAIL_SHARE))


def _tint(fact: Facts) -> np.ndarray:
    """Red, green and blue as against the mean of the three, in standard deviations of the thumbnail."""
    colour = np.array(fact.colour)
    return np.asarray((colour - colour.mean()) / max(float(fact.thumbnail.std()), 1.0))


def _candidates(low: np.ndarray, radius: float, asked: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of rows that may be as near as the radius, in order, a few at a time: indices (k,) and (k,), a < b.

    low: (n, 8), of the rows' lowest waves: orthogonal axes never lengthen a distance, so a search in a few of them
    finds every pair there is, plus some. asked: only of pairs with one of so many first rows.
    """
    from scipy.spatial import cKDTree

    last = len(low) if asked is None else asked
    if not last:
        return
    tree = cKDTree(low)
    reach = radius * (1 + 1e-5)
    for start in range(0, last, 256):
        points = tree.data[start : min(start + 256, last)]
        sums = np.cumsum(tree.query_ball_point(points, reach, return_length=True))
        for rows in np.split(np.arange(len(points)), np.flatnonzero(np.diff(sums // _CANDIDATES)) + 1):
            near = tree.query_ball_point(points[rows], reach, return_sorted=True)
            left = np.repeat(start + rows, [len(found) for found in near])
            right = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
            left, right = left[left < right], right[left < right]
            for first in range(0, len(left), _PAIRS):
                yield left[first : first + _PAIRS], right[first : first + _PAIRS]


class _Joined:
    """Connected components of n points, to which pairs are added.

    numbers: int64 (n,), equal for points of one component, as far as the pairs were taken into account.
    """

    def __init__(self, n: int) -> None:
        self.numbers = np.arange(n, dtype=np.int64)
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def apart(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Which pairs may join two components, bool (k,)."""
        return np.asarray(self.numbers[i] != self.numbers[j])

    def add(self, i: np.ndarray, j: np.ndarray, mask: np.ndarray) -> None:
        """Join the pairs where the mask is set."""
        new = mask & self.apart(i, j)
        self._waiting.append(np.stack([i[new], j[new]], axis=1))
        self._count += len(self._waiting[-1])
        if self._count >= _PAIRS // 2:  # each time all points are looked at
            self.all_joined()

    def all_joined(self) -> np.ndarray:
        """The numbers with all pairs taken into account, counted from 0 in the order of their first point."""
        if self._count:
            pairs = self.numbers[np.concatenate(self._waiting)]
            self.numbers = components(len(self.numbers), pairs)[self.numbers]
            self._waiting, self._count = [], 0
        return self.numbers


class _Likely:
    """Whether pairs that look the same would be one picture beyond reasonable doubt."""

    def __init__(self, facts: Sequence[Facts]) -> None:
        blocks = [_detailed(facts[start : start + 4096]) for start in range(0, len(facts), 4096)]
        self._detailed = np.concatenate(blocks)
        self._grey = np.array([fact.greyscale for fact in facts], dtype=bool)
        self._tint = np.array([_tint(fact) for fact in facts])

    def __call__(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        same_colour = np.abs(self._tint[i] - self._tint[j]).max(axis=1, initial=0.0) <= _LARGEST_DIFFERENCE
        sure = self._detailed[i] & self._detailed[j] & (same_colour | self._grey[i] | self._grey[j])
        return np.asarray(sure)


def _count(across: AcrossLabels, i: np.ndarray, j: np.ndarray, labels: np.ndarray) -> None:
    """Add pairs of two labels."""
    if not len(i):
        return
    across.images[i] = across.images[j] = True
    across.first += list(zip(i.tolist(), j.tolist(), strict=True))[: _NAMED - len(across.first)]
    both = np.sort(np.stack([labels[i], labels[j]], axis=1), axis=1)
    kinds, met, counts = np.unique(both, axis=0, return_index=True, return_counts=True)
    for order in np.argsort(met):
        one, other = kinds[order].tolist()
        across.counts[one, other] = across.counts.get((one, other), 0) + int(counts[order])


def _low_frequencies() -> np.ndarray:
    """The 8 lowest non-constant axes of the 16x16 cosine transform, orthonormal, shape (8, 256)."""
    steps = (np.arange(THUMBNAIL) + 0.5) * np.pi / THUMBNAIL
    waves = np.stack([np.cos(k * steps) / np.linalg.norm(np.cos(k * steps)) for k in range(3)])
    axes = np.einsum("ay,bx->abyx", waves, waves).reshape(9, -1)[1:]
    return np.asarray(axes, dtype=np.float32)


def merge_groups(n: int, *groupings: np.ndarray | None) -> np.ndarray:
    """The finest grouping, int64 (n,), that keeps together whatever any of the given ones keeps together."""
    pairs = []
    for groups in groupings:
        if groups is None or not len(groups):
            continue
        order = np.argsort(groups, kind="stable")
        alike = groups[order][1:] == groups[order][:-1]
        pairs.append(np.stack([order[:-1][alike], order[1:][alike]], axis=1))
    return components(n, np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64))


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components of n points, as numbers counted from 0 in the order of their first point."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[numbers]


def several(groups: np.ndarray) -> list[np.ndarray]:
    """The groups of two or more, as index arrays."""
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    return [part for part in np.split(order, bounds) if len(part) > 1]


def label_conflicts(digests: Sequence[Hashable], labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, other) of images under two labels that are one. digests: equal for those that are."""
    seen: dict[Hashable, int] = {}
    firsts = [seen.setdefault(digest, index) for index, digest in enumerate(digests)]
    return [(first, index) for index, first in enumerate(firsts) if labels[first] != labels[index]]
