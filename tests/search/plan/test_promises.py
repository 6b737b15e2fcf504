"""What strategies promise before all of them were tried on everything: by labels, where there are any."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from raytl.evaluation import metrics
from raytl.evaluation.selection import labelled_share
from raytl.search.jobs import JobKind, Survey
from raytl.search.plan.contest import Contest
from raytl.search.plan.probing import Probing
from raytl.search.plan.said import Labels
from raytl.search.records import TrialRecord, TrialStatus
from raytl.tasks.splits import folds
from raytl.training import Strategy

TRUTH = np.tile([0, 1], 20)
FOLDS = folds(TRUTH, None, 5, 2, 0)
BEST, OTHERS = "file:best", [f"file:other{i}" for i in range(4)]
PROBES = {uri: Strategy(uri, cut=4, head="logistic") for uri in (BEST, *OTHERS)}
RIGHT, LIKED = {BEST: 0.85}, {BEST: 0.55}
"""How often a source model is right, and what images without labels say of it; of the others .6 and .7."""


def measured(uri: str, validated: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, float], np.ndarray]:
    """A probe's scores on a fold, and what it says of the images."""
    right = rng.random(len(validated)) < RIGHT.get(uri, 0.6)
    said = np.where(right, TRUTH[validated], 1 - TRUTH[validated])
    labelled, unlabelled = float(right.mean()), LIKED.get(uri, 0.7)
    share = labelled_share(len(validated))
    score = share * labelled + (1 - share) * unlabelled
    return {"labelled": labelled, "unlabelled": unlabelled, "score": score}, 0.25 + 0.5 * np.eye(2)[said]


def raced(seed: int, labels: Labels | None) -> tuple[Contest, Probing]:
    """All probes that are tried, as they would be one after the other."""
    rng = np.random.default_rng(seed)
    records: list[TrialRecord] = []
    contest = Contest(records, labels)
    probing = Probing(contest, [], len(FOLDS), itertools.count())
    probing.begin({uri: [strategy] for uri, strategy in PROBES.items()}, Survey())
    while (job := probing.next_job(())) is not None:
        strategy, validated = Strategy.from_dict(job.strategy), FOLDS[job.fold or 0][1]
        scores, said = measured(strategy.source_model, validated, rng)
        record = TrialRecord(len(records), JobKind.PROBE, strategy.to_dict(), strategy.key, fold=job.fold)
        record.status, record.score, record.metrics, record.seconds = (
            TrialStatus.COMPLETED,
            scores["score"],
            scores,
            1.0,
        )
        record.validated, record.predicted = validated.tolist(), said.tolist()
        records.append(record)
        probing.end(job)
    return contest, probing


def test_what_images_without_labels_say_does_not_outvote_labels() -> None:
    """Of eight labelled images a fold. What these images like less is right far more often."""
    labels = Labels(TRUTH, None, 2, metrics.get("accuracy"))
    everywhere, first = [], []
    for seed in range(20):
        contest, probing = raced(seed, labels)
        everywhere.append(len(contest.completed(PROBES[BEST].key)) == len(FOLDS))
        first.append(probing.order()[0] == BEST)
    assert sum(everywhere) >= 18
    assert sum(first) >= 18


def test_without_labels_to_judge_by_it_is_all_there_is() -> None:
    contest, _ = raced(0, None)
    assert contest.promises() == contest.evened_scores()


def test_an_easy_fold_flatters_nobody() -> None:
    """One strategy was tried on both folds, another on the easier one alone, and did no better there."""
    records: list[TrialRecord] = []
    for uri, fold, right in [(BEST, 0, 0.5), (BEST, 1, 0.9), (OTHERS[0], 1, 0.8), (OTHERS[1], 0, 0.4)]:
        strategy = PROBES[uri]
        record = TrialRecord(len(records), JobKind.PROBE, strategy.to_dict(), strategy.key, fold=fold)
        record.status, record.score, record.metrics = TrialStatus.COMPLETED, 0.5, {"labelled": right}
        records.append(record)
    found = Contest(records, Labels(TRUTH, None, 2, metrics.get("accuracy"))).promises()
    assert [found[PROBES[uri].key] for uri in (BEST, OTHERS[0], OTHERS[1])] == pytest.approx([0.7, 0.6, 0.6])
