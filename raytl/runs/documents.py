"""How a search ended, as the plain values that a run keeps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from raytl.evaluation.intervals import Interval
from raytl.search.records import Candidate, ControlResult, SearchOutcome


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval.to_json()


def _candidate_document(candidate: Candidate) -> dict[str, Any]:
    return {
        "label": candidate.label,
        "strategy": candidate.strategy,
        "strategy_key": candidate.strategy_key,
        "trials": candidate.trials,
        "temperature": candidate.temperature,
        "validation": _interval(candidate.validation),
        "validated": candidate.validated,
        "test": _interval(candidate.test),
    }


def _control_document(control: ControlResult) -> dict[str, Any]:
    compared = control.comparison
    figures = dict.fromkeys(("value", "low", "high", "p", "level")) if compared is None else compared.to_json()
    return {
        "name": control.name,
        "part": control.part,
        "verdict": control.tone,
        "measured_on": control.measured_on,
        "why_not": control.why_not,
        **figures,
        "strategy": control.strategy,
    }


def outcome_document(outcome: SearchOutcome) -> dict[str, Any]:
    """What ``outcome.json`` holds of how a search ended, as plain values."""
    return {
        "best": _candidate_document(outcome.best),
        "baselines": [_candidate_document(baseline) for baseline in outcome.baselines],
        "why": outcome.why,
        "metric": outcome.metric,
        "positive": outcome.positive or None,
        "controls": [_control_document(control) for control in outcome.controls],
        "calibration": outcome.calibration,
        "answers": outcome.answers,
        "on_unlabelled": outcome.on_unlabelled,
        "why_not_on_unlabelled": outcome.why_not_on_unlabelled or None,
        "agreement": outcome.agreement,
        "operating_point": None if outcome.operating_point is None else asdict(outcome.operating_point),
        "trained_on": outcome.trained_on,
        "test_undefined": outcome.test_undefined or None,
        "given_up": outcome.given_up,
        "survey": None if outcome.survey is None else asdict(outcome.survey),
        "seconds": outcome.seconds,
        "gains": {name: gain.to_json() for name, gain in outcome.gains.items()},
        "transfer_gain": _interval(outcome.transfer_gain),
        "adaptation_gain": _interval(outcome.adaptation_gain),
        "interrupted": outcome.interrupted,
        "workspace": outcome.workspace,
    }
