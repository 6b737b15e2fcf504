"""What the report says first: how good the winner is, and whether transfer and adaptation helped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytl.evaluation.intervals import Interval
from raytl.runs import wording
from raytl.runs.run import interval


@dataclass(frozen=True)
class Verdict:
    """One sentence and how to colour it: ``good``, ``open`` (the data cannot tell) or ``bad``."""

    tone: str
    sentence: str


def verdicts(summary: dict[str, Any], test_images: int) -> list[Verdict]:
    """The sentences at the top of the report.

    summary: :meth:`raytl.runs.run.Run.summary`. test_images: how many the test split has, 0 for none.
    """
    best = summary["best"]
    if best is None:
        return [Verdict("bad", "No trial was completed, so there is no model. The table of trials says why.")]
    found = [Verdict("plain", _accuracy(summary, test_images))]
    if summary["interrupted"]:
        found.append(Verdict("open", f"This run has not come to its end: {summary['why']}."))
    scratch = summary["baselines"].get("scratch") or {}
    is_scratch = bool(scratch) and scratch["strategy"] == best["strategy"]
    found.append(transfer(interval(summary["transfer_gain"]), is_scratch=is_scratch))
    adapted = best["strategy"].get("adaptation", "none") != "none"
    gain = interval(summary["adaptation_gain"])
    if gain is not None or adapted:
        found.append(adaptation(gain, adapted=adapted))
    return found


def transfer(gain: Interval | None, *, is_scratch: bool) -> Verdict:
    """Whether starting from a source model beat starting from random weights."""
    if is_scratch:
        return Verdict("bad", "Transfer did not help: the best strategy found is training from scratch.")
    if gain is None:
        return Verdict("open", "Whether transfer helped is not known: there was no test split to compare on.")
    return _judged(gain, "Transfer", "training from scratch")


def adaptation(gain: Interval | None, *, adapted: bool) -> Verdict:
    """Whether the winner's adaptation loss beat the best strategy without one."""
    if not adapted:
        return Verdict("open", "Domain adaptation did not help: the best strategy found uses no adaptation loss.")
    if gain is None:
        return Verdict("open", "Whether adaptation helped is not known: there was nothing to compare it with.")
    return _judged(gain, "Domain adaptation", "the best strategy without it")


def tone(gain: Interval) -> str:
    """``good`` where the whole interval is above zero, ``bad`` where it is below, else ``open``."""
    if gain.low > 0:
        return "good"
    return "bad" if gain.high < 0 else "open"


def _judged(gain: Interval, what: str, against: str) -> Verdict:
    figures = f"{wording.points(gain)} against {against}"
    sentences = {
        "good": f"{what} helped: {figures}.",
        "bad": f"{what} did harm: {figures}.",
    }
    if (kind := tone(gain)) in sentences:
        return Verdict(kind, sentences[kind])
    if gain.value > 0:
        return Verdict("open", f"{what} may have helped, but these test images cannot settle it: {figures}.")
    return Verdict("open", f"{what} did not help: {figures}.")


def _accuracy(summary: dict[str, Any], test_images: int) -> str:
    best = summary["best"]
    strategy = wording.strategy(best["strategy"])
    test = interval(best["test_metric"])
    if test is not None:
        images = f" of {test_images} test images" if test_images else " of the test images"
        share, low, high = (100 * value for value in (test.value, test.low, test.high))
        return f"The best model gets {share:.1f} %{images} right (95 % interval {low:.1f} to {high:.1f}): {strategy}."
    accuracy = (best["validation_metric"] or {}).get("value")
    if accuracy is None:
        return f"The best model has a selection score of {wording.score(best['score'])}: {strategy}."
    return f"The best model gets {wording.share(accuracy)} of the validation images right: {strategy}."
