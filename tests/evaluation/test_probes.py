"""Convex heads against scikit-learn's optimum, and what they must not be moved by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression

from raytl.evaluation.probes import Probe, fit_logistic

LOADERS = {"digits": load_digits, "wine": load_wine, "breast cancer": load_breast_cancer}


def data(n: int, d: int, k: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return rng.normal(size=(n, d)) + signal * rng.normal(size=(k, d))[labels], labels


def standardised(features: np.ndarray) -> np.ndarray:
    """As a probe sees them: ten items more, in which each feature varies as the median one does; rows of length 1."""
    centred = (features - features.mean(axis=0))[:, features.std(axis=0) > 0]
    variances = centred.var(axis=0)
    usual = np.sort(variances)[(len(variances) - 1) // 2]
    divided = centred / np.sqrt((len(features) * variances + 10 * usual) / (len(features) + 10))
    return np.asarray(divided / np.sqrt(np.square(divided).sum(axis=1).mean()))


def raw_probabilities(probe: Probe, features: np.ndarray) -> np.ndarray:
    return softmax(probe.logits(features), axis=1)


@pytest.mark.parametrize("strength", [1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize("name", LOADERS)
def test_the_optimum_is_that_of_scikit_learn(name: str, strength: float) -> None:
    features, labels = LOADERS[name](return_X_y=True)
    features, labels = features[:400], labels[:400]
    classes = int(labels.max()) + 1
    standard = standardised(features)
    # Of two classes scikit-learn has one weight vector, the difference of ours, whose penalty is half as large.
    c = (1 if classes > 2 else 2) / (len(labels) * strength)
    theirs = LogisticRegression(C=c, max_iter=20000, tol=1e-8).fit(standard, labels).predict_proba(standard)
    ours = raw_probabilities(fit_logistic(features, labels, classes, strengths=[strength], max_folds=1), features)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_more_features_than_items_reach_the_same_optimum() -> None:
    features, labels = data(40, 300)
    standard = standardised(features)
    theirs = LogisticRegression(C=1 / (40 * 1e-3), max_iter=20000, tol=1e-9).fit(standard, labels)
    ours = fit_logistic(features, labels, 3, strengths=[1e-3])
    np.testing.assert_allclose(raw_probabilities(ours, features), theirs.predict_proba(standard), atol=1e-3)


def test_what_hardly_varied_among_a_few_items_does_not_shout_down_all_else() -> None:
    """Rectified units may be quiet on ten images and loud on new ones; by their own deviations 39 % are right."""
    rng = np.random.default_rng(0)
    labels, truth, centres = np.arange(10) % 5, np.arange(1000) % 5, rng.normal(size=(5, 400))
    seen, new = (np.maximum(centres[y] + 2 * rng.normal(size=(len(y), 400)) - 3, 0) for y in (labels, truth))
    assert (fit_logistic(seen, labels, 5).logits(new).argmax(axis=1) == truth).mean() > 0.5


def test_with_many_items_the_strength_has_the_least_log_loss_out_of_fold() -> None:
    chosen = []
    for signal in (0.0, 0.2, 1.0):
        features, labels = data(600, 30, signal=signal)
        probe = fit_logistic(features, labels, 3)
        assert probe.log_losses[probe.strength] <= min(probe.log_losses.values()) + 0.003
        loss = -np.log(probe.out_of_fold[np.arange(600), labels]).mean()
        assert loss == pytest.approx(probe.log_losses[probe.strength], abs=1e-9)
        chosen.append(probe.strength)
    assert chosen[0] > chosen[1] > chosen[2]


def test_with_few_items_luck_out_of_fold_does_not_choose_an_extreme_strength() -> None:
    # Far apart: each fold is all right, and the weakest penalty has the least loss, by next to nothing.
    probe = fit_logistic(*data(9, 50, signal=4.0), 3)
    assert min(probe.log_losses, key=probe.log_losses.__getitem__) == 1e-5 < probe.strength
    one_each = fit_logistic(*data(3, 50, signal=4.0), 3)
    assert not one_each.log_losses and one_each.strength == 0.1


def test_a_second_fit_is_the_same_bit_for_bit() -> None:
    first, second = (fit_logistic(*data(60, 100), 3) for _ in range(2))
    for name in ("weight", "bias", "out_of_fold"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_tensors_are_taken_as_they_are() -> None:
    features, labels = data(60, 20)
    ours = fit_logistic(torch.tensor(features), torch.tensor(labels), 3)
    np.testing.assert_array_equal(ours.weight, fit_logistic(features, labels, 3).weight)


def test_groups_are_never_on_two_sides_of_a_fold() -> None:
    # Every item twice: a fold that tore a pair apart would find the item's twin in training.
    features, labels = data(40, 400, signal=0.0)
    twins, groups = np.tile(features, (2, 1)), np.tile(np.arange(40), 2)
    torn = fit_logistic(twins, np.tile(labels, 2), 3, strengths=[1e-5])
    whole = fit_logistic(twins, np.tile(labels, 2), 3, strengths=[1e-5], groups=groups)
    assert torn.log_losses[1e-5] < 0.5 < 1.0 < whole.log_losses[1e-5]


def test_classes_without_items_get_next_to_nothing_and_one_class_takes_all() -> None:
    features, labels = data(30, 8)
    probe = fit_logistic(features, np.array([0, 2, 4])[labels], 6)
    p = probe.probabilities(features * 100)
    assert np.isfinite(p).all() and p[:, [1, 3, 5]].max() < 1e-6
    assert np.nanmax(probe.out_of_fold[:, [1, 3, 5]]) < 1e-6
    alone = fit_logistic(features, np.full(30, 3), 6)
    assert alone.probabilities(features)[:, 3].min() > 1 - 1e-6


def test_an_only_image_of_a_class_is_learned_and_never_held_out() -> None:
    features, labels = data(31, 20, k=2, signal=3.0)
    features[30] += 30.0
    labels[30] = 2
    probe = fit_logistic(features, labels, 3)
    assert np.isnan(probe.out_of_fold[30]).all() and np.isfinite(probe.out_of_fold[:30]).all()
    assert probe.probabilities(features)[30].argmax() == 2
    one_each = fit_logistic(features[[0, 1, 30]], labels[[0, 1, 30]], 3)
    assert one_each.temperature == 1.0 and not one_each.log_losses and np.isnan(one_each.out_of_fold).all()
    assert (one_each.probabilities(features[[0, 1, 30]]).argmax(axis=1) == [0, 1, 2]).all()


def test_features_that_say_nothing_leave_the_shares_of_the_classes() -> None:
    labels = np.r_[np.zeros(9, int), np.ones(3, int)]
    for features in (np.ones((12, 4)), np.zeros((12, 0))):
        np.testing.assert_allclose(
            raw_probabilities(fit_logistic(features, labels, 2), features), [[0.75, 0.25]] * 12, atol=1e-3
        )


def test_one_group_of_all_items_cannot_be_held_out() -> None:
    probe = fit_logistic(*data(30, 4), 3, groups=np.zeros(30))
    assert not probe.log_losses and np.isnan(probe.out_of_fold).all() and probe.strength == 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    features, labels = data(12, 3)
    features[4, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        fit_logistic(features, labels, 3)


@pytest.mark.parametrize("value", [1e30, 1e300, 1e-80])
def test_outliers_and_extreme_scales_do_not_overflow(value: float) -> None:
    features, labels = data(30, 4, signal=3.0)
    features[:, 0] *= value
    features[3, 1] = 1e200
    probe = fit_logistic(features, labels, 3)
    assert np.isfinite(probe.weight).all() and np.isfinite(probe.probabilities(features)).all()
    assert (probe.probabilities(features).argmax(axis=1) == labels).mean() > 0.7


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(24, 5), (18, 40)]), st.sampled_from([1e-3, 0.1]))
def test_what_a_probe_must_not_be_moved_by(seed: int, shape: tuple[int, int], strength: float) -> None:
    rng = np.random.default_rng(seed)
    features, labels = data(*shape, seed=seed)
    features, fresh = features[2:], data(*shape, seed=seed + 1)[0]
    labels = labels[2:]

    def probabilities(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return raw_probabilities(fit_logistic(x, y, 3, strengths=[strength], max_folds=1), z)

    expected = probabilities(features, labels, fresh)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0)
    items, order = rng.permutation(len(labels)), rng.permutation(3)
    scale, offset = 10.0 ** rng.uniform(-6, 6), rng.normal(size=features.shape[1])
    constant = np.full((len(labels), 1), rng.normal())
    same = {
        "items": probabilities(features[items], labels[items], fresh),
        "classes": probabilities(features, order[labels], fresh)[:, order],
        "scale": probabilities((features + offset) * scale, labels, (fresh + offset) * scale),
        "constant": probabilities(np.hstack([features, constant]), labels, np.hstack([fresh, fresh[:, :1] * 1e3])),
        "twice": probabilities(np.hstack([features, features]), labels, np.hstack([fresh, fresh])),
    }
    for name, given_probabilities in same.items():
        np.testing.assert_allclose(given_probabilities, expected, atol=2e-4, err_msg=name)


def test_weights_stand_for_copies_and_balancing_for_weights() -> None:
    features, labels = data(30, 4)
    copies = 1 + (np.arange(30) % 3 == 0) * 2
    many = fit_logistic(features.repeat(copies, axis=0), labels.repeat(copies), 3, strengths=[0.01], max_folds=1)
    one = fit_logistic(features, labels, 3, strengths=[0.01], max_folds=1, sample_weight=copies)
    np.testing.assert_allclose(raw_probabilities(one, features), raw_probabilities(many, features), atol=0.02)
    # Uninformative features: the bias alone decides, and balanced classes leave it nothing.
    skewed = np.r_[np.zeros(27, int), [1, 1, 1]]
    balanced = fit_logistic(features, skewed, 2, strengths=[10.0], class_balanced=True)
    assert np.abs(raw_probabilities(balanced, features) - 0.5).max() < 0.15
    assert raw_probabilities(fit_logistic(features, skewed, 2, strengths=[10.0]), features)[:, 0].mean() > 0.85


def test_a_few_groups_of_many_classes_are_no_fewer_images_than_classes() -> None:
    """One image of each of ten classes from two places: the strength is that of ten images, not of two."""
    rng, labels = np.random.default_rng(0), np.arange(10)
    features = rng.normal(size=(10, 20))
    alone = fit_logistic(features, labels, 10)
    grouped = fit_logistic(features, labels, 10, groups=labels % 2)
    assert grouped.strength == alone.strength < 0.1


def test_a_dozen_items_do_not_move_the_temperature_far() -> None:
    """The strength was chosen for the log loss already; with less doubt temperatures lay between 0.6 and 1.4."""
    found = [fit_logistic(*data(12, 40, seed=seed), 3).temperature for seed in range(8)]
    assert np.abs(np.log(found)).max() < 0.2


def test_some_of_many_items_tell_the_strength_as_well_and_all_of_them_teach() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(6000) % 20
    features = rng.normal(size=(20, 30))[labels] * 0.5 + rng.normal(size=(6000, 30))
    telling = np.where(np.arange(6000) < 1500, 1.0, 0.0)
    few, everyone = (fit_logistic(features, labels, 20, telling=own) for own in (telling, None))
    assert few.strength == everyone.strength
    assert np.isfinite(few.out_of_fold[:1500]).all()
    assert np.isnan(few.out_of_fold[1500:]).all()
    exact = fit_logistic(features, labels, 20, strengths=[few.strength])
    assert np.abs(few.logits(features) - exact.logits(features)).max() < 0.2  # of logits from -10 to 10
    assert np.mean(few.logits(features).argmax(1) == exact.logits(features).argmax(1)) > 0.998
