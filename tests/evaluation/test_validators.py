"""What every validator must do, the traps of the label-free ones, and each against a plain formula."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from raytl.core.errors import UserError
from raytl.core.plugins import PluginWarning
from raytl.evaluation import Outputs, score_all, validators
from raytl.evaluation.validators.snd import soft_neighbourhood_density
from raytl.testing import ValidatorSuite
from raytl.testing.validators import K, N, model, softmax

FALLS_FOR_COLLAPSE = {"entropy"}
FALLS_FOR_SHRUG = {"frequency-match"}
LABEL_FREE = [name for name in validators.names() if validators.get(name).touches == {"unlabelled"}]


def collapsed(outputs: Outputs, sure: float = 0.999) -> Outputs:
    """Every image is of class 0."""
    assert outputs.unlabelled_probabilities is not None
    n, k = outputs.unlabelled_probabilities.shape
    noise = np.random.default_rng(1).uniform(0, 1e-4, size=(n, k))
    p = np.full((n, k), (1 - sure) / (k - 1)) + noise
    p[:, 0] = sure
    p /= p.sum(axis=1, keepdims=True)
    return Outputs(
        unlabelled_probabilities=p,
        unlabelled_features=outputs.unlabelled_features,
        unlabelled_moved_probabilities=p,
        class_frequencies=outputs.class_frequencies,
    )


class TestEveryValidator(ValidatorSuite):
    @pytest.fixture(params=validators.names(), autouse=True)
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


def test_what_each_touches() -> None:
    assert validators.get("target-accuracy").touches == {"target_labels"}
    assert validators.get("target-log-loss").touches == {"target_labels"}
    assert validators.get("source-accuracy").touches == {"source_labels"}
    assert set(LABEL_FREE) == {
        "bnm",
        "class-clustering",
        "consistency",
        "entropy",
        "frequency-match",
        "information-maximisation",
        "snd",
    }


@pytest.mark.parametrize("name", sorted(set(LABEL_FREE) - FALLS_FOR_COLLAPSE))
@pytest.mark.parametrize("sure", [0.3, 0.6, 0.99, 0.9999])
def test_a_collapsed_model_does_not_win(name: str, sure: float) -> None:
    """Not against a fair model, however sure it is that everything is one class."""
    fair = model(0.5)
    assert validators.get(name).score(collapsed(fair, sure)) < 0.8 * validators.get(name).score(fair)


@pytest.mark.parametrize("name", sorted(set(LABEL_FREE) - FALLS_FOR_SHRUG))
def test_a_model_that_shrugs_at_everything_does_not_win(name: str) -> None:
    fair = model(0.5)
    rng = np.random.default_rng(0)
    shrug, again = (softmax(rng.normal(size=(N, K)) * 0.01) for _ in range(2))
    features = fair.unlabelled_features
    outputs = Outputs(
        unlabelled_probabilities=shrug, unlabelled_features=features, unlabelled_moved_probabilities=again
    )
    assert validators.get(name).score(outputs) < validators.get(name).score(fair)


def test_a_match_of_frequencies_alone_falls_for_a_shrug() -> None:
    """As its documentation says: saying the frequencies of every image matches them."""
    shares = np.array([0.7, 0.2, 0.1])
    shrug = Outputs(unlabelled_probabilities=np.tile(shares, (9, 1)), class_frequencies=shares)
    assert validators.get("frequency-match").score(shrug) == pytest.approx(0.0, abs=1e-12)


def test_frequencies_of_a_skewed_target_are_matched_by_the_skewed_model_and_not_by_the_even_one() -> None:
    frequencies = np.array([0.8, 0.1, 0.1])
    skewed, even = np.eye(3)[[0] * 8 + [1, 2]], np.eye(3)[np.arange(9) % 3]

    def scores(p: np.ndarray) -> dict[str, float]:
        return score_all(Outputs(unlabelled_probabilities=p, class_frequencies=frequencies))

    assert scores(skewed)["frequency-match"] == pytest.approx(0.0, abs=1e-12)
    assert scores(skewed)["information-maximisation"] < scores(even)["information-maximisation"]
    middle = (frequencies + 1 / 3) / 2
    plain = sum((q * np.log(q / middle)).sum() for q in (frequencies, np.full(3, 1 / 3))) / 2
    assert scores(even)["frequency-match"] == pytest.approx(-plain)
    disjoint = Outputs(unlabelled_probabilities=np.eye(3)[[1, 2]], class_frequencies=np.eye(3)[0])
    assert score_all(disjoint)["frequency-match"] == pytest.approx(-math.log(2))


@pytest.mark.parametrize("name", sorted(FALLS_FOR_COLLAPSE))
def test_collapse_is_what_some_fall_for(name: str) -> None:
    """Why these are not to be chosen by alone; should this fail, their documentation is wrong."""
    fair = model(0.5)
    assert validators.get(name).score(collapsed(fair)) > validators.get(name).score(fair)


def plain_density(p: np.ndarray) -> float:
    unit = [row / math.sqrt((row**2).sum()) for row in p]
    total = 0.0
    for i, a in enumerate(unit):
        weights = [math.exp(float(a @ b) / 0.05) for j, b in enumerate(unit) if j != i]
        total -= sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights) / len(unit)
    return total


def test_snd_is_the_papers_density_where_predictions_are_informative() -> None:
    p = model(1.0).unlabelled_probabilities
    assert p is not None
    assert soft_neighbourhood_density(p[:40]) == pytest.approx(plain_density(p[:40]))


def test_snd_of_many_images_is_that_of_a_part_of_them() -> None:
    large, small = (model(0.6, n=n).unlabelled_probabilities for n in (4400, 2000))
    assert large is not None
    assert small is not None
    assert soft_neighbourhood_density(large) == pytest.approx(soft_neighbourhood_density(small), rel=0.1)


def test_plain_formulas() -> None:
    outputs = model(0.4, n=12)
    p, y = outputs.unlabelled_probabilities, outputs.target_labels
    assert p is not None
    assert y is not None

    def h(row: np.ndarray) -> float:
        return -sum(float(v) * math.log(v) for v in row)

    scores = score_all(outputs)
    moved = outputs.unlabelled_moved_probabilities
    assert moved is not None
    assert scores["consistency"] == pytest.approx(cohen_kappa_score(p.argmax(1), moved.argmax(1)))
    mean_h = sum(h(row) for row in p) / len(p)
    assert scores["entropy"] == pytest.approx(-mean_h)
    assert scores["information-maximisation"] == pytest.approx(h(p.mean(axis=0)) - mean_h)
    assert scores["bnm"] == pytest.approx(np.sqrt(np.linalg.eigvalsh(p.T @ p)).sum() / len(p))
    assert scores["target-log-loss"] == pytest.approx(sum(math.log(p[i, c]) for i, c in enumerate(y)) / len(p))
    assert scores["target-accuracy"] == scores["source-accuracy"] == sum(p.argmax(1) == y) / len(p)


def test_before_the_last_epoch_only_what_is_worth_computing_every_epoch_is() -> None:
    outputs = model(0.4, n=12)
    every, last = score_all(outputs, last=False), score_all(outputs)
    assert set(last) == set(validators.names())
    assert every == {name: last[name] for name in last if validators.get(name).every_epoch}
    # What trials are compared by while they train.
    assert set(every) == set(last) - {"bnm", "class-clustering", "frequency-match", "snd"}


def test_clustering_sees_predictions_that_do_not_follow_the_features() -> None:
    fair = model(1.5)
    assert fair.unlabelled_probabilities is not None
    shuffled = np.random.default_rng(0).permutation(fair.unlabelled_probabilities)
    entry = validators.get("class-clustering")
    assert entry.score(fair) > 0.9
    assert entry.score(
        Outputs(unlabelled_probabilities=shuffled, unlabelled_features=fair.unlabelled_features)
    ) == pytest.approx(0.0, abs=0.1)


def test_a_misspelt_validator_names_the_nearest_and_a_wrong_input_is_a_bug() -> None:
    with pytest.raises(UserError, match="unknown validator 'sdn'; did you mean 'snd'"):
        validators.get("sdn")
    with pytest.raises(ValueError, match="inputs must be among"):
        validators.validator("other", "test_labels")


def _raises(probabilities: np.ndarray) -> float:
    raise ValueError("y_true has one class")


def test_one_that_raises_is_left_out_and_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = validators.ValidatorEntry("falls", _raises, ("target_probabilities",))
    monkeypatch.setitem(validators.base.registry._entries, "falls", entry)
    monkeypatch.setitem(validators.base.registry._origins, "falls", "mine")
    with pytest.warns(PluginWarning, match=r"'falls' of module 'mine' .*ValueError: y_true has one class") as told:
        found = score_all(model(0.5))
    assert len(told) == 1
    assert set(found) == set(validators.names()) - {"falls"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_all(model(0.5))


def test_one_that_the_score_is_made_of_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = validators.ValidatorEntry("entropy", _raises, ("target_probabilities",))
    monkeypatch.setitem(validators.base.registry._entries, "entropy", entry)
    with pytest.raises(ValueError, match="one class"):
        score_all(model(0.5))
