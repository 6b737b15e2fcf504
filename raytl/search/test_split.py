"""The one opening of the test split, after the choice was made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from raytl.core.hashing import hash_json, hash_tensors
from raytl.evaluation.calibration import apply_temperature, cross_temperatures
from raytl.evaluation.intervals import Interval, metric_interval, paired_metric_interval
from raytl.evaluation.metrics import Metric, rarer
from raytl.judging.operating import decided
from raytl.search.plan.schedule import SearchPlan
from raytl.search.records import Candidate, SearchOutcome
from raytl.sources import SourceModel
from raytl.sources.checkpoint import load_checkpoint
from raytl.sources.passing import at_once
from raytl.tasks import Images, LabelledImages, SealedTest
from raytl.training.workspace import Workspace

TELLS_NOTHING = "one image, or images of one group alone, tell no two models apart"


def open_test(
    plan: SearchPlan, test: SealedTest, outcome: SearchOutcome, workspace: Workspace, metric: Metric
) -> Metric:
    """The candidates' figures on the test split, and the winner's gains; the metric that they are in.

    Where nothing was learned from labels of the target, the test's say which of two classes is to be found.
    """
    images = test.open()
    metric = metric.finding(rarer(images.labels), images.classes)
    outcome.positive = metric.positive_name
    outcome.test_images, outcome.test_labels = images, images.labels
    keys = [entry.strategy_key for entry in (outcome.best, *outcome.baselines)]
    said_by = _refitted(plan, [*keys, *(control.strategy_key for control in outcome.controls)], workspace, images)
    for entry in [outcome.best, *outcome.baselines]:
        if entry.strategy_key in said_by:
            said = entry.test_probabilities = apply_temperature(said_by[entry.strategy_key], entry.temperature)
            found = metric_interval(metric, said, images.labels, images.groups)
            entry.test = found if math.isfinite(found.value) else None
    best = outcome.best.test_probabilities
    assert best is not None
    if outcome.best.test is None:
        outcome.test_undefined = _undefined(metric, images)
    if (point := outcome.operating_point) is not None:
        positive = images.classes.index(point.label)
        named = point.decide(best, images.classes) == positive
        outcome.operating_point = replace(point, test=decided(named, positive, images.labels, images.groups, metric))
    for other in outcome.baselines:
        if other.test_probabilities is not None and other.strategy_key != outcome.best.strategy_key:
            pair = paired_metric_interval(metric, best, other.test_probabilities, images.labels, images.groups)
            if pair.tells:
                outcome.gains[other.label] = Interval(pair.value, pair.low, pair.high)
    for control in outcome.controls:
        if control.strategy_key in said_by:
            best, said = said_by[outcome.best.strategy_key], said_by[control.strategy_key]
            if metric.goes_by_certainty(len(images.classes)):
                best, said = _as_sure(plan, outcome.best, control.strategy_key, best, said, images, metric)
            pair = paired_metric_interval(metric, best, said, images.labels, images.groups)
            if pair.tells:
                control.comparison, control.measured_on = pair, "test"
            elif not outcome.test_undefined:
                control.why_not = TELLS_NOTHING
    return metric


def _undefined(metric: Metric, images: LabelledImages) -> str:
    """Why the metric cannot be had of the test images."""
    occurring = np.unique(images.labels)
    if len(occurring) == 1:
        return f"the test images are all '{images.classes[occurring[0]]}', and {metric.title} is not defined on them"
    return f"{metric.title} is not defined on the test images"


def _as_sure(
    plan: SearchPlan,
    best: Candidate,
    control: str,
    mine: np.ndarray,
    other: np.ndarray,
    images: LabelledImages,
    metric: Metric,
) -> tuple[np.ndarray, np.ndarray]:
    """What the winner and a control say of the test images, both calibrated or neither.

    Where the control was validated on no images that a temperature could be fitted on, both have that of the other test
    images: what differs is then not that one of them was calibrated. Ranks, which a temperature hardly moves, are
    compared at the winner's own, so that the difference is one from the figure that is told of it.
    """
    temperature, own = plan.contest.said.temperature(best.strategy_key), plan.contest.said.temperature(control)
    if temperature is None:
        return mine, other
    if own is None and metric.by_order:
        own = temperature
    if own is not None:
        return apply_temperature(mine, temperature), apply_temperature(other, own)
    labels, groups = images.labels, images.groups
    mine, other = (apply_temperature(said, cross_temperatures(said, labels, groups)) for said in (mine, other))
    return mine, other


def _refitted(plan: SearchPlan, keys: Sequence[str], workspace: Workspace, images: Images) -> dict[str, np.ndarray]:
    """Probabilities (n, k) by the refitted models of these strategies, as far as there are such, by key.

    Heads on one frozen network, of which a search compares several, have the network run once.
    """
    heads: dict[str, dict[str, nn.Module]] = {}
    for key in dict.fromkeys(keys):
        if key in plan.refits.done:
            model = _model(plan, key)
            # Networks without weights are told apart by their names alone.
            weights = hash_tensors(model.stages.state_dict())
            network = hash_json([model.architecture, weights, model.preprocessing.to_json()])
            heads.setdefault(network, {})[key] = model.head
    found: dict[str, np.ndarray] = {}
    for by_key in heads.values():
        # Read once more: all networks together may be more than the memory holds.
        said = probabilities_of(_model(plan, next(iter(by_key))), list(by_key.values()), workspace, images)
        found |= dict(zip(by_key, said, strict=True))
    return found


def _model(plan: SearchPlan, key: str) -> SourceModel:
    return load_checkpoint(Path(plan.refits.done[key]))[1]


def probabilities_of(
    network: SourceModel, heads: Sequence[nn.Module], workspace: Workspace, images: Images
) -> list[np.ndarray]:
    """What each of some heads on a network says of images, (n, k)."""
    device = workspace.device
    network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    placed = [head.to(device).eval() for head in heads]
    chunks: list[list[np.ndarray]] = []
    with torch.inference_mode():
        for batch in images.batches(network.preprocessing, at_once(network.preprocessing.size, device)):
            answers = network.answers(network.preprocessing.normalise(batch.to(device)), placed)
            chunks.append([logits.float().softmax(1).cpu().numpy() for logits in answers])
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
