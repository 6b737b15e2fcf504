"""A model behind an endpoint: deploy, ask over HTTP, put a better one in its place, take it down.

    python examples/serve.py [--port 8000]

The two models are heads on plain features of scikit-learn's handwritten digits, of 5 and of 40 labelled images a class:
made in seconds, and enough to show what happens at the endpoint.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import raytl

SPACE = """
image_size: 16
trials: 1
space: {source_model: ["plain:gradients"]}
"""


def folder_of(root: Path, a_class: int) -> Path:
    """Class folders with so many images each."""
    digits = load_digits()
    for label in range(10):
        place = root / f"labelled-{a_class}" / str(label)
        place.mkdir(parents=True)
        for number in np.flatnonzero(digits.target == label)[:a_class]:
            Image.fromarray((digits.images[number] * 255 / 16).astype(np.uint8)).save(place / f"{number}.png")
    return root / f"labelled-{a_class}"


def ask(url: str) -> float:
    """Share of the last hundred digits that the endpoint names rightly."""
    digits, right = load_digits(), 0
    with httpx.Client(timeout=60) as client:
        for pixels, label in zip(digits.images[-100:], digits.target[-100:], strict=True):
            png = io.BytesIO()
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(png, format="PNG")
            answer = client.post(f"{url}/v1/predict", content=png.getvalue(), headers={"Content-Type": "image/png"})
            right += answer.raise_for_status().json()["predictions"][0]["label"] == str(label)
    return right / 100


def main() -> None:
    """Deploy one model, then the other in its place."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "plain.yaml").write_text(SPACE)
        models = []
        for a_class in (5, 40):
            task = raytl.Task(folder_of(root, a_class), holdout=0)
            run = raytl.search(task, str(root / "plain.yaml"), lanes=1, storage=root / "runs", name=f"of-{a_class}")
            models.append(run.best.bundle_path)
        try:
            for a_class, model in zip((5, 40), models, strict=True):
                endpoint = raytl.deploy(
                    model, name="digits", port=arguments.port
                )  # the second takes the place of the first
                print(f"{a_class} labels a class: {ask(endpoint.url):.0%} right at {endpoint.url}")
        finally:
            raytl.undeploy("digits")


if __name__ == "__main__":
    main()
