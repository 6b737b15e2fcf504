"""Which strategy is tried next: first those that were announced, then what TPE proposes, none twice."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from tiny import MODEL, PRETRAINED, data

from raytl.search.propose.sampler import BEST, LEARN_FROM, SLACK, SpaceExhaustedError, TpeSampler
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import TrainingData
from raytl.training import Strategy

SETTINGS: dict[str, TrainingData] = {
    "inductive": data(unlabelled=None, domains=False),
    "semi-supervised": data(),
    "unsupervised": data(target=None),
}
SPACE = """
space:
  source_model: [scratch:cnn-small, scratch:resnet-small]
  source_domain: [none, any]
  optimizer: [sgd, adamw]
  head_lr: {sgd: {low: 0.01, high: 0.1, log: true}, adamw: {low: 0.001, high: 0.01, log: true}}
  backbone_ratio: [0.1, 1.0]
  weight_decay: {low: 1e-5, high: 0.1, log: true}
  regulariser: [none, l2-sp, bss]
  ema: [0.0, 0.9]
  adaptation: [none, coral, mkmmd, mcc, adabn]
"""


def bind(tmp_path: Path, text: str, held: TrainingData) -> BoundSpace:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return BoundSpace(load_space(str(path)), held)


def sample(space: BoundSpace, count: int) -> list[Strategy]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


class TestSampler:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_tells_optuna_of_exactly_the_strategy_that_it_hands_out(self, tmp_path: Path, setting: str) -> None:
        space = bind(tmp_path, SPACE, SETTINGS[setting])
        first, again = TpeSampler(space, 0), TpeSampler(space, 0)
        for strategy in sample(space, 40):
            handle = first.adopt(strategy)
            assert space.suggest(handle.trial) == strategy  # what the handle's parameters mean
        for _ in range(15):
            handle, strategy = again.ask()
            assert space.suggest(handle.trial) == strategy
            again.tell(handle, score=strategy.head_lr)

    def test_first_strategies_get_the_source_model_that_promises_most(self, tmp_path: Path) -> None:
        other = f"pretrain:other/{MODEL}"
        text = (
            f"space: {{source_model: [scratch:resnet-small, {PRETRAINED}, '{other}'], adaptation: [none, coral, mcc], "
            "source_domain: [none, any]}\n"
            f"first: [{{source_model: '{other}', adaptation: mcc}}, {{adaptation: coral, source_domain: any}}]"
        )
        for preferred, expected in {
            (): [
                (other, "mcc", None),
                ("scratch:resnet-small", "none", None),
            ],  # no domain promises anything
            (PRETRAINED, other): [(PRETRAINED, "coral", "bright"), (PRETRAINED, "none", None), (other, "mcc", None)],
            (other,): [(other, "mcc", None), (other, "coral", "bright")],
        }.items():
            sampler = TpeSampler(bind(tmp_path, text, data()), 0)
            if preferred:
                sampler.prefer(preferred, ("bright",))
            asked = [sampler.ask()[1] for _ in range(4)]
            told = [(s.source_model, s.adaptation, s.source_domain) for s in asked]
            assert told[: len(expected)] == expected
            assert len({strategy.key for strategy in asked}) == 4
            assert {s.source_model for s in asked} == {"scratch:resnet-small", PRETRAINED, other}

    def test_first_strategies_fall_back_where_the_task_lacks_what_they_ask_for(self, tmp_path: Path) -> None:
        text = (
            f"space: {{source_model: {MODEL}, adaptation: [none, mcc], augmentation: [none, flip]}}\n"
            "first: [{adaptation: mcc, augmentation: flip}, {adaptation: mcc}]"
        )
        sampler = TpeSampler(bind(tmp_path, text, data(unlabelled=None, domains=False)), 0)
        asked = [sampler.ask()[1] for _ in range(2)]
        assert [(s.adaptation, s.augmentation) for s in asked] == [("none", "flip"), ("none", "none")]

    def test_remembers_the_best_and_the_latest_and_what_is_under_way(self, tmp_path: Path) -> None:
        space = bind(tmp_path, "space: {source_model: scratch:cnn-small, head_lr: {low: 0.001, high: 1.0}}", data())
        sampler = TpeSampler(space, 0)
        under_way = [sampler.ask()[0] for _ in range(2)]
        sampler.report(under_way[0], 1, 0.25)
        told = []
        for number in range(LEARN_FROM + SLACK):
            handle, strategy = sampler.ask()
            score = 1.0 - abs(strategy.head_lr - 0.7)
            pruned = number % 3 == 0
            sampler.report(handle, 1, score)
            sampler.tell(handle, score=score, pruned=pruned)
            told.append((handle.trial.params["head_lr"], score, pruned))
        trials = sampler._study.trials
        known = [trial.params["head_lr"] for trial in trials if trial.state.is_finished()]
        best = sorted((score, rate) for rate, score, pruned in told if not pruned)[-BEST:]
        assert len(known) == LEARN_FROM
        assert {rate for _, rate in best} <= set(known)
        assert {rate for rate, _, _ in told[-(LEARN_FROM - BEST) :]} <= set(known)
        running = [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]
        assert [trial.params for trial in running] == [handle.trial.params for handle in under_way]
        assert running[0].intermediate_values == {1: 0.25}
        for handle in under_way:
            sampler.tell(handle, score=0.5)
        assert sampler.ask()[1].head_lr not in known

    def test_a_source_model_that_is_not_made_yet_is_held_back(self, tmp_path: Path) -> None:
        text = f"space: {{source_model: ['{PRETRAINED}', {MODEL}], optimizer: [sgd, adamw]}}"
        sampler = TpeSampler(bind(tmp_path, text, data()), 0)
        sampler.hold_back([PRETRAINED])
        given = [sampler.ask()[1] for _ in range(2)]
        assert {strategy.source_model for strategy in given} == {MODEL}
        with pytest.raises(SpaceExhaustedError):
            sampler.ask()
        sampler.hold_back([])
        assert {sampler.ask()[1].source_model for _ in range(2)} == {PRETRAINED}
