"""A realistic run, made by driving the real writer as a search would: curves, pruned and failed trials, folds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from raytl.core.hashing import hash_json
from raytl.evaluation import metrics as registered
from raytl.evaluation.intervals import Comparison, Interval, paired_metric_interval
from raytl.judging import Control, Part, equivalence_margin, judged
from raytl.runs import Run, RunStore, RunWriter
from raytl.search.plan.ledger import rounded
from raytl.search.records import Candidate, ControlResult, SearchOutcome, TrialRecord, TrialStatus

CLASSES = tuple(map(str, range(10)))
EPOCHS = 12
SOURCES = {"printed": 0.06, "letters": 0.02, "textures": -0.05}
CONTROLS = {
    "without pretrained weights": ("source-model", "scratch"),
    "without adaptation": ("adaptation", "fine-tune"),
    "linear-probe": ("classical", "linear-probe"),
}
"""By name, which part of the winner is taken out, and the baseline whose predictions stand for what is left."""
LOSSES = {"none": 0.0, "mcc": 0.035, "pseudo-label": 0.04, "coral": 0.01, "dann": 0.0}
DEFAULTS: dict[str, Any] = {
    "source_model": "scratch:cnn-small",
    "source_domain": None,
    "cut": 0,
    "head": "linear",
    "head_lr": 0.01,
    "backbone_ratio": 0.1,
    "optimizer": "sgd",
    "weight_decay": 5e-4,
    "adaptation": "none",
    "augmentation": "none",
}
BASELINES = {
    "scratch": {"source_model": "scratch:cnn-small", "backbone_ratio": 1.0},
    "linear-probe": {"source_model": "pretrain:printed/scratch:cnn-small", "cut": 3, "head": "logistic"},
    "fine-tune": {"source_model": "pretrain:printed/scratch:cnn-small"},
    "source-only": {"source_model": "pretrain:printed/scratch:cnn-small", "source_domain": "printed"},
}
BASELINE_LEVELS = {"scratch": 0.875, "linear-probe": 0.86, "fine-tune": 0.925, "source-only": 0.6}
SETTINGS: dict[str, Any] = {
    "setting": "semi-supervised adaptation",
    "classes": CLASSES,
    "seed": 0,
    "trials": 40,
    "space": "demo",
    "command": "raytl search --target digits/labelled --unlabelled digits/pool --source-domain printed --seed 0",
    "data": {
        "counts": {"target": 50, "unlabelled": 1147, "source domain 'printed'": 4000, "test": 600},
        "problems": [
            {"severity": "warning", "where": "printed/7/0412.png", "message": "cannot be decoded; left out"},
            {"severity": "info", "message": "12 near-duplicates were kept in one split"},
        ],
    },
}


def write_example(
    storage: Path,
    name: str = "digits",
    *,
    trials: int = 40,
    helped: bool = True,
    settings: dict[str, Any] | None = None,
) -> Run:
    """A finished run of ``trials`` trials plus folds. helped: whether transfer did any good."""
    with RunStore(storage).create(name, settings or SETTINGS) as writer:
        records = play(writer, trials)
        return writer.finish(outcome_of(records, helped=helped))


def play(writer: RunWriter, trials: int, seed: int = 0) -> list[TrialRecord]:
    """Tell the writer of the baselines, ``trials`` searched strategies, and further folds of the best."""
    rng = np.random.default_rng(seed)
    records: list[TrialRecord] = []
    writer.on_phase("pretrain", "cnn-small on printed, letters, textures")
    writer.on_phase("search", f"{trials} trials")
    for baseline, values in BASELINES.items():
        strategy = DEFAULTS | values
        records.append(_train(writer, rng, len(records), strategy, BASELINE_LEVELS[baseline], baseline=baseline))
    for _ in range(trials):
        strategy = _sample(rng)
        level = 0.885 + LOSSES[strategy["adaptation"]] + SOURCES[strategy["source_model"].split(":")[1].split("/")[0]]
        level -= 0.01 * strategy["cut"] + 0.03 * abs(math.log10(strategy["head_lr"]) + 2)
        records.append(_train(writer, rng, len(records), strategy, min(level, 0.985)))
    writer.on_phase("confirm", "2 folds of the best")
    done = [record for record in records if record.status is TrialStatus.COMPLETED]
    best = max(done, key=lambda record: record.score or 0.0)
    for fold in (1, 2):
        level = (best.score or 0.0) - 0.01
        records.append(_train(writer, rng, len(records), best.strategy, level, kind="confirm", fold=fold))
    return records


def outcome_of(records: list[TrialRecord], *, helped: bool = True, seed: int = 1) -> SearchOutcome:
    """The outcome that a search over ``records`` would come to, with test predictions of plausible quality."""
    rng = np.random.default_rng(seed)
    labels = load_digits().target[-600:].astype(np.int64)
    levels = {"best": 0.965 if helped else 0.85} | BASELINE_LEVELS
    done = [r for r in records if r.status is TrialStatus.COMPLETED and r.kind != "confirm"]
    candidates = {
        label: _candidate(label, [record], records, labels, levels[label], rng)
        for label, record in [("best", max(done, key=lambda r: r.score or 0.0))]
        + [(str(record.baseline), record) for record in records if record.baseline]
    }
    best = candidates.pop("best")
    gains = {name: _gain(best, other, labels, rng) for name, other in candidates.items()}
    controls = _controls(best, candidates, labels)
    compared = {control.part: control.comparison for control in controls}
    return SearchOutcome(
        trials=records,
        best=best,
        baselines=list(candidates.values()),
        why="highest mean validation accuracy over 3 folds among the strategies confirmed on all of them",
        seconds=171.3,
        gains=gains,
        controls=controls,
        transfer_gain=_interval(compared["source-model"]),
        adaptation_gain=_interval(compared["adaptation"]),
        test_labels=labels,
    )


def test_images() -> list[Image.Image]:
    """The 600 digits that the labels of :func:`outcome_of` belong to."""
    pixels = (load_digits().images[-600:] * 255 / 16).astype(np.uint8)
    return [Image.fromarray(image) for image in pixels]


def _sample(rng: np.random.Generator) -> dict[str, Any]:
    source = rng.choice(["printed", "printed", "printed", "letters", "textures"])
    adaptation = str(rng.choice(list(LOSSES)))
    return (
        DEFAULTS
        | {
            "source_model": f"pretrain:{source}/scratch:cnn-small",
            "source_domain": "printed" if adaptation != "none" else None,
            "cut": int(rng.integers(0, 4)),
            "head_lr": float(10 ** rng.uniform(-3, -1)),
            "backbone_ratio": float(10 ** rng.uniform(-2, 0)),
            "optimizer": str(rng.choice(["sgd", "adamw"])),
            "augmentation": str(rng.choice(["none", "shift", "strong"])),
            "adaptation": adaptation,
        }
        | ({"adaptation.weight": float(10 ** rng.uniform(-1, 1))} if adaptation != "none" else {})
    )


def _train(
    writer: RunWriter,
    rng: np.random.Generator,
    number: int,
    strategy: dict[str, Any],
    level: float,
    *,
    kind: str = "search",
    baseline: str | None = None,
    fold: int = 0,
) -> TrialRecord:
    record = TrialRecord(
        number,
        "baseline" if baseline else kind,
        strategy,
        hash_json(strategy)[:12],
        fold=fold,
        baseline=baseline,
        lane=f"lane-{number % 2}",
    )
    writer.on_trial(record)
    for epoch in range(1, EPOCHS + 1):
        accuracy = level - (level - 0.2) * math.exp(-epoch / 2) + float(rng.normal(0, 0.008))
        accuracy = min(1.0, accuracy)
        metrics = {"target-accuracy": accuracy, "target-log-loss": math.log(max(accuracy, 0.05)) - 0.1}
        metrics["score"] = accuracy + 0.1 * metrics["target-log-loss"]
        record.seconds += 0.31
        record.history.append({"epoch": epoch, "seconds": record.seconds, "train_loss": 2.3 * 0.75**epoch} | metrics)
        record.metrics, record.score = metrics, metrics["score"]
        if kind == "search" and not baseline and number % 13 == 5 and epoch == 2:
            record.status, record.reason = TrialStatus.FAILED, "the loss is not a number at epoch 2; lower head_lr"
            record.score, record.metrics = None, {}
            break
        if kind == "search" and not baseline and epoch in (3, 6) and level < 0.86 + 0.01 * epoch:
            record.status, record.reason = TrialStatus.PRUNED, f"below the median at epoch {epoch}"
            break
        writer.on_trial(record)
    else:
        record.status = TrialStatus.COMPLETED
        record.validated = list(range(fold, 30, 3))
        record.predicted = rounded(rng.dirichlet(np.ones(len(CLASSES)), 10))
    record.ended = 5.0 + 3.1 * number
    writer.on_trial(record)
    return record


def _candidate(
    label: str,
    own: list[TrialRecord],
    records: list[TrialRecord],
    labels: np.ndarray,
    level: float,
    rng: np.random.Generator,
) -> Candidate:
    trials = [record.number for record in records if record.strategy_key == own[0].strategy_key]
    score = own[0].score or 0.0
    logits = rng.normal(0, 1, (len(labels), len(CLASSES)))
    right = rng.random(len(labels)) < level
    shown = np.where(right, labels, (labels + rng.choice([1, 3, 5], len(labels))) % len(CLASSES))
    logits[np.arange(len(labels)), shown] = logits.max(axis=1) + rng.gamma(4, 0.8, len(labels)) * np.where(
        right, 1, 0.4
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    test = _bootstrap((probabilities.argmax(axis=1) == labels).astype(float), rng)
    validation = Interval(score, max(0.0, score - 0.04), min(1.0, score + 0.035))
    return Candidate(
        label,
        own[0].strategy,
        own[0].strategy_key,
        trials,
        validation,
        temperature=1.1,
        test=test,
        test_probabilities=probabilities,
        validated=50,
    )


def _controls(best: Candidate, others: dict[str, Candidate], labels: np.ndarray) -> list[ControlResult]:
    accuracy = registered.get("accuracy")
    found = []
    for name, (part, baseline) in CONTROLS.items():
        other = others[baseline]
        assert best.test_probabilities is not None and other.test_probabilities is not None
        pair = paired_metric_interval(accuracy, best.test_probabilities, other.test_probabilities, labels)
        found.append(ControlResult(name, part, other.strategy, other.strategy_key, pair, measured_on="test"))
    assert best.test is not None
    pairs = [Control(c.name, Part(c.part), c.comparison) for c in found if c.comparison is not None]
    verdicts = judged(pairs, margin=equivalence_margin(accuracy, best.test.value))
    for control, verdict in zip(found, verdicts, strict=True):
        control.tone = str(verdict.tone)
    return found


def _interval(found: Comparison | None) -> Interval | None:
    return None if found is None else Interval(found.value, found.low, found.high)


def _gain(best: Candidate, other: Candidate, labels: np.ndarray, rng: np.random.Generator) -> Interval:
    assert best.test_probabilities is not None and other.test_probabilities is not None
    right = [candidate.test_probabilities.argmax(axis=1) == labels for candidate in (best, other)]
    return _bootstrap(right[0].astype(float) - right[1].astype(float), rng)


def _bootstrap(values: np.ndarray, rng: np.random.Generator) -> Interval:
    means = values[rng.integers(0, len(values), (500, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
