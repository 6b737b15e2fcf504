"""What a lane is asked to do, and what it answers: plain values that travel through Ray Tune."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np


class JobKind(StrEnum):
    """What a job is for."""

    PRETRAIN = "pretrain"  # train a source model on a source domain
    PRIOR = "prior"  # score a source model's features
    BASELINE = "baseline"
    SEARCH = "search"
    CONFIRM = "confirm"  # a promising strategy on a further fold
    REFIT = "refit"  # a chosen strategy on all labelled target images, kept on disk


TRIALS = (JobKind.BASELINE, JobKind.SEARCH, JobKind.CONFIRM)


@dataclass(frozen=True)
class LaneJob:
    """One job.

    number: unique within the search. strategy: flat values. fold: None trains on all. baseline: its name, or None.
    together: strategies, likewise, whose heads are trained along with the strategy's, for jobs that follow.
    source_model: of a pretraining or a score. cuts: at which to score it. directory: where a refit goes.
    """

    number: int
    kind: JobKind
    strategy: dict[str, Any] = field(default_factory=dict)
    fold: int | None = None
    baseline: str | None = None
    source_model: str = ""
    cuts: tuple[int, ...] = ()
    directory: str = ""
    together: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> str:
        """One string: Tune would take a nested mapping for a search space."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LaneJob:
        """Inverse of :meth:`to_json`."""
        values = json.loads(text)
        tuples = {name: tuple(values[name]) for name in ("cuts", "together")}
        return cls(**{**values, "kind": JobKind(values["kind"]), **tuples})


@dataclass(frozen=True)
class EpochReport:
    """One epoch's metrics. Not a bare mapping: Tune would flatten that.

    known: whether the trial had ended before it reported, having been trained along with another.
    """

    metrics: dict[str, float]
    known: bool = False


@dataclass(frozen=True)
class CutScore:
    """How well a source model's features behind ``cut`` stages tell the classes apart: higher is better in both."""

    cut: int
    log_me: float
    h_score: float


@dataclass
class JobResult:
    """How a job ended in its lane.

    reason: why it failed, None where it did not. note: what the user should know of it though it did not.
    validation_index, validation_probabilities: (v,), (v, k) or None.
    model_files: of a refit, a reference to its checkpoint's files (name -> bytes) in Ray's object store: lane and
    driver need no common disk.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    lane: str = ""
    reason: str | None = None
    note: str = ""
    validation_index: np.ndarray | None = None
    validation_probabilities: np.ndarray | None = None
    cut_scores: list[CutScore] = field(default_factory=list)
    model_files: Any = None
