"""The end of a search: the leaders on all folds, the winner against its controls, and the refits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from raytl.judging.choice import Choice
from raytl.search.jobs import TRIALS, JobKind, LaneJob, Survey
from raytl.search.plan.contest import Contest
from raytl.search.plan.head_work import Takes, anything
from raytl.search.plan.probing import Probing
from raytl.search.plan.refits import Refits
from raytl.search.plan.settings import PlanSettings, Recipe, Wait
from raytl.search.plan.time_budget import CONFIRMED, TimeBudget
from raytl.search.propose.recipes import Control
from raytl.search.records import TrialStatus
from raytl.training.strategy import Strategy


class Closing:
    """Which job comes next once there is little left to propose.

    expected_seconds: what training a strategy is expected to take. baselines: by name, once they are settled.
    controls: of the winner, once it is.
    """

    def __init__(
        self,
        settings: PlanSettings,
        contest: Contest,
        refits: Refits,
        time: TimeBudget,
        probing: Probing,
        recipes: Recipe,
        numbers: Iterator[int],
        expected_seconds: Callable[[Strategy], float],
    ) -> None:
        self.baselines: dict[str, Strategy] = {}
        self.controls: list[Control] = []
        self._controls_of = ""
        self._settings = settings
        self._contest = contest
        self._refits = refits
        self._time = time
        self._probing = probing
        self._recipes = recipes
        self._numbers = numbers
        self._expected_seconds = expected_seconds

    # --- the winner -------------------------------------------------------------------------------------------------

    def choice(self) -> Choice | None:
        """The winner among the strategies whose refit did not fail, and on what grounds."""
        return self._contest.choice(tuple(self._refits.failed))

    def final_winner(self, running: Collection[JobKind], survey: Survey) -> str | Wait | None:
        """The winner's key once all trials that could change it have ended; settles its controls.

        running: kinds of the jobs under way.
        """
        if set(running) & (set(TRIALS) - {JobKind.CONTROL}):
            return Wait()
        choice = self.choice()
        if choice is None:
            return None
        if self._controls_of != choice.key:  # the refit of one that was the winner before may have failed
            self._controls_of = choice.key
            self.controls = self._recipes.controls(self._strategy(choice.key), self._probing.order(), survey)
        return choice.key

    def _strategy(self, key: str) -> Strategy:
        return Strategy.from_dict(self._contest.strategy_of(key))

    # --- on further folds -------------------------------------------------------------------------------------------

    def next_confirm(self, takes: Takes = anything) -> LaneJob | None:
        """The strategies that lead on the first fold, on the folds that they were not tried on yet; best first.

        Fold by fold, so that all are compared on the same ones; who trails the best beyond doubt is left behind. Who is
        behind it by more than chance usually gives comes once the others were tried on all: where the time ends before,
        it is to have gone into what can still win. takes: what the lane does that asks.
        """
        if self._settings.folds <= 1:
            return None
        tried = self._tried()
        ahead, behind = self._racing()
        due = (
            (key, fold)
            for leaders in (ahead, behind)
            for fold in range(1, self._settings.folds)
            for key in leaders
            if (key, fold) not in tried and takes(JobKind.CONFIRM, self._strategy(key), fold)
        )
        key, fold = next(due, (None, 0))
        if key is None or not self._allows(key):  # nor anybody behind, who would be compared without the leader
            return None
        looks = self._probing.looks(self._strategy(key))
        return LaneJob(next(self._numbers), JobKind.CONFIRM, self._contest.strategy_of(key), fold, looks=looks)

    def _allows(self, key: str) -> bool:
        return self._time.allows(self._expected_seconds(self._strategy(key)))

    def _tried(self) -> set[tuple[str, int]]:
        """Strategies and folds that need not be tried again."""
        records = self._contest.records
        return {(r.strategy_key, r.fold) for r in records if r.status != TrialStatus.INTERRUPTED}

    def _racing(self) -> tuple[list[str], list[str]]:
        """The leaders that are not beaten yet, those that may well win and those that hardly will; best first.

        The best probe, which was tried on all folds, may beat them.
        """
        best = self._probing.best()
        leaders = self._contest.leaders(CONFIRMED)
        rivals = {
            key: [other for other in dict.fromkeys([*leaders, best]) if other not in (key, None)] for key in leaders
        }
        left = [key for key in leaders if not any(self._contest.trails(key, other) for other in rivals[key])]
        behind = [key for key in left if any(self._contest.lags(key, other) for other in rivals[key])]
        return [key for key in left if key not in behind], behind

    # --- controls ---------------------------------------------------------------------------------------------------

    def next_control(
        self, running: Collection[JobKind], survey: Survey, takes: Takes = anything
    ) -> LaneJob | Wait | None:
        """The winner with one part taken out, on the folds that the winner was tried on; not where a test split tells.

        Fold by fold for all controls, as long as there is time. takes: what the lane does that asks.
        """
        if self._settings.tested or not self._settings.folds:
            return None
        winner = self.final_winner(running, survey)
        if not isinstance(winner, str):
            return winner
        folds = [record.fold for record in self._contest.completed(winner)][: self._settings.folds_once]
        tried = self._tried()
        due = [
            (control, fold)
            for fold in folds
            for control in self.controls
            if (control.strategy.key, fold) not in tried and takes(JobKind.CONTROL, control.strategy, fold)
        ]
        if not due:
            return None
        control, fold = due[0]
        expected_s = self._expected_seconds(control.strategy)
        if not self._time.allows(expected_s, keep_controls=False):
            return None
        number, looks = next(self._numbers), self._probing.looks(control.strategy)
        return LaneJob(number, JobKind.CONTROL, control.strategy.to_dict(), fold, baseline=control.name, looks=looks)

    # --- refits -----------------------------------------------------------------------------------------------------

    def next_refit(self, running: Collection[JobKind], survey: Survey) -> LaneJob | Wait | None:
        """The winner first, then what it is held against on the test split, as long as there is time.

        Where there is time without end the baselines are refitted while the last trials still run.
        """
        if self._settings.tested and not self._time.limited:
            early = self._next_compared(self.baselines.items())
            if early is not None:
                return early
        winner = self.final_winner(running, survey)
        if not isinstance(winner, str):
            return winner
        if JobKind.CONTROL in running:
            return Wait()
        if self._refits.wants(winner):
            return self._refits.start(next(self._numbers), self._strategy(winner))
        if self._settings.tested:
            compared = [(control.name, control.strategy) for control in self.controls]
            job = self._next_compared([*compared, *self.baselines.items()])
            if job is not None:
                return job
        # A refit can fail, and then the next best is due: nothing is over before the winner's has come back.
        return Wait() if self._refits.is_pending(winner) else None

    def _next_compared(self, strategies: Iterable[tuple[str, Strategy]]) -> LaneJob | None:
        """The next of these that there is time to refit. What it took before tells what it will take, if anything."""
        for name, strategy in strategies:
            took = [record.seconds for record in self._contest.completed(strategy.key)]
            needed = max(took) if took else self._expected_seconds(strategy)
            needed += self._time.shipping_seconds()
            if self._refits.wants(strategy.key) and (not self._time.limited or needed < self._time.left()):
                return self._refits.start(next(self._numbers), strategy, name)
        return None
