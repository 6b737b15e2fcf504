"""Class frequencies of unlabelled images: right under label shift, unsure where the images differ too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.datasets import load_digits

from raytl.evaluation.class_frequencies import (
    Frequencies,
    bbse_frequencies,
    em_frequencies,
    estimate_frequencies,
    fit_bias_correction,
)
from raytl.evaluation.metrics import confusion
from raytl.evaluation.probes import fit_logistic

SKEWED = np.array([0.7, 0.2, 0.1])


def posteriors(frequencies: np.ndarray, n: int, seed: int, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Exact posteriors under even classes for three Gaussians, of images whose classes are as frequent as said."""
    rng = np.random.default_rng(seed)
    k = len(frequencies)
    labels = rng.choice(k, n, p=frequencies)
    x = gap * np.eye(k)[labels] + rng.normal(size=(n, k))
    return softmax(gap * x, axis=1), labels


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum() / 2)


def test_em_finds_the_frequencies_that_make_the_images_most_likely() -> None:
    p, labels = posteriors(SKEWED, 2000, 0)
    source = np.full(3, 1 / 3)
    found = em_frequencies(p, source)
    assert total_variation(found, np.bincount(labels) / 2000) < 0.02 < total_variation(p.mean(axis=0), SKEWED)

    def loss(z: np.ndarray) -> float:
        return float(-np.log((p / source) @ softmax(np.r_[z, 0.0])).mean())

    np.testing.assert_allclose(found, softmax(np.r_[minimize(loss, np.zeros(2)).x, 0.0]), atol=1e-4)


def test_bbse_solves_the_confusion_and_stays_with_the_source_where_it_says_nothing() -> None:
    held, labels = posteriors(np.full(3, 1 / 3), 3000, 1)
    p, _ = posteriors(SKEWED, 3000, 2)
    found = bbse_frequencies(confusion(held, labels), np.bincount(p.argmax(axis=1), minlength=3) / 3000)
    assert total_variation(found, SKEWED) < 0.03
    blind = np.array([[5, 0, 0], [3, 0, 0], [2, 0, 0]])
    np.testing.assert_allclose(bbse_frequencies(blind, np.array([1.0, 0, 0])), [0.5, 0.3, 0.2], atol=1e-6)


def test_prior_counts_weigh_as_images_of_known_class() -> None:
    p, _ = posteriors(SKEWED, 100, 3, gap=5.0)
    alone, source = em_frequencies(p, np.full(3, 1 / 3)), np.full(3, 1 / 3)
    counts = np.array([0.0, 0.0, 100.0])
    np.testing.assert_allclose(em_frequencies(p, source, prior_counts=counts), (alone + np.eye(3)[2]) / 2, atol=0.01)


def test_a_bias_correction_undoes_bias_and_overconfidence() -> None:
    p, labels = posteriors(np.full(3, 1 / 3), 4000, 4)
    bent = softmax(3 * (np.log(p) + np.array([0.6, 0.0, -0.3])), axis=1)
    np.testing.assert_allclose(fit_bias_correction(bent, labels)(bent).mean(axis=0), 1 / 3, atol=0.02)
    assert fit_bias_correction(bent, labels).temperature == pytest.approx(3.0, rel=0.1)
    # One image of one class: nearly nothing is learned from it.
    np.testing.assert_allclose(fit_bias_correction(p[:1], labels[:1])(p), p, atol=0.1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_images_and_classes_is_no_matter_and_frequencies_sum_to_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, source = rng.dirichlet(np.ones(4), 30), rng.dirichlet(np.full(4, 3.0))
    table, shares = rng.integers(1, 9, (4, 4)), rng.dirichlet(np.ones(4))
    items, order = rng.permutation(30), rng.permutation(4)
    em, bbse = em_frequencies(p, source), bbse_frequencies(table, shares)
    for found in (em, bbse):
        assert found.sum() == pytest.approx(1.0) and (found >= 0).all()
    np.testing.assert_allclose(em_frequencies(p[items][:, order], source[order]), em[order], atol=1e-4)
    np.testing.assert_allclose(bbse_frequencies(table[order][:, order], shares[order]), bbse[order], atol=1e-8)


class TestEstimate:
    """Digits, a probe on 300 of them, and 500 unlabelled ones of which class 0 to 3 are far more frequent."""

    TRUE = np.r_[np.full(4, 0.2), np.full(6, 0.2 / 6)]

    @pytest.fixture(scope="class")
    def digits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        features, labels = load_digits(return_X_y=True)
        rng = np.random.default_rng(0)
        order = rng.permutation(len(labels))
        rest = order[300:]
        drawn = np.concatenate([rng.choice(rest[labels[rest] == c], int(500 * self.TRUE[c])) for c in range(10)])
        return features[order[:300]], labels[order[:300]], features[drawn], labels[drawn]

    def estimate(
        self,
        digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        factor: float = 1.0,
        counts: np.ndarray | None = None,
    ) -> Frequencies:
        features, labels, unlabelled, _ = digits
        probe = fit_logistic(features, labels, 10)
        p = softmax(probe.logits(unlabelled * factor), axis=1)
        return estimate_frequencies(p, probe.out_of_fold, labels, target_counts=counts, rounds=20)

    def test_label_shift_is_found_and_called_reliable(self, digits) -> None:  # type: ignore[no-untyped-def]
        found = self.estimate(digits)
        assert found.reliable
        assert total_variation(found.frequencies, self.TRUE) < 0.05
        assert ((found.low <= self.TRUE + 0.005) & (found.high >= self.TRUE - 0.005)).mean() >= 0.8

    def test_images_of_one_group_are_one_draw(self) -> None:
        """Ten pictures of each of 24: what is known is what 24 tell."""
        wider = []
        for seed in range(8):
            rng = np.random.default_rng(seed)

            def said(labels: np.ndarray, rng: np.random.Generator = rng) -> np.ndarray:
                return softmax(rng.normal(0, 1, (len(labels), 2)) + 1.5 * np.eye(2)[labels], axis=1)

            labels = np.repeat([0, 1], 12)
            held, groups = np.repeat(said(labels), 10, axis=0), np.repeat(np.arange(24), 10)
            unlabelled = said((rng.random(500) < 0.3).astype(int))
            given = (unlabelled, held, np.repeat(labels, 10))
            alone = estimate_frequencies(*given, rounds=40)
            together = estimate_frequencies(*given, groups=groups, rounds=40)
            if alone.reliable and together.reliable:  # else something else widens the ranges
                wider.append((together.high - together.low).mean() / (alone.high - alone.low).mean())
        assert len(wider) > 2 and np.mean(wider) > 1.4

    def test_even_labels_of_a_skewed_domain_are_not_believed(self, digits) -> None:  # type: ignore[no-untyped-def]
        even = np.full(10, 30) + np.array([6, -6, 5, -5, 4, -4, 3, -3, 7, -7])  # as uneven as fair draws are
        for counts in (np.full(10, 30), even):
            found = self.estimate(digits, counts=counts)
            np.testing.assert_array_equal(found.frequencies, self.estimate(digits).frequencies)
            assert total_variation(found.frequencies, self.TRUE) < 0.05
        fair = self.estimate(digits, counts=np.round(300 * self.TRUE)).frequencies
        assert total_variation(fair, self.TRUE) < total_variation(self.estimate(digits).frequencies, self.TRUE)

    def test_images_that_look_different_make_it_unsure(self, digits) -> None:  # type: ignore[no-untyped-def]
        sure, unsure = self.estimate(digits), self.estimate(digits, factor=0.4)
        assert not unsure.reliable
        assert (unsure.high - unsure.low).mean() > 2 * (sure.high - sure.low).mean()

    def test_too_few_held_out_images_say_nothing(self) -> None:
        p = np.full((5, 3), 1 / 3)
        found = estimate_frequencies(p, p, np.array([0, 0, 1, 1, 2]))
        assert not found.reliable and (found.low == 0).all() and (found.high == 1).all()
        none = estimate_frequencies(p[:0], p, np.array([0, 0, 1, 1, 2]))
        assert not none.reliable

    def test_a_class_that_is_named_is_one_that_differs(self) -> None:
        """Of even classes, a few labels each, the estimate is furthest off for the one that it says most of."""
        features, labels = load_digits(return_X_y=True)
        named = []
        for seed in range(8):
            order = np.random.default_rng(seed).permutation(len(labels))
            by_class = [order[labels[order] == c] for c in range(10)]
            own, rest = (np.concatenate([index[part] for index in by_class]) for part in (slice(5), slice(5, 35)))
            probe = fit_logistic(features[own], labels[own], 10)
            p = softmax(probe.logits(features[rest]), axis=1)
            found = estimate_frequencies(p, probe.out_of_fold, labels[own], target_counts=np.full(10, 5), rounds=20)
            named.append(found.furthest_from(np.full(10, 0.1)) is not None)
        assert sum(named) <= 1

    def test_and_its_range_holds_what_it_is(self, digits) -> None:  # type: ignore[no-untyped-def]
        found = self.estimate(digits).furthest_from(np.full(10, 0.1))
        assert found is not None
        which, low, high = found
        assert low <= self.TRUE[which] <= high and not low <= 0.1 <= high

    def test_fewer_than_five_labels_of_a_class_are_not_relied_on(self, digits) -> None:  # type: ignore[no-untyped-def]
        features, labels, unlabelled, _ = digits
        for least in (4, 5):
            kept = np.concatenate([np.flatnonzero(labels == c)[: least if c == 3 else 25] for c in range(10)])
            probe = fit_logistic(features[kept], labels[kept], 10)
            p = softmax(probe.logits(unlabelled), axis=1)
            assert estimate_frequencies(p, probe.out_of_fold, labels[kept], rounds=20).reliable == (least >= 5)

    def test_a_second_estimate_is_the_same(self, digits) -> None:  # type: ignore[no-untyped-def]
        np.testing.assert_array_equal(self.estimate(digits).low, self.estimate(digits).low)

    def test_a_predictor_that_hardly_tells_the_classes_apart_is_not_relied_on(self) -> None:
        """Twenty items of each of two classes, right in three of five cases: whatever comes out of it is luck."""
        relied = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            labels = np.repeat([0, 1], 20)
            q = softmax(0.5 * np.eye(2)[labels] + rng.normal(size=(40, 2)), axis=1)
            p = softmax(0.5 * np.eye(2)[rng.integers(0, 2, 300)] + rng.normal(size=(300, 2)), axis=1)
            found = estimate_frequencies(p, q, labels, target_counts=np.array([20, 20]), rounds=10)
            relied.append(found.reliable)
        assert not any(relied)
