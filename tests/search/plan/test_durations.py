"""What jobs are expected to take."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.plan.durations import BACKWARD, OVERHEAD, Durations
from raytl.search.propose.effort import Passes
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training import Strategy

SMALL, LARGE = "timm:small", "timm:large"
EPOCHS = 10


def passes(strategy: Strategy, frozen: float | None) -> Passes:
    """A tenth of the steps for each stage that is frozen less, unless it is said what the frozen ones take."""
    return Passes(100.0, 1000.0 * (1 - (strategy.cut / 10 if frozen is None else frozen)))


def durations(*records: TrialRecord) -> Durations:
    return Durations(list(records), EPOCHS, passes)


def probe(uri: str) -> LaneJob:
    return LaneJob(0, JobKind.PROBE, Strategy(uri, head="logistic").to_dict())


def record(strategy: Strategy, seconds: float, epoch: int = EPOCHS) -> TrialRecord:
    status = TrialStatus.COMPLETED if epoch == EPOCHS else TrialStatus.PRUNED
    history = [{"epoch": float(epoch), "seconds": seconds}]
    made = TrialRecord(0, "search", strategy.to_dict(), strategy.key, status=status, history=history)
    made.seconds = seconds
    return made


class TestBeforeAnyTraining:
    def test_nothing_is_expected_where_nothing_is_known(self) -> None:
        assert durations().of(Strategy(SMALL)) == 0.0

    def test_passes_take_what_was_measured(self) -> None:
        known = durations()
        known.probed(probe(SMALL), JobResult(seconds=2.0, forward_s=(0.001,) * 10, step_s=0.08))
        assert known.of(Strategy(SMALL)) == pytest.approx(OVERHEAD * (100 * 0.01 + 1000 * 0.08))
        assert known.of(Strategy(SMALL, cut=9)) == pytest.approx(OVERHEAD * (100 * 0.01 + 100 * 0.08))
        assert known.of(Strategy(SMALL, head="logistic")) == 2.0

    def test_what_was_given_up_for_time_is_expected_to_take_as_long_again(self) -> None:
        known = durations()
        known.probed(probe(SMALL), JobResult(seconds=2.0, forward_s=(0.01,), needs_s=300.0))
        assert known.of(Strategy(SMALL, head="stages")) == 302.0
        assert known.of(Strategy(LARGE, head="stages")) == 2.0

    def test_at_another_size_a_network_takes_what_it_was_measured_to_at_one(self) -> None:
        """Given up at 224 pixels, it was begun untrained for the last seconds of a search, as if it took none."""
        known = durations()
        known.probed(probe(f"{SMALL}@224px"), JobResult(seconds=2.0, forward_s=(0.01,) * 10, needs_s=300.0))
        assert known.of(Strategy(f"{SMALL}@none")) == pytest.approx(OVERHEAD * (100 * 0.1 + 1000 * BACKWARD * 0.1))

    def test_images_pass_the_slowest_network_that_learned(self) -> None:
        known = durations()
        assert known.of_images(1000) == 0.0
        for uri, seconds in ((SMALL, 0.01), (LARGE, 0.04), ("plain:pixels", 1.0)):
            known.probed(probe(uri), JobResult(forward_s=(seconds / 2,) * 2))
        assert known.of_images(1000) == pytest.approx(40.0)
        known.probed(probe(f"{LARGE}@224px"), JobResult(forward_s=(0.2,)))
        assert known.of_images(1000) == pytest.approx(40.0)  # tried, and not what a model is made of yet
        assert known.of_images(1000, {SMALL, f"{LARGE}@224px", "plain:pixels"}) == pytest.approx(210.0)

    def test_what_an_earlier_search_measured_is_known(self) -> None:
        known, restored = durations(), durations()
        measured = JobResult(seconds=2.0, forward_s=(0.01,) * 2, step_s=0.08)
        known.probed(probe(SMALL), measured)
        strategy = Strategy(SMALL, head="logistic")
        found = TrialRecord(0, "probe", strategy.to_dict(), strategy.key, status=TrialStatus.COMPLETED, seconds=2.0)
        found.forward_s, found.step_s = [0.01, 0.01], 0.08
        restored.restore(found)
        for strategy in (Strategy(SMALL), Strategy(SMALL, cut=1), Strategy(SMALL, head="logistic")):
            assert restored.of(strategy) == known.of(strategy) > 0

    def test_a_head_takes_less_on_a_fold_whose_features_are_there(self) -> None:
        head = Strategy(SMALL, cut=10, head="logistic")
        first, second = record(head, 5.0), record(head, 0.7)
        first.made_s = 4.0
        assert durations(first).of(head) == pytest.approx(1.0)
        both = durations(first, second)
        both.probed(probe(SMALL), JobResult(seconds=5.0, forward_s=(0.04,)))
        assert both.of(head) == 0.7

    def test_views_make_a_head_somewhat_slower_and_do_not_those_without(self) -> None:
        """By those with views others would take several times as long, and these once more by as much."""
        plain = Strategy(SMALL, cut=10, head="stages")
        crop, mirrored = (replace(plain, augmentation=policy, cached_views=3) for policy in ("crop", "crop-flip"))
        known = durations(record(plain, 1.0), record(plain, 1.0), record(crop, 2.0), record(crop, 2.0))
        assert known.of(crop) == 2.0
        assert known.of(mirrored) == pytest.approx(2.0)
        assert known.of(replace(plain, head="logistic")) == pytest.approx(1.0)

    def test_images_pass_the_network_once_for_all_heads_on_it(self) -> None:
        def counted(strategy: Strategy, frozen: float | None) -> Passes:
            taught = 1000.0 * (strategy.adaptation == "propagation")
            return Passes(100.0 + 300.0 * (strategy.source_domain == "near") + taught, 0.0)

        bare = Strategy(SMALL, cut=10, head="stages")
        joined, taught = replace(bare, source_domain="near"), replace(bare, adaptation="propagation")
        both = replace(joined, adaptation="propagation")
        first = record(bare, 5.0)
        first.made_s = 4.0  # once more it takes a second
        passing = OVERHEAD * 0.04
        for others, strategy, images, solving_s in (
            ([], joined, 300, 2.0),  # on four times the images
            ([], both, 1300, math.sqrt(14.0)),
            ([record(joined, 1.5)], both, 1000, 1.5 * math.sqrt(1400 / 400)),
            ([record(replace(joined, source_domain="far + near"), 1.0)], joined, 0, 2.0),
            ([record(replace(joined, source_domain="far + nearer"), 1.0)], joined, 300, 2.0),
            ([record(taught, 1.0)], both, 300, math.sqrt(1400 / 1100)),
            ([record(joined, 1.0), record(taught, 1.0)], both, 0, math.sqrt(1400 / 1100)),
        ):
            known = Durations([first, *others], EPOCHS, counted)
            known.probed(probe(SMALL), JobResult(seconds=5.0, forward_s=(0.04,)))
            assert known.of(strategy) == pytest.approx(solving_s + passing * images)
        alone = Durations([], EPOCHS, counted)
        alone.probed(probe(SMALL), JobResult(seconds=5.0, forward_s=(0.04,)))
        assert alone.of(joined) == pytest.approx(5.0 + passing * 300)

    @pytest.mark.parametrize("looked", [True, False])
    def test_at_a_size_that_labelled_images_alone_told_the_first_joined_head_looks_at_the_others(
        self, looked: bool
    ) -> None:
        def counted(strategy: Strategy, frozen: float | None) -> Passes:
            return Passes(100.0, 0.0, 50.0)

        large = Strategy(f"{SMALL}@224px", cut=10, head="stages")
        told = record(large, 2.0)
        told.answers = [0.5, 0.5] if looked else []
        known = Durations([told], EPOCHS, counted)
        known.probed(probe(f"{SMALL}@224px"), JobResult(seconds=5.0, forward_s=(0.04,)))
        assert known.of(replace(large, source_domain="near")) == pytest.approx(2.0 if looked else 2.0 + 50 * 0.04)
        assert known.of(replace(large, head="logistic")) == pytest.approx(2.0)  # which does without

    def test_a_step_not_measured_is_reckoned_from_the_forward_pass(self) -> None:
        known = durations()
        known.probed(probe(LARGE), JobResult(seconds=2.0, forward_s=(0.1,)))
        assert known.of(Strategy(LARGE)) == pytest.approx(OVERHEAD * 0.1 * (100 + 1000 * BACKWARD))
        known.probed(probe(SMALL), JobResult(seconds=2.0, forward_s=(0.01,), step_s=0.08))
        assert known.of(Strategy(LARGE)) == pytest.approx(OVERHEAD * 0.1 * (100 + 1000 * 8))

    def test_a_network_seen_at_more_pixels_says_nothing_of_others(self) -> None:
        known = durations()
        known.probed(probe(SMALL), JobResult(seconds=2.0, forward_s=(0.01,), step_s=0.08))
        before = known.of(Strategy(LARGE))
        known.probed(probe(f"{SMALL}@224px"), JobResult(seconds=9.0, forward_s=(0.05,), step_s=0.4))
        assert known.of(Strategy(LARGE)) == pytest.approx(before)
        assert known.of(Strategy(SMALL)) == pytest.approx(before)

    @pytest.mark.parametrize(("took", "expected"), [(5.0, 5.0 + 8 * 1.0), (0.2, 0.2 + 9 * 1.0)])
    def test_more_pixels_take_their_passes_whether_features_of_fewer_were_kept_or_not(
        self, took: float, expected: float
    ) -> None:
        """A search begun again had its features at once, and took 51 s for a size that it reckoned to take 10."""
        known = durations()
        known.probed(probe(SMALL), JobResult(seconds=took, forward_s=(0.01,), step_s=0.08))
        assert known.at_more_pixels(Strategy(SMALL, head="logistic"), 9.0, took) == pytest.approx(expected)

    def test_a_pretrained_network_takes_what_its_architecture_does(self) -> None:
        known = durations()
        known.probed(probe("pretrain:a/scratch:cnn"), JobResult(seconds=1.0, forward_s=(0.02,), step_s=0.05))
        known.probed(probe(LARGE), JobResult(seconds=1.0, forward_s=(1.0,), step_s=3.0))
        assert known.of(Strategy("pretrain:b/scratch:cnn")) == known.of(Strategy("scratch:cnn"))


class TestAfterTraining:
    def test_what_a_model_took_tells_of_its_other_strategies(self) -> None:
        known = durations(record(Strategy(SMALL), 310.0))
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        assert known.of(Strategy(SMALL)) == pytest.approx(310.0)
        assert known.of(Strategy(SMALL, cut=5)) == pytest.approx(160.0)

    def test_further_folds_find_what_frozen_stages_made_and_tell_only_of_their_own_strategy(self) -> None:
        half, whole = Strategy(SMALL, cut=5), Strategy(SMALL)
        alone = durations(record(half, 30.0))
        more = durations(record(half, 30.0), record(half, 5.0), record(half, 6.0))
        for known in (alone, more):
            known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.001,) * 10, step_s=0.03))
        assert more.of(half) == 6.0 < alone.of(half) and more.of(whole) == alone.of(whole) > 30.0
        assert more.of(Strategy(SMALL, cut=4)) == alone.of(Strategy(SMALL, cut=4))

    def test_a_training_that_was_stopped_tells_as_well_once_it_got_somewhere(self) -> None:
        known = durations(record(Strategy(SMALL), 62.0, epoch=2), record(Strategy(SMALL), 500.0, epoch=1))
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        assert known.of(Strategy(SMALL)) == pytest.approx(310.0)

    def test_a_model_without_trainings_is_reckoned_by_how_much_slower_it_is(self) -> None:
        known = durations(record(Strategy(SMALL), 620.0))
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        known.probed(probe(LARGE), JobResult(seconds=1.0, forward_s=(0.02,) * 10, step_s=0.6))
        assert known.of(Strategy(LARGE)) == pytest.approx(1240.0)

    def test_a_resumed_search_knows_trainings_but_no_measurement(self) -> None:
        known = durations(record(Strategy(SMALL), 310.0))
        assert known.of(Strategy(SMALL)) == pytest.approx(310.0)
        assert known.of(Strategy(SMALL, cut=9)) < 100.0

    @given(
        st.lists(st.tuples(st.sampled_from([SMALL, LARGE]), st.floats(0.01, 1e4), st.integers(1, EPOCHS)), max_size=5),
        st.integers(0, 9),
    )
    def test_freezing_more_never_takes_longer(self, tried: list[tuple[str, float, int]], cut: int) -> None:
        known = durations(*(record(Strategy(uri), seconds, epoch) for uri, seconds, epoch in tried))
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        assert known.of(Strategy(SMALL, cut=cut + 1)) <= known.of(Strategy(SMALL, cut=cut))


class TestOfWhatWasNeverTimed:
    def test_it_is_as_slow_as_the_slowest_network(self) -> None:
        known = durations()
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        known.probed(probe(LARGE), JobResult(seconds=1.0, forward_s=(0.02,) * 10, step_s=0.6))
        assert known.of(Strategy("scratch:cnn")) == known.of(Strategy(LARGE))

    def test_an_untrained_network_takes_what_its_trained_one_does(self) -> None:
        known = durations()
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        known.probed(probe(LARGE), JobResult(seconds=1.0, forward_s=(0.02,) * 10, step_s=0.6))
        assert known.of(Strategy(f"{SMALL}@none")) == known.of(Strategy(SMALL))

    def test_an_untrained_network_is_not_reckoned_by_another_kind(self) -> None:
        """Plain pixels were probed; that says nothing of a network, whose trainings must not be taken for hours."""
        known = durations()
        known.probed(probe("plain:pixels"), JobResult(seconds=1.0, forward_s=(1e-5,)))
        assert known.of(Strategy("scratch:cnn")) == 0.0

    def test_a_head_trained_on_plain_features_says_nothing_of_a_network(self) -> None:
        """They are computed in no time: by what training a head took over that, a small network took a day."""
        known = durations(record(Strategy("plain:pixels", head="mlp"), 2.0))
        assert known.of(Strategy(SMALL)) == 0.0
        known.probed(probe("plain:pixels"), JobResult(seconds=1.0, forward_s=(1e-5,)))
        assert known.of(Strategy("scratch:cnn")) == 0.0
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        assert known.of(Strategy(SMALL)) == known.of(Strategy("scratch:cnn")) == pytest.approx(OVERHEAD * 310.0)
        known.probed(probe("plain:gradients"), JobResult(seconds=1.0, forward_s=(2e-5,)))
        assert known.of(Strategy("plain:gradients", head="mlp")) == pytest.approx(4.0)

    def test_a_trained_network_says_nothing_of_plain_features(self) -> None:
        known = durations(record(Strategy(SMALL), 31000.0))
        assert known.of(Strategy("plain:pixels", head="mlp")) == 0.0
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        known.probed(probe("plain:pixels"), JobResult(seconds=1.0, forward_s=(1e-5,)))
        passing = 100.0 + 1000.0 * BACKWARD * 3  # a step of the network that was measured is ten times its pass
        assert known.of(Strategy("plain:pixels", head="mlp")) < 2 * OVERHEAD * 1e-5 * passing

    def test_it_is_reckoned_by_what_a_pass_took_in_others(self) -> None:
        known = durations(record(Strategy(SMALL), 310.0))
        assert known.of(Strategy("scratch:cnn")) == pytest.approx(310.0)
        known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.01,) * 10, step_s=0.3))
        assert known.of(Strategy("scratch:cnn")) == pytest.approx(310.0)


def test_a_frozen_stage_is_worth_the_time_that_it_takes() -> None:
    known = durations()
    known.probed(probe(SMALL), JobResult(seconds=1.0, forward_s=(0.09, 0.01), step_s=0.3))
    assert known.of(Strategy(SMALL, cut=1)) == pytest.approx(OVERHEAD * (100 * 0.1 + 100 * 0.3))
