"""Duplicates: the same pixels twice, and near-duplicates such as a recompressed or rescaled copy.

Two copies of one picture on two sides of a split make a validation score worthless, so within a role whatever may be a
copy becomes one group: a false alarm costs nothing there. Between roles copies are left out, so there only what can
hardly be chance counts.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def exact_groups(digests: Sequence[str]) -> np.ndarray:
    """Group numbers, int64 (n,): equal for equal digests."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], dtype=np.int64)


def sure_pairs(facts: Sequence[Facts], pairs: np.ndarray) -> np.ndarray:
    """Those of the pairs that are one picture beyond reasonable doubt, int64 (pairs, 2).

    Both images have at least 16 pixels a side and enough detail, and the same colour where neither is grey.
    pairs: :func:`near_pairs` of the facts.
    """
    found, numbers = np.unique(pairs, return_inverse=True)
    seen = [facts[i] for i in found]
    left, right = numbers.reshape(pairs.shape).T
    detailed, grey = _detailed(seen), np.array([fact.greyscale for fact in seen], dtype=bool)
    tint = np.array([_tint(fact) for fact in seen]).reshape(-1, 3)
    same_colour = np.abs(tint[left] - tint[right]).max(axis=1, initial=0.0) <= _LARGEST_DIFFERENCE
    sure = detailed[left] & detailed[right] & (same_colour | grey[left] | grey[right])
    return np.asarray(pairs[sure])


def _detailed(facts: Sequence[Facts]) -> np.ndarray:
    """Whether each thumbnail shows enough for two of the kind not to be alike by chance, bool (n,)."""
    if not facts:
        return np.zeros(0, dtype=bool)
    from scipy.stats import entropy

    thumbnails = np.stack([fact.thumbnail.ravel() for fact in facts]).astype(np.float64)
    dark = thumbnails.min(axis=1, keepdims=True)
    span = np.maximum(thumbnails.max(axis=1, keepdims=True) - dark, 1.0)
    steps = np.minimum((thumbnails - dark) * (32 / span), 31).astype(np.int64)
    counts = np.stack([np.bincount(row, minlength=32) for row in steps])
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    waves = _low_frequencies()
    fine = ((centred - centred @ waves.T @ waves) ** 2).sum(axis=1) / np.maximum((centred**2).sum(axis=1), 1.0)
    large = np.array([min(fact.width, fact.height) >= THUMBNAIL for fact in facts])
    return np.asarray(large & (entropy(counts, base=2, axis=1) >= _DETAIL_BITS) & (fine >= _DETAIL_SHARE))


def _tint(fact: Facts) -> np.ndarray:
    """Red, green and blue as against the mean of the three, in standard deviations of the thumbnail."""
    colour = np.array(fact.colour)
    return np.asarray((colour - colour.mean()) / max(float(fact.thumbnail.std()), 1.0))


def near_pairs(facts: Sequence[Facts]) -> np.ndarray:
    """Pairs (i, j), i < j, of images that look the same at 16x16 pixels, int64 (pairs, 2).

    Brightness and contrast may differ; content may not: thumbnails correlate at 0.994 or more and, standardised, differ
    nowhere by more than 0.3. Nearly uniform images have no pairs, and neither have images of another aspect ratio
    (beyond 5 %), which a square thumbnail would hide.
    """
    if len(facts) < 2:
        return np.empty((0, 2), dtype=np.int64)
    from scipy.spatial import cKDTree

    thumbnails = np.stack([fact.thumbnail.ravel() for fact in facts]).astype(np.float32)
    spread = thumbnails.std(axis=1)
    telling = np.flatnonzero(spread >= _FLAT)
    if len(telling) < 2:
        return np.empty((0, 2), dtype=np.int64)
    standard = (thumbnails[telling] - thumbnails[telling].mean(axis=1, keepdims=True)) / spread[telling, None]
    aspect = np.log([fact.width / fact.height for fact in facts])[telling]

    # Orthogonal axes never lengthen a distance, so a search in a few of them finds every pair there is, plus some.
    tree = cKDTree(standard @ _low_frequencies().T)
    pixels = standard.shape[1]
    radius = np.sqrt(2 * pixels * (1 - _CORRELATION))
    found = []
    for start in range(0, len(telling), 256):  # in blocks: crowded data has many candidates
        block = tree.query_ball_point(tree.data[start : start + 256], radius * (1 + 1e-5))
        left = np.repeat(np.arange(start, start + len(block)), [len(near) for near in block])
        right = np.concatenate([np.asarray(near, dtype=np.int64) for near in block])
        left, right = left[left < right], right[left < right]
        for part in range(0, len(left), 65536):
            a, b = left[part : part + 65536], right[part : part + 65536]
            gap = standard[a] - standard[b]
            same = ((gap**2).sum(axis=1) <= radius**2) & (np.abs(gap).max(axis=1) <= _LARGEST_DIFFERENCE)
            same &= np.abs(aspect[a] - aspect[b]) <= np.log(1.05)
            found.append(np.stack([telling[a[same]], telling[b[same]]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


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


def label_conflicts(digests: Sequence[str], labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, other) of byte-identical images under two labels."""
    seen: dict[str, int] = {}
    firsts = [seen.setdefault(digest, index) for index, digest in enumerate(digests)]
    return [(first, index) for index, first in enumerate(firsts) if labels[first] != labels[index]]
