"""What a lane is asked to do, and what it answers: plain values that travel through Ray Tune."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np


class JobKind(StrEnum):
    """What a job is for."""

    WARM = "warm"  # nothing: by the time it ends, the process of its lane is up
    SURVEY = "survey"  # look at the domains and the class frequencies before anything is trained
    PRETRAIN = "pretrain"  # train a source model on a source domain
    PROBE = "probe"  # a convex head on a source model's features
    BASELINE = "baseline"
    SEARCH = "search"
    CONFIRM = "confirm"  # a promising strategy on a further fold
    CONTROL = "control"  # the winner with one part taken out, on a fold
    REFIT = "refit"  # a chosen strategy on all labelled target images, kept on disk


TRIALS = (JobKind.PROBE, JobKind.BASELINE, JobKind.SEARCH, JobKind.CONFIRM, JobKind.CONTROL)


@dataclass(frozen=True)
class LaneJob:
    """One job.

    number: unique within the search. strategy: flat values. fold: None trains on all. baseline: its name, or None; of a
    control, its name. source_model: of a pretraining; source_models: to survey with. frequencies: of the classes, where
    known. set_aside: source domains whose labels look wrong. directory: where a refit goes. within_s: seconds
    in which its images must have been decoded and have passed the frozen stages, None for any: what takes far longer is
    of no use to the search. asked: whether somebody asked for it, beyond the trials that the search is to make.
    features_of: the kind of device whose features its head stands on, which are read and not made; empty for those of
    the lane's own. looks: whether a head that learns from the target's images alone looks at those without labels.
    """

    number: int
    kind: JobKind
    strategy: dict[str, Any] = field(default_factory=dict)
    fold: int | None = None
    baseline: str | None = None
    source_model: str = ""
    source_models: tuple[str, ...] = ()
    frequencies: tuple[float, ...] = ()
    set_aside: tuple[str, ...] = ()
    directory: str = ""
    within_s: float | None = None
    asked: bool = False
    features_of: str = ""
    looks: bool = True

    def to_json(self) -> str:
        """One string: Tune would take a nested mapping for a search space."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LaneJob:
        """Inverse of :meth:`to_json`."""
        values = json.loads(text)
        tuples = {name: tuple(values[name]) for name in ("source_models", "frequencies", "set_aside")}
        return cls(**{**values, "kind": JobKind(values["kind"]), **tuples})


def times_forward(kind: JobKind, fold: int | None) -> bool:
    """Whether a job measures how long its network takes for an image: that is asked of every source model."""
    return kind == JobKind.PROBE and not fold


def times_step(kind: JobKind, head: str, fold: int | None) -> bool:
    """Whether it measures a step of training too: that is asked of those that are in the race."""
    return kind == JobKind.PROBE and fold in (None, 1) and head == "logistic"


@dataclass(frozen=True)
class EpochReport:
    """One epoch's metrics. Not a bare mapping: Tune would flatten that."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Survey:
    """What the data tell before anything is trained.

    domains: source domains with the task's labels that may join the training, the most promising first.
    set_aside: why another may not, by its name. frequencies: of the classes among the target images, in the task's
    order; none given where they cannot be told. notes: sentences for the user. apart: whether the unlabelled images are
    of another kind than the target's labelled ones. unclear: the end of a sentence on why that cannot be told, empty
    where it can. unconfirmed: of the domains those of which none confirms another's labels, where nothing else does.
    agreed: those that do, or that know the target's.
    """

    domains: tuple[str, ...] = ()
    set_aside: dict[str, str] = field(default_factory=dict)
    frequencies: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    apart: bool = False
    unclear: str = ""
    unconfirmed: tuple[str, ...] = ()
    agreed: tuple[str, ...] = ()


@dataclass
class JobResult:
    """How a job ended in its lane.

    reason: why it failed, None where it did not. note: what the user should know of it though it did not.
    starved: whether Ray ended a process of its lane because its node ran out of memory; the job is due again then.
    validation_index, validation_probabilities: (v,), (v, k) or None. answers: (k,) or empty, the share of the
    unlabelled target images that each class was the answer for. survey: what a survey found.
    made_s: of its seconds, those in which it made what the next trial finds. forward_s, step_s: of a probe, seconds
    that its source model takes for an image, forward only by stage and in a step of training; none and 0 where it was
    not measured. needs_s: of one that was given up, how much longer it would have taken.
    hurried: whether its source model was made in fewer steps than the settings say, for lack of time.
    device: the kind that it was done on. absent: whether the features that it was to read are not kept on its node; the
    job is due again then, elsewhere.
    model_files: of a refit, a reference to its checkpoint's files (name -> bytes) in Ray's object store: lane and
    driver need no common disk.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    lane: str = ""
    reason: str | None = None
    note: str = ""
    starved: bool = False
    validation_index: np.ndarray | None = None
    validation_probabilities: np.ndarray | None = None
    answers: tuple[float, ...] = ()
    survey: Survey | None = None
    made_s: float = 0.0
    forward_s: tuple[float, ...] = ()
    step_s: float = 0.0
    needs_s: float = 0.0
    hurried: bool = False
    device: str = ""
    absent: bool = False
    model_files: Any = None
