"""What a search leaves behind, as plain records: the contract between the search and the run store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from raytl.evaluation.intervals import Comparison, Interval
from raytl.judging.health import Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.judging.operating import OperatingPoint
from raytl.judging.verdict import Part
from raytl.search.jobs import Survey
from raytl.sources.heads import CONVEX
from raytl.tasks import LabelledImages

LEAST_AGAIN = 0.15
"""Of the seconds of a trial, what its strategy takes once more at least."""


class TrialStatus(StrEnum):
    """How a trial ended."""

    RUNNING = "running"
    COMPLETED = "completed"  # ran its full budget
    PRUNED = "pruned"  # stopped early, others were better at the same epoch
    FAILED = "failed"  # could not train; ``reason`` says why
    INTERRUPTED = "interrupted"  # the search ended first


@dataclass
class TrialRecord:
    """One trial.

    number: 0, 1, … in order of start. kind: ``probe``, ``baseline``, ``search``, ``confirm`` (a promising strategy on
    further folds) or ``control`` (the winner with one part taken out). baseline: which one (``fine-tune``, ``scratch``,
    ``source-only``) or None, also of a probe that serves as one; of a control its name.
    strategy: flat plain values (:meth:`Strategy.to_dict`). fold: index of the validation fold.
    score: the selection score, higher is better; metrics: of the last look (``target-accuracy``,
    ``target-log-loss``, ``source-accuracy``, ``labelled``, ``unlabelled`` … as far as the setting allows).
    history: one dict per epoch that was looked at: ``epoch``, ``seconds``, ``train_loss`` and the metrics.
    ended: seconds of the search at its end, time before an interruption included; None while it runs, or in older runs.
    validated: indices of the target images in the validation fold; predicted: what was said of each, probabilities
    (v, k), or empty.
    answers: (k,), the share of the unlabelled target images that each class was the answer for; empty without such.
    made_s: of its seconds, those in which it made what the next trial finds (features of frozen stages, pixels).
    forward_s, step_s: of a probe, seconds that an image takes through its network, by stage, and in a training step.
    asked: whether somebody asked for it, beyond the trials that the search was to make.
    """

    number: int
    kind: str
    strategy: dict[str, Any]
    strategy_key: str
    fold: int = 0
    baseline: str | None = None
    status: TrialStatus = TrialStatus.RUNNING
    reason: str | None = None
    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    ended: float | None = None
    lane: str = ""
    validated: list[int] = field(default_factory=list)
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0))
    answers: list[float] = field(default_factory=list)
    made_s: float = 0.0
    forward_s: list[float] = field(default_factory=list)
    step_s: float = 0.0
    asked: bool = False

    @property
    def again_s(self) -> float:
        """Seconds that its strategy takes once more, on another fold or all images, where it finds what this one made.

        A head that is solved for finds all features; what is trained, perhaps in another lane, is taken to make all
        anew.
        """
        if self.strategy.get("head") not in CONVEX:
            return self.seconds
        return again_seconds(self.seconds, self.made_s)


def again_seconds(seconds: float, made_s: float) -> float:
    """Of what took so many seconds, once more where it finds what it made in ``made_s`` of them."""
    return max(seconds - made_s, LEAST_AGAIN * seconds)


@dataclass
class Candidate:
    """A strategy with all that is known of it: the winner, or a baseline.

    label: ``best``, or the baseline's or control's name. trials: numbers of its trials. validation: by the metric, each
    image once; of the winner corrected for having been chosen. validated: how many images that is of. temperature: by
    which its logits are to be divided, fitted on images that it was not trained on; 1 where there are none.
    test: None where there is no test split. test_probabilities: (n_test, k), for paired comparisons and the confusion
    matrix.
    """

    label: str
    strategy: dict[str, Any]
    strategy_key: str
    trials: list[int]
    validation: Interval | None
    temperature: float = 1.0
    test: Interval | None = None
    test_probabilities: np.ndarray | None = None
    validated: int = 0


@dataclass
class ControlResult:
    """The winner held against itself with one part taken out.

    name: such as ``without adaptation``; part: what differs. strategy: the control's; of one that looks at no image,
    its ``answer``. comparison: winner minus control, on the same images; None where it could not be had, and then
    why_not says why. tone: ``helped``, ``did-not``, ``harm`` or ``cannot-tell``, all pairs taken together (Holm).
    measured_on: ``test`` or ``folds``.
    """

    name: str
    part: Part
    strategy: dict[str, Any]
    strategy_key: str
    comparison: Comparison | None = None
    tone: str = "cannot-tell"
    measured_on: str = ""
    why_not: str = ""


@dataclass
class SearchOutcome:
    """The end of a search.

    best, baselines: with test figures where a test split exists (opened once, after the choice was made).
    why: one sentence that says on what grounds the winner was chosen. metric: what all figures are in. positive: of a
    metric that measures how one of two classes is found, which; else empty.
    controls: the winner held against itself. transfer_gain, adaptation_gain: of them, what the pretrained weights and
    the adaptation loss bring; gains: winner minus each baseline, by name, on the test split or else on
    the folds of those that were tried on as many images; all with paired intervals.
    test_labels: (n_test,) indices into the classes; test_images: what they belong to, opened by now.
    test_undefined: why there are no figures on them all the same, a sentence without its end; else empty.
    given_up: source models that could not be learned from a source domain, and why.
    calibration: expected calibration errors of the winner, ``before`` and ``after`` its temperature.
    operating_point: of a two-class model, where one was asked for. survey: what the data told before anything was
    trained. answers: the winner's for the unlabelled target images, the share of each by class; empty without such
    images. trained_on: ``target`` or ``all``, the labelled images that the model left behind was trained on; all
    includes the test's, so the test figures are of the model before. workspace: what the lanes were told, with which a
    trial can be trained again. going_on: whether this is what is known in the middle of a search. yardstick: what the
    winner says of labelled images that it was not trained on, as they are and changed; None where that is not known,
    and no_yardstick says why. on_unlabelled: what that says of the winner on the unlabelled images, as plain values;
    why_not_on_unlabelled: why that says nothing of how often it is right there, though there are some. agreement: the
    ``value``, on so many unlabelled ``images``, of how often a trained winner that too few labels judged says the same
    as the best head on frozen features; None of others.
    features: what its network makes of the images that it was trained on; None where that is not known.
    """

    trials: list[TrialRecord]
    best: Candidate
    baselines: list[Candidate]
    why: str
    seconds: float
    metric: str = "accuracy"
    positive: str = ""
    controls: list[ControlResult] = field(default_factory=list)
    gains: dict[str, Interval] = field(default_factory=dict)
    transfer_gain: Interval | None = None
    adaptation_gain: Interval | None = None
    test_labels: np.ndarray | None = None
    test_images: LabelledImages | None = None
    test_undefined: str = ""
    given_up: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    going_on: bool = False
    calibration: dict[str, float] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    survey: Survey | None = None
    trained_on: str = "target"
    workspace: dict[str, Any] | None = None
    yardstick: Yardstick | None = None
    no_yardstick: str = ""
    on_unlabelled: dict[str, Any] | None = None
    why_not_on_unlabelled: str = ""
    agreement: dict[str, Any] | None = None
    features: KeptFeatures | None = None

    def tested_labels(self) -> np.ndarray | None:
        """What the winner names each test image, by its threshold where it has one: (n_test,); None where none were."""
        said, images = self.best.test_probabilities, self.test_images
        if said is None or images is None:
            return None
        point = self.operating_point
        return np.asarray(said.argmax(axis=1)) if point is None else point.decide(said, images.classes)


@dataclass(frozen=True)
class Asked:
    """What people asked of a running search: to end, to stop trials, by their numbers, and to try strategies next.

    strategies: flat values, by what tells one request from another.
    """

    stop: bool = False
    trials: frozenset[int] = frozenset()
    strategies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class SearchListener(Protocol):
    """Who wants to hear of a search as it goes: the run store, the progress display."""

    def on_trial(self, record: TrialRecord) -> None:
        """A trial started, reported an epoch or ended."""

    def on_phase(self, phase: str, detail: str) -> None:
        """The search entered a phase (a job's kind, ``first-model``, ``choice``, …), or has something to say of one."""
