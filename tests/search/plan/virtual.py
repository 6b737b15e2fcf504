"""Plans in virtual time: what it takes to play one, and curves that never cross."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recorded import FixedRecipes
from tiny import MODEL, PRETRAINED, STAGES

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.said import Labels
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings, Recipe
from raytl.search.plan.simulation import Curve, Event, VirtualClock, simulate
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.training.strategy import Strategy

EPOCHS = 9
SPACE = f"""
epochs: {EPOCHS}
space:
  source_model: ['{PRETRAINED}', {MODEL}]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  adaptation: [none, mcc]
"""
BASELINES = {"fine-tune": Strategy(PRETRAINED, head_lr=0.01), "scratch": Strategy(MODEL, head_lr=0.02)}
PROBE = Strategy(PRETRAINED, cut=STAGES, head="logistic")
PIXELS = Strategy("plain:pixels", cut=1, head="logistic")
PROBES = {PRETRAINED: [PROBE], "plain:pixels": [PIXELS]}
Curves = Callable[[LaneJob], Curve]


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.said: list[tuple[str, str]] = []
        self.trials: list[tuple[int, TrialStatus]] = []

    def on_trial(self, record: TrialRecord) -> None:
        self.trials.append((record.number, record.status))

    def on_phase(self, phase: str, detail: str) -> None:
        self.phases.append(phase)
        self.said.append((phase, detail))


class Search:
    """A plan and what it takes to play it. jobs: all that were given out, in order."""

    def __init__(
        self,
        space: BoundSpace,
        *,
        seed: int = 0,
        recipes: Recipe | None = None,
        pretraining: Sequence[str] = (),
        first: Sequence[Strategy] = (),
        labels: Labels | None = None,
        **settings: Any,
    ) -> None:
        defaults: dict[str, Any] = {"trials": 12, "folds": 3, "lanes": 2, "epochs": EPOCHS, "directory": Path("refits")}
        self.clock = VirtualClock()
        self.heard = Heard()
        self.sampler = TpeSampler(space, seed, first)
        self.halving = SuccessiveHalving(1, 3, EPOCHS)
        self.jobs: list[LaneJob] = []
        self.plan = SearchPlan(
            PlanSettings(**(defaults | settings)),
            self.sampler,
            self.halving,
            recipes or FixedRecipes(BASELINES),
            pretraining,
            self.heard,
            self.clock,
            labels=labels,
        )

    def play(self, curves: Curves) -> list[Event]:
        def noted(job: LaneJob) -> Curve:
            curve = curves(job)
            self.jobs.append(job)
            return curve

        return simulate(self.plan, noted, self.clock, lanes=self.plan.settings.lanes)

    def records(self, *kinds: JobKind) -> list[TrialRecord]:
        return [record for record in self.plan.records if record.kind in kinds]

    def given(self, *kinds: JobKind) -> list[LaneJob]:
        return [job for job in self.jobs if job.kind in kinds]


def key(job: LaneJob) -> str:
    """Of the job's strategy."""
    return Strategy.from_dict(job.strategy).key


def top(job: LaneJob) -> float:
    """A score between 0 and 1 that only the strategy decides: the higher the rate the better, MCC better still."""
    if job.strategy["head"] == "logistic":
        return 0.25 if job.strategy["source_model"] == PRETRAINED else 0.2
    return 0.3 + 0.2 * float(job.strategy["head_lr"]) + 0.1 * (job.strategy["adaptation"] == "mcc")


def rising(job: LaneJob) -> Curve:
    """A second an epoch, curves that never cross. Probes have one epoch."""
    if job.kind in (JobKind.PRETRAIN, JobKind.SURVEY):
        return Curve(seconds=5.0)
    if job.strategy["head"] == "logistic":
        return Curve(((top(job), 1.0),))
    return Curve(tuple((top(job) - 0.01 * (EPOCHS - epoch), float(epoch)) for epoch in range(1, EPOCHS + 1)))


def flat(score: float, epoch_s: float = 1.0) -> Curve:
    """The same score after every epoch."""
    return Curve(tuple((score, epoch * epoch_s) for epoch in range(1, EPOCHS + 1)))
