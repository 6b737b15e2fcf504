"""How strategies stand: on which folds they are compared, who leads, who trails, who wins."""

from __future__ import annotations

from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import pytest

from raytl.evaluation import metrics
from raytl.judging.screening import posterior_means
from raytl.search.plan import contest as standing
from raytl.search.plan.contest import Contest
from raytl.search.plan.kinds import differs_in_size, outdone, yields_to
from raytl.search.plan.said import Labels
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training import Strategy

CLASSES, FOLDS, IMAGES = 3, 4, 120
TRUTH = np.tile(np.arange(CLASSES), IMAGES // CLASSES)
LABELS = Labels(TRUTH, None, CLASSES, metrics.get("accuracy"))
TRAINED = {name: Strategy("scratch:cnn-small", head_lr=0.01 * (i + 1)) for i, name in enumerate("abcdefghijklmnop")}
PROBE = Strategy("plain:pixels", cut=1, head="logistic")


def answers(index: np.ndarray, right: float, sure: float = 0.8) -> np.ndarray:
    """Right of the first ``right`` of the images."""
    said = np.where(np.arange(len(index)) < round(right * len(index)), TRUTH[index], (TRUTH[index] + 1) % CLASSES)
    return (1 - sure) / CLASSES + sure * np.eye(CLASSES)[said]


class Told:
    """A contest that is told of trials."""

    def __init__(self, labels: Labels | None = LABELS) -> None:
        self.records: list[TrialRecord] = []
        self.contest = Contest(self.records, labels)

    def add(
        self,
        strategy: Strategy,
        fold: int,
        right: float,
        *,
        kind: str = "search",
        status: TrialStatus = TrialStatus.COMPLETED,
        seconds: float = 1.0,
        **measured: float,
    ) -> None:
        index = np.arange(fold, IMAGES, FOLDS)
        record = TrialRecord(len(self.records), kind, strategy.to_dict(), strategy.key, fold, None, status)
        record.score, record.seconds = measured.get("score", right), seconds
        record.metrics = {"labelled": right} | measured
        record.validated = index.tolist()
        record.predicted = answers(index, right)
        self.records.append(record)

    def winner(self, *failed: str) -> str | None:
        found = self.contest.choice(failed)
        return None if found is None else found.key


class TestWithoutLabels:
    """What is as good for all that is known yields to the kind of head that does better on task after task."""

    PUBLISHED = Strategy("timm:resnet18", cut=5, head="stages", source_domain="near", adaptation="moments")
    OWN = Strategy("pretrain:near/scratch:cnn-small", cut=5, head="logistic", source_domain="near")

    @pytest.mark.parametrize(("behind", "yields"), [(0.05, True), (0.2, False)])
    def test_a_head_on_an_own_network_yields_to_published_weights(self, behind: float, yields: bool) -> None:
        told = Told(None)
        told.add(self.OWN, 0, 0.7, kind="probe")
        told.add(self.PUBLISHED, 0, 0.7 - behind, kind="probe")
        found = told.contest.choice()
        assert found is not None
        expected = (self.PUBLISHED, "usual") if yields else (self.OWN, "highest score")
        assert (found.key, found.grounds) == (expected[0].key, expected[1])

    def test_features_as_they_are_yield_to_those_with_the_targets_moments(self) -> None:
        told = Told(None)
        moved = replace(self.OWN, head="stages", adaptation="moments")
        told.add(self.OWN, 0, 0.7, kind="probe")
        told.add(moved, 0, 0.65, kind="probe")
        assert told.winner() == moved.key

    @pytest.mark.parametrize("head", ["logistic", "stages"])
    def test_on_a_few_target_images_the_domain_and_all_stages_win_whatever_the_score(self, head: str) -> None:
        told = Told(None)
        told.add(replace(self.PUBLISHED, head=head, source_domain=None, adaptation="none"), 0, 0.9, kind="probe")
        told.add(self.PUBLISHED, 0, 0.3, kind="probe")
        assert told.winner() == self.PUBLISHED.key

    @pytest.mark.parametrize("domain", [None, "near"])
    def test_what_the_unlabelled_images_taught_wins_whatever_the_score(self, domain: str | None) -> None:
        told = Told(None)
        plain = replace(self.PUBLISHED, source_domain=domain, adaptation="moments" if domain else "none")
        taught = replace(plain, adaptation="propagation")
        told.add(plain, 0, 0.9, kind="probe")
        told.add(taught, 0, 0.5, kind="probe")
        assert told.winner() == taught.key

    def test_of_heads_that_know_the_domain_alone_the_score_decides_where_it_tells(self) -> None:
        told = Told(None)
        last = replace(self.PUBLISHED, head="logistic")
        told.add(last, 0, 0.9, kind="probe")
        told.add(self.PUBLISHED, 0, 0.6, kind="probe")
        assert told.winner() == last.key

    @pytest.mark.parametrize(("named", "wins"), [(0.75, False), (0.85, True)])
    def test_class_names_win_by_the_domains_labels_and_not_by_being_sure(self, named: float, wins: bool) -> None:
        told = Told(None)
        zero_shot = Strategy("hf:clip", cut=5, head="zero-shot")
        other = replace(self.PUBLISHED, source_model="hf:clip")
        told.add(zero_shot, 0, 0.9, kind="probe", **{"source-accuracy": named})
        told.add(other, 0, 0.6, kind="probe", **{"source-accuracy": 0.9})
        assert told.winner() == (zero_shot if wins else other).key

    @pytest.mark.parametrize(
        "more",
        [
            {"source_domain": "near"},
            {"source_domain": "near", "adaptation": "mcc"},
            {"source_model": "pretrain:near/scratch:cnn-small", "adaptation": "mcc"},
        ],
    )
    def test_what_a_domain_trained_too_yields_to_nothing(self, more: dict[str, str]) -> None:
        told = Told(None)
        trained = replace(TRAINED["a"], **more)
        told.add(trained, 0, 0.7)
        told.add(self.PUBLISHED, 0, 0.69, kind="probe")
        assert told.winner() == trained.key

    @pytest.mark.parametrize(("score", "wins"), [(0.69, True), (0.5, False)])
    @pytest.mark.parametrize("more", [{}, {"source_model": "plain:gradients", "cut": 1, "head": "mlp"}])
    def test_what_learned_from_the_domain_alone_yields_to_what_unlabelled_images_taught(
        self, more: dict[str, object], score: float, wins: bool
    ) -> None:
        """By as much as a score without labels is off, and no more."""
        told = Told(None)
        trained = replace(TRAINED["a"], source_domain="near", **more)
        taught = replace(self.PUBLISHED, source_model="plain:gradients", adaptation="propagation")
        told.add(trained, 0, 0.7)
        told.add(taught, 0, score, kind="probe")
        assert told.winner() == (taught if wins else trained).key

    @pytest.mark.parametrize("adaptation", ["none", "adabn", "mcc", "information-maximisation"])
    @pytest.mark.parametrize("source_model", ["timm:resnet18", "scratch:cnn-small"])
    def test_a_network_trained_on_a_few_target_images_is_not_believed_however_sure(
        self, source_model: str, adaptation: str
    ) -> None:
        """Of the unlabelled ones that it was trained on too: it was made sure of them."""
        told = Told(None)
        trained = replace(TRAINED["a"], source_model=source_model, adaptation=adaptation)
        head = replace(self.PUBLISHED, source_domain=None, adaptation="none")
        told.add(trained, 0, 0.99)
        told.add(head, 0, 0.3, kind="probe")
        assert told.winner() == head.key


HEADS = [
    Strategy(uri, cut=5, head=head, source_domain=domain, adaptation=adaptation)
    for uri in (
        "timm:resnet18",
        "timm:resnet18@96px-squash",
        "hf:clip",
        "plain:pixels",
        "pretrain:near/scratch:cnn-small",
    )
    for head in ("logistic", "stages", "zero-shot")
    for domain in (None, "near", "far", "far + near")
    for adaptation in ("none", "moments", "propagation")
]
TRAINED_TOO = [
    Strategy(uri, source_domain=domain, adaptation=adaptation)
    for uri in ("timm:resnet18", "scratch:cnn-small")
    for domain in (None, "near")
    for adaptation in ("none", "mcc")
]


class TestComesToAnEnd:
    """What yields to another yields to none that yields to it, over however many in between."""

    @pytest.mark.parametrize("labelled", [True, False])
    @pytest.mark.parametrize("apart", [True, False])
    def test_of_all_kinds_of_strategies_none_is_its_own_rival(self, labelled: bool, apart: bool) -> None:
        kinds = HEADS + TRAINED_TOO
        rivals = {
            one.key: [
                other.key
                for other in kinds
                if yields_to(one, other, labelled=labelled, apart=apart)
                or (not labelled and outdone(one, other, apart=apart))
            ]
            for one in kinds
        }
        assert len(tuple(TopologicalSorter(rivals).static_order())) == len(kinds)

    @pytest.mark.parametrize("domain", ["near", "far + near"])
    def test_a_sure_head_on_the_last_features_is_outdone_by_what_learned_from_its_domain_too(self, domain: str) -> None:
        last = Strategy("timm:resnet18", cut=5, head="logistic", source_domain="near", adaptation="moments")
        taught = replace(last, head="stages", source_domain=domain, adaptation="propagation")
        assert outdone(last, taught) and not outdone(taught, last)
        assert not outdone(last, replace(taught, source_domain="far"))

    def test_a_domains_head_and_one_that_the_unlabelled_images_taught_on_one_label_a_class(self) -> None:
        told = Told(None)
        joined = Strategy("timm:resnet18", cut=5, head="stages", source_domain="near", adaptation="moments")
        taught = replace(joined, source_domain=None, adaptation="propagation")
        told.add(joined, 0, 0.68, kind="probe")
        told.add(taught, 0, 0.66, kind="probe")
        assert told.winner() == taught.key


class TestTaughtByOtherImages:
    """What unlabelled images teach is believed where these are like the labelled ones, and else where labels say so."""

    PLAIN = Strategy("timm:resnet18", cut=5, head="stages")
    TAUGHT = replace(PLAIN, adaptation="propagation")

    @pytest.mark.parametrize(
        ("apart", "plain", "taught", "wins"),
        [
            (False, 18, 18, True),
            (False, 19, 18, True),
            (False, 27, 18, False),
            (True, 18, 18, False),
            (True, 18, 19, False),
            (True, 18, 27, True),
        ],
    )
    def test_or_not(self, apart: bool, plain: int, taught: int, wins: bool) -> None:
        """plain, taught: images of 30 that each is right on in the first fold; in the others 18."""
        told = Told()
        told.contest.apart = apart
        for fold in range(FOLDS):
            told.add(self.PLAIN, fold, (18 if fold else plain) / 30, kind="probe", unlabelled=0.3)
            told.add(self.TAUGHT, fold, (18 if fold else taught) / 30, kind="probe", unlabelled=0.9)
        assert told.winner() == (self.TAUGHT if wins else self.PLAIN).key

    @pytest.mark.parametrize("other", ["stages", "logistic"])
    def test_without_labels_never_where_they_are_of_another_kind(self, other: str) -> None:
        """Nor is its score what others have to come near."""
        told, other_head = Told(None), replace(self.PLAIN, head=other)
        pixels = Strategy("plain:pixels", cut=1, head="stages", adaptation="propagation")
        told.contest.apart = True
        for strategy in (self.TAUGHT, pixels):
            told.add(strategy, 0, 0.9, kind="probe")
        assert told.winner() in (self.TAUGHT.key, pixels.key)  # there is no other
        told.add(replace(pixels, head="logistic", adaptation="none"), 0, 0.25, kind="probe")
        told.add(TRAINED["a"], 0, 0.5)
        told.add(other_head, 0, 0.2, kind="probe")
        assert told.winner() == other_head.key


class TestDomainsOwnNetworks:
    """A network that was pretrained on a source domain has seen few images, which folds of like ones do not show."""

    OWN = Strategy("pretrain:near/scratch:cnn-small", source_domain="near", cut=3, head="stages", adaptation="moments")
    PUBLISHED = replace(OWN, source_model="timm:resnet18", cut=5)

    @pytest.mark.parametrize(
        ("apart", "own", "other", "domain", "wins"),
        [
            (False, 18, 18, "near", True),
            (True, 18, 18, "near", False),
            (True, 27, 18, "near", True),
            (True, 18, 18, "far + near", False),
            (True, 18, 18, "far", True),
            (True, 18, 18, None, True),
        ],
    )
    def test_yield_where_images_are_of_another_kind_and_labels_leave_it_open(
        self, apart: bool, own: int, other: int, domain: str | None, wins: bool
    ) -> None:
        """own, other: images of 30 that each is right on in a fold. domain: that taught the other too."""
        told = Told()
        told.contest.apart = apart
        adaptation = "none" if domain is None else "moments"
        published = replace(self.PUBLISHED, source_domain=domain, adaptation=adaptation)
        for fold in range(FOLDS):
            told.add(self.OWN, fold, own / 30, kind="probe", unlabelled=0.9)
            told.add(published, fold, other / 30, kind="probe", unlabelled=0.85)
        assert told.winner() == (self.OWN if wins else published).key


class TestSeveralDomains:
    """Whose labels are borne out teach more together than one of them does."""

    ONE = Strategy("timm:resnet18", "near", cut=5, head="stages", adaptation="moments")

    @pytest.mark.parametrize(
        ("one", "several", "names", "wins"),
        [
            (18, 18, "far + near", "several"),
            (27, 18, "far + near", "one"),
            (18, 18, "far + further", "one"),
        ],
    )
    @pytest.mark.parametrize("apart", [True, False])
    def test_win_where_labels_leave_it_open(self, apart: bool, one: int, several: int, names: str, wins: str) -> None:
        """one, several: images of 30 that each is right on in a fold; by what is seen without labels one is ahead."""
        told, together = Told(), replace(self.ONE, source_domain=names)
        told.contest.apart = apart
        for fold in range(FOLDS):
            told.add(self.ONE, fold, one / 30, kind="probe", unlabelled=0.9)
            told.add(together, fold, several / 30, kind="probe", unlabelled=0.7)
        assert told.winner() == (together if wins == "several" else self.ONE).key


class TestAllStages:
    """Early ones read the background too: where that is another one, all of them are no better than the last."""

    ALL = Strategy("timm:resnet18", cut=5, head="stages")
    LAST = replace(ALL, head="logistic")

    @pytest.mark.parametrize(
        ("apart", "stages", "last", "wins"),
        [(False, 0.4, 0.5, True), (True, 0.4, 0.5, False), (True, 0.5, 0.4, True)],
    )
    def test_are_no_better_by_habit_on_images_of_another_kind(
        self, apart: bool, stages: float, last: float, wins: bool
    ) -> None:
        """stages, last: what is seen of them without labels, by which they tie."""
        told = Told()
        told.contest.apart = apart
        for fold in range(FOLDS):
            told.add(self.ALL, fold, 0.6, kind="probe", unlabelled=stages)
            told.add(self.LAST, fold, 0.6, kind="probe", unlabelled=last)
        assert told.winner() == (self.ALL if wins else self.LAST).key

    @pytest.mark.parametrize(
        ("apart", "last", "wins"), [(False, 0.9, True), (True, 0.9, False), (True, 0.45, True), (True, 0.3, True)]
    )
    @pytest.mark.parametrize("taught", [False, True])
    def test_nor_by_a_log_loss_on_images_unlike_these(self, apart: bool, last: float, wins: bool, taught: bool) -> None:
        """taught: whether there is a head too that learned from these, and is surest of them."""
        told = Told()
        told.contest.apart = apart
        for fold in range(FOLDS):
            told.add(self.ALL, fold, 0.6, kind="probe", unlabelled=0.4)
            told.add(self.LAST, fold, 0.6, kind="probe", unlabelled=last)
            said = told.records[-1].predicted
            said[:18] = 0.1 * said[:18] + 0.9 / CLASSES  # hardly sure of what is right: no temperature makes up for it
            if taught and apart:
                told.add(replace(self.ALL, adaptation="propagation"), fold, 0.6, kind="probe", unlabelled=0.95)
        assert told.winner() == (self.ALL if wins else self.LAST).key

    @pytest.mark.parametrize(("apart", "wins"), [(False, True), (True, False)])
    def test_nor_without_labels(self, apart: bool, wins: bool) -> None:
        told = Told(None)
        told.contest.apart = apart
        told.add(self.ALL, 0, 0.3, kind="probe")
        told.add(self.LAST, 0, 0.35, kind="probe")
        assert told.winner() == (self.ALL if wins else self.LAST).key

    @pytest.mark.parametrize(("last", "wins"), [(0.5, False), (0.3, True)])
    def test_a_network_trained_on_a_few_target_images_alone_yields_to_either(self, last: float, wins: bool) -> None:
        told = Told()
        told.contest.apart = True
        for fold in range(FOLDS):
            told.add(TRAINED["a"], fold, 0.6, unlabelled=0.9)
            told.add(self.ALL, fold, 0.6, kind="probe", unlabelled=0.4)
            told.add(self.LAST, fold, 0.6, kind="probe", unlabelled=last)
        assert told.winner() == (self.ALL if wins else self.LAST).key

    @pytest.mark.parametrize("labels", [LABELS, None])
    @pytest.mark.parametrize(
        ("usual", "other", "frequencies", "wins"),
        [
            ((0.95, 0.05, 0.0), (0.5, 0.3, 0.2), (), False),
            ((0.95, 0.05, 0.0), (0.95, 0.0, 0.05), (), True),  # nor does the other one tell them apart
            ((0.95, 0.05, 0.0), (0.5, 0.3, 0.2), (0.9, 0.05, 0.05), True),  # as they are known to be
            ((0.8, 0.2, 0.0), (0.5, 0.3, 0.2), (), True),
        ],
    )
    def test_nor_where_they_say_the_same_of_nearly_all_images(
        self,
        labels: Labels | None,
        usual: tuple[float, ...],
        other: tuple[float, ...],
        frequencies: tuple[float, ...],
        wins: bool,
    ) -> None:
        told = Told(labels)
        told.contest.frequencies = frequencies
        for fold in range(FOLDS):
            for strategy, said, seen in ((self.ALL, usual, 0.4), (self.LAST, other, 0.5)):
                told.add(strategy, fold, 0.6, kind="probe", unlabelled=seen, score=seen)
                told.records[-1].answers = list(said)
        assert told.winner() == (self.ALL if wins else self.LAST).key


class TestSeenToTheEdges:
    """What lies at the edges may be another thing in images to come: folds have to tell that it helps."""

    USUAL = Strategy("timm:resnet18", cut=5, head="stages")

    @pytest.mark.parametrize(
        ("middle", "whole", "right", "wins"),
        [
            ("timm:resnet18", "timm:resnet18@96px-squash", 19, False),
            ("timm:resnet18", "timm:resnet18@96px-squash", 27, True),
            ("timm:resnet18@96px", "timm:resnet18@96px-squash", 19, False),
            ("timm:resnet18@64px", "timm:resnet18@96px-squash", 19, True),
            ("timm:resnet18@3x32px", "timm:resnet18@96px-squash", 19, True),
            ("timm:resnet34", "timm:resnet18@96px-squash", 19, True),
        ],
    )
    def test_yields_to_the_middle_unless_labels_say_that_it_is_better(
        self, middle: str, whole: str, right: int, wins: bool
    ) -> None:
        """right: images of 30 that the one that sees all is right on in the first fold; all else is 18."""
        told = Told()
        usual, squashed = (replace(self.USUAL, source_model=uri) for uri in (middle, whole))
        for fold in range(FOLDS):
            told.add(usual, fold, 18 / 30, kind="probe")
            told.add(squashed, fold, (18 if fold else right) / 30, kind="probe", seconds=0.5)
        assert told.winner() == (squashed if wins else usual).key
        assert told.contest.outdoes(squashed.key, usual.key) == wins

    def test_nor_do_views_of_the_one_alone_set_it_ahead(self) -> None:
        told = Told()
        viewed = replace(self.USUAL, source_model="timm:resnet18@96px-squash", augmentation="crop", cached_views=4)
        for fold in range(FOLDS):
            told.add(self.USUAL, fold, 18 / 30, kind="probe")
            told.add(viewed, fold, (18 if fold else 19) / 30, kind="probe", seconds=0.5)
        assert told.winner() == self.USUAL.key


class TestShownSize:
    """What sees images at the size that labels told, by more of them than one fold has."""

    USUAL = Strategy("timm:resnet18", cut=5, head="stages")
    LARGE = replace(USUAL, source_model="timm:resnet18@224px-squash")

    @pytest.mark.parametrize(("behind", "wins"), [(0.0, True), (0.03, True), (0.3, False)])
    @pytest.mark.parametrize("told_so", [True, False])
    def test_wins_on_fewer_folds_unless_it_is_clearly_behind(self, behind: float, wins: bool, told_so: bool) -> None:
        told = Told()
        for fold in range(FOLDS):
            told.add(self.USUAL, fold, 0.7, kind="probe")
        told.add(self.LARGE, 0, 0.7 - behind, kind="probe")
        told.contest.shown = self.LARGE.source_model if told_so else ""
        assert told.winner() == (self.LARGE if told_so and wins else self.USUAL).key

    def test_does_not_yield_to_the_middle_though_it_sees_to_the_edges(self) -> None:
        told = Told()
        told.add(self.USUAL, 0, 0.7, kind="probe")
        told.add(self.LARGE, 0, 0.75, kind="probe")
        assert told.winner() == self.USUAL.key
        told.contest.shown = self.LARGE.source_model
        assert told.winner() == self.LARGE.key

    @pytest.mark.parametrize(
        ("other", "differs"),
        [
            (USUAL, True),
            (replace(USUAL, source_model="timm:resnet18@128px"), True),
            (LARGE, False),
            (replace(USUAL, head="logistic"), False),
            (replace(USUAL, source_domain="near"), False),
            (replace(USUAL, source_model="timm:resnet50"), False),
        ],
    )
    def test_is_of_the_same_strategy_but_for_the_size(self, other: Strategy, differs: bool) -> None:
        assert differs_in_size(self.LARGE, other) == differs_in_size(other, self.LARGE) == differs


class TestChoice:
    def test_is_on_the_folds_that_all_have(self) -> None:
        """A probe has an easy fold more: that makes it no better."""
        told = Told()
        for fold, (probe, trained) in enumerate([(0.5, 0.8), (0.5, 0.8)]):
            told.add(PROBE, fold, probe, kind="probe")
            told.add(TRAINED["a"], fold, trained)
        for fold in (2, 3):
            told.add(PROBE, fold, 1.0, kind="probe")
        assert told.winner() == TRAINED["a"].key

    def test_a_probe_wins_where_it_is_better_on_these(self) -> None:
        told = Told()
        for fold in range(FOLDS):
            told.add(PROBE, fold, 0.9, kind="probe")
        told.add(TRAINED["a"], 0, 0.5)
        assert told.winner() == PROBE.key

    @pytest.mark.parametrize(
        ("right", "unlabelled", "wins"), [(0.67, None, False), (0.67, 0.9, True), (1.0, None, True)]
    )
    def test_on_few_images_a_trained_strategy_has_to_lead_by_more_than_luck(
        self, right: float, unlabelled: float | None, wins: bool
    ) -> None:
        """A few images more on one fold are not enough, unless the unlabelled images say the same."""
        told = Told()
        more = {} if unlabelled is None else {"unlabelled": unlabelled}
        for fold in range(FOLDS):
            told.add(PROBE, fold, 0.6, kind="probe", **({} if unlabelled is None else {"unlabelled": 0.5}))
        told.add(TRAINED["a"], 0, right, **more)
        assert told.winner() == (TRAINED["a"] if wins else PROBE).key

    def test_on_hardly_any_image_it_cannot(self) -> None:
        told = Told()
        for fold in range(FOLDS):
            told.add(PROBE, fold, 0.6, kind="probe", unlabelled=0.5)
        told.add(TRAINED["a"], 0, 1.0, unlabelled=0.9)
        told.records[-1].validated, told.records[-1].predicted = [0, 4], told.records[-1].predicted[:2]
        assert told.winner() == PROBE.key

    def test_who_was_left_behind_on_the_way_does_not_win_by_a_lucky_fold(self) -> None:
        told = Told()
        for fold in range(3):
            told.add(TRAINED["a"], fold, 0.7)
            told.add(TRAINED["b"], fold, 0.8)
        told.add(TRAINED["c"], 0, 1.0)
        assert told.winner() == TRAINED["b"].key

    @pytest.mark.parametrize(("right", "wins"), [(0.8, False), (0.9, True)])
    def test_a_network_trained_on_the_target_alone_has_to_lead_a_head_on_all_stages(
        self, right: float, wins: bool
    ) -> None:
        """Its being surer of the unlabelled images is no reason."""
        told, published = Told(), Strategy("package:lite0", cut=5, head="stages")
        for fold in range(FOLDS):
            told.add(published, fold, 0.8, kind="probe", unlabelled=0.5)
            told.add(TRAINED["a"], fold, right, unlabelled=0.9)
        assert told.winner() == (TRAINED["a"] if wins else published).key

    @pytest.mark.parametrize(("taught", "wins"), [("propagation", False), ("none", True)])
    def test_nor_a_head_that_the_unlabelled_images_taught(self, taught: str, wins: bool) -> None:
        """On whatever features: what labels alone train is surer of these images, and more often wrong."""
        told = Told()
        head = Strategy("plain:gradients", cut=1, head="stages", adaptation=taught)
        for fold in range(FOLDS):
            told.add(head, fold, 0.8, kind="probe", unlabelled=0.5)
            told.add(TRAINED["a"], fold, 0.8, unlabelled=0.9)
        assert told.winner() == (TRAINED["a"] if wins else head).key

    def test_one_that_a_domain_or_the_unlabelled_images_train_has_not(self) -> None:
        told, published = Told(), Strategy("package:lite0", cut=5, head="stages")
        adapted = replace(TRAINED["a"], adaptation="mcc")
        for fold in range(FOLDS):
            told.add(published, fold, 0.8, kind="probe", unlabelled=0.5)
            told.add(adapted, fold, 0.8, unlabelled=0.9)
        assert told.winner() == adapted.key

    @pytest.mark.parametrize(("right", "wins"), [(1.0, True), (0.8, True), (0.78, True), (0.4, False)])
    def test_published_weights_need_fewer_folds_than_plain_features(self, right: float, wins: bool) -> None:
        """There was time for plain features on all folds, which take none."""
        told, published = Told(), Strategy("package:lite0", cut=5, head="stages")
        for fold in range(FOLDS):
            told.add(PROBE, fold, 0.8, kind="probe")
        told.add(published, 0, right, kind="probe")
        found = told.contest.choice()
        expected = (published.key, "overtook") if wins else (PROBE.key, "alone")
        assert found is not None and (found.key, found.grounds) == expected  # it was not the only one tried on a fold

    @pytest.mark.parametrize(("right", "wins"), [(1.0, True), (0.8, False)])
    def test_other_probes_on_fewer_folds_have_to_lead_by_more_than_luck(self, right: float, wins: bool) -> None:
        told, own = Told(), Strategy("pretrain:domain/scratch:cnn-small", cut=3, head="stages")
        for fold in range(FOLDS):
            told.add(PROBE, fold, 0.7, kind="probe")
        told.add(own, 0, right, kind="probe")
        assert told.winner() == (own if wins else PROBE).key

    @pytest.mark.parametrize(
        ("folds", "surer", "right", "wins"),
        [
            (2, 0.3, 0.7, True),
            (2, 0.07, 0.7, True),
            (2, 0.04, 0.7, False),
            (2, 0.3, 0.5, False),
            (2, None, 0.7, False),
            (4, 0.3, 0.7, False),
        ],
    )
    def test_a_fold_more_is_no_reason_where_the_unlabelled_images_speak_clearly(
        self, folds: int, surer: float | None, right: float, wins: bool
    ) -> None:
        """As where there was time for plain features while the networks were still to be made."""
        told, own = Told(), Strategy("pretrain:domain/scratch:cnn-small", cut=3, head="stages")

        def seen(value: float) -> dict[str, float]:
            return {} if surer is None else {"unlabelled": value}

        for fold in range(folds):
            told.add(PROBE, fold, 0.7, kind="probe", **seen(0.5))
        told.add(own, 0, right, kind="probe", **seen(0.5 + (surer or 0.0)))
        if folds == FOLDS:  # and of one fold it was asked a part only
            told.records[-1].validated = told.records[-1].validated[5:25]
            told.records[-1].predicted = told.records[-1].predicted[5:25]
        assert told.winner() == (own if wins else PROBE).key

    @pytest.mark.parametrize(("adaptation", "wins"), [("none", False), ("mcc", True)])
    def test_nor_is_being_sure_one_for_a_network_trained_on_few_images_alone(self, adaptation: str, wins: bool) -> None:
        told, trained = Told(), replace(TRAINED["a"], adaptation=adaptation)
        for fold in range(2):
            told.add(PROBE, fold, 0.7, kind="probe", unlabelled=0.5)
        told.add(trained, 0, 0.7, unlabelled=0.8)
        assert told.winner() == (trained if wins else PROBE).key

    def test_what_could_not_be_refitted_is_not_chosen(self) -> None:
        told = Told()
        told.add(TRAINED["a"], 0, 0.9)
        told.add(TRAINED["b"], 0, 0.4)
        assert told.winner() == TRAINED["a"].key
        assert told.winner(TRAINED["a"].key) == TRAINED["b"].key
        assert told.winner(TRAINED["a"].key, TRAINED["b"].key) is None

    def test_controls_take_no_part(self) -> None:
        told = Told()
        for fold in range(2):
            told.add(TRAINED["a"], fold, 0.6)
            told.add(TRAINED["b"], fold, 1.0, kind="control")
        assert told.winner() == TRAINED["a"].key
        assert told.contest.leaders(5) == [TRAINED["a"].key]
        assert set(told.contest.scores()) == {TRAINED["a"].key}

    @pytest.mark.parametrize("status", [TrialStatus.PRUNED, TrialStatus.FAILED, TrialStatus.RUNNING])
    def test_nor_does_what_was_not_completed(self, status: TrialStatus) -> None:
        told = Told()
        told.add(TRAINED["a"], 0, 0.5)
        told.add(TRAINED["b"], 0, 1.0, status=status)
        assert told.winner() == TRAINED["a"].key

    def test_without_labels_is_by_the_mean_score_on_common_folds(self) -> None:
        told = Told(labels=None)
        for fold, (a, b) in enumerate([(0.6, 0.5), (0.6, 0.9)]):
            told.add(TRAINED["a"], fold, 0.0, score=a)
            told.add(TRAINED["b"], fold, 0.0, score=b)
        found = told.contest.choice()
        assert found is not None and (found.key, found.grounds) == (TRAINED["b"].key, "highest score")

    def test_of_nothing_is_nothing(self) -> None:
        assert Told().winner() is None

    def test_among_equals_what_is_frozen_goes_before_what_is_trained(self) -> None:
        """The contest tells the judges what each strategy is: a probe has everything frozen."""
        told = Told()
        told.add(TRAINED["a"], 0, 0.7)
        told.add(PROBE, 0, 0.7, kind="probe")
        assert told.winner() == PROBE.key


class TestLeaders:
    def test_are_by_the_first_fold_on_which_all_were_tried(self) -> None:
        told = Told()
        for name, right in (("a", 0.5), ("b", 0.7), ("c", 0.6)):
            told.add(TRAINED[name], 0, right)
        told.add(TRAINED["a"], 1, 1.0)
        assert told.contest.leaders(2) == [TRAINED["b"].key, TRAINED["c"].key]

    def crowd(self, telling: float) -> Told:
        """Of sixteen strategies the unlabelled images rank the first highest; two are equal by the labelled ones."""
        told = Told()
        for i, strategy in reversed(list(enumerate(TRAINED.values()))):
            right = 0.9 if i in (0, 15) else 0.85 - 0.04 * i
            told.add(strategy, 0, right, unlabelled=0.5 + telling * (0.9 - 0.05 * i))
        return told

    def test_what_is_seen_without_labels_helps_where_it_has_been_telling(self) -> None:
        first, last = TRAINED["a"].key, TRAINED["p"].key
        leaders = self.crowd(1.0).contest.leaders(16)
        assert leaders[0] == first and leaders.index(last) > 0

    def test_and_has_no_say_where_it_has_been_misleading(self) -> None:
        told = self.crowd(-1.0)
        by_labels = sorted(told.records, key=lambda record: -record.metrics["labelled"])
        assert told.contest.leaders(16)[:2] == [record.strategy_key for record in by_labels][:2]

    def test_are_told_of_once_until_more_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each decision asks several times, and of thousands of strategies one answer takes a tenth of a second."""
        asked: list[int] = []

        def counted(direct: np.ndarray, *more: Any) -> np.ndarray:
            asked.append(len(direct))
            return posterior_means(direct, *more)

        monkeypatch.setattr(standing, "posterior_means", counted)
        told = Told()
        told.add(TRAINED["a"], 0, 0.5, unlabelled=0.5)
        told.add(TRAINED["b"], 0, 0.4, unlabelled=0.5)
        told.add(TRAINED["c"], 0, 0.9, status=TrialStatus.RUNNING)
        assert [told.contest.leaders(count) for count in (1, 2)] == [[TRAINED["a"].key], [TRAINED[n].key for n in "ab"]]
        assert asked == [2]
        told.records[2].status = TrialStatus.COMPLETED
        told.records[2].metrics["unlabelled"] = 0.5
        assert told.contest.leaders(1) == [TRAINED["c"].key]
        told.records[2].metrics["labelled"] = 0.45  # as where it is asked anew
        assert told.contest.leaders(2) == [TRAINED[n].key for n in "ac"]
        assert asked == [2, 3, 3]

    def test_are_by_score_where_nothing_else_is_known(self) -> None:
        told = Told(labels=None)
        for name, score in (("a", 0.1), ("b", 0.3), ("c", 0.2)):
            told.add(TRAINED[name], 0, 0.5, score=score)
        assert told.contest.leaders(3) == [TRAINED[name].key for name in "bca"]


class TestTrailing:
    def test_is_beyond_doubt_on_the_folds_that_both_have(self) -> None:
        told = Told()
        told.add(TRAINED["a"], 0, 0.3)
        told.add(TRAINED["b"], 0, 0.9)
        assert told.contest.trails(TRAINED["a"].key, TRAINED["b"].key)
        assert not told.contest.trails(TRAINED["b"].key, TRAINED["a"].key)

    def test_not_where_they_are_close_or_share_no_fold(self) -> None:
        told = Told()
        told.add(TRAINED["a"], 0, 0.8)
        told.add(TRAINED["b"], 0, 0.84)
        told.add(TRAINED["c"], 1, 0.1)
        assert not told.contest.trails(TRAINED["a"].key, TRAINED["b"].key)
        assert not told.contest.trails(TRAINED["c"].key, TRAINED["b"].key)

    def test_never_without_labels(self) -> None:
        told = Told(labels=None)
        told.add(TRAINED["a"], 0, 0.0)
        told.add(TRAINED["b"], 0, 1.0)
        assert not told.contest.trails(TRAINED["a"].key, TRAINED["b"].key)


class TestCertainty:
    """A model that is too sure is calibrated before it is shipped, and so before it is judged by its log loss."""

    BY_LOSS = replace(LABELS, metric=metrics.get("log-loss"))

    def told(self, labels: Labels) -> Told:
        told = Told(labels)
        for fold in range(FOLDS):
            for name, right, sure in (("a", 0.9, 0.9999), ("b", 0.7, 0.55)):
                told.add(TRAINED[name], fold, right)
                index = np.arange(fold, IMAGES, FOLDS)
                told.records[-1].predicted = answers(index, right, sure)
        return told

    def test_the_better_one_wins_though_it_is_too_sure(self) -> None:
        told = self.told(self.BY_LOSS)
        a, b = (told.contest.said.out_of_fold(TRAINED[name].key) for name in "ab")
        loss = metrics.get("log-loss")
        assert a is not None and b is not None and loss(a, TRUTH) > loss(b, TRUTH)  # as they are
        assert told.winner() == TRAINED["a"].key and told.contest.trails(TRAINED["b"].key, TRAINED["a"].key)

    def test_is_no_matter_to_what_does_not_go_by_it(self) -> None:
        for name in ("accuracy", "balanced-accuracy", "macro-f1"):
            contest = self.told(replace(LABELS, metric=metrics.get(name))).contest
            key = TRAINED["a"].key
            assert np.array_equal(contest.said.judged(key), contest.said.out_of_fold(key))

    def test_on_few_images_nothing_is_fitted(self) -> None:
        told = Told(self.BY_LOSS)
        told.add(TRAINED["a"], 0, 0.9)
        told.records[-1].validated, told.records[-1].predicted = [0, 1], answers(np.array([0, 1]), 0.5)
        found = told.contest.said.judged(TRAINED["a"].key)
        assert found is not None and found[:2] == pytest.approx(answers(np.array([0, 1]), 0.5))
        assert told.contest.said.temperature(TRAINED["a"].key) is None

    def test_further_folds_are_heard(self) -> None:
        told = self.told(self.BY_LOSS)
        key = TRAINED["a"].key
        first = told.contest.said.judged(key, {0})
        assert first is not None and (told.contest.said.judged(key) is not None)
        assert np.isnan(first).any() and not np.isnan(told.contest.said.judged(key)).any()


class TestOutOfFold:
    def test_every_image_once_and_repeats_averaged(self) -> None:
        told = Told()
        told.add(TRAINED["a"], 0, 1.0)
        told.add(TRAINED["a"], 1, 1.0)
        again = TrialRecord(**vars(told.records[0]))
        again.number, again.fold = 2, 2  # a repeat of the first fold's images under another number
        again.predicted = np.full((len(again.validated), CLASSES), 1 / CLASSES)
        told.records.append(again)
        found = told.contest.said.out_of_fold(TRAINED["a"].key)
        assert found is not None and found.shape == (IMAGES, CLASSES)
        known = ~np.isnan(found[:, 0])
        assert known.tolist() == [i % FOLDS < 2 for i in range(IMAGES)]
        assert found[0, TRUTH[0]] == pytest.approx((0.8 + 0.2 / 3 + 1 / 3) / 2)
        assert found[1, TRUTH[1]] == pytest.approx(0.8 + 0.2 / 3)
        only = told.contest.said.out_of_fold(TRAINED["a"].key, {1})
        assert only is not None and np.isnan(only[0, 0]) and not np.isnan(only[1, 0])

    def test_a_fold_that_was_tried_twice_counts_once(self) -> None:
        """As a baseline and by the search, say."""
        told = Told()
        told.add(TRAINED["a"], 0, 0.5, kind="baseline")
        told.add(TRAINED["a"], 0, 0.5)
        assert len(told.contest.completed(TRAINED["a"].key)) == 1

    def test_of_what_said_nothing_is_nothing(self) -> None:
        told = Told()
        told.add(TRAINED["a"], 0, 0.5)
        told.records[0].predicted = np.empty(0)
        assert told.contest.said.out_of_fold(TRAINED["a"].key) is None


class TestAskedAtEveryJob:
    """With hundreds of classes a metric that ranks takes seconds for a comparison."""

    @pytest.fixture
    def compared(self) -> list[int]:
        return []

    @pytest.fixture
    def told(self, compared: list[int]) -> Told:
        accuracy = metrics.get("accuracy")

        def counted(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
            compared.append(len(labels))
            return accuracy.function(probabilities, labels, weights)

        told = Told(replace(LABELS, metric=replace(accuracy, function=counted)))
        for fold in range(FOLDS):
            for name, right in (("a", 0.8), ("b", 0.75), ("c", 0.7)):
                told.add(TRAINED[name], fold, right)
        return told

    def test_what_is_known_is_not_compared_again(self, told: Told, compared: list[int]) -> None:
        first, second = TRAINED["a"].key, TRAINED["b"].key
        before = told.contest.choice(), told.contest.lags(second, first), told.contest.trails(second, first)
        assert compared
        compared.clear()
        assert before == (told.contest.choice(), told.contest.lags(second, first), told.contest.trails(second, first))
        assert not compared

    def test_another_trial_and_another_failure_count(self, told: Told) -> None:
        assert told.winner() == TRAINED["a"].key
        assert told.winner(TRAINED["a"].key) == TRAINED["b"].key
        for fold in range(FOLDS):
            told.add(TRAINED["d"], fold, 0.95)
        assert told.winner() == TRAINED["d"].key
        assert told.winner(TRAINED["d"].key) == TRAINED["a"].key
