"""The estimate follows the truth where confidence does not, and its interval is wide where little is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raytl.evaluation.changes import CHANGES, changed
from raytl.evaluation.nearby import Nearby
from raytl.evaluation.second_opinions import OPINIONS, SecondOpinions
from raytl.evaluation.unseen_accuracy import GAIN_DOUBT, Correctness, fit_correctness, gain


def told(n: int, right: float, seed: int, kind: str = "") -> tuple[np.ndarray, ...]:
    """Opinions of n images, as sure of wrong predictions as of right ones; their neighbours mostly know better."""
    rng = np.random.default_rng(seed)
    is_right = rng.random(n) < right
    agreeing = np.clip(np.where(is_right, 0.85, 0.25) + rng.normal(0, 0.2, n), 0, 1)
    seen = np.stack([rng.normal(4, 1, n), rng.normal(-2 + (1 - right), 0.2, n), agreeing], axis=1)
    return seen, is_right, np.arange(n), np.full(n, kind), np.full(n, seed), spread(n)


def spread(n: int) -> np.ndarray:
    """Predictions of ten labels, all as often."""
    return np.arange(n) % 10


def learned(n: int, usual: float = 0.9) -> Correctness:
    parts = [told(n, usual, 0)]
    parts += [told(n, 0.9 * 0.8**level, 1 + 4 * kind + level, "abc"[kind]) for kind in range(3) for level in range(4)]
    return fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("right", [0.9, 0.7, 0.5])
def test_follows_the_truth_although_confidence_does_not(right: float) -> None:
    seen, is_right, *_ = told(2000, right, 99)
    found = learned(150).estimate(seen, spread(2000))
    assert abs(found.value - is_right.mean()) < 0.06
    assert found.low <= is_right.mean() <= found.high


def test_few_reference_images_and_few_new_ones_make_it_wide() -> None:
    seen = told(500, 0.9, 98)[0]
    many, few = (learned(n).estimate(seen, spread(500)) for n in (300, 20))
    assert few.high - few.low > 1.5 * (many.high - many.low)
    ten = learned(300).estimate(seen[:10], spread(10))
    assert ten.high - ten.low > 1.5 * (many.high - many.low)


def test_all_right_on_twenty_images_is_not_taken_for_certainty() -> None:
    found = learned(20, usual=1.0)
    estimate = found.estimate(told(1000, 1.0, 97)[0], spread(1000))
    assert estimate.low < 0.95


def test_of_the_unchanged_images_it_says_what_was_seen_of_them_although_all_changes_teach_otherwise() -> None:
    seen, right, *_ = told(100, 0.9, 0)
    contradicting = right.copy()
    contradicting[:70] = False  # among unchanged images the same opinions are worth less
    parts = [(seen, contradicting, np.arange(100), np.full(100, ""), np.zeros(100), spread(100))]
    parts += [told(100, 0.8, 1 + kind, "abc"[kind]) for kind in range(3)]
    found = fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    assert found.estimate(seen, spread(100)).value == pytest.approx(contradicting.mean(), abs=0.02)
    other = told(1000, 0.8, 9)
    assert (
        found.estimate(other[0] + [0, 2, 0], spread(1000)).value > contradicting.mean() + 0.1
    )  # far from them that counts less


def misled(n: int, seed: int, kind: str, group: int) -> tuple[np.ndarray, ...]:
    """Others agree with everything that is said of these, and half of it is wrong."""
    rng = np.random.default_rng(seed)
    seen = np.stack([rng.normal(2, 1, n), rng.normal(-2, 0.2, n), rng.normal(0.85, 0.05, n)], axis=1)
    return seen, rng.random(n) < 0.5, np.arange(n), np.full(n, kind), np.full(n, group), spread(n)


def test_what_was_missed_under_a_change_is_told_of_images_like_its_own() -> None:
    parts = [told(150, 0.9, 0)]
    parts += [told(150, 0.9 * 0.8**level, 1 + 4 * kind + level, "abc"[kind]) for kind in range(3) for level in range(4)]
    parts += [misled(150, 50 + level, "d", 50 + level) for level in range(4)]
    found = fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    seen, right, *_ = misled(1000, 60, "new", 0)
    without = replace(found, nearby=Nearby.nothing(3))
    assert without.estimate(seen, spread(1000)).value - right.mean() > 0.15
    assert abs(found.estimate(seen, spread(1000)).value - right.mean()) < 0.08
    others, known, *_ = told(2000, 0.9, 99)
    assert abs(found.estimate(others, spread(2000)).value - known.mean()) < 0.06


def test_no_image_tells_nothing() -> None:
    nothing = learned(30).estimate(np.empty((0, 3)), spread(0))
    assert np.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, 1.0)


def collapsing(n: int, seed: int, kind: str, labels: int) -> tuple[np.ndarray, ...]:
    """Images that have all moved alike, and look as good as any; right is who is among so many of ten labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 10, n)
    chosen = np.where(truth < labels, truth, rng.integers(0, labels, n))
    seen = rng.normal(0, 1, (n, 3)) + np.array([0, 1.5 if kind else 0, 0])
    return seen, chosen == truth, np.arange(n), np.full(n, kind), np.full(n, seed), chosen


def collapsed_lessons(n: int = 200) -> Correctness:
    """Of changes that all move the images alike and leave the predictions ever fewer labels."""
    parts = [collapsing(n, 0, "", 10)]
    parts += [collapsing(n, 10 * kind + left, "abc"[kind], left) for kind in range(3) for left in (1, 2, 4, 8)]
    return fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("labels", [1, 2, 6])
def test_moved_images_that_all_get_the_same_labels_are_known_to_be_wrong(labels: int) -> None:
    """Nothing that is told of any single one of them shows it."""
    seen, right, *_, chosen = collapsing(1000, 99, "new", labels)
    found = collapsed_lessons().estimate(seen, chosen)
    assert abs(found.value - right.mean()) < 0.15
    assert found.low <= right.mean() <= found.high


def test_other_frequencies_alone_cost_nothing() -> None:
    """Images of one class, as they were: predictions are all alike and right."""
    learned_now = collapsed_lessons()
    seen = np.random.default_rng(5).normal(0, 1, (500, 3))
    assert learned_now.estimate(seen, np.full(500, 3)).value > 0.95 * learned_now.estimate(seen, spread(500)).value
    assert learned_now.estimate(seen, np.full(500, 3)).value > 0.85


def hills(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thumbnails of hills that lie left or right, statistics that say nothing, and where they lie."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    y, x = np.mgrid[:8, :8]
    centres = np.where(labels, 5.5, 1.5)[:, None, None] + rng.normal(0, 0.4, (n, 1, 1))
    pixels = np.exp(-((x - centres) ** 2 + (y - 3.5) ** 2) / 4) + rng.normal(0, 0.02, (n, 8, 8))
    return pixels.reshape(n, 64), rng.normal(0, 1, (n, 5)), labels


def test_others_see_through_another_light_and_contradict_what_is_wrong() -> None:
    known, known_statistics, known_labels = hills(40, 0)
    others = SecondOpinions(known, known_statistics, known_labels, 2)
    new, statistics, labels = hills(20, 1)
    p = np.full((20, 2), 0.5)
    right, wrong = (others.about(p, chosen, 0.2 + 0.3 * new, statistics) for chosen in (labels, 1 - labels))
    assert right.shape == (20, OPINIONS)
    assert (right[:, 3] > 0).all() and (wrong[:, 3] < 0).all()  # thumbnails
    assert (right[:, 5] > 0).all() and (wrong[:, 5] < 0).all()  # edges in them
    assert abs(right[:, 4].mean()) < abs(right[:, 3].mean()) / 2  # statistics, of which nothing is to be learned
    near, far = others.about(p, labels, new, statistics), others.about(p, labels, new + 3, statistics + 9)
    assert (far[:, 1:3] > near[:, 1:3]).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_that_may_be_alike_can_be_asked(n: int) -> None:
    flat = SecondOpinions(np.full((n, 64), 0.5), np.zeros((n, 5)), np.zeros(n, dtype=int), 3)
    told = flat.about(
        np.full((4, 3), 1 / 3), np.arange(4) % 3, np.random.default_rng(0).random((4, 64)), np.ones((4, 5))
    )
    assert np.isfinite(told).all()


def test_images_are_asked_about_in_parts_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    others = SecondOpinions(*hills(30, 2), 2)
    new, statistics, labels = hills(25, 3)
    p = np.random.default_rng(4).dirichlet([1, 1], 25)
    whole = others.about(p, labels, new, statistics)
    monkeypatch.setattr("raytl.evaluation.second_opinions._CELLS", 30 * 64 * 4)
    assert np.allclose(others.about(p, labels, new, statistics), whole)


def drawn(n: int, rng: np.random.Generator, difficulty: float, kind: str, group: int) -> tuple[np.ndarray, ...]:
    """Opinions of which one tells of the difficulty that a change brings, and those of others how it went."""
    level = difficulty + rng.normal(0, 0.7, n)
    right = rng.random(n) < 1 / (1 + np.exp(level - 1.5))
    others = [np.where(right, 0.8, -0.8) + rng.normal(0, 1.2, n) for _ in range(2)]
    seen = np.stack([rng.normal(3, 1, n), level + rng.normal(0, 1, n), *others], axis=1)
    return seen, right, np.arange(n), np.full(n, kind), np.full(n, group), spread(n)


@pytest.mark.parametrize("n", [30, 100, 300])
def test_intervals_hold_the_truth_as_often_as_they_say(n: int) -> None:
    """From as few labelled images as people have; the shifts' difficulty and what it does to a model vary by kind."""
    held, widths = [], []
    for seed in range(30):
        rng = np.random.default_rng([n, seed])
        parts = [drawn(n, rng, 0.0, "", 0)]
        for kind in range(8):
            own = rng.normal(0, 0.5)  # what the opinions do not show
            for strength in (1, 2):
                seen, *rest = drawn(max(20, n // 4), rng, own + strength, f"kind {kind}", 2 * kind + strength)
                seen[:, 1] -= own
                parts.append((seen, *rest))
        learned_now = fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)), seed=seed)
        for strength, own in ((0, 0.0), (1, rng.normal(0, 0.5))):
            seen, right, *_ = drawn(200, rng, own + strength, "new", 0)
            seen[:, 1] -= own
            estimate = learned_now.estimate(seen, spread(200))
            held.append(estimate.low <= right.mean() <= estimate.high)
            widths.append(estimate.high - estimate.low)
    assert 0.85 <= np.mean(held) <= (0.99 if n > 30 else 1.0)  # of thirty images other tasks' doubt is most of it
    assert np.mean(widths) < 0.35  # an interval that holds all there is says nothing


def test_what_narrowing_costs_is_in_doubt_where_no_change_has_shown_it() -> None:
    """Of changes that left all labels; here predictions are all the same."""
    rng = np.random.default_rng(0)
    parts = [drawn(100, rng, 0.0, "", 0)]
    parts += [drawn(50, rng, strength, f"kind {kind}", 2 * kind + strength) for kind in range(8) for strength in (1, 2)]
    learned_now = fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    seen = drawn(500, rng, 2.0, "new", 0)[0]
    usual, narrow = (learned_now.estimate(seen, chosen) for chosen in (spread(500), np.full(500, 3)))
    assert narrow.value == pytest.approx(usual.value, abs=0.02)
    assert narrow.high - narrow.low > 1.15 * (usual.high - usual.low)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_changes_keep_shape_and_grow_with_their_strength(name: str, channels: int) -> None:
    y, x = np.mgrid[:20, :20]
    images = np.repeat((128 + 80 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8)[None, None], channels, axis=1)
    images = np.repeat(images, 8, axis=0)

    def difference(strength: float) -> float:
        made = changed(images, name, strength, np.random.default_rng(3))
        assert made.shape == images.shape and made.dtype == np.uint8
        return float(np.abs(made.astype(float) - images).mean())

    assert name == "flip" or difference(0.25) < difference(1.0)
    assert difference(1.0) > 4


class TestGain:
    """Of one model over another, where they name different labels."""

    def test_is_what_either_says_as_at_most_one_is_right(self) -> None:
        """By counting: two who are right independently of each other, where not both were."""
        rng = np.random.default_rng(0)
        before, after = rng.random(200_000) < 0.9, rng.random(200_000) < 0.6
        possible = ~(before & after)
        counted = (after[possible].astype(float) - before[possible]).mean()
        found = gain(np.array([0.9]), np.array([0.6]), (0.0, 0.0))
        assert found.value[0] == pytest.approx(counted, abs=0.01)
        assert found.doubt[0] == GAIN_DOUBT

    def test_equal_ones_gain_nothing_and_the_other_way_round_is_the_opposite(self) -> None:
        a, b = np.random.default_rng(1).uniform(0, 1, (2, 50))
        assert gain(a, a, (0.3, 0.3)).value == pytest.approx(np.zeros(50))
        there, back = gain(a, b, (0.1, 0.4)), gain(b, a, (0.4, 0.1))
        assert there.value == pytest.approx(-back.value) and there.doubt == pytest.approx(back.doubt)
        assert np.isfinite(gain(np.array([0.0, 1.0]), np.array([0.0, 1.0]), (0.1, 0.1)).value).all()

    @pytest.mark.parametrize("which", [0, 1])
    def test_doubted_is_what_few_labelled_images_leave_open(self, which: int) -> None:
        """All log-odds of one model moved by 1.6449 standard errors change it by as much."""
        error, odds = 0.01, np.random.default_rng(2).normal(1, 1, (2, 20))
        moved = odds.copy()
        moved[which] += 1.6449 * error
        at, near = (gain(*(1 / (1 + np.exp(-values))), (0.0, 0.0)).value for values in (odds, moved))
        errors = (error, 0.0) if which == 0 else (0.0, error)
        doubt = gain(*(1 / (1 + np.exp(-odds))), errors).doubt - GAIN_DOUBT
        assert doubt == pytest.approx(abs(near - at), rel=0.05)

    def test_the_level_of_few_is_known_less(self) -> None:
        levels = [learned(images).level_error for images in (20, 200, 2000)]
        assert levels == sorted(levels, reverse=True) and levels[0] > 0.6 and levels[2] < 0.1
