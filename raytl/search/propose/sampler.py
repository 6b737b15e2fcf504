"""Which strategy to try next: Optuna's TPE, told the truth about stopped trials."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from raytl.core.seeding import derive_seed
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import ALL, ANY, NONE
from raytl.training.strategy import Strategy

LEARN_FROM = 300
"""Trials that TPE looks at. It takes the best tenth, at most 25, as good: more of the others teach it little."""
BEST = 50
"""Of them the best ones, whenever they were tried; the rest are the latest."""
SLACK = 100
"""So many more come together before the oldest are forgotten."""
MAX_REPEATS = 5
MAX_DRAWS = 300


class SpaceExhaustedError(Exception):
    """Every strategy of the space, or nearly so, was given out."""


@dataclass(eq=False)
class Handle:
    """A strategy that was given out: Optuna's trial of it, in whichever study is the present one."""

    strategy: Strategy
    trial: optuna.Trial
    scores: dict[int, float] = field(default_factory=dict)


class TpeSampler:
    """Multivariate TPE over a bound space (Bergstra et al., 2011; Falkner et al., 2018), conditional by define-by-run.

    Stopped trials reach Optuna as pruned, with their intermediate values: Ray's own bridge reports them as complete, so
    that a low score after two epochs would count like one after twenty.
    Every source model is tried once, under the space's first strategies or its defaults, before the model decides;
    the one that promises most is tried first (:meth:`prefer`).
    What TPE needs for a proposal grows with the trials that it knows, so it is kept to the best and the latest of them.
    first: strategies to begin with, as far as the space contains them.
    """

    def __init__(self, space: BoundSpace, seed: int, first: Sequence[Strategy] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self._seed = seed
        self._study = optuna.create_study(direction="maximize", sampler=self.make_sampler(0))
        self._renewals = 0
        self._known = 0
        self._open: list[Handle] = []
        self._random = _Random(derive_seed(seed, "random strategies"))
        self._seen: set[str] = set()
        self._ahead = list(first)
        self._waiting = _first_strategies(space)
        self._promising = space.source_models[0]
        self._domains: Sequence[str] = ()
        self._held_back: set[str] = set()

    def make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler. number: how many there were before, so that their random numbers differ."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=derive_seed(self._seed, "sampler", number),
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=8,
            )

    def ask(self) -> tuple[Handle, Strategy]:
        """The next strategy and a handle to tell its results under; never one that was given out before.

        Raises SpaceExhaustedError where no other is left.
        """
        while (strategy := self._next_first()) is not None:
            if strategy.key not in self._seen and self.contains(strategy):
                return self.adopt(strategy), strategy
        for _ in range(MAX_REPEATS):
            trial = self._study.ask()
            strategy = self.space.suggest(trial)
            if self._is_new(strategy):
                self._seen.add(strategy.key)
                return self._opened(Handle(strategy, trial)), strategy
            self._study.tell(trial, state=TrialState.FAIL)
        # TPE keeps to what it knows to be good, and there is nothing new: take something new from anywhere.
        strategy = self.draw()
        return self.adopt(strategy), strategy

    def draw(self) -> Strategy:
        """A strategy at random that was not given out before, for :meth:`adopt`: that takes TPE a hundred times longer.

        It counts as given out. Raises SpaceExhaustedError where no other is found.
        """
        for _ in range(MAX_DRAWS):
            strategy = self.space.suggest(self._random)
            if self._is_new(strategy):
                self._seen.add(strategy.key)
                return strategy
        raise SpaceExhaustedError

    def _next_first(self) -> Strategy | None:
        """The next of those that are to be tried before anything is learned; None where their turn has not come."""
        if self._ahead:
            return self._ahead.pop(0)
        ready = (p for p in self._waiting if p.get("source_model", self._promising) not in self._held_back)
        partial = next(ready, None)
        if partial is None:
            return None
        self._waiting.remove(partial)
        return self._completed(partial)

    def _is_new(self, strategy: Strategy) -> bool:
        return strategy.key not in self._seen and strategy.source_model not in self._held_back

    def leave_out(self, strategies: Iterable[Strategy]) -> None:
        """Never give these out: they are tried anyway."""
        self._seen |= {strategy.key for strategy in strategies}

    def try_next(self, strategy: Strategy) -> None:
        """Give out this strategy before any other that was not announced earlier, if the space contains it."""
        self._ahead.append(strategy)

    def give_again(self, strategy: Strategy) -> None:
        """Give out once more, before any other, what was given out and not tried."""
        self._seen.discard(strategy.key)
        self._ahead.append(strategy)

    def let_come_again(self, strategies: Iterable[Strategy]) -> None:
        """Forget that these were given out, which were not tried: they may be proposed like any other."""
        self._seen -= {strategy.key for strategy in strategies}

    @property
    def has_first(self) -> bool:
        """Whether strategies are left that are to be tried before anything is concluded."""
        return any(strategy.key not in self._seen for strategy in self._first_ones(held_back=True))

    @property
    def has_first_now(self) -> bool:
        """Whether some of them are of source models that are at hand."""
        return any(strategy.key not in self._seen for strategy in self._first_ones(held_back=False))

    def _first_ones(self, *, held_back: bool) -> list[Strategy]:
        waiting = [
            partial
            for partial in self._waiting
            if held_back or partial.get("source_model", self._promising) not in self._held_back
        ]
        return [*self._ahead, *(self._completed(partial) for partial in waiting)]

    def hold_back(self, source_models: Iterable[str]) -> None:
        """Give out no strategy from these source models, which are not made yet; and again from the others."""
        self._held_back = set(source_models)

    def prefer(self, source_models: Sequence[str], domains: Sequence[str] = ()) -> None:
        """Take the first strategies of these source models before the others', in this order; none is dropped.

        The first of them is what first strategies get that name no source model. domains: source domains, the most
        promising first, for strategies that are to join any.
        """
        self._domains = domains
        place = {uri: index for index, uri in enumerate(source_models)}
        trained = (uri for uri in source_models if uri in self.space.source_models and self.space.is_trainable(uri))
        self._promising = next(trained, self._promising)
        self._waiting.sort(key=lambda partial: place.get(partial.get("source_model", self._promising), len(place)))

    def _completed(self, partial: Mapping[str, Any]) -> Strategy:
        """A first strategy: what it does not say is the source model that promises most, and defaults."""
        values = {"source_model": self._promising, **partial}
        if values.get("source_domain") == ANY:
            values["source_domain"] = next((name for name in self._domains if name in self.space.source_domains), NONE)
        stages = self.space.stages[values["source_model"]]
        cut = values.get("cut")
        if cut == ALL or (isinstance(cut, int) and cut < 0):
            values["cut"] = stages if cut == ALL else max(0, stages + cut)
        return self.space.suggest(FirstChoices(values))

    def contains(self, strategy: Strategy) -> bool:
        """Whether the space contains a strategy from elsewhere."""
        return in_space(self.space, strategy)

    def adopt(self, strategy: Strategy) -> Handle:
        """A handle for a strategy from elsewhere (a first strategy, an earlier run), so that TPE learns from it.

        Raises ValueError where it is not in the space: TPE would learn from another point than the one that is tried.
        """
        if not self.contains(strategy):
            raise ValueError(f"strategy {strategy.key} is not in search space '{self.space.space.name}'")
        self._seen.add(strategy.key)
        return self._opened(Handle(strategy, self._enter(strategy)))

    def report(self, handle: Handle, epoch: int, score: float) -> None:
        """An intermediate score."""
        handle.scores[epoch] = score
        handle.trial.report(score, epoch)

    def took(self, handle: Handle, epoch_s: float) -> None:
        """Seconds that an epoch of the trial takes, told before its end; for samplers that mind the cost."""

    def tell(self, handle: Handle, *, score: float | None, pruned: bool = False) -> None:
        """The end of a trial: complete, pruned at its last reported epoch, or (score None) failed."""
        self._open.remove(handle)
        if score is None:
            self._study.tell(handle.trial, state=TrialState.FAIL)
            return
        if pruned:
            self._study.tell(handle.trial, state=TrialState.PRUNED)
        else:
            self._study.tell(handle.trial, score)
        self._known += 1
        if self._known >= LEARN_FROM + SLACK:
            self._renew()

    def _opened(self, handle: Handle) -> Handle:
        self._open.append(handle)
        return handle

    def _enter(self, strategy: Strategy) -> optuna.Trial:
        """A trial of the present study for a strategy of the space."""
        replay = _Replay(strategy)
        self.space.suggest(replay)
        self._study.enqueue_trial(replay.params)
        trial = self._study.ask()
        self.space.suggest(trial)
        return trial

    def _renew(self) -> None:
        """Go on in a new study that knows the best and the latest trials, and those that are under way."""
        known = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        complete = [trial for trial in known if trial.state == TrialState.COMPLETE]
        best = sorted(complete, key=lambda trial: trial.value or 0.0, reverse=True)[:BEST]
        numbers = {trial.number for trial in best}
        latest = [trial for trial in known if trial.number not in numbers][len(best) - LEARN_FROM :]
        kept = sorted((*best, *latest), key=lambda trial: trial.number)
        self._renewals += 1
        self._known = len(kept)
        self._study = optuna.create_study(direction="maximize", sampler=self.make_sampler(self._renewals))
        self._study.add_trials(kept)
        for handle in self._open:
            handle.trial = self._enter(handle.strategy)
            for epoch, score in handle.scores.items():
                handle.trial.report(score, epoch)


def in_space(space: BoundSpace, strategy: Strategy) -> bool:
    """Whether a bound space has this very strategy."""
    return space.suggest(_Replay(strategy)) == strategy


class _Replay(FirstChoices):
    """Answers with a known strategy's own values and notes under which names they were asked for."""

    def __init__(self, strategy: Strategy) -> None:
        flat = strategy.to_dict()
        wanted = dict(flat)
        wanted["source_domain"] = flat["source_domain"] or "none"
        for kind in ("adaptation", "regulariser"):
            for key in [key for key in flat if key.startswith(f"{kind}.")]:
                wanted[f"{kind}.{flat[kind]}.{key.removeprefix(f'{kind}.')}"] = flat[key]
        super().__init__(wanted)
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value = super().suggest_float(name, low, high, log=log)
        self.params[name] = value
        return value

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        value = super().suggest_int(name, low, high, log=log)
        self.params[name] = value
        return value

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        value = super().suggest_categorical(name, choices)
        self.params[name] = value
        return value


class _Random:
    """Answers at random, without regard to what is known."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        drawn = float(self._rng.uniform(*((math.log(low), math.log(high)) if log else (low, high))))
        return min(max(math.exp(drawn) if log else drawn, low), high)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._rng.integers(low, high, endpoint=True))

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return choices[self._rng.integers(len(choices))]


def _first_strategies(space: BoundSpace) -> list[Mapping[str, Any]]:
    """The space's own first strategies, then the default of every source model that they do not name; partial ones."""
    models = space.source_models
    listed = [partial for partial in space.space.first if partial.get("source_model", models[0]) in models]
    named = {partial.get("source_model") for partial in listed}
    return [*listed, *({"source_model": model} for model in models if model not in named)]
