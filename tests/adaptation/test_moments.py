"""Source features with the target's moments."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raytl.adaptation import get
from raytl.adaptation.moments import match_moments, match_places


@settings(max_examples=30, deadline=None)
@example(27, 2, 1, 2)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 6), st.integers(0, 10_000))
def test_each_feature_has_the_targets_mean_and_deviation(n: int, m: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(n, d, generator=generator, dtype=torch.float64) * 3 + 1
    target = torch.randn(m, d, generator=generator, dtype=torch.float64) - 5
    moved = match_moments(source, target)
    torch.testing.assert_close(moved.mean(0), target.mean(0))
    # But for a target that hardly varies, as two of its images by chance: something of the feature is left.
    expected = torch.maximum(target.std(0, correction=0), 1e-3 * source.std(0, correction=0))
    torch.testing.assert_close(moved.std(0, correction=0), expected)
    # A line through each feature: nothing changes places.
    assert torch.equal(moved.argsort(0), source.argsort(0))


def test_a_feature_that_does_not_vary_is_moved_and_no_more() -> None:
    source, target = torch.tensor([[2.0], [2.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    assert match_moments(source, target).tolist() == [[2.0], [2.0], [2.0]]
    assert match_moments(target, source).std() > 0  # hardly, but what told images apart still does
    assert torch.isfinite(match_moments(source, source)).all()


def test_each_part_of_the_source_can_have_them_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(30, 3, generator=generator), torch.randn(20, 3, generator=generator) * 2
    parts = np.array([0, 5] * 15)
    source[1::2] = source[1::2] * 4 - 7
    moved = match_moments(source, target, parts)
    for part in (0, 5):
        torch.testing.assert_close(moved[parts == part], match_moments(source[parts == part], target))


def test_rounding_is_not_blown_up() -> None:
    nearly = torch.full((100, 1), 0.3)
    nearly[0] = torch.nextafter(nearly[0], torch.tensor(1.0))
    moved = match_moments(nearly, torch.randn(50, 1, generator=torch.Generator().manual_seed(0)))
    assert float(moved.std()) < 1e-6


def test_is_for_heads_that_are_solved_for_only() -> None:
    entry = get("moments")
    assert not entry.trains
    assert not entry.can_act(features=True, batch_norm=True)
    assert get("adabn").trains


def test_at_places_a_channel_takes_on_the_targets_moments_over_all_of_them() -> None:
    """At each place by itself a margin that never changes would take on the target's noise."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(2, 3, (40, 4, 9)), rng.normal(-1, 0.5, (50, 4, 9))
    source[:, :, 0] = 2 + 1e-3 * rng.normal(size=(40, 4))
    flat = [torch.as_tensor(np.concatenate([x.mean(2), x.reshape(len(x), -1)], axis=1)) for x in (source, target)]
    moved = match_places(*flat, [4, 36], [1, 9])
    at = moved[:, 4:].reshape(40, 4, 9)
    like = flat[1][:, 4:].reshape(50, 4, 9)
    torch.testing.assert_close(at.mean(dim=(0, 2)), like.mean(dim=(0, 2)))
    torch.testing.assert_close(at.std(dim=(0, 2), correction=0), like.std(dim=(0, 2), correction=0))
    assert at[:, :, 0].std(dim=0).max() < 0.01
    torch.testing.assert_close(moved[:, :4], match_moments(flat[0][:, :4], flat[1][:, :4]))
    parts = np.arange(40) % 2
    for part in (0, 1):
        own = torch.as_tensor(parts == part)
        alone = match_places(flat[0][own], flat[1], [4, 36], [1, 9])
        torch.testing.assert_close(match_places(*flat, [4, 36], [1, 9], parts)[own], alone)
