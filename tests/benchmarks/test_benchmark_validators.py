"""The rules that choose among models without labels: against plain formulas, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from validators import (
    RULES,
    VALIDATORS,
    Pool,
    consensus,
    correlation,
    one_a_class,
    regression,
    regrets,
    trust,
    weighted,
)

from raytl.search.records import TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

MODELS, SHIFTS = 12, 5


def pool(seed: int = 0, **constant: float) -> Pool:
    """Validators that follow accuracy on the shifts more or less; some of them constant."""
    rng = np.random.default_rng(seed)

    def seen() -> tuple[dict[str, np.ndarray], np.ndarray]:
        right = rng.uniform(0.2, 0.9, MODELS)
        values = {name: right + rng.normal(0, 0.1 * n, MODELS) for n, name in enumerate(VALIDATORS)}
        values |= {name: np.full(MODELS, value) for name, value in constant.items()}
        return values | {"score": rng.normal(size=MODELS), "consensus": rng.normal(size=MODELS)}, right

    strategies = [Strategy("plain:pixels", head_lr=0.01 + n / 100) for n in range(MODELS)]
    values, truth = seen()
    records = tuple(
        TrialRecord(n, "search", one.to_dict(), one.key, status=TrialStatus.COMPLETED, score=float(values["score"][n]))
        for n, one in enumerate(strategies)
    )
    return Pool(records, values, truth, {f"shift {n}": seen() for n in range(SHIFTS)}, rng.random((2, MODELS)))


def test_trust_is_the_mean_rank_correlation_over_the_shifts() -> None:
    made = pool()
    for name, found in trust(made).items():
        plain = np.mean([spearmanr(values[name], right).statistic for values, right in made.shifts.values()])
        assert found == pytest.approx(plain)


def test_ties_are_ranked_as_scipy_ranks_them() -> None:
    a, b = np.array([1.0, 1, 2, 3, 3, 3]), np.array([0.0, 2, 2, 1, 5, 5])
    assert correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_models_changes_nothing(rule: str) -> None:
    made, order = pool(), np.random.default_rng(3).permutation(MODELS)
    np.testing.assert_allclose(RULES[rule](made)[order], RULES[rule](made.take(order)), atol=1e-12)


def test_a_constant_validator_has_no_weight() -> None:
    made = pool(snd=1.0)
    assert trust(made)["snd"] == 0.0
    without = weighted(made, {name: 0.0 if name == "snd" else weight for name, weight in trust(made).items()})
    np.testing.assert_allclose(weighted(made, trust(made)), without)


def test_one_that_ranks_backwards_has_no_say_either() -> None:
    made = pool()
    backwards = {name: ({**values, "snd": -right}, right) for name, (values, right) in made.shifts.items()}
    other = Pool(made.records, made.values, made.truth, backwards, made.labelled)
    assert trust(other)["snd"] == pytest.approx(-1.0)
    np.testing.assert_allclose(weighted(other, trust(other)), weighted(other, trust(other) | {"snd": 0.0}))


def test_shifts_on_which_all_are_alike_tell_nothing() -> None:
    made = pool()
    alike = {name: (values, np.full(MODELS, 0.99)) for name, (values, _) in made.shifts.items()}
    tied = Pool(made.records, made.values, made.truth, alike, made.labelled)
    assert set(trust(tied).values()) == {0.0}
    assert not regression(tied).any()
    best = tied.truth.max()
    assert regrets(tied)["weight"] == pytest.approx(regrets(tied)["random"]) == pytest.approx(best - tied.truth.mean())


def test_the_regression_finds_the_validator_that_tells() -> None:
    made = pool()
    telling = {name: ({**values, "snd": right}, right) for name, (values, right) in made.shifts.items()}
    others = {name: np.full(MODELS, 0.0) for name in VALIDATORS}
    values = made.values | others | {"snd": made.truth}
    found = regression(Pool(made.records, values, made.truth, telling, made.labelled))
    assert int(found.argmax()) == int(made.truth.argmax())


def test_consensus_is_agreement_with_the_mean_of_the_others() -> None:
    said = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 50))
    for model, found in enumerate(consensus(said)):
        others = np.delete(said, model, axis=0).mean(0).argmax(1)
        assert found == pytest.approx((said[model].argmax(1) == others).mean())


def test_a_few_labels_choose_by_what_is_right_of_one_image_a_class() -> None:
    labels = np.repeat([0, 1, 2], 10)
    right = np.stack([labels == 0, labels <= 1, labels >= 0])
    np.testing.assert_allclose(one_a_class(right, labels), np.tile([1 / 3, 2 / 3, 1.0], (60, 1)))


def test_labels_decide_before_the_score_does() -> None:
    made = pool()
    seen = np.zeros((1, MODELS))
    seen[0, [3, 5]] = 1.0
    told = Pool(made.records, made.values, made.truth, made.shifts, seen)
    chosen = max((3, 5), key=lambda model: made.values["score"][model])
    assert regrets(told)["labels"] == pytest.approx(made.truth.max() - made.truth[chosen])
