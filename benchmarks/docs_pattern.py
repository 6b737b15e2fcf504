"""The Ray documentation's pattern for tuning with Ray Train, as a peer: a TorchTrainer with a worker per Tune trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

CPUS = 2
"""Of a trial: one for the Tune function that drives it, one for its worker."""


def docs_trainable(train_loop: Callable[[dict[str, Any]], None], storage: Path) -> Callable[[dict[str, Any]], None]:
    """A Tune function that trains ``train_loop(config)`` in a worker group of its own.

    See "Hyperparameter Tuning with Ray Tune" in the guides of Ray Train 2.60.
    """

    def drive(config: dict[str, Any]) -> None:
        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(
                name=f"train-{tune.get_context().get_trial_id()}",
                storage_path=str(storage),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    return drive


def concurrency() -> int:
    """How many such trials fit the cluster at a time."""
    return max(1, int(ray.cluster_resources().get("CPU", 1) // CPUS))
