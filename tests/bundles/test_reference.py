"""A bundle that no longer answers as it did when it was written is refused; an older one without predictions is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raytl.bundles import Bundle, Reference, export_bundle
from raytl.bundles.reference import MOST, REFERENCE_FILE
from raytl.core.errors import UserError
from raytl.sources import build_architecture

LABELS = ("ash", "birch", "cedar")


def picture(seed: int, width: int = 90, height: int = 60) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_architecture("scratch:cnn-small", num_classes=3, channels=3, image_size=24, seed=0)
    model.labels = LABELS
    pixels = torch.stack([torch.from_numpy(model.preprocessing.to_uint8(picture(seed))) for seed in range(20)])
    model.train()
    for _ in range(20):  # batch-norm statistics as after training, so that images are told apart
        model(model.preprocessing.normalise(pixels))
    torch.nn.init.normal_(model.head.weight, 0, 1, generator=torch.Generator().manual_seed(0))
    examples = [picture(0, 600, 400), *(picture(seed) for seed in range(1, 20))]
    return export_bundle(
        tmp_path_factory.mktemp("b") / "m", model, metrics={}, provenance={}, temperature=1.5, examples=examples
    )


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def check(folder: Path) -> None:
    reference = Reference.read(folder)
    assert reference is not None
    reference.check(Bundle.load(folder), "here")


def test_holds_at_most_16_small_images_and_passes(original: Path) -> None:
    reference = Reference.read(original)
    assert reference is not None and len(reference.examples) == MOST
    assert (original / REFERENCE_FILE).stat().st_size < 16 * 3 * 256 * 256
    check(original)


def _labels(manifest: dict[str, Any]) -> None:
    manifest["labels"] = ["birch", "ash", "cedar"]


def _other_labels(manifest: dict[str, Any]) -> None:
    manifest["labels"] = ["ash", "birch", "pine"]


def _crop(manifest: dict[str, Any]) -> None:
    manifest["preprocessing"] |= {"resize": "crop", "crop_fraction": 0.5}


def _mean(manifest: dict[str, Any]) -> None:
    manifest["preprocessing"]["mean"] = [0.9, 0.9, 0.9]


def _temperature(manifest: dict[str, Any]) -> None:
    manifest["temperature"] = 3.0


@pytest.mark.parametrize("change", [_labels, _other_labels, _crop, _mean, _temperature])
def test_a_changed_manifest_fails(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((copy / "model.json").read_text())
    change(manifest)
    (copy / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^here: .*own reference predictions"):
        check(copy)


def test_other_preprocessing_than_was_tested_fails(copy: Path) -> None:
    """Not only what is written down: blurred images are other images."""
    bundle = Bundle.load(copy)
    prepare = bundle.prepare
    bundle.prepare = lambda image, name="image": (prepare(image, name) // 64) * 64  # type: ignore[method-assign]
    reference = Reference.read(copy)
    assert reference is not None
    with pytest.raises(UserError, match="of 16 images that it was written with"):
        reference.check(bundle, "here")


@pytest.mark.parametrize(("lost_bits", "passes"), [(13, True), (22, False)], ids=["TF32", "next to nothing"])
def test_rounding_passes_and_loss_does_not(original: Path, lost_bits: int, passes: bool) -> None:
    bundle = Bundle.load(original)
    bundle.model.to(memory_format=torch.channels_last)
    for weight in bundle.model.parameters():
        bits = weight.data.contiguous().view(torch.int32)
        weight.data = ((bits >> lost_bits) << lost_bits).view(torch.float32).view(weight.shape)
    reference = Reference.read(original)
    assert reference is not None
    if passes:
        reference.check(bundle, "here")
    else:
        with pytest.raises(UserError, match="fails its own"):
            reference.check(bundle, "here")


def test_a_damaged_file_is_a_sentence_and_none_at_all_is_an_older_bundle(copy: Path) -> None:
    (copy / REFERENCE_FILE).write_text("{")
    with pytest.raises(UserError, match=r"reference\.json: is damaged"):
        Reference.read(copy)
    (copy / REFERENCE_FILE).unlink()
    assert Reference.read(copy) is None
    assert Reference.read(Path(__file__).parent / "data" / "v1") is None
