"""Intervals of metrics: what must hold of every one, and that they cover."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest, norm
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.naive_bayes import GaussianNB

from raytl.evaluation import (
    Comparison,
    average_repeats,
    holm,
    holm_comparisons,
    metric_interval,
    metrics,
    paired_metric_interval,
)
from raytl.evaluation.intervals.binomial import share_interval

Sample = tuple[np.ndarray, np.ndarray, np.ndarray | None]
NAMES = metrics.names()
ACCURACY = metrics.get("accuracy")
BALANCED = metrics.get("balanced-accuracy")
AUROC = metrics.get("auroc")


def answers(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities of two classes whose larger one is right where it should be."""
    return np.where((right == labels.astype(bool))[:, None], [0.2, 0.8], [0.8, 0.2])


def outputs(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 0.5), size=n), rng.integers(0, k, n), rng.integers(0, 6, n)


def in_groups(rng: np.random.Generator, sizes: np.ndarray, p: float, together: float) -> tuple[np.ndarray, np.ndarray]:
    """Which items are right, and their groups; ``together``: correlation of what lies behind within a group."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    shared = rng.standard_normal(len(sizes))[groups]
    latent = math.sqrt(together) * shared + math.sqrt(1 - together) * rng.standard_normal(len(groups))
    return latent < norm.ppf(p), groups


def covered(draw: Callable[[], Sample], truth: float, repetitions: int, metric: metrics.Metric = ACCURACY) -> float:
    intervals = [metric_interval(metric, *draw()) for _ in range(repetitions)]
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


@pytest.mark.parametrize("name", NAMES)
class TestEveryMetric:
    @given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 5), st.booleans())
    @settings(max_examples=25)
    def test_the_interval_holds_the_value_within_the_limits(
        self, name: str, seed: int, n: int, k: int, grouped: bool
    ) -> None:
        metric = metrics.get(name)
        p, y, g = outputs(seed, n, k)
        interval = metric_interval(metric, p, y, g if grouped else None)
        if math.isnan(interval.value):
            assert (interval.low, interval.high) == metric.limits
        else:
            assert interval.value == metric(p, y)
            assert metric.limits[0] <= interval.low <= interval.value <= interval.high <= metric.limits[1]

    @example(1654, 12, 2)  # of average precision, groups with one item of the class that counts
    @given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 5))
    @settings(max_examples=25)
    def test_neither_order_nor_the_groups_names_matter(self, name: str, seed: int, n: int, k: int) -> None:
        metric = metrics.get(name)
        p, y, g = outputs(seed, n, k)
        other = np.random.default_rng(seed + 1).dirichlet(np.full(k, 0.5), size=n)
        order = np.random.default_rng(seed).permutation(n)
        renamed = np.array(["f", "a", "c", "e", "b", "d"])[g]
        first, second = metric_interval(metric, p, y, g), metric_interval(metric, p[order], y[order], renamed[order])
        assert first.to_json() == pytest.approx(second.to_json(), nan_ok=True, abs=1e-9)
        one = paired_metric_interval(metric, p, other, y, g)
        two = paired_metric_interval(metric, p[order], other[order], y[order], renamed[order])
        assert one.to_json() == pytest.approx(two.to_json(), nan_ok=True, abs=1e-9)

    @given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 5), st.booleans())
    @settings(max_examples=25)
    def test_a_comparison_turns_round_with_its_models(
        self, name: str, seed: int, n: int, k: int, grouped: bool
    ) -> None:
        metric = metrics.get(name)
        a, y, g = outputs(seed, n, k)
        b = outputs(seed + 1, n, k)[0]
        ahead = paired_metric_interval(metric, a, b, y, g if grouped else None)
        behind = paired_metric_interval(metric, b, a, y, g if grouped else None)
        if math.isnan(ahead.value):
            assert ahead.p == 1.0
        else:
            assert ahead.value == pytest.approx(metric.oriented(metric(a, y)) - metric.oriented(metric(b, y)))
            assert ahead.low <= ahead.value <= ahead.high
            assert (behind.low, behind.high) == pytest.approx((-ahead.high, -ahead.low), abs=1e-6)
            assert behind.p == pytest.approx(ahead.p, abs=1e-6)
            assert 0 <= ahead.p <= 1

    @given(st.integers(0, 10**6), st.integers(3, 40), st.floats(0, 0.5))
    @settings(max_examples=25)
    def test_a_first_model_worth_less_moves_the_interval_and_asks_more_of_it(
        self, name: str, seed: int, n: int, less: float
    ) -> None:
        metric = metrics.get(name)
        a, y, _ = outputs(seed, n, 3)
        b = outputs(seed + 1, n, 3)[0]
        found = paired_metric_interval(metric, a, b, y)
        moved = found.less(less)
        if math.isnan(found.value):
            assert moved == found or math.isnan(moved.value)
            return
        assert moved.value == pytest.approx(max(found.limits[0], found.value - less))
        assert moved.low <= found.low and moved.low <= moved.value <= moved.high <= found.high
        if moved.centre > 0:  # nearer to zero is less sure
            assert moved.p >= found.p - 1e-12

    def test_every_item_its_own_group_is_no_group(self, name: str) -> None:
        p, y, _ = outputs(5, 40, 3)
        metric = metrics.get(name)
        assert metric_interval(metric, p, y, np.arange(40)[::-1]) == metric_interval(metric, p, y)

    def test_ten_copies_of_each_item_say_no_more_than_one(self, name: str) -> None:
        metric = metrics.get(name)
        p, y, _ = outputs(7, 30, 3)
        once = metric_interval(metric, p, y)
        copies = metric_interval(metric, np.repeat(p, 10, axis=0), np.repeat(y, 10), np.repeat(np.arange(30), 10))
        assert copies.high - copies.low > 0.85 * (once.high - once.low)


def test_accuracy_without_groups_has_the_interval_of_a_share() -> None:
    right = np.arange(60) < 47
    y = np.arange(60) % 3 // 2
    found = metric_interval(ACCURACY, answers(right, y), y)
    assert (found.value, found.low, found.high) == pytest.approx((47 / 60, *share_interval(47 / 60, 60)))
    sure = metric_interval(ACCURACY, answers(y >= 0, y), y)
    assert (sure.value, sure.low, sure.high) == pytest.approx((1.0, *share_interval(1.0, 60)))


def test_a_class_of_three_without_a_mistake_is_not_certain() -> None:
    y = (np.arange(63) < 3).astype(np.int64)
    interval = metric_interval(BALANCED, answers(y >= 0, y), y)
    assert interval.value == 1.0
    assert interval.low < 0.8


def test_the_p_value_follows_the_exact_sign_test() -> None:
    for n, ahead, behind in ((8, 8, 0), (20, 6, 0), (100, 6, 0), (100, 12, 3), (300, 30, 15)):
        y = np.arange(n) % 2
        a, b = np.arange(n) >= behind, np.arange(n) < n - ahead
        gap = paired_metric_interval(ACCURACY, answers(a, y), answers(b, y), y)
        assert gap.p == pytest.approx(binomtest(ahead, ahead + behind).pvalue, abs=0.015)
        assert (gap.p < 0.05) == (gap.low > 0)
    five = paired_metric_interval(ACCURACY, answers(y[:5] >= 0, y[:5]), answers(y[:5] < 0, y[:5]), y[:5])
    assert five.p > 0.05


# Coverage. Seeds are fixed; bounds are 90 and 98 % and three standard errors of the simulation.


def within(share: float, repetitions: int) -> bool:
    error = 3 * math.sqrt(0.05 * 0.95 / repetitions)
    return 0.90 - error <= share <= 0.98 + error


@pytest.mark.parametrize("n", [20, 60, 200, 600])
@pytest.mark.parametrize("p", [0.7, 0.97])
def test_covers_with_independent_items(n: int, p: float) -> None:
    rng = np.random.default_rng(n)
    y = np.arange(n) % 2
    assert within(covered(lambda: (answers(rng.random(n) < p, y), y, None), p, 300), 300)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([20] * 20, id="20 of 20"),
        pytest.param([20] * 10, id="10 of 20"),
        pytest.param([1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 36, 47, 61], id="unequal"),
        pytest.param([1] * 50 + [2] * 5, id="a few duplicates"),
    ],
)
@pytest.mark.parametrize("together", [0.1, 0.5])
@pytest.mark.parametrize("p", [0.75, 0.9])
def test_covers_with_groups(sizes: list[int], together: float, p: float) -> None:
    rng = np.random.default_rng(1)

    def draw() -> Sample:
        right, groups = in_groups(rng, np.array(sizes), p, together)
        y = np.arange(len(right)) % 2
        return answers(right, y), y, groups

    assert within(covered(draw, p, 300), 300)


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize("together", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_covers_with_few_groups(groups: int, together: float, p: float) -> None:
    """Voices, cameras, sites: that two of them do alike says little of how others do. It may be too wide there."""
    rng = np.random.default_rng(groups)

    def draw() -> Sample:
        right, codes = in_groups(rng, np.full(groups, 40), p, together)
        y = np.arange(len(right)) % 2
        return answers(right, y), y, codes

    assert covered(draw, p, 300) >= 0.90 - 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("n", [105, 210, 630])
@pytest.mark.parametrize(("rare", "common"), [(0.6, 0.95), (0.4, 0.99)])
def test_balanced_accuracy_covers_with_one_class_of_twenty(n: int, rare: float, common: float) -> None:
    rng = np.random.default_rng(2)
    y = (np.arange(n) % 21 == 0).astype(np.int64)
    p = np.where(y == 1, rare, common)
    truth = (rare + common) / 2
    assert within(covered(lambda: (answers(rng.random(n) < p, y), y, None), truth, 300, BALANCED), 300)


def ranked(rng: np.random.Generator, positives: int, negatives: int, lead: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of normal law as probabilities, and labels; the positives' mean leads."""
    labels = np.repeat([1, 0], [positives, negatives])
    said = 1 / (1 + np.exp(-rng.normal(lead * labels, 1)))
    return np.stack([1 - said, said], axis=1), labels


@pytest.mark.parametrize(
    ("positives", "negatives", "lead"), [(8, 92, 1.5), (15, 135, 1.0), (50, 50, 1.5), (4, 40, 1.5)]
)
def test_auroc_covers_with_a_rare_class_and_is_no_wider_than_it_has_to_be(
    positives: int, negatives: int, lead: float
) -> None:
    rng, runs = np.random.default_rng(0), 300
    found = [metric_interval(AUROC, *ranked(rng, positives, negatives, lead)) for _ in range(runs)]
    truth = norm.cdf(lead / math.sqrt(2))
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered > 0.88  # of 300: 92 to 99 % of many
    needed = 2 * 1.96 * np.std([one.value for one in found])
    assert np.mean([one.high - one.low for one in found]) < 1.6 * needed


@pytest.mark.parametrize(
    ("positives", "negatives", "gap", "least", "most"), [(15, 135, 0.0, 0.0, 0.06), (15, 135, 0.9, 0.5, 1.0)]
)
def test_auroc_tells_models_apart_with_a_rare_class(
    positives: int, negatives: int, gap: float, least: float, most: float
) -> None:
    """Of two models that share most of what they see: a lead of three standard errors is seen in most draws."""
    rng, seen = np.random.default_rng(0), []
    labels = np.repeat([1, 0], [positives, negatives])
    for _ in range(200):
        shared = rng.normal(0, 1, len(labels))
        scores = [0.7 * shared + 0.71 * rng.normal(0, 1, len(labels)) + (0.6 + lead) * labels for lead in (gap, 0.0)]
        first, second = (np.stack([1 / (1 + np.exp(s)), 1 / (1 + np.exp(-s))], axis=1) for s in scores)
        seen.append(paired_metric_interval(AUROC, first, second, labels).p < 0.05)
    assert least <= np.mean(seen) <= most


@pytest.mark.parametrize("name", ["auroc", "average-precision", "macro-f1", "log-loss"])
def test_the_other_metrics_cover(name: str) -> None:
    rng = np.random.default_rng(3)
    metric = metrics.get(name)

    def draw(n: int) -> Sample:
        y = rng.integers(0, 3, n)
        scores = rng.standard_normal((n, 3))
        scores[np.arange(n), y] += 1.2
        return softmax(1.5 * scores, axis=1), y, None

    truth = metric(*draw(200_000)[:2])
    assert within(covered(lambda: draw(80), truth, 300, metric), 300)


@pytest.mark.parametrize("name", ["balanced-accuracy", "macro-f1"])
@pytest.mark.parametrize(
    "counts", [[1] * 20, [1] * 100, [2] * 100, [2, 3, 4, 5, 6, 7, 8] * 5, [1] * 20 + [200]], ids=lambda c: f"{len(c)}"
)
def test_covers_with_many_classes_of_few_items(name: str, counts: list[int]) -> None:
    """Of a hundred classes of one item each it covered 36 times in 100, and told equal models apart in 63."""
    metric, rng, runs = metrics.get(name), np.random.default_rng(8), 120
    labels, k = np.repeat(np.arange(len(counts)), counts), len(counts)

    def draw(labels: np.ndarray) -> np.ndarray:
        return softmax(1.5 * (rng.standard_normal((len(labels), k)) + 2.5 * np.eye(k)[labels]), axis=1)

    many = np.repeat(labels, 10_000 // len(labels))
    truth = metric(draw(many), many)
    found = [metric_interval(metric, draw(labels), labels) for _ in range(runs)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.90 - 3 * math.sqrt(0.05 * 0.95 / runs)
    needed = 2 * 1.96 * np.std([one.value for one in found])
    assert np.mean([one.high - one.low for one in found]) < 2.1 * needed
    apart = [paired_metric_interval(metric, draw(labels), draw(labels), labels).p < 0.05 for _ in range(runs)]
    assert np.mean(apart) < 0.09


@pytest.mark.parametrize("counts", [[2] * 30, [5] * 20, [20] * 5], ids=lambda c: f"{len(c)} of {c[0]}")
@pytest.mark.parametrize("lead", [0.0, 1.0, 2.0, 9.0])
def test_average_precision_covers_though_it_is_too_high_of_few_items(counts: list[int], lead: float) -> None:
    """Of 50 classes of two items each it was 0.21 where of many items it is 0.09, and covered in 2 of 100."""
    metric, rng, runs = metrics.get("average-precision"), np.random.default_rng(9), 50
    labels, k = np.repeat(np.arange(len(counts)), counts), len(counts)

    def draw(labels: np.ndarray) -> np.ndarray:
        return softmax(1.5 * (rng.standard_normal((len(labels), k)) + lead * np.eye(k)[labels]), axis=1)

    many = np.repeat(labels, 8000 // len(labels))
    truth = metric(draw(many), many)
    found = [metric_interval(metric, draw(labels), labels) for _ in range(runs)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.90 - 3 * math.sqrt(0.05 * 0.95 / runs)
    if lead == 9.0:  # where all of a class are before the rest nothing is too high
        assert np.mean([one.low for one in found]) > 0.85


def test_what_average_precision_owes_to_few_items_is_not_less_for_copies_of_them() -> None:
    metric, rng = metrics.get("average-precision"), np.random.default_rng(10)
    labels, groups = np.repeat(np.arange(10), 3), np.repeat(np.arange(30), 10)
    said = softmax(rng.standard_normal((30, 10)) + np.eye(10)[labels], axis=1)
    once = metric_interval(metric, said, labels)
    copies = metric_interval(metric, np.repeat(said, 10, axis=0), np.repeat(labels, 10), groups)
    assert copies.low == pytest.approx(once.low, abs=0.03)


@pytest.mark.parametrize(("n", "width", "gap"), [(60, 5, 1.5), (120, 10, 1.5)])
def test_covers_what_a_classifier_is_worth_from_repeated_cross_validation(n: int, width: int, gap: float) -> None:
    rng = np.random.default_rng(4)
    model = GaussianNB()

    def data(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.permutation(np.arange(count) % 2)
        x = rng.standard_normal((count, width))
        x[:, 0] += gap * (2 * y - 1) / 2
        return x, y

    test = data(20_000)
    truth = float(np.mean([model.fit(*data(n)).score(*test) for _ in range(60)]))

    def draw() -> Sample:
        x, y = data(n)
        folds = list(RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0).split(x, y))
        rows = [model.fit(x[train], y[train]).predict_proba(x[held]) for train, held in folds]
        return average_repeats([held for _, held in folds], rows, n), y, None

    assert within(covered(draw, truth, 120), 120)


@pytest.mark.parametrize("sizes", [[1] * 20, [1] * 200, [20] * 20, [1, 2, 3, 5, 8, 12, 20, 30, 45, 60]])
@pytest.mark.parametrize("b", [0.9, 0.7])
def test_differences_cover_and_equal_models_are_seldom_told_apart(sizes: list[int], b: float) -> None:
    rng = np.random.default_rng(5)
    hits, rejected = [], []
    for _ in range(300):
        first, groups = in_groups(rng, np.array(sizes), 0.9, 0.3)
        second, _ = in_groups(rng, np.array(sizes), b, 0.3)
        y = np.arange(len(groups)) % 2
        gap = paired_metric_interval(ACCURACY, answers(first, y), answers(second, y), y, groups)
        hits.append(gap.low <= 0.9 - b <= gap.high)
        rejected.append(gap.p < 0.05)
    assert np.mean(hits) >= 0.90 - 3 * math.sqrt(0.05 * 0.95 / 300)
    if b == 0.9:
        assert np.mean(rejected) < 0.09


# Several at once.


def gap(value: float, error: float) -> Comparison:
    p = 2 * norm.sf(abs(value) / error)
    return Comparison(value, value, value, float(p), value, error, 1e9, (-1.0, 1.0)).at(0.95)


def test_holms_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(0.01, 0.2)), min_size=1, max_size=6))
@settings(max_examples=60)
def test_simultaneous_intervals_agree_with_holm(pairs: list[tuple[float, float]]) -> None:
    alone = [gap(value, error) for value, error in pairs]
    together = holm_comparisons(alone)
    assert [one.p for one in together] == holm([one.p for one in alone])
    for one, before in zip(together, alone, strict=True):
        assert (one.low > 0 or one.high < 0) == (one.p < 0.05)
        assert one.low <= one.value <= one.high
        assert one.value == before.value


def test_simultaneous_intervals_cover_together() -> None:
    rng = np.random.default_rng(6)
    for truths in ([0.0, 0.0, 0.0, 0.0], [0.3, 0.3, 0.0, 0.05], [0.3, 0.3, 0.25, 0.3]):
        missed = []
        for _ in range(1000):
            drawn = holm_comparisons([gap(truth + 0.05 * rng.standard_normal(), 0.05) for truth in truths])
            missed.append(any(not g.low <= t <= g.high for g, t in zip(drawn, truths, strict=True)))
        assert np.mean(missed) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("name", ["accuracy", "balanced-accuracy", "macro-f1", "log-loss"])
@pytest.mark.parametrize("n", [1, 30])
def test_one_image_or_one_group_of_them_tells_no_two_models_apart(name: str, n: int) -> None:
    """Under log loss a single image, or images that all differ by as much, made every difference certain."""
    metric, y = metrics.get(name), np.arange(n) % 2
    right, wrong = np.eye(2)[y], np.eye(2)[1 - y]
    gap = paired_metric_interval(metric, right, wrong, y, np.zeros(n, dtype=int))
    width = metric.limits[1] - metric.limits[0]
    assert gap.value > 0 and (gap.p, gap.low, gap.high) == (1.0, -width, width) and gap.standard_error > 0
    for other in (gap.at(0.5), gap.less(0.1), *holm_comparisons([gap, gap])):
        assert (other.p, other.low, other.high) == (1.0, -width, width)
    assert gap.less(0.1).value == pytest.approx(gap.value - 0.1)
    if n == 1:
        alone = paired_metric_interval(metric, right, wrong, y)
        assert (alone.p, alone.low, alone.high) == (1.0, -width, width)
    apart = paired_metric_interval(metric, right, wrong, y, np.arange(n) // 3)
    assert n == 1 or apart.p < 0.05


@pytest.mark.parametrize(("n", "sure"), [(2, False), (3, False), (8, True)])
def test_a_loss_that_all_images_share_is_believed_by_how_many_they_are(n: int, sure: bool) -> None:
    y = np.zeros(n, dtype=int)
    gap = paired_metric_interval(metrics.get("log-loss"), np.eye(2)[y], np.eye(2)[1 - y], y)
    assert (gap.p < 0.05) == sure and (gap.low > 0) == sure and gap.p > 0


def test_repeats_are_averaged_per_item() -> None:
    p = average_repeats(
        [np.array([0, 2]), np.array([2])], [np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([[0.6, 0.4]])], 3
    )
    np.testing.assert_allclose(p, [[0.2, 0.8], [np.nan, np.nan], [0.5, 0.5]])
    with pytest.raises(ValueError, match="belong together"):
        average_repeats([np.array([3])], [np.ones((1, 2))], 3)
    with pytest.raises(ValueError, match="belong together"):
        average_repeats([], [], 3)
