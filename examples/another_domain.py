"""No label where the model will be used: learn from another domain, and have the search adapt.

    python examples/another_domain.py [--seconds 90]

Labelled: digits printed in the fonts that come with matplotlib. Unlabelled: handwritten ones. The labels of the
handwritten digits are looked at once, at the end, by this script and not by raytl.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import raytl
from raytl.tasks.demo import printed_digits


def main() -> None:
    """Search without a target label, then see what it came to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=90)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        root, digits = Path(folder), load_digits()
        (root / "handwritten").mkdir()
        for number, pixels in enumerate(digits.images):
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(root / "handwritten" / f"{number:04}.png")
        task = raytl.Task(source_domain={"printed": printed_digits()}, unlabelled=root / "handwritten")
        run = raytl.search(task, "demo", time_budget_s=seconds, storage=root / "runs", name="digits")
        strategy = run.best.strategy
        print(f"chosen without a label: {strategy['source_model']}, adaptation {strategy['adaptation']}")
        images = sorted((root / "handwritten").iterdir())
        said = [answer.label for answer in run.best.load().predict(images)]
        print(f"{np.mean(said == digits.target.astype(str)):.0%} of {len(images)} handwritten digits are named rightly")


if __name__ == "__main__":
    main()
