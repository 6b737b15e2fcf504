"""The winner held against its controls: what each of its parts brings, and whether less would do."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.intervals import Comparison, Interval, paired_metric_interval
from raytl.evaluation.metrics import Metric
from raytl.judging.blind import against_blind
from raytl.judging.verdict import USUAL, Control, Part, Tone, equivalence_margin, how_good, judged, lacks
from raytl.search.plan.left_over import spoken
from raytl.search.plan.said import Labels
from raytl.search.plan.schedule import SearchPlan
from raytl.search.records import Candidate, ControlResult, SearchOutcome, TrialStatus
from raytl.search.test_split import TELLS_NOTHING
from raytl.training.strategy import Strategy


def hold_against_controls(plan: SearchPlan, outcome: SearchOutcome, metric: Metric, classes: tuple[str, ...]) -> None:
    """What each part of the winner brings: on the test split where it was opened, else on the folds that both had.

    On folds too where the metric is not defined on the test images. There, against what could not have been chosen,
    less what its own figure owes to its having been chosen by it, as in the figure that is stated of it.
    So are its gains over the baselines, as far as these were tried on as many images.
    The classical recipes stand beside them: who does not beat logistic regression has to say so first. And so does
    that which looks at no image. classes: names, in the labels' order.
    """
    best, labels = outcome.best, plan.contest.labels
    taken = {control.strategy_key for control in outcome.controls} | {best.strategy_key}
    for name in ("linear-probe", "pixels"):
        strategy = plan.baselines.get(name)
        if strategy is not None and strategy.key not in taken:
            outcome.controls.append(ControlResult(name, Part.CLASSICAL, strategy.to_dict(), strategy.key))
    tests = {entry.strategy_key: entry.test_probabilities for entry in outcome.baselines}
    for control in outcome.controls:
        if control.comparison is not None:
            continue
        said, images = tests.get(control.strategy_key), outcome.test_images
        pair, where = None, "test"
        if said is not None and best.test_probabilities is not None and images is not None:
            pair = paired_metric_interval(metric, best.test_probabilities, said, images.labels, images.groups)
        if labels is not None and (outcome.test_images is None or outcome.test_undefined):
            pair, where = _on_folds(plan, labels, metric, best.strategy_key, control.strategy_key), "folds"
        if pair is not None and pair.tells:
            control.comparison, control.measured_on = pair, where
        else:
            control.why_not = control.why_not or _why_not(plan, outcome, control, compared=pair is not None)
    constant = _constant(plan, outcome, metric, classes)
    if constant is not None:
        outcome.controls.append(constant)
    flattery, raced = _flattery(plan, outcome, metric), plan.contest.scores()
    if labels is not None and not outcome.interrupted and (outcome.test_images is None or outcome.test_undefined):
        for other in outcome.baselines:
            gain = _gain_on_folds(plan, labels, metric, best, other)
            if gain is not None:
                gain = gain if other.strategy_key in raced else gain.less(flattery)
                outcome.gains[other.label] = Interval(gain.value, gain.low, gain.high)
    for control in outcome.controls:
        # What was in the race itself, and came near the winner's figure, owes as much to chance.
        if control.comparison is not None and control.measured_on == "folds" and control.strategy_key not in raced:
            control.comparison = control.comparison.less(flattery)
    value = best.test or best.validation
    compared = [control for control in outcome.controls if control.comparison is not None]
    pairs = [Control(c.name, c.part, c.comparison) for c in compared if c.comparison is not None]
    margin = equivalence_margin(metric, value.value if value is not None else 0.5)
    for control, verdict in zip(compared, judged(pairs, margin=margin), strict=True):
        control.tone = str(verdict.tone)  # of all pairs together; the interval shown is that of the pair by itself
    outcome.transfer_gain = _gain(outcome, Part.SOURCE_MODEL)
    outcome.adaptation_gain = _gain(outcome, Part.ADAPTATION)


def _flattery(plan: SearchPlan, outcome: SearchOutcome, metric: Metric) -> float:
    """By how much the winner's folds overstate what it is worth, for it was chosen by them."""
    said, labels, stated = (
        plan.contest.said.judged(outcome.best.strategy_key),
        plan.contest.labels,
        outcome.best.validation,
    )
    if said is None or labels is None or stated is None:
        return 0.0
    known = ~np.isnan(said[:, 0])
    gap = metric.oriented(metric(said[known], labels.labels[known])) - metric.oriented(stated.value)
    return float(gap) if gap > 0 else 0.0


def _on_folds(plan: SearchPlan, labels: Labels, metric: Metric, best: str, other: str) -> Comparison | None:
    common = {r.fold for r in plan.contest.completed(best)} & {r.fold for r in plan.contest.completed(other)}
    mine, others = plan.contest.said.judged(best, common), plan.contest.said.judged(other, common)
    if mine is None or others is None:
        return None
    known = ~np.isnan(mine[:, 0]) & ~np.isnan(others[:, 0])
    if not known.any():
        return None
    return paired_metric_interval(metric, mine[known], others[known], labels.labels[known], labels.groups_of(known))


def _gain_on_folds(
    plan: SearchPlan, labels: Labels, metric: Metric, best: Candidate, other: Candidate
) -> Comparison | None:
    """The winner's gain over a baseline; None over one that was tried on fewer images.

    Beside the winner's figure, and beside what its parts bring, only a gain on the same images can stand.
    """
    if other.strategy_key == best.strategy_key or other.validated < best.validated:
        return None
    pair = _on_folds(plan, labels, metric, best.strategy_key, other.strategy_key)
    return pair if pair is not None and pair.tells else None


def _constant(
    plan: SearchPlan, outcome: SearchOutcome, metric: Metric, classes: tuple[str, ...]
) -> ControlResult | None:
    """The winner against the best answer without looking; None where nothing says how right the winner is."""
    said, labels, groups, where = outcome.best.test_probabilities, None, None, "test"
    if said is not None and outcome.test_images is not None and not outcome.test_undefined:
        labels, groups = outcome.test_images.labels, outcome.test_images.groups
    elif plan.contest.labels is not None and (outcome.test_images is None or outcome.test_undefined):
        judge, said, where = plan.contest.labels, plan.contest.said.judged(outcome.best.strategy_key), "folds"
        if said is not None:
            known = ~np.isnan(said[:, 0])
            said, labels, groups = said[known], judge.labels[known], judge.groups_of(known)
    if said is None or labels is None:
        return None
    found = against_blind(metric, said, labels, groups)
    if found is None:
        return None
    answer = {"answers": "its own, at random"} if found.answer is None else {"answer": classes[found.answer]}
    return ControlResult("commonest-class", Part.CONSTANT, answer, "", found.comparison, measured_on=where)


def _why_not(plan: SearchPlan, outcome: SearchOutcome, control: ControlResult, *, compared: bool) -> str:
    """Why a control has nothing to compare, as the end of a sentence. compared: on images that tell nothing."""
    if outcome.interrupted:
        return "the search was interrupted before"
    if plan.contest.labels is None and outcome.test_images is None:
        return "no labelled image was kept to compare them on"
    tried = (record for record in plan.records if record.strategy_key == control.strategy_key)
    failed = (record.reason for record in tried if record.status == TrialStatus.FAILED)
    reason = plan.refits.failed.get(control.strategy_key) or next(failed, None)
    if reason is not None:
        return f"what it would be held against failed: {reason.rstrip('.')}"
    if outcome.test_undefined:
        return outcome.test_undefined
    if compared:
        return TELLS_NOTHING
    seconds = plan.expected_seconds(Strategy.from_dict(control.strategy))
    length = f" of about {spoken(seconds)}" if seconds >= 1 else ""
    return f"there was no time for what it would be held against, a training{length}"


def _gain(outcome: SearchOutcome, part: Part) -> Interval | None:
    """By the control that decides: of several, the one with the worst news.

    None where that is a usual recipe that is beaten, and does without more than the part: the gain is that of all.
    """
    found = [(control, control.comparison) for control in outcome.controls if control.part == part]
    compared = [(control, gap) for control, gap in found if gap is not None]
    if not compared:
        return None
    control, gap = min(compared, key=lambda one: how_good(one[0].tone, one[1].value))
    if control.name in USUAL and control.tone == Tone.HELPED and lacks(control.strategy, outcome.best.strategy):
        return None
    return Interval(gap.value, gap.low, gap.high)
