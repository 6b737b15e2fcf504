"""From a finished plan to what it means: the choice and its grounds, and the one opening of the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from raytl.core.errors import UserError
from raytl.evaluation.intervals import Interval, bootstrap_interval, paired_interval
from raytl.search.plan.schedule import SearchPlan
from raytl.search.propose.baselines import SCRATCH
from raytl.search.records import Candidate, SearchOutcome, TrialStatus
from raytl.sources import SourceModel
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks import Images, LabelledImages, SealedTest, TrainingData
from raytl.training.pretrain import is_hurried
from raytl.training.workspace import Workspace

NO_ADAPTATION = "no-adaptation"


def choose(plan: SearchPlan, data: TrainingData) -> tuple[Candidate, list[Candidate], str]:
    """The winner, the candidates that it is held against, and one sentence on the grounds of the choice.

    Uses validation results only. Raises UserError where no trial succeeded, with the commonest reason.
    """
    best = plan.winner()
    if best is None:
        raise UserError(_all_failed(plan))
    tried = {record.strategy_key for record in plan.records}  # not all of them, where the search was interrupted
    baselines = {name: strategy.key for name, strategy in plan.baselines.items() if strategy.key in tried}
    others = [candidate(plan, data, name, key) for name, key in baselines.items()]
    alternative = plan.without_adaptation()
    if alternative is not None and alternative not in {other.strategy_key for other in others}:
        others.append(candidate(plan, data, NO_ADAPTATION, alternative))
    return candidate(plan, data, "best", best), others, _why(plan, best, data)


def candidate(plan: SearchPlan, data: TrainingData, label: str, key: str) -> Candidate:
    """A strategy with its validation accuracy over all folds that it was tried on."""
    records = plan.of_strategy(key)
    correct = [np.empty(0)]
    for record in records:
        result = plan.results.get(record.number)
        if result is None or result.validation_index is None or not len(result.validation_index):
            continue
        assert data.target is not None
        if result.validation_probabilities is None:
            # A trial from before an interruption: how many images it got right is on record, not which.
            right = round(record.metrics["target-accuracy"] * len(result.validation_index))
            correct.append((np.arange(len(result.validation_index)) < right).astype(np.float64))
        else:
            predicted = result.validation_probabilities.argmax(1)
            correct.append(predicted == data.target.labels[result.validation_index])
    pooled = np.concatenate(correct).astype(np.float64)
    validation = bootstrap_interval(pooled) if len(pooled) else None
    return Candidate(label, plan.strategy_of(key), key, [record.number for record in records], validation)


def open_test(
    test: SealedTest, best: Candidate, others: list[Candidate], refits: dict[str, str], workspace: Workspace
) -> LabelledImages:
    """Open the test split, once, after the choice was made: fill in the candidates' test figures; return the images.

    refits: directories of the refitted models by strategy key.
    """
    images = test.open()
    for entry in [best, *others]:
        if entry.strategy_key not in refits:
            continue
        _, model = load_checkpoint(Path(refits[entry.strategy_key]))
        entry.test_probabilities = _probabilities(model, workspace, images)
        entry.test = bootstrap_interval((entry.test_probabilities.argmax(1) == images.labels).astype(np.float64))
    return images


def gains(best: Candidate, others: list[Candidate], labels: np.ndarray) -> dict[str, Interval]:
    """Test accuracy of the winner minus each other candidate's, with paired bootstrap intervals."""
    if best.test_probabilities is None:
        return {}
    right = (best.test_probabilities.argmax(1) == labels).astype(np.float64)
    return {
        other.label: paired_interval(right, (other.test_probabilities.argmax(1) == labels).astype(np.float64))
        for other in others
        if other.test_probabilities is not None
    }


def conclude(
    plan: SearchPlan,
    data: TrainingData,
    test: SealedTest | None,
    workspace: Workspace,
    seconds: float,
    *,
    interrupted: bool,
) -> SearchOutcome:
    """Choose, open the test split, compare."""
    best, others, why = choose(plan, data)
    outcome = SearchOutcome(plan.records, best, others, why, seconds, interrupted=interrupted)
    used = {record.strategy["source_model"] for record in plan.records}
    hurried = tuple(sorted(uri for uri in used if is_hurried(workspace, uri)))
    outcome.workspace = replace(workspace.settings, hurried=hurried).to_json()
    if test is not None and best.strategy_key in plan.refits.done:
        outcome.test_images = open_test(test, best, others, plan.refits.done, workspace)
        outcome.test_labels = outcome.test_images.labels
        outcome.gains = gains(best, others, outcome.test_labels)
        outcome.transfer_gain = outcome.gains.get(SCRATCH)
        plain = plan.without_adaptation()
        outcome.adaptation_gain = next((outcome.gains.get(o.label) for o in others if o.strategy_key == plain), None)
    return outcome


def _probabilities(model: SourceModel, workspace: Workspace, images: Images) -> np.ndarray:
    model = model.to(workspace.device).eval()
    pixels = images.tensor(model.preprocessing)
    with torch.no_grad():
        chunks = [model(model.preprocessing.normalise(chunk.to(workspace.device))) for chunk in pixels.split(128)]
    return torch.cat(chunks).float().softmax(1).cpu().numpy()


def _why(plan: SearchPlan, best: str, data: TrainingData) -> str:
    """One sentence on what the choice rests on; it names every kind of evidence that the score used, and no other."""
    records = plan.of_strategy(best)
    score = float(np.mean([record.score for record in records if record.score is not None]))
    tried = len({record.strategy_key for record in plan.records})
    evidence = []
    if data.target is not None and plan.settings.folds:
        folds = f"{len(records)} validation folds" if len(records) > 1 else "one validation fold"
        evidence.append(f"accuracy and log loss on {folds}")
    elif any("source-accuracy" in record.metrics for record in records):
        evidence.append("accuracy on held-out images of the source domain")
    if data.unlabelled is not None:
        evidence.append("consistency and certainty on the unlabelled images")
    labels = "" if data.target is not None else "; no target label was used"
    return f"highest score ({score:.3f}: {', '.join(evidence) or 'nothing to score by'}) of {_counted(tried)}{labels}"


def _all_failed(plan: SearchPlan) -> str:
    reasons = [record.reason for record in plan.records if record.status == TrialStatus.FAILED and record.reason]
    reasons += list(plan.refits.failed.values())
    if not reasons:
        return (
            "the search ended before any trial was complete: give it more time (--time-budget) or fewer epochs "
            "(--set epochs=5)"
        )
    common = max(set(reasons), key=reasons.count)
    return f"no trial succeeded ({len(reasons)} failed); most often: {common}"


def _counted(strategies: int) -> str:
    return "1 strategy" if strategies == 1 else f"{strategies} strategies"
