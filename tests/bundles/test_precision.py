"""Bundles in half precision: on a CPU, which computes in bfloat16 as well, and on an emulated GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from emulated_cuda import DeviceTensor, emulated_cuda
from PIL import Image

from raytl.bundles import Bundle, export_bundle
from raytl.serving.live import load
from raytl.serving.settings import ServingSettings
from raytl.sources import build_architecture

LABELS = ("a", "b", "c")


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture
def exported(tmp_path: Path):
    def export(wide: float = 1.0, images: int = 8) -> Path:
        """A bundle. wide: deviation of its head's weights, of which what all images have in common is taken away."""
        model = build_architecture("scratch:cnn-small", num_classes=3, channels=1, image_size=24, seed=0)
        model.labels = LABELS
        drawn = torch.Generator().manual_seed(0)
        for weight in model.head.parameters():
            weight.data.normal_(0, wide, generator=drawn)
        with torch.inference_mode():
            arrays = torch.from_numpy(np.stack([model.preprocessing.to_uint8(image) for image in pictures(20)]))
            seen = model.eval().head_inputs(model.preprocessing.normalise(arrays))
            model.head.bias.data.sub_(model.head(seen).mean(dim=0))
        return export_bundle(tmp_path / "m", model, metrics={}, provenance={}, examples=pictures(images))

    return export


@pytest.fixture
def halving(monkeypatch) -> None:
    """The CPU counts as a device that computes in bfloat16, which it does by the same autocast."""
    for place in ("raytl.sources.precision.has_half", "raytl.bundles.bundle.has_half"):
        monkeypatch.setattr(place, lambda device: True)


def asked(bundle: Bundle) -> np.ndarray:
    return bundle.compute(np.stack([bundle.prepare(image) for image in pictures(20)]))


def test_stages_are_halved_and_the_head_is_not(exported, halving):
    path = exported()
    bundle = Bundle.load(path)
    full = asked(bundle)
    assert bundle.precision == "float32" and bundle.halve(bundle.reference(path)) == ""
    seen: list[torch.dtype] = []
    bundle.model.stage_list()[-1].register_forward_hook(lambda module, given, found: seen.append(found.dtype))
    bundle.model.head.register_forward_hook(lambda module, given, found: seen.extend((given[0].dtype, found.dtype)))
    half = asked(bundle)
    assert (bundle.precision, seen) == ("bfloat16", [torch.bfloat16, torch.float32, torch.float32])
    assert (half != full).any() and half == pytest.approx(full, abs=0.05)
    assert half.sum(axis=1) == pytest.approx(np.ones(len(half)), abs=1e-6)


def test_one_that_answers_otherwise_in_it_stays_in_full_precision(exported, halving):
    path = exported(wide=20_000.0)
    bundle = Bundle.load(path)
    full = asked(bundle)
    assert bundle.halve(bundle.reference(path)).startswith("in bfloat16 it answers otherwise (by up to ")
    assert bundle.precision == "float32" and (asked(bundle) == full).all()


def test_without_anything_to_compare_it_with_it_is_not_tried(exported, halving):
    path = exported(images=0)
    bundle = Bundle.load(path)
    assert bundle.halve(bundle.reference(path)) == "the bundle has no reference predictions to compare it with"
    assert bundle.precision == "float32"


def test_a_processor_is_left_as_it_is(exported):
    path = exported()
    bundle = Bundle.load(path)
    assert bundle.halve(bundle.reference(path)) == "there is no GPU"
    assert load(ServingSettings(bundle=str(path))).describe()["precision"] == "float32"


@pytest.mark.parametrize(("generation", "precision"), [((8, 0), "bfloat16"), ((7, 5), "float32")])
def test_a_replica_with_a_gpu_computes_on_it_and_halves_where_it_really_can(
    exported, monkeypatch, caplog, generation, precision
):
    path = exported()
    expected = asked(Bundle.load(path))
    with emulated_cuda(), caplog.at_level("INFO", "ray.serve"):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
        live = load(ServingSettings(bundle=str(path)), device="cuda")
        assert live.bundle.on_gpu and live.describe()["precision"] == precision
        assert all(isinstance(tensor, DeviceTensor) for tensor in live.bundle.model.state_dict().values())
        assert asked(live.bundle) == pytest.approx(expected, abs=0.05)
    why = "" if precision == "bfloat16" else " (the GPU has no bfloat16)"
    assert f"{path}: computes in {precision}{why}" in caplog.text
