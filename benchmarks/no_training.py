"""A task that costs nothing and a space over it, for what is measured without training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from raytl.core.dimensions import Choice, Dimension, Float
from raytl.search.propose.sampler import TpeSampler
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import SearchSpace, SpaceSettings
from raytl.tasks import LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem
from raytl.training.strategy import Strategy
from raytl.training.workspace import Budget, PretrainSettings, WorkspaceSettings

NO_TRAINING = WorkspaceSettings(budget=Budget(1, 1, 2), image_size=8, folds=(0, 0), device="cpu", threads=1)


def tiny_data() -> TrainingData:
    """Four grey images of two classes."""
    items = [PixelsItem(str(i), np.full((8, 8), i * 60, dtype=np.uint8)) for i in range(4)]
    target = LabelledImages("tones", items, None, ("dark", "light"), np.array([0, 0, 1, 1]))
    return TrainingData("tones", target.classes, target, None, {}, 1)


def tiny_space(data: TrainingData) -> BoundSpace:
    """A few dimensions, so that the sampler has its usual work."""
    plain: dict[str, Dimension] = {
        "source_model": Choice(("scratch:cnn-small",)),
        "optimizer": Choice(("sgd", "adamw")),
        "head_lr": Float(0.001, 1.0, log=True),
        "weight_decay": Float(0.00001, 0.1, log=True),
        "ema": Choice((0.0, 0.9)),
    }
    settings = SpaceSettings(epochs=1, image_size=8)
    components: dict[str, Any] = {"adaptation": {"none": {}}, "regulariser": {"none": {}}}
    return BoundSpace(SearchSpace("tiny", "", settings, PretrainSettings(), plain, {}, components), data)


class NoTrainingSampler(TpeSampler):
    """Proposes as ever, but strategies that learn from nothing: such a trial is all overhead."""

    def ask(self) -> tuple[Any, Strategy]:
        """The next strategy, without the target's labels."""
        handle, strategy = super().ask()
        return handle, replace(strategy, target_labels=False)
