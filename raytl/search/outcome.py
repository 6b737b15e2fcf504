"""From a finished plan to what it means: the choice, its grounds, and what the chosen model is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import so_many
from raytl.evaluation import metrics
from raytl.evaluation.calibration import LEAST_CALIBRATING, apply_temperature, calibration_error
from raytl.evaluation.intervals import average_repeats, metric_interval
from raytl.evaluation.metrics import Metric
from raytl.judging.choice import BALANCED_LOG_LOSS, UNSURE, Choice
from raytl.judging.estimates import corrected_estimate, with_all_labels
from raytl.judging.operating import Goal, operating_point
from raytl.search.against_controls import hold_against_controls
from raytl.search.agreement import Agreement
from raytl.search.means_of_judging import add_means_of_judging
from raytl.search.on_unlabelled import LEAST_SEEN, can_be_judged
from raytl.search.plan.schedule import SearchPlan
from raytl.search.records import Candidate, ControlResult, SearchOutcome, TrialStatus
from raytl.search.test_split import open_test
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks import SealedTest, TrainingData
from raytl.training.pretrain import is_hurried, kept_checkpoint, parse_pretrain
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

_GROUNDS = {
    "alone": "the only one that was tried",
    "metric": "best {metric}, by more than one standard error,",
    "log-loss": "{metric} no worse than the best, and a lower {loss},",
    "unlabelled": "{metric} no worse than the best, and the steadiest on the unlabelled images,",
    "frozen": "{metric} no worse than the best, and the least trained,",
    "cost": "{metric} no worse than the best, and the cheapest,",
    "usual": "{metric} no worse than the best beyond doubt, and of a kind that usually does better,",
    "key": "{metric} no worse than the best,",
    "overtook": "ahead of what was tried on more folds, or not behind it and of a kind that usually does better,",
    "highest score": "highest score",
}
KeepModel = Callable[[SearchOutcome, Path], str]
"""Keeps a model with what is known of it, and says what it is worth."""


def conclude(
    plan: SearchPlan,
    data: TrainingData,
    test: SealedTest | None,
    workspace: Workspace,
    seconds: float,
    *,
    interrupted: bool,
    at: Goal | None = None,
    keep: KeepModel | None = None,
    opening: Callable[[], None] = lambda: None,
) -> SearchOutcome:
    """Choose, open the test split, compare. at: the operating point that is asked for.

    keep: given what is known and the winner's checkpoint, keeps the model; before the test split is opened, so that a
    disk that does not take the model leaves the test sealed. opening: told that it is opened now.
    Raises UserError where no trial succeeded, with the commonest reason.
    """
    metric = workspace.metric
    choice = _with_a_model(plan) if interrupted else plan.choice()
    choice = choice or plan.choice()
    if choice is None:
        raise UserError(_all_failed(plan))
    agreement = None if interrupted else Agreement.of(plan, workspace, choice.key)
    # With a test the network's controls are trained to be compared on it.
    head = agreement.settles(plan, choice.key) if agreement is not None and test is None else None
    choice = head or choice
    best = best_so_far(plan, metric, choice.key)
    tried = {record.strategy_key for record in plan.records}  # not all of them, where the search was interrupted
    others = [
        candidate(plan, metric, name, strategy.key)
        for name, strategy in plan.baselines.items()
        if strategy.key in tried or strategy.key in plan.refits.done
    ]
    # Controls are the plan's winner's: of a head that took its place there are none.
    own = plan.controls if head is None else []
    controls = [ControlResult(c.name, c.part, c.strategy.to_dict(), c.strategy.key) for c in own]
    outcome = SearchOutcome(plan.records, best, others, _why(plan, choice, data, metric, agreement), seconds)
    outcome.interrupted, outcome.metric, outcome.survey = interrupted, metric.name, plan.survey
    outcome.positive, outcome.given_up = metric.positive_name, dict(plan.given_up)
    outcome.controls = controls
    used = {record.strategy["source_model"] for record in plan.records}
    # Lanes on other machines have made them there; only of what an earlier search had done does this one's cache tell.
    hurried = tuple(sorted(uri for uri in used if plan.hurried.get(uri, is_hurried(workspace, uri))))
    outcome.workspace = replace(workspace.settings, hurried=hurried).to_json()
    if data.unlabelled is not None and len(data.unlabelled) >= LEAST_SEEN:
        outcome.answers = _answers(plan, best.strategy_key, data.classes)
    _calibrate(plan, outcome, data.classes, metric, at)
    if agreement is not None and head is None:
        outcome.agreement = {"value": agreement.value, "images": agreement.images}
        best.temperature = agreement.temperature
    refit = plan.refits.done.get(best.strategy_key)
    if refit is not None:
        _adopt(workspace, Strategy.from_dict(best.strategy), Path(refit))
    if interrupted:
        outcome.no_yardstick = "the search was interrupted"
        outcome.why_not_on_unlabelled = outcome.no_yardstick if can_be_judged(workspace) else ""
    elif refit is not None and keep is not None:
        add_means_of_judging(plan, workspace, outcome, Path(refit), seconds)
    if refit is not None and keep is not None:
        keep(outcome, Path(refit))
    if test is not None and refit is not None:
        opening()
        metric = open_test(plan, test, outcome, workspace, metric)
    hold_against_controls(plan, outcome, metric, data.classes)
    return outcome


def _adopt(workspace: Workspace, strategy: Strategy, refit: Path) -> None:
    """Go on with the very network of a head on a pretrained source model, where a lane on another machine made that.

    Trained again here it would be another one, and on this machine's processors perhaps in hours.
    """
    pretraining = parse_pretrain(strategy.source_model)
    if strategy.convex and pretraining is not None and kept_checkpoint(workspace, *pretraining) is None:
        workspace.adopt(strategy.source_model, load_checkpoint(refit)[1])


def _with_a_model(plan: SearchPlan) -> Choice | None:
    """The best strategy of which there is a model, where a search was interrupted."""
    without = {record.strategy_key for record in plan.records} - set(plan.refits.done)
    return plan.contest.choice(tuple(without))


def candidate(plan: SearchPlan, metric: Metric, label: str, key: str) -> Candidate:
    """A strategy with its figure on the validation images, each counted once, over all folds that it was tried on."""
    records = plan.contest.completed(key)
    strategy = next((s.to_dict() for s in plan.baselines.values() if s.key == key), None)
    found = Candidate(
        label, strategy or plan.contest.strategy_of(key), key, [record.number for record in records], None
    )
    labels, said = plan.contest.labels, plan.contest.said.judged(key)
    if labels is not None and said is not None:
        known = ~np.isnan(said[:, 0])
        found.validation = metric_interval(metric, said[known], labels.labels[known], labels.groups_of(known))
        found.validated = int(known.sum())
        found.temperature = plan.contest.said.temperature(key) or 1.0
    return found


def best_so_far(plan: SearchPlan, metric: Metric, key: str) -> Candidate:
    """A strategy with its figure as if the search had ended and it were chosen."""
    best = candidate(plan, metric, "best", key)
    _correct(plan, metric, best)
    return best


def so_far(plan: SearchPlan, metric: Metric, key: str, seconds: float) -> SearchOutcome:
    """What a search would end with if it ended with this strategy now: nothing is compared, no test split opened."""
    best = best_so_far(plan, metric, key)
    outcome = SearchOutcome(plan.records, best, [], "the best head on frozen features; the search goes on", seconds)
    outcome.metric, outcome.positive, outcome.going_on = metric.name, metric.positive_name, True
    return outcome


def _correct(plan: SearchPlan, metric: Metric, best: Candidate) -> None:
    """The winner was chosen for its figure among some: the figure is what choosing so is worth on other images.

    Among those that came to the end of the race. That who was left behind on the way was left behind by chance as well
    would lower the figure further; that the model is trained on all labels, and these were on a part, may raise it.
    Where nobody but the winner did, as there was time for its folds alone, the race is all that there was to choose by.
    What was chosen for another reason than the highest figure is worth no more than its own.
    """
    labels = plan.contest.labels
    said = plan.contest.said.judged(best.strategy_key)
    if labels is None or said is None:
        return
    known = ~np.isnan(said[:, 0])  # probes are tried on more folds than there was time for others
    # And on more repeats: the mean of what several models say is more often right than each of them.
    folds = {record.fold for record in plan.contest.completed(best.strategy_key)}
    rivals = [plan.contest.said.judged(key, folds) for key in plan.contest.scores()]
    seen = [rival[known] for rival in rivals if rival is not None]
    compared = [rows for rows in seen if not np.isnan(rows).any()]
    if len(compared) < 2:
        compared = [rows for rows in seen if not np.isnan(rows).all()]
    estimate = corrected_estimate(metric, compared, labels.labels[known], labels.groups_of(known))
    own = metric_interval(metric, said[known], labels.labels[known], labels.groups_of(known))
    if metric.oriented(own.value) < metric.oriented(estimate.value):
        estimate = own
    held = [len(r.validated) for r in plan.contest.completed(best.strategy_key) if r.validated]
    best.validation = with_all_labels(metric, estimate, 1 - sum(held) / len(held) / len(labels.labels))


def _answers(plan: SearchPlan, key: str, classes: tuple[str, ...]) -> dict[str, float]:
    """What a strategy answers for the unlabelled images, the mean share over its folds by class; {} without such."""
    shares = [record.answers for record in plan.contest.completed(key) if record.answers]
    return dict(zip(classes, np.mean(shares, axis=0).tolist(), strict=True)) if shares else {}


def _calibrate(
    plan: SearchPlan, outcome: SearchOutcome, classes: tuple[str, ...], metric: Metric, at: Goal | None
) -> None:
    labels, each = plan.contest.labels, plan.contest.said.each(outcome.best.strategy_key)
    if labels is None or each is None:
        return
    index, said = each
    own = apply_temperature(said, outcome.best.temperature)
    averaged = average_repeats([index], [own], len(labels.labels))
    known = ~np.isnan(averaged[:, 0])
    if known.sum() < LEAST_CALIBRATING:
        return
    # Of the models one by one: such a one is left behind, and the mean of several is less sure.
    before, after = (calibration_error(rows, labels.labels[index]) for rows in (said, own))
    tempered = averaged[known]
    if at is not None and len(np.unique(labels.labels[known])) == len(classes):
        groups, positive = labels.groups_of(known), at.place(classes, labels.labels)
        outcome.operating_point = operating_point(tempered, labels.labels[known], classes, at, positive, groups, metric)
    outcome.calibration = {"before": before, "after": after}


def _why(
    plan: SearchPlan, choice: Choice, data: TrainingData, metric: Metric, agreement: Agreement | None = None
) -> str:
    """One sentence on what the choice rests on; it names every kind of evidence that was used, and no other."""
    records = plan.contest.completed(choice.key)
    tried = len({record.strategy_key for record in plan.records if record.kind != "control"})
    images = sum(len(record.validated) for record in records)
    if plan.contest.labels is not None and images:
        folds = f"{len(records)} validation folds" if len(records) > 1 else "one validation fold"
        # Six images hardly tell models apart, whatever was won by on them.
        seen = len({index for record in records for index in record.validated})
        folds += f" ({seen} image{'' if seen == 1 else 's'})"
        # Who was tried on fewer folds was left behind by the race, and may have a higher figure on these.
        rivals = sum(len(plan.contest.completed(key)) >= len(records) for key in plan.contest.scores())
        among = _counted(tried)
        if choice.grounds != "alone" and rivals < tried:
            among = f"{_counted(rivals)} that {'was' if rivals == 1 else 'were'} tried on so many"
        loss = BALANCED_LOG_LOSS.title if metric.by_class else metrics.get("log-loss").title
        return f"{_GROUNDS[choice.grounds].format(metric=metric.title, loss=loss)} on {folds}, of {among}"
    evidence = []
    if any("source-accuracy" in record.metrics for record in records):
        evidence.append("accuracy on held-out images of the source domain")
    if data.unlabelled is not None:
        evidence.append("consistency and certainty on the unlabelled images")
    if not evidence:
        return f"of the kind that usually does best, with nothing to score by, of {_counted(tried)}"
    labels = "" if data.target is not None else "; no target label was used"
    grounds = _by_score(plan, choice, ", ".join(evidence), agreement)
    return f"{grounds} of {_counted(tried)}{labels}"


def _by_score(plan: SearchPlan, choice: Choice, evidence: str, agreement: Agreement | None) -> str:
    """What a choice without target labels rests on. evidence: what the scores are made of."""
    means = {key: float(np.mean(list(scores.values()))) for key, scores in plan.contest.scores().items()}
    said = f"({means[choice.key]:.3f}: {evidence})"
    if choice.grounds not in ("usual", "agreement"):
        return f"highest score {said}"
    best = choice.tied[-1]
    if choice.grounds == "agreement" and agreement is not None:
        same = f"says the same for {100 * agreement.value:.0f} % of the unlabelled images"
        return f"a score {said}: the network with the highest ({means[best]:.3f}) {same}, too few to be believed,"
    if best == choice.key:  # a head made of class names, which was compared with the others on the source domain alone
        return f"a score {said}, and as right on the source domain as what has learned it,"
    if f"{means[best]:.3f}" == f"{means[choice.key]:.3f}":
        return f"the highest score {said}, equal to another's, and of a kind that usually does better,"
    if means[best] - means[choice.key] <= UNSURE:
        return f"a score {said} near the highest ({means[best]:.3f}), and of a kind that usually does better,"
    return f"a score {said} behind the highest ({means[best]:.3f}), and of a kind that is better whatever scores say,"


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
    return so_many(strategies, "strategy", "strategies")
