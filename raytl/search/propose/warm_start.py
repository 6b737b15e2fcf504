"""Which earlier searches were about similar tasks, and which of their strategies to try first.

A task is described by what its images look like and how many there are (an embedding in the sense of Achille et al.,
2019, "Task2Vec", with a fixed network instead of a trained probe). No label of a test split and no score enters it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raytl import sources
from raytl.core.errors import UserError
from raytl.search.propose.sampler import in_space
from raytl.search.space.binding import BoundSpace
from raytl.tasks import TrainingData
from raytl.training.strategy import Strategy

REFERENCE = "scratch:resnet-small"
"""The network whose features describe images: untrained, the same everywhere, no download."""
SIDE = 32
SAMPLE = 128
MAX_DISTANCE = 0.2
"""Tasks further apart than this (0 the same, 1 nothing in common) have nothing to tell each other."""
MOST_RUNS = 3
MOST_STRATEGIES = 4


@dataclass(frozen=True)
class EarlierRun:
    """A finished search. embedding: of its task. strategies: flat values, best first."""

    name: str
    embedding: Mapping[str, Any]
    strategies: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class WarmStart:
    """What is taken from an earlier search, at which distance of the tasks."""

    run: str
    distance: float
    strategies: tuple[Strategy, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the run's settings."""
        strategies = [strategy.to_dict() for strategy in self.strategies]
        return {"run": self.run, "distance": round(self.distance, 4), "strategies": strategies}


def embed(data: TrainingData) -> dict[str, Any]:
    """A task's description in JSON values: numbers of images and classes, pixel statistics, mean features."""
    images = data.target if data.target is not None else data.unlabelled
    assert images is not None  # a task has one of them
    chosen = images.subset(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64))
    model = sources.load(REFERENCE, channels=3, image_size=SIDE, seed=0).eval()
    pixels = chosen.tensor(model.preprocessing)
    x = model.preprocessing.normalise(pixels)
    features = []
    with torch.inference_mode():
        for stage in model.stage_list():
            x = stage(x)
            pooled = x.mean(dim=tuple(range(2, x.ndim))) if x.ndim > 2 else x
            features.append([round(float(value), 4) for value in pooled.mean(dim=0)])
    shares = pixels.float() / 255
    return {
        "setting": str(data.setting),
        "images": len(images),
        "classes": len(data.classes),
        "channels": data.channels,
        "brightness": round(float(shares.mean()), 4),
        "contrast": round(float(shares.std(dim=(1, 2, 3)).mean()), 4),
        "features": features,
    }


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """How far two tasks are apart, from 0 (the same images, as many) to 1."""
    gaps = [
        (0.5, min(1.0, abs(math.log(a["images"] / b["images"])) / math.log(100))),
        (0.5, min(1.0, abs(math.log(a["classes"] / b["classes"])) / math.log(100))),
        (0.5, float(a["channels"] != b["channels"])),
        (1.0, float(a["setting"] != b["setting"])),
        (0.5, abs(float(a["brightness"]) - float(b["brightness"]))),
        (0.5, abs(float(a["contrast"]) - float(b["contrast"])) * 2),
        (2.5, float(np.mean([_apart(x, y) for x, y in zip(a["features"], b["features"], strict=True)]))),
    ]
    return sum(weight * gap for weight, gap in gaps) / sum(weight for weight, _ in gaps)


def _apart(x: Sequence[float], y: Sequence[float]) -> float:
    """Distance of two mean features over the sum of their lengths."""
    first, second = np.asarray(x), np.asarray(y)
    lengths = float(np.linalg.norm(first) + np.linalg.norm(second))
    return float(np.linalg.norm(first - second)) / lengths if lengths else 0.0


def warm_starts(embedding: Mapping[str, Any], earlier: Iterable[EarlierRun], bound: BoundSpace) -> list[WarmStart]:
    """The best strategies of the nearest earlier searches, as far as the space has them; nearest search first."""
    near = sorted(((distance(embedding, run.embedding), run.name, run) for run in earlier), key=lambda entry: entry[:2])
    found: list[WarmStart] = []
    known: set[str] = set()
    for apart, name, run in near:
        if apart > MAX_DISTANCE or len(found) == MOST_RUNS or len(known) == MOST_STRATEGIES:
            break
        new = [strategy for strategy in _of_space(run.strategies, bound) if strategy.key not in known]
        new = new[: min(MOST_STRATEGIES - len(known), math.ceil(MOST_STRATEGIES / 2))]
        if new:
            known |= {strategy.key for strategy in new}
            found.append(WarmStart(name, apart, tuple(new)))
    return found


def _of_space(strategies: Sequence[dict[str, Any]], bound: BoundSpace) -> list[Strategy]:
    found = []
    for values in strategies:
        try:
            strategy = Strategy.from_dict(values)
        except UserError:  # written by a raytl with other settings
            continue
        if in_space(bound, strategy):
            found.append(strategy)
    return found
