"""The figures of a run's sentences and charts: in which unit they are, and what the winner gains over its controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raytl.evaluation import metrics
from raytl.evaluation.intervals import Interval
from raytl.judging.verdict import USUAL, Part, how_good
from raytl.runs import wording
from raytl.runs.parts import words
from raytl.runs.run import interval

_LACKED = (Part.SOURCE_MODEL, Part.ADAPTATION, Part.SOURCE_DOMAIN, Part.FREEZING, Part.PIXELS)
"""What plain training from scratch does without."""
CLASSICAL = {"linear-probe": "logistic regression on frozen features", "pixels": "logistic regression on plain pixels"}


def metric_of(summary: dict[str, Any]) -> metrics.Metric:
    """What a run's figures are in; its title says which class is to be found, where it is of one of two."""
    metric, positive = metrics.recorded(str(summary.get("metric") or "accuracy")), summary.get("positive")
    return replace(metric, title=f"{metric.title} of '{positive}'") if positive else metric


def named(control: dict[str, Any]) -> str:
    """What a control is called in a figure or a sentence."""
    if control["part"] == "constant":
        answer = control["strategy"].get("answer")  # none where one answer for all is not the best without looking
        if answer is None:
            return "its own answers dealt out to the images at random"
        return f"answering '{answer}' whatever the image"
    return CLASSICAL.get(control["name"], str(control["name"]))


def cross_validated(best: dict[str, Any]) -> str:
    """On how many images a figure was had."""
    images = best.get("validated")  # runs of before have no count
    return f"by cross-validation on {images} images" if images else "by cross-validation"


def in_words(gain: Interval | None, summary: dict[str, Any]) -> str:
    """A gain with its interval, in the unit of the run's metric; a dash for none."""
    return "–" if gain is None else wording.gain(gain, share=metric_of(summary).share)


def tone(gain: Interval) -> str:
    """``good`` where the whole interval is above zero, ``bad`` where it is below, else ``open``."""
    if gain.low > 0:
        return "good"
    return "bad" if gain.high < 0 else "open"


def decomposition(summary: dict[str, Any]) -> str:
    """Of the gain over plain training from scratch, what each part of the winner brings; empty where not known."""
    whole, parts = shares(summary)
    if whole is None:
        return ""
    told = f"Of {in_words(whole, summary)} over plain training from scratch, taking out one part at a time costs: "
    return told + "; ".join(f"{name} {in_words(gain, summary)}" for name, gain in parts.items()) + "."


def shares(summary: dict[str, Any]) -> tuple[Interval | None, dict[str, Interval]]:
    """The winner's gain over plain training from scratch, and what each of its parts brings; (None, {}) if not known.

    Nor where chance could be all that it gains. Parts may be worth more together than one by one, or less: they need
    not sum up to the whole. Training from scratch is no part of what the winner is over training from scratch: it is
    the whole. Nor is what plain training has as well, augmentation, or what takes the place of a part that stays: that
    another source model is worse is no gain over none.
    """
    whole = interval((summary["gains"] or {}).get("scratch"))
    matched = [control for control in controls_of(summary) if control["name"] not in USUAL]
    parts = {
        words(control).within: gain
        for part in _LACKED
        if (control := _deciding(matched, part)) is not None and (gain := interval(control)) is not None
    }
    return (whole, parts) if whole is not None and whole.low > 0 and len(parts) > 1 else (None, {})


def figure_of(summary: dict[str, Any]) -> tuple[Interval | None, str]:
    """The winner's figure that its gains are gains to, and where it was had: ``test``, ``folds``; (None, "") for none.

    On the folds it is corrected for the choice.
    """
    best = summary["best"] or {}
    for kind, where in (("test_metric", "test"), ("validation_metric", "folds")):
        found = interval(best.get(kind))
        if found is not None:
            return found, where
    return None, ""


def controls_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What the winner was held against; empty of a run of before, or of one that came to none."""
    return list(summary.get("controls") or [])


def deciding_control(summary: dict[str, Any], part: str) -> dict[str, Any] | None:
    """Of several controls of a part the one that decides: where it beats all of them, it helped."""
    return _deciding(controls_of(summary), part)


def _deciding(controls: list[dict[str, Any]], part: str) -> dict[str, Any] | None:
    found = [control for control in controls if control["part"] == part]
    compared = [control for control in found if control["value"] is not None]
    if compared:
        return min(compared, key=lambda control: how_good(control["verdict"], control["value"]))
    return next(iter(found), None)
