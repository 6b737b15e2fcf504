"""Lanes that Ray ends because their node runs out of memory.

Tune knows processes that died and trials that raised; Ray's ``OutOfMemoryError`` is neither, and Tune would end the
search with it. Here it becomes the death of the process, which it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.exceptions import ActorDiedError, OutOfMemoryError


def survive(controller: Any, starved: Callable[[str], None]) -> None:
    """Let Tune's controller take a process that Ray ended for its memory as one that died.

    starved: told the trial's id before.
    """
    manager = controller._actor_manager
    task_failed, start_failed = manager._actor_task_failed, manager._actor_start_failed

    def died(actor: Any, error: Exception) -> Exception:
        if not isinstance(error, OutOfMemoryError):
            return error
        trial = controller._actor_to_trial.get(actor)
        if trial is not None:
            starved(trial.trial_id)
        death: Exception = ActorDiedError()
        return death

    def on_task(tracked_actor_task: Any, exception: Exception) -> None:
        task_failed(tracked_actor_task, died(tracked_actor_task._tracked_actor, exception))

    def on_start(tracked_actor: Any, exception: Exception) -> None:
        start_failed(tracked_actor, died(tracked_actor, exception))

    manager._actor_task_failed, manager._actor_start_failed = on_task, on_start
