"""The choice among candidates: what decides, and what it costs where it is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matthews import MATTHEWS
from scipy.stats import norm

from raytl.evaluation import metrics, paired_metric_interval
from raytl.judging import Contestant, choose, separates
from raytl.judging.choice import BALANCED_LOG_LOSS

ACCURACY = metrics.get("accuracy")


def rows(right: np.ndarray, y: np.ndarray, sure: float = 0.8) -> np.ndarray:
    return np.where((right == (y == 1))[:, None], [1 - sure, sure], [sure, 1 - sure])


def contestant(
    key: str,
    p: np.ndarray,
    unlabelled: float | None = None,
    cost: float = 1.0,
    frozen: float = 0.0,
) -> Contestant:
    return Contestant(key, p, unlabelled, cost, frozen)


Y = np.arange(100) % 2
MOST = np.arange(100) < 80


def test_a_clear_lead_decides_against_everything_else() -> None:
    good = contestant("good", rows(np.arange(100) < 95, Y), unlabelled=0.0, cost=100.0)
    poor = contestant("poor", rows(np.arange(100) < 60, Y), unlabelled=9.0, cost=1.0, frozen=1.0)
    choice = choose([poor, good], Y, ACCURACY)
    assert (choice.key, choice.tied, choice.grounds) == ("good", ("good",), "metric")
    assert 0 < choice.standard_error < 0.1


def test_among_tied_ones_the_unlabelled_evidence_then_frozenness_then_cost_then_the_name_decide() -> None:
    p = rows(MOST, Y)
    plain = contestant("a", p)
    cheap = contestant("b", p, cost=0.5)
    frozen = contestant("c", p, cost=9.0, frozen=1.0)
    assert choose([plain, frozen, cheap], Y, ACCURACY).grounds == "frozen"
    assert choose([plain, frozen, cheap], Y, ACCURACY).key == "c"
    assert (choose([plain, cheap], Y, ACCURACY).key, choose([plain, cheap], Y, ACCURACY).grounds) == ("b", "cost")
    assert choose([contestant("z", p), plain], Y, ACCURACY).key == "a"
    liked = [contestant("d", p, unlabelled=0.7), contestant("e", p, unlabelled=0.6, frozen=1.0)]
    assert (choose(liked, Y, ACCURACY).key, choose(liked, Y, ACCURACY).grounds) == ("d", "unlabelled")
    # One without unlabelled evidence: the evidence cannot be compared, so it does not count.
    assert choose([*liked, plain], Y, ACCURACY).key == "e"


def test_a_few_images_do_not_outvote_what_is_known_of_kinds_and_many_do() -> None:
    def pair(n: int) -> list[Contestant]:
        y = np.arange(n) % 2
        usual = contestant("usual", rows(np.arange(n) % 10 < 7, y), frozen=1.0)
        lucky = contestant("lucky", rows(np.arange(n) % 10 < 9, y), frozen=1.0)
        return [usual, replace(lucky, yields_to=frozenset({"usual", "never tried"}))]

    few, many = (choose(pair(n), np.arange(n) % 2, ACCURACY) for n in (10, 100))
    assert (few.key, few.tied, few.grounds) == ("usual", ("usual", "lucky"), "usual")
    assert (many.key, many.grounds) == ("lucky", "metric")


def test_small_steps_to_kinds_that_usually_do_better_do_not_add_up_to_a_large_one() -> None:
    y, rng = np.arange(80) % 2, np.random.default_rng(0)
    first, second, third = (
        contestant(key, rows(rng.permutation(80) < right, y)) for key, right in (("a", 60), ("b", 52), ("c", 44))
    )
    a_step = [replace(second, yields_to=frozenset({"c"})), third]
    assert choose(a_step, y, ACCURACY).key == "c"
    choice = choose([replace(first, yields_to=frozenset({"b"})), *a_step], y, ACCURACY)
    assert (choice.key, choice.tied) == ("b", ("b", "a"))


def test_who_yields_wins_no_tie_for_those_that_it_yields_to() -> None:
    """A network that is sure of the unlabelled images won the tie, and its place went to what the best was ahead of."""
    y, rng = np.arange(80) % 2, np.random.default_rng(0)
    right = {"best": 60, "trained": 58, "usual": 44}
    best, trained, usual = (contestant(key, rows(rng.permutation(80) < n, y), 0.5) for key, n in right.items())
    trained = replace(trained, unlabelled=0.9, yields_to=frozenset({"usual"}))
    assert choose([trained, usual], y, ACCURACY).key == "trained"  # ahead beyond chance
    assert choose([best, trained, usual], y, ACCURACY).key == "trained"
    near = replace(usual, probabilities=rows(rng.permutation(80) < 52, y))
    assert choose([trained, near], y, ACCURACY).key == "usual"
    choice = choose([best, trained, near], y, ACCURACY)
    assert (choice.key, choice.tied, choice.grounds) == ("best", ("best", "trained"), "usual")


@pytest.mark.parametrize(
    ("right", "tied", "grounds"), [(56, ("usual", "less so"), "usual"), (30, ("usual",), "metric")]
)
@pytest.mark.parametrize("alone", [True, False])
def test_who_leads_those_that_yield_to_it_is_not_said_to_be_the_only_one(
    right: int, tied: tuple[str, ...], grounds: str, alone: bool
) -> None:
    y, rng = np.arange(80) % 2, np.random.default_rng(0)
    usual, less = (contestant(key, rows(rng.permutation(80) < n, y)) for key, n in (("usual", 60), ("less so", right)))
    others = [] if alone else [contestant("poor", rows(rng.permutation(80) < 20, y))]
    choice = choose([usual, replace(less, yields_to=frozenset({"usual"})), *others], y, ACCURACY)
    assert (choice.key, choice.tied, choice.grounds) == ("usual", tied, grounds)
    assert 0 < choice.standard_error < 0.2


def test_where_classes_count_alike_the_largest_does_not_decide_among_those_that_tie() -> None:
    """One holds to how frequent the classes are, and misses the rare one more often; of 308 images it is surer."""
    y = np.r_[np.zeros(300, int), np.ones(8, int)]
    rare = np.r_[np.full(290, 0.2), np.full(10, 0.6), np.full(7, 0.9), 0.2]
    usual = np.r_[np.full(296, 0.01), np.full(4, 0.6), np.full(6, 0.6), np.full(2, 0.02)]
    contestants = [contestant(key, np.c_[1 - p, p]) for key, p in (("rare", rare), ("usual", usual))]
    by = metrics.get("balanced-accuracy")
    gap = paired_metric_interval(by, *(one.probabilities for one in contestants), y)
    assert 0 < gap.value < gap.standard_error  # tied
    assert metrics.get("log-loss")(contestants[1].probabilities, y) < metrics.get("log-loss")(np.c_[1 - rare, rare], y)
    assert choose(contestants, y, by).key == "rare"


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Of the second of two classes, from its logits (n,)."""
    return np.stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))], axis=1)


@pytest.mark.parametrize("name", ["auroc", "average-precision"])
def test_by_order_what_a_class_is_taken_to_be_worth_from_the_start_changes_no_choice(name: str) -> None:
    """A model that was trained as if the classes were equally frequent ranks no image otherwise for it."""
    y, metric, tied = np.repeat([0, 1], [60, 6]), metrics.get(name), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        seen = rng.standard_normal(66) + 2 * y
        first, second = (2 * (seen + 0.3 * rng.standard_normal(66)) for _ in range(2))
        plain = choose([contestant("a", probabilities(first)), contestant("b", probabilities(second))], y, metric)
        for shift in (-3.0, 3.0):
            moved = [contestant("a", probabilities(first + shift)), contestant("b", probabilities(second))]
            assert choose(moved, y, metric).key == plain.key
        tied += len(plain.tied) > 1
    assert tied > 5


@pytest.mark.parametrize("name", ["auroc", "average-precision"])
def test_by_order_the_choice_among_tied_ones_is_of_what_ranks_better(name: str) -> None:
    """One knows how frequent the classes are, the other sees less, and was trained as if they were equally frequent."""
    y, metric = np.repeat([0, 1], [200, 10]), metrics.get(name)
    chosen = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        seen = rng.standard_normal(210) + 2.5 * y
        better = 2.5 * seen - 2.5**2 / 2 + math.log(1 / 20)
        worse = (2.5 * (seen + 0.45 * rng.standard_normal(210)) - 2.5**2 / 2) / (1 + 0.45**2)
        field = [contestant("better", probabilities(better)), contestant("worse", probabilities(worse))]
        chosen.append(choose(field, y, metric).key)
    assert chosen.count("better") >= 20


@pytest.mark.parametrize(("rare", "grounds"), [(1, "frozen"), (20, "log-loss")])
def test_a_single_image_of_a_rare_class_does_not_decide_what_the_metric_left_open(rare: int, grounds: str) -> None:
    """All are right of all images, and one is surer of the rare class; alone in it, an image has no variance to see."""
    y = np.r_[np.zeros(40, int), np.ones(rare, int)]
    common = np.linspace(0.05, 0.15, 40)
    surer, unsure = (np.r_[common, np.linspace(mean - 0.02, mean + 0.02, rare)] for mean in (0.95, 0.6))
    contestants = [
        contestant("surer", np.c_[1 - surer, surer]),
        contestant("frozen", np.c_[1 - unsure, unsure], frozen=1.0),
    ]
    choice = choose(contestants, y, metrics.get("balanced-accuracy"))
    assert (choice.key, choice.grounds) == ("frozen" if rare == 1 else "surer", grounds)


@pytest.mark.parametrize("counts", [(1, 40), (1, 1, 40), (2, 3, 40), (30, 30)])
def test_equals_seldom_differ_in_the_mean_log_loss_of_classes(counts: tuple[int, ...]) -> None:
    """Two that answer at random differ by two standard errors about as often as is said, be it one image a class."""
    rng, y, k = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts), len(counts)
    far = []
    for _ in range(300):
        p, q = (rng.dirichlet(np.full(k, 2.0), len(y)) for _ in range(2))
        gap = paired_metric_interval(BALANCED_LOG_LOSS, p, q, y)
        far.append(abs(gap.value) > 2 * gap.standard_error)
        assert gap.p > 0.02 or min(counts) > 1
    assert np.mean(far) < 0.12


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(4, 30))
def test_the_mean_log_loss_of_classes_changes_as_it_is_said_to(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, k, n), rng.dirichlet(np.ones(k), n)
    losses = -np.log(np.maximum(p[np.arange(n), y], 1e-7))
    expected = np.mean([losses[y == label].mean() for label in np.unique(y)])
    assert BALANCED_LOG_LOSS(p, y) == pytest.approx(expected)
    weights = rng.uniform(0.5, 2.0, n)
    step, item = 1e-6, int(rng.integers(n))
    moved = BALANCED_LOG_LOSS(p, y, weights + step * (np.arange(n) == item)) - BALANCED_LOG_LOSS(p, y, weights)
    assert BALANCED_LOG_LOSS.influence(p, y, weights)[item] == pytest.approx(moved / step, abs=1e-4)


def test_log_loss_tells_apart_what_a_count_of_right_answers_cannot() -> None:
    rng = np.random.default_rng(0)
    strength = np.where(MOST, rng.uniform(0.85, 0.99, 100), rng.uniform(0.5, 0.6, 100))
    informed = np.where(((Y == 1) == MOST)[:, None], np.c_[1 - strength, strength], np.c_[strength, 1 - strength])
    flat = contestant("flat", rows(MOST, Y), unlabelled=9.0, frozen=1.0)
    choice = choose([flat, contestant("informed", informed, unlabelled=0.0)], Y, ACCURACY)
    assert (choice.key, choice.grounds, set(choice.tied)) == ("informed", "log-loss", {"informed", "flat"})


@pytest.mark.parametrize(("wrong", "grounds"), [(1, "unlabelled"), (9, "metric")])
def test_an_image_that_is_surely_wrong_does_not_decide_by_its_log_loss_what_the_metric_left_open(
    wrong: int, grounds: str
) -> None:
    """In a demo one of 50 images set aside a model that was right on 98 % of all others, where 94 % were to be had."""
    perfect = contestant("perfect", rows(np.ones(100, dtype=bool), Y, 1 - 1e-6), unlabelled=0.5)
    liked = contestant("liked", rows(np.arange(100) >= wrong, Y, 1 - 1e-6), unlabelled=0.6)
    choice = choose([perfect, liked], Y, ACCURACY)
    assert (choice.key, choice.grounds) == ("liked" if grounds == "unlabelled" else "perfect", grounds)


def test_where_the_metric_cannot_be_had_it_is_not_said_to_have_decided() -> None:
    one = np.ones(20, dtype=int)
    good, poor = (contestant(name, rows(np.arange(20) < right, one)) for name, right in (("good", 20), ("poor", 5)))
    choice = choose([good, poor], one, metrics.get("auroc"))
    assert (choice.key, choice.tied, choice.grounds) == ("good", ("good",), "log-loss")


def test_overconfidence_alone_costs_nothing() -> None:
    loud = contestant("loud", rows(MOST, Y, sure=0.9999), frozen=1.0)
    quiet = contestant("quiet", rows(MOST, Y, sure=0.8))
    assert choose([loud, quiet], Y, ACCURACY).key == "loud"


def test_one_tried_on_fewer_items_is_not_in_the_final() -> None:
    lucky = rows(np.ones(100, dtype=bool), Y)
    lucky[20:] = np.nan
    choice = choose([contestant("lucky", lucky), contestant("whole", rows(MOST, Y))], Y, ACCURACY)
    assert (choice.key, choice.grounds) == ("whole", "alone")
    assert math.isnan(choice.standard_error)


def test_without_labels_the_unlabelled_evidence_decides() -> None:
    nothing = np.full((100, 2), np.nan)
    pair = [contestant("a", nothing, unlabelled=0.1, frozen=1.0), contestant("b", nothing, unlabelled=0.2)]
    assert choose(pair, Y, ACCURACY).key == "b"
    with pytest.raises(ValueError, match="no contestant was validated"):
        choose([contestant("a", nothing)], Y, ACCURACY)
    with pytest.raises(ValueError, match="needs contestants"):
        choose([], Y, ACCURACY)


def test_a_metric_that_cannot_be_had_leaves_it_to_log_loss() -> None:
    ones = np.ones(30, dtype=np.int64)
    good, poor = contestant("good", rows(ones > 0, ones, 0.95)), contestant("poor", rows(np.arange(30) < 5, ones))
    assert choose([poor, good], ones, metrics.get("auroc")).key == "good"


@given(st.integers(0, 10**6), st.integers(4, 40))
@settings(max_examples=40)
def test_neither_the_order_of_items_nor_of_contestants_matters(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y, g = rng.integers(0, 3, n), rng.integers(0, 8, n)
    field = [
        contestant(
            str(i), rng.dirichlet(np.full(3, 0.5), size=n), rng.random(), rng.random(), float(rng.integers(0, 2))
        )
        for i in range(4)
    ]
    order = rng.permutation(n)
    moved = [contestant(c.key, c.probabilities[order], c.unlabelled, c.cost, c.frozen) for c in reversed(field)]
    first, second = choose(field, y, ACCURACY, g), choose(moved, y[order], ACCURACY, g[order])
    assert (first.key, first.tied, first.grounds) == (second.key, second.tied, second.grounds)
    assert first.key in first.tied


@pytest.mark.parametrize("n", [40, 150])
def test_where_the_worse_one_is_simpler_the_rule_gives_up_less_than_a_standard_error(n: int) -> None:
    """The data that the rule fails on: the better one leads by about what cannot be seen, and is not frozen."""
    rng = np.random.default_rng(n)
    better, worse = 0.82, 0.77
    given_up, errors = [], []
    for _ in range(150):
        y = np.arange(n) % 2
        hard = rng.standard_normal(n)
        right = [0.8 * hard + 0.6 * rng.standard_normal(n) < norm.ppf(p) for p in (better, worse)]
        a, b = (rows(one, y) for one in right)
        field = [contestant("better", a), contestant("worse", b, unlabelled=None, frozen=1.0)]
        plain = better if right[0].sum() >= right[1].sum() else worse
        given_up.append(plain - {"better": better, "worse": worse}[choose(field, y, ACCURACY).key])
        errors.append(paired_metric_interval(ACCURACY, a, b, y).standard_error)
    assert 0.0 < np.mean(given_up) < np.mean(errors)


def test_five_items_separate_nobody_and_sixty_do() -> None:
    def pair(n: int) -> tuple[Contestant, Contestant, np.ndarray]:
        y = np.arange(n) % 2
        return contestant("a", rows(np.zeros(n, dtype=bool), y)), contestant("b", rows(np.ones(n, dtype=bool), y)), y

    for name in ("accuracy", "balanced-accuracy", "log-loss"):
        trails, leads, y = pair(5)
        assert not separates(trails, leads, y, metrics.get(name))
        trails, leads, y = pair(60)
        assert separates(trails, leads, y, metrics.get(name))
        assert not separates(leads, trails, y, metrics.get(name))
        # Sixty images of five patients are five.
        assert not separates(trails, leads, y, metrics.get(name), np.arange(60) % 5)


def test_equals_are_seldom_separated() -> None:
    rng = np.random.default_rng(7)
    wrong = []
    for n in (6, 12, 60):
        y = np.arange(n) % 2
        for _ in range(300):
            a, b = (contestant(key, rows(rng.random(n) < 0.7, y)) for key in "ab")
            wrong.append(separates(a, b, y, ACCURACY))
    assert np.mean(wrong) < 0.015


def test_only_common_items_separate() -> None:
    half = rows(np.zeros(100, dtype=bool), Y)
    half[3:] = np.nan
    assert not separates(contestant("a", half), contestant("b", rows(MOST, Y)), Y, ACCURACY)


class TestWhereTheMetricIsUndefined:
    """One answer for all images has no correlation with the truth: it is no better than any that has one."""

    Y = np.repeat([0, 1], [20, 4])
    SAYS_SOMETHING = rows(np.arange(24) % 4 > 0, Y, sure=0.6)
    SAYS_ONE_THING = np.tile([0.9, 0.1], (24, 1))

    def test_for_one_of_them_it_is_the_worst(self) -> None:
        knows = contestant("knows", self.SAYS_SOMETHING, cost=9.0)
        constant = contestant("constant", self.SAYS_ONE_THING, unlabelled=1.0, frozen=1.0)
        assert MATTHEWS(knows.probabilities, self.Y) > 0.2
        choice = choose([constant, knows], self.Y, MATTHEWS)
        assert (choice.key, choice.tied, choice.grounds) == ("knows", ("knows",), "metric")

    def test_nothing_yields_to_it(self) -> None:
        knows = replace(contestant("knows", self.SAYS_SOMETHING), yields_to=frozenset({"constant"}))
        assert choose([contestant("constant", self.SAYS_ONE_THING), knows], self.Y, MATTHEWS).key == "knows"

    def test_for_all_of_them_log_loss_decides(self) -> None:
        poor = contestant("poor", np.tile([0.1, 0.9], (24, 1)), frozen=1.0)
        common = contestant("common", self.SAYS_ONE_THING)
        choice = choose([poor, common], self.Y, MATTHEWS)
        assert (choice.key, choice.grounds) == ("common", "log-loss")
        choice = choose([poor, replace(common, yields_to=frozenset({"poor"}))], self.Y, MATTHEWS)
        assert (choice.key, choice.grounds) == ("poor", "usual")
