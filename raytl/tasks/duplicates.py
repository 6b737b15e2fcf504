"""Duplicates: the same file twice, and near-duplicates such as a recompressed or rescaled copy.

Two copies of one picture on two sides of a split make a validation score worthless, so they become one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raytl.tasks.survey import THUMBNAIL, Facts

# Measured on load_digits, whose 1,797 8x8 images are as alike as different pictures get: the closest two have
# a largest difference of 0.44 standard deviations. Copies of photographs recompressed by JPEG at quality 40, halved,
# doubled or darkened by a fifth stay below 0.22, and their correlation above 0.994.
_CORRELATION = 0.994
_LARGEST_DIFFERENCE = 0.3
_FLAT = 4.0  # grey levels of standard deviation below which a thumbnail says nothing about the picture


def exact_groups(digests: Sequence[str]) -> np.ndarray:
    """Group numbers, int64 (n,): equal for equal digests."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], dtype=np.int64)


def near_groups(facts: Sequence[Facts]) -> np.ndarray:
    """Group numbers, int64 (n,): equal for images that look the same at 16x16 pixels, chains of such included.

    Brightness and contrast may differ; content may not: thumbnails correlate at 0.994 or more and, standardised, differ
    nowhere by more than 0.3. Nearly uniform images are each on their own, and so are images of another aspect ratio
    (beyond 5 %), which a square thumbnail would hide.
    """
    return components(len(facts), near_pairs(facts))


def near_pairs(facts: Sequence[Facts]) -> np.ndarray:
    """The pairs (i, j), i < j, behind :func:`near_groups`, int64 (pairs, 2)."""
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


def duplicate_groups(digests: Iterable[str], facts: Sequence[Facts], groups: np.ndarray | None = None) -> np.ndarray:
    """Groups for splitting: exact duplicates, near-duplicates and the given groups together, int64 (n,)."""
    return merge_groups(len(facts), exact_groups(list(digests)), near_groups(facts), groups)


def label_conflicts(digests: Sequence[str], labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, other) of byte-identical images under two labels."""
    seen: dict[str, int] = {}
    firsts = [seen.setdefault(digest, index) for index, digest in enumerate(digests)]
    return [(first, index) for index, first in enumerate(firsts) if labels[first] != labels[index]]
