"""Expected improvement per second: learned from the trials, chosen by, and worth it where costs differ much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from recorded import FixedRecipes
from tiny import MODEL, data

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.simulation import Curve, VirtualClock, simulate
from raytl.search.propose.cost import PROPOSED, AdditiveModel, CostAwareSampler
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training import Strategy

OTHER = "scratch:resnet-small"
SPACE = f"""
epochs: 4
space:
  source_model: [{MODEL}]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  augmentation: [none, flip, shift]
  adaptation: [none, mcc, coral]
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "cost.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data())


class Silent:
    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None: ...


class TestAdditiveModel:
    def test_finds_what_each_setting_contributes(self) -> None:
        rng = np.random.default_rng(0)
        model = AdditiveModel()
        amount = {("augmentation", "none"): 0.0, ("augmentation", "shift"): 2.0, ("cut", 0): 1.0, ("cut", 3): 0.0}
        for _ in range(200):
            policy, cut = str(rng.choice(["none", "shift"])), int(rng.choice([0, 3]))
            value = amount["augmentation", policy] + amount["cut", cut] + rng.normal(0, 0.1)
            model.add(Strategy(MODEL, augmentation=policy, cut=cut), value)
        asked = [Strategy(MODEL, augmentation=policy, cut=cut) for policy in ("none", "shift") for cut in (0, 3)]
        mean, deviation = model.predict(asked)
        assert mean == pytest.approx([1.0, 0.0, 3.0, 2.0], abs=0.1)
        assert deviation == pytest.approx([0.1] * 4, abs=0.03)

    def test_is_less_sure_of_what_it_has_not_seen(self) -> None:
        model = AdditiveModel()
        for rate in (0.001, 0.01, 0.1) * 5:
            model.add(Strategy(MODEL, head_lr=rate), rate)
        _, deviation = model.predict([Strategy(MODEL, head_lr=0.01), Strategy("scratch:resnet-small", head_lr=7.0)])
        mean, _ = model.predict([Strategy(MODEL, head_lr=0.01), Strategy(MODEL, head_lr=0.0101)])
        assert deviation[0] > 0 and mean[0] == mean[1]


class TestChoice:
    def told(self, space: BoundSpace) -> CostAwareSampler:
        """Scores do not depend on the strategy; time does: mcc takes a hundred times as long."""
        sampler = CostAwareSampler(space, 0)
        rng = np.random.default_rng(0)
        for _ in range(30):
            handle, strategy = sampler.ask()
            sampler.took(handle, 10.0 if strategy.adaptation == "mcc" else 0.1)
            sampler.tell(handle, score=float(rng.normal(0.5, 0.1)))
        return sampler

    def test_of_equal_promises_the_quick_ones_are_taken(self, space: BoundSpace) -> None:
        sampler = self.told(space)
        given = [sampler.ask()[1].adaptation for _ in range(12)]
        assert given.count("mcc") <= 1

    def test_also_while_a_source_model_is_not_made_yet(self, tmp_path: Path) -> None:
        file = tmp_path / "two.yaml"
        file.write_text(SPACE.replace(f"[{MODEL}]", f"[{MODEL}, {OTHER}]"))
        sampler = self.told(BoundSpace(load_space(str(file)), data()))
        sampler._waiting.append({"source_model": OTHER, "head_lr": 0.77})
        sampler.hold_back([OTHER])
        assert sampler.has_first and not sampler.has_first_now
        given = [sampler.ask()[1] for _ in range(12)]
        assert [strategy.adaptation for strategy in given].count("mcc") <= 1
        assert OTHER not in {strategy.source_model for strategy in given}

    def test_a_slow_one_is_taken_where_it_is_worth_it(self, space: BoundSpace) -> None:
        sampler = CostAwareSampler(space, 0)
        rng = np.random.default_rng(0)
        for _ in range(40):
            handle, strategy = sampler.ask()
            slow = strategy.adaptation == "mcc"
            sampler.took(handle, 0.2 if slow else 0.1)
            sampler.tell(handle, score=(0.9 if slow else 0.5) + float(rng.normal(0, 0.02)))
        assert [sampler.ask()[1].adaptation for _ in range(6)].count("mcc") >= 5

    def test_what_was_not_chosen_is_as_if_it_had_not_been_proposed(self, space: BoundSpace) -> None:
        sampler = self.told(space)
        before = len(sampler._study.trials)
        _, strategy = sampler.ask()
        new = sampler._study.trials[before:]
        assert len(new) >= PROPOSED
        assert [trial.state for trial in new].count(TrialState.RUNNING) == 1
        assert {trial.state for trial in new} == {TrialState.RUNNING, TrialState.FAIL}
        assert strategy.key in sampler._seen

    def test_every_strategy_is_given_out_once(self, space: BoundSpace) -> None:
        sampler = self.told(space)
        keys = [sampler.ask()[1].key for _ in range(20)]
        assert len(set(keys)) == 20


def test_finds_good_strategies_sooner_where_costs_differ_much(space: BoundSpace) -> None:
    """Good scores are had with and without the slow loss; virtual time until one is found, over seeds."""

    def curve(job: LaneJob) -> Curve:
        values = job.strategy
        slow = values["adaptation"] == "mcc"
        top = 0.9 - 0.15 * abs(np.log10(float(values["head_lr"]) / 0.03)) - 0.1 * (values["augmentation"] != "shift")
        top += 0.01 if slow else 0.0
        epoch_s = 30.0 if slow else 1.0
        return Curve(tuple((top - 0.02 * (4 - epoch), epoch * epoch_s) for epoch in range(1, 5)))

    def seconds(kind: type[TpeSampler], seed: int) -> float:
        clock = VirtualClock()
        settings = PlanSettings(trials=40, folds=1, lanes=2, epochs=4, directory=Path(), tested=False)
        plan = SearchPlan(settings, kind(space, seed), SuccessiveHalving(4, 3, 4), FixedRecipes(), [], Silent(), clock)
        events = simulate(plan, curve, clock, lanes=2)
        assert plan.finished()
        ended = [event for event in events if event.what == "end" and event.job.kind == JobKind.SEARCH]
        good = (event.time_s for event in ended if curve(event.job).epochs[-1][0] > 0.87)
        return next(good, events[-1].time_s)

    plain = [seconds(TpeSampler, seed) for seed in range(8)]
    aware = [seconds(CostAwareSampler, seed) for seed in range(8)]
    assert sum(aware) < 0.85 * sum(plain)
