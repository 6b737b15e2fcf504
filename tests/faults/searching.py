"""A search in which some trials must fail, and its table to the last bit.

One lane, so that each such search proposes the same strategies in the same order, and their tables can be held against
each other figure by figure.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import raytl
from raytl.runs import Run
from raytl.search.records import TrialRecord
from raytl.sources import load

# Weights in a file that is cut short once the search has begun, and some that are no numbers: every search has
# trials that must fail.
SPACE = """\
image_size: 16
epochs: 3
grace_epochs: 3
batch_size: 16
steps_per_epoch: 4
space:
  source_model: [scratch:cnn-small, "file:BROKEN?arch=scratch:cnn-small", "file:NAN?arch=scratch:cnn-small"]
  cut: [0, 1, 2]
  optimizer: [sgd]
  head_lr: [0.03, 0.1, 0.3]
  backbone_ratio: [1.0]
first:
  - {source_model: "file:NAN?arch=scratch:cnn-small"}
"""
WHY = {"broken": "broken.safetensors: is not a readable safetensors file", "nan": "finite"}
"""Files of weights, and why trials with them fail."""


def make_task(root: Path) -> Path:
    """Photographs and a space, below a folder."""
    rng = np.random.default_rng(0)
    for name, colour in {"red": (200, 40, 40), "green": (40, 200, 40)}.items():
        (root / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.array(colour) + rng.normal(0, 60, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "photos" / name / f"{number}.png")
    weights = load("scratch:cnn-small", channels=3, seed=6).state_dict()
    none = {name: tensor * torch.nan for name, tensor in weights.items() if tensor.is_floating_point()}
    save_file(weights | none, root / "nan.safetensors")
    files = {name.upper(): str(root / f"{name}.safetensors") for name in ("broken", "nan")}
    (root / "space.yaml").write_text(SPACE.replace("BROKEN", files["BROKEN"]).replace("NAN", files["NAN"]))
    make_whole(root)
    return root


class Watching:
    """Calls something with every event of a trial. Once the search has begun, a file of weights is cut short."""

    def __init__(self, root: Path, act: Any) -> None:
        self._root = root
        self._act = act

    def on_trial(self, record: TrialRecord) -> None:
        self._act(record)

    def on_phase(self, phase: str, detail: str) -> None:
        self._root.joinpath("broken.safetensors").write_bytes(b"cut short")


def make_whole(root: Path) -> None:
    save_file(load("scratch:cnn-small", channels=3, seed=5).state_dict(), root / "broken.safetensors")


def searched(root: Path, name: str, act: Any = lambda record: None, storage: str | None = None) -> Run:
    make_whole(root)
    task = raytl.Task(root / "photos", holdout=0.0)
    return raytl.search(
        task, str(root / "space.yaml"), trials=5, lanes=1, name=name, storage=storage or root / "runs",
        warm_start=False, listeners=[Watching(root, act)],
    )  # fmt: skip


def table(run: Run) -> list[tuple[Any, ...]]:
    """Every trial with what it was, how it ended, and its score to the last bit."""
    return [(r.kind, r.strategy_key, r.fold, str(r.status), r.reason, r.score) for r in run.records()]


def last_words(said: Path, seconds: float = 60.0) -> str:
    """What a driver wrote to a file, once it is gone and it was said how to go on with its search."""
    deadline = time.monotonic() + seconds
    while "ended on the spot" not in said.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    return said.read_text()
