"""Writes the compatibility fixture ``data/v1``: ``python tests/bundles/make_fixture.py``.

Run it once per format version, never again after a release: what is in there must keep loading.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from raytl.bundles import Bundle, export_bundle
from raytl.sources import build_architecture

HERE = Path(__file__).parent / "data"


def images() -> torch.Tensor:
    """Fixed test images, uint8 (4, 1, 24, 24), without a random generator that could change."""
    y, x = np.mgrid[0:24, 0:24]
    stack = [(x * 7 + y * (3 + n) + n * 31) % 256 for n in range(4)]
    return torch.from_numpy(np.stack(stack)[:, None].astype(np.uint8))


def main() -> None:
    """Write the bundle and what it answers."""
    model = build_architecture("scratch:cnn-small", num_classes=3, channels=1, image_size=24, seed=1)
    model.labels = ("circle", "square", "Dreieck ▲")
    model.train()
    for _ in range(20):  # batch-norm statistics as after training
        model(model.preprocessing.normalise(images()))
    export_bundle(
        HERE / "v1",
        model,
        metrics={"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}},
        provenance={"made_by": "tests/bundles/make_fixture.py"},
        temperature=1.5,
    )
    rows = Bundle.load(HERE / "v1").probabilities(images())
    (HERE / "v1-expected.json").write_text(json.dumps(rows.tolist(), indent=1) + "\n")


if __name__ == "__main__":
    main()
