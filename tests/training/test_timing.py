"""How long a training takes, told by some of its steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import MODEL, data, workspace

from raytl.training import timing
from raytl.training.loop import Loop, run_trial
from raytl.training.settings import Budget
from raytl.training.strategy import Strategy
from raytl.training.timing import LEAST_STEPS, time_training
from raytl.training.trial import TrialJob

STEP_S, LOOK_S = 0.5, 3.0
EPOCHS, STEPS = 6, 20


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Steps and looks on a clock that only they move; how many there were."""
    now, seen = [0.0], {"steps": 0, "looks": 0}
    step, look = Loop.step, Loop.look

    def slow_step(self: Loop, *arguments: object) -> torch.Tensor:
        now[0] += STEP_S * (4 if seen["steps"] == 0 else 1)  # the first one has more to do
        seen["steps"] += 1
        return step(self, *arguments)  # type: ignore[arg-type]

    def slow_look(self: Loop, *arguments: object, **settings: bool) -> object:
        now[0] += LOOK_S
        seen["looks"] += 1
        return look(self, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "step", slow_step)
    monkeypatch.setattr(Loop, "look", slow_look)
    monkeypatch.setattr(timing, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: now[0])}))
    return seen


@pytest.mark.parametrize(("at_most_s", "steps"), [(0.0, LEAST_STEPS), (4.0, 5), (20.0, 37), (1e6, EPOCHS * STEPS)])
@pytest.mark.parametrize("looks", [(), (2,)])
def test_a_part_of_a_training_tells_of_the_whole(
    tmp_path: Path, paced: dict[str, int], at_most_s: float, steps: int, looks: tuple[int, ...]
) -> None:
    """One whose first look came after two epochs of a minute each was waited for, whatever time there was."""
    space = workspace(tmp_path, data(8), budget=Budget(EPOCHS, STEPS, 16, looks))
    told = time_training(space, TrialJob(Strategy(MODEL)), at_most_s)
    assert paced == {"steps": steps, "looks": 2 if at_most_s > 4 * LOOK_S else 1}
    every = (EPOCHS * STEPS + 3) * STEP_S + (len(looks) + 1 if looks else EPOCHS) * LOOK_S
    assert told.seconds == pytest.approx(every)
    assert told.epochs == steps / STEPS
    steps_before = paced["steps"]
    run_trial(space, TrialJob(Strategy(MODEL)), lambda metrics: None)
    assert paced["steps"] - steps_before == EPOCHS * STEPS  # as was reckoned with


def test_what_is_solved_for_is_done_whole(tmp_path: Path, paced: dict[str, int]) -> None:
    space = workspace(tmp_path, data(8), epochs=EPOCHS)
    stages = len(space.source_model(MODEL)[0].stage_list())
    told = time_training(space, TrialJob(Strategy(MODEL, cut=stages, head="logistic")), 0.0)
    assert (told.epochs, told.seconds) == (1.0, LOOK_S) and paced == {"steps": 0, "looks": 1}
