"""From a folder with five labelled images a class to a model and what it is worth.

    python examples/few_labels.py [--seconds 60]

The folder is made of scikit-learn's handwritten digits, so that the script needs nothing of yours; put your own in its
place. A class is a subfolder; unlabelled images lie flat.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import raytl
from raytl.bundles import Bundle


def write_folders(root: Path, a_class: int) -> None:
    """``labelled/3/0007.png``, ``unlabelled/0008.png``, and a hundred ``new/0009.png`` to ask the model about."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    taken = dict.fromkeys(range(10), 0)
    for place, number in enumerate(order):
        label = int(digits.target[number])
        if taken[label] < a_class:
            folder, taken[label] = root / "labelled" / str(label), taken[label] + 1
        else:
            folder = root / ("new" if place >= len(order) - 100 else "unlabelled")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 255 / 16).astype(np.uint8)).save(folder / f"{number:04}.png")


def main() -> None:
    """Search, say what the model is worth, and ask it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folders(root, a_class=5)
        task = raytl.Task(root / "labelled", unlabelled=root / "unlabelled")
        run = raytl.search(task, "demo", time_budget_s=seconds, storage=root / "runs", name="digits")
        worth = run.best.validation
        if worth is not None:
            print(f"accuracy {worth.value:.3f} ({worth.low:.3f} to {worth.high:.3f}), by cross-validation")
        told = ["rank", "source_model", "adaptation", "validation", "folds"]
        print(run.leaderboard()[told].head(5).to_string(index=False))
        model = Bundle.load(run.best.export(root / "model"))
        images = sorted((root / "new").iterdir())
        said = [answer.label for answer in model.predict(images)]
        truth = load_digits().target[[int(path.stem) for path in images]].astype(str)
        print(f"of {len(images)} new images {np.mean(said == truth):.0%} are named rightly")


if __name__ == "__main__":
    main()
