from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.tasks.splits import folds, holdout, plan_folds, spread_by_class

labels_alone = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array)
grouped = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60).map(np.array)
seeds = st.integers(0, 2**31 - 1)


def groups_per_class(labels: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    return {int(c): len(np.unique(groups[labels == c])) for c in np.unique(labels)}


def assert_split(train: np.ndarray, held: np.ndarray, groups: np.ndarray) -> None:
    assert sorted([*train, *held]) == list(range(len(groups)))
    assert not set(groups[train]) & set(groups[held])


class TestHoldout:
    @given(grouped, st.floats(0.05, 0.6), seeds)
    def test_partitions_without_tearing_a_group_apart(self, rows: np.ndarray, fraction: float, seed: int) -> None:
        labels, groups = rows.T
        train, held = holdout(labels, groups, fraction, seed)
        assert_split(train, held, groups)
        assert set(labels[train]) == set(labels)  # even a class of one group keeps its images in training

    @given(labels_alone, st.floats(0.05, 0.6), seeds)
    def test_takes_the_fraction_of_every_class_within_one(self, labels: np.ndarray, fraction: float, seed: int) -> None:
        _, held = holdout(labels, None, fraction, seed)
        for c in np.unique(labels):
            count, taken = int((labels == c).sum()), int((labels[held] == c).sum())
            assert abs(taken - fraction * count) <= 1
            assert taken >= 1 or count == 1

    @given(grouped, st.integers(1, 4), seeds)
    def test_leaves_as_many_groups_of_a_class_as_asked(self, rows: np.ndarray, keep: int, seed: int) -> None:
        labels, groups = rows.T
        train, _ = holdout(labels, groups, 0.5, seed, keep=keep)
        left = groups_per_class(labels[train], groups[train])
        assert all(left[c] >= min(keep, n) for c, n in groups_per_class(labels, groups).items())

    def test_is_decided_by_the_seed_and_by_the_grouping_not_the_group_numbers(self) -> None:
        labels = np.repeat(np.arange(4), 20)
        groups = np.arange(80) // 2
        first = holdout(labels, groups, 0.25, 3)[1]
        np.testing.assert_array_equal(first, holdout(labels, 1000 - groups, 0.25, 3)[1])
        assert not np.array_equal(first, holdout(labels, groups, 0.25, 4)[1])

    def test_comes_close_to_the_fraction_with_groups_of_unequal_size(self) -> None:
        groups = np.repeat(np.arange(30), np.random.default_rng(0).integers(1, 9, 30))
        labels = groups % 3
        _, held = holdout(labels, groups, 0.25, 0)
        for c in range(3):
            assert (
                abs((labels[held] == c).mean() * len(held) - 0.25 * (labels == c).sum()) <= 4
            )  # half of the largest group


class TestFolds:
    @given(grouped, st.integers(2, 5), st.integers(1, 3), seeds)
    def test_each_is_a_split_and_each_class_is_always_learned(
        self, rows: np.ndarray, n_folds: int, repeats: int, seed: int
    ) -> None:
        labels, groups = rows.T
        result = folds(labels, groups, n_folds, repeats, seed)
        once = folds(labels, groups, n_folds, 1, seed)
        assert len(once) <= n_folds
        assert len(result) <= n_folds * repeats
        for train, validation in result:
            assert_split(train, validation, groups)
            assert set(labels[train]) == set(labels)
            assert len(validation)
        for (_, validation), (_, first) in zip(result, once, strict=False):
            np.testing.assert_array_equal(validation, first)
        validated = np.concatenate([np.empty(0, dtype=np.int64), *(v for _, v in once)])
        assert len(validated) == len(set(validated))

    @given(labels_alone, st.integers(2, 5), seeds)
    def test_validate_every_image_once_with_even_classes(self, labels: np.ndarray, n_folds: int, seed: int) -> None:
        result = folds(labels, None, n_folds, 1, seed)
        single = [c for c in np.unique(labels) if (labels == c).sum() == 1]
        validated = sorted(i for _, v in result for i in v)
        assert validated == [i for i in range(len(labels)) if labels[i] not in single]
        for c in set(labels) - set(single):
            counts = [int((labels[v] == c).sum()) for _, v in result]
            assert max(counts) - min(counts) <= 1

    def test_repeats_differ_and_a_seed_repeats(self) -> None:
        labels = np.repeat(np.arange(3), 10)
        once, again = folds(labels, None, 5, 2, 7), folds(labels, None, 5, 2, 7)
        assert all(np.array_equal(a[1], b[1]) for a, b in zip(once, again, strict=True))
        assert not any(np.array_equal(a[1], b[1]) for a, b in zip(once[:5], once[5:], strict=True))

    def test_a_whole_fold_is_not_left_empty_by_chance(self) -> None:
        sizes = [len(v) for _, v in folds(np.repeat(np.arange(7), 3), None, 3, 1, 0)]
        assert sizes == [7, 7, 7]


@pytest.mark.parametrize(
    ("counts", "plan"),
    [
        ([1, 9], (0, 0)),
        ([1, 2, 9], (2, 5)),
        ([2, 9], (2, 5)),
        ([5] * 10, (5, 2)),
        ([30] * 10, (5, 2)),
        ([100] * 10, (5, 1)),
        ([2, 3000], (5, 1)),
        ([2] + [10] * 12, (5, 2)),  # one rare class of many does not halve what all learn from
        ([2] * 2 + [10] * 12, (2, 3)),
    ],
)
def test_the_plan_grows_as_the_data_shrinks(counts: list[int], plan: tuple[int, int]) -> None:
    assert plan_folds(np.repeat(np.arange(len(counts)), counts)) == plan


def test_groups_that_each_have_the_only_images_of_a_class_leave_nothing_to_validate_on() -> None:
    """Three sites with two classes in common and one of their own: no site may be left out of a training."""
    labels, sites = np.tile([0, 0, 1, 1, 2], 3), np.repeat(np.arange(3), 5)
    labels[labels == 2] = np.array([2, 3, 4])
    assert plan_folds(labels, sites) == (0, 0)
    assert not folds(labels, sites, 3, 1, 0)
    two_more = np.append(labels, [0, 1, 0, 1]), np.append(sites, [3, 3, 4, 4])
    assert plan_folds(*two_more) != (0, 0)
    assert folds(*two_more, *plan_folds(*two_more), 0)


def test_where_one_group_alone_can_be_left_out_there_is_one_fold() -> None:
    """Two sites, one of which has the only images of a class: it is in every training, and a fold would be empty."""
    labels, sites = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2]), np.repeat([0, 1], [4, 5])
    plan = plan_folds(labels, sites)
    assert plan == (2, 1)
    assert [held.tolist() for _, held in folds(labels, sites, *plan, 0)] == [[0, 1, 2, 3]]


def test_groups_that_are_left_out_in_turn_are_not_again() -> None:
    labels, sites = np.tile([0, 1], 12), np.repeat(np.arange(3), 8)
    assert plan_folds(labels, sites) == (3, 1)
    assert {tuple(np.unique(sites[held])) for _, held in folds(labels, sites, 3, 1, 0)} == {(0,), (1,), (2,)}


def test_the_plan_counts_groups_not_images() -> None:
    labels = np.repeat([0, 1], 6)
    assert plan_folds(labels, np.array([0] * 6 + [1, 2, 3, 4, 5, 6])) == (0, 0)
    assert plan_folds(labels, np.repeat(np.arange(4), 3)) == (2, 5)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=200).map(np.array), st.integers(1, 100), st.integers(1, 5), seeds
)
def test_a_part_has_of_every_class_its_share_and_some(labels: np.ndarray, most: int, least: int, seed: int) -> None:
    kept = spread_by_class(labels, most, least=least, seed=seed)
    assert len(kept) == len(np.unique(kept)) == min(most, len(labels))
    counts, own = np.bincount(labels, minlength=10), np.bincount(labels[kept], minlength=10)
    if most >= least * len(np.unique(labels)):
        assert (own >= np.minimum(counts, least)).all()
    if len(kept) < len(labels) and most >= len(labels) / 2:
        assert (np.abs(own - counts * most / len(labels)) <= least * 10 + 1).all()
