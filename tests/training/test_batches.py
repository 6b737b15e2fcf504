"""Streams of indices over pools of any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raytl.training.batches import IndexStream


def stream(size: int, batch: int, seed: int = 0) -> IndexStream:
    return IndexStream(size, batch, torch.Generator().manual_seed(seed))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_batches_are_full_and_inside_the_pool(size: int, batch: int, seed: int) -> None:
    indices = stream(size, batch, seed)
    for _ in range(5):
        drawn = indices.next()
        assert drawn.shape == (batch,) and drawn.dtype == torch.int64
        assert int(drawn.min()) >= 0 and int(drawn.max()) < size


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_a_large_pool_is_walked_in_whole_passes(size: int, batch: int, seed: int) -> None:
    size += batch
    indices = stream(size, batch, seed)
    drawn = torch.cat([indices.next() for _ in range(3 * size)])
    for walk in drawn[: len(drawn) // size * size].split(size):
        assert sorted(walk.tolist()) == list(range(size))


@given(st.integers(0, 99))
def test_a_small_pool_is_drawn_from_with_replacement(seed: int) -> None:
    indices = stream(3, 8, seed)
    counts = torch.bincount(torch.cat([indices.next() for _ in range(200)]), minlength=3)
    assert int(counts.min()) > 400  # 533 expected of each


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_the_seed_decides(size: int, batch: int, seed: int) -> None:
    one, other = stream(size, batch, seed), stream(size, batch, seed)
    assert all(torch.equal(one.next(), other.next()) for _ in range(10))


def test_an_empty_pool_is_a_mistake_in_the_code() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        stream(0, 4)
