"""Two real bundles that disagree, and images with the answers that the bundles give without a server.

The first has a linear head, the second one with a hidden layer.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ENOUGH_S, data, workspace

from raytl.bundles import export_bundle
from raytl.sources import load
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.yardstick import gather_yardstick

LABELS = ("daisy", "poppy", "rose", "tulip")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    paths = {}
    for seed, name in enumerate(["first", "second"]):
        model = load("scratch:cnn-small", channels=1, image_size=32, seed=seed)
        model.replace_head(len(LABELS), LABELS, "mlp" if seed else "linear")
        # An untrained head answers every image alike; a wide one tells images, and the two bundles, apart.
        drawn = torch.Generator().manual_seed(seed)
        for weight in model.head.parameters():
            weight.data.normal_(0, 3 if seed else 10, generator=drawn)
        metrics = {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}}
        examples = [Image.open(io.BytesIO(encode_png(seed))) for seed in range(4)]
        paths[name] = export_bundle(folder / name, model, metrics=metrics, provenance={"run": name}, examples=examples)
    return paths


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    return encode_png


def encode_png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 40)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the tiny shapes with what is known of it from labelled images."""
    space = workspace(tmp_path_factory.mktemp("w"), data(30, None, domains=False))
    probe = Strategy.from_dict({"source_model": "plain:pixels", "cut": 1, "head": "logistic"})
    model = run_trial(space, TrialJob(probe, None, final=True), lambda report: None).model
    yardstick = gather_yardstick(space, probe, 1.0, lambda rows: rows.argmax(axis=1), ENOUGH_S)
    folder = tmp_path_factory.mktemp("b") / "shapes"
    return export_bundle(folder, model, metrics={}, provenance={}, yardstick=yardstick)
