"""Augmentation policies: what holds for every one of them, and what each is for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raytl.core.errors import UserError
from raytl.finetuning import augmentation

CHANGING = [name for name in augmentation.names() if name != "none"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob(n: int = 8, channels: int = 1, side: int = 24) -> Tensor:
    """White figures, different in each image and lopsided, on black that reaches the border."""
    images = torch.zeros(n, channels, side, side)
    images[:, :, 6:18, 7:12] = torch.rand(n, channels, 12, 5, generator=generator()) * 0.5 + 0.5
    return images


@given(
    st.sampled_from(augmentation.names()),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.integers(2, 20),
    st.integers(2, 20),
    st.integers(0, 10**6),
)
@settings(max_examples=80)
def test_shape_dtype_and_range_are_kept(name: str, n: int, channels: int, height: int, width: int, seed: int) -> None:
    images = torch.rand(n, channels, height, width, generator=generator(seed))
    untouched = images.clone()
    out = augmentation.get(name)(images, generator(seed))
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert out.isfinite().all()
    assert out.min() >= 0.0
    assert out.max() <= 1.0
    assert torch.equal(images, untouched)


@pytest.mark.parametrize("name", augmentation.names())
def test_the_generator_alone_decides(name: str) -> None:
    policy = augmentation.get(name)
    torch.manual_seed(1)
    first = policy(blob(), generator(5))
    torch.manual_seed(2)
    assert torch.equal(first, policy(blob(), generator(5)))


@pytest.mark.parametrize("name", CHANGING)
def test_each_image_changes_in_its_own_way_and_anew_each_time(name: str) -> None:
    policy, drawn = augmentation.get(name), generator()
    same = blob(1).expand(6, -1, -1, -1)
    first, second = policy(same, drawn), policy(same, drawn)
    assert len({tuple(image.flatten().tolist()) for image in [*first, *second]}) == 12


def test_none_changes_nothing() -> None:
    assert torch.equal(augmentation.get("none")(blob(), generator()), blob())


@pytest.mark.parametrize("name", [name for name in augmentation.names() if not name.startswith("crop")])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_even_background_stays_even_at_the_border(name: str, level: float) -> None:
    """Black stays black and paper stays white, also in what was moved in from outside (colour may tint the paper)."""
    images = (blob(64) - level).abs()
    out = augmentation.get(name)(images, generator())
    ring = torch.cat([out[..., 0, :], out[..., -1, :], out[..., :, 0], out[..., :, -1]], dim=-1)
    assert (ring - ring[..., :1]).abs().max() < 1e-5
    if level == 0.0:
        assert ring.abs().max() < 1e-6


@pytest.mark.parametrize("name", ["shift", "strong", "crop"])
def test_policies_for_characters_never_mirror(name: str) -> None:
    """A figure with its weight on the left keeps it there."""
    images = torch.zeros(200, 1, 24, 24)
    images[..., 4:20, 6:9] = 1.0
    images[..., 4:8, 6:16] = 1.0
    out = augmentation.get(name)(images, generator())
    columns = torch.arange(24.0)
    weight = out.sum(dim=(1, 2))
    top = out[:, 0, :12].sum(dim=1)
    bottom = out[:, 0, 12:].sum(dim=1)
    alive = (top.sum(1) > 1) & (bottom.sum(1) > 1) & (weight.sum(1) > 10)
    leans_right = (top @ columns) / top.sum(1) > (bottom @ columns) / bottom.sum(1)
    assert leans_right[alive].float().mean() > 0.95


@pytest.mark.parametrize("name", ["flip", "color", "crop-flip"])
def test_policies_for_photos_mirror_half_of_the_images(name: str) -> None:
    images = torch.zeros(400, 1, 24, 24)
    images[..., 8:16, 2:8] = 1.0
    out = augmentation.get(name)(images, generator())
    mirrored = (out[..., 12:].sum(dim=(1, 2, 3)) > out[..., :12].sum(dim=(1, 2, 3))).float().mean()
    assert 0.4 < mirrored < 0.6


def test_moves_are_small_and_centred() -> None:
    """The figure's centre wanders by about the stated share of the side, and nowhere on average."""
    images = torch.zeros(500, 1, 32, 32)
    images[..., 14:18, 14:18] = 1.0
    out = augmentation.get("shift")(images, generator())[:, 0]
    centres = (out.sum(dim=1) @ torch.arange(32.0)) / out.sum(dim=(1, 2)) - 15.5
    assert centres.abs().max() < 0.07 * 32 * 1.3
    assert centres.abs().max() > 0.04 * 32
    assert centres.mean().abs() < 0.2


def test_crops_show_parts_of_the_image_enlarged_and_nothing_from_outside() -> None:
    size, side = 64, 20
    images = torch.zeros(300, 1, size, size)
    images[..., 22 : 22 + side, 22 : 22 + side] = 1.0
    out = augmentation.get("crop")(images, generator())[:, 0]
    enlarged = out.sum(dim=(1, 2)).sqrt() / side
    assert enlarged.min() > 0.97 and enlarged.max() < 1.05 / 0.75 and enlarged.std() > 0.05
    frame = torch.ones(50, 1, size, size)
    frame[..., 24:40, 24:40] = 0.5  # else the background of an even image is all of it
    assert augmentation.get("crop")(frame, generator()).min() > 0.35  # cubic splines overshoot edges


def test_strong_is_further_from_the_image_than_shift() -> None:
    images = blob(200)
    far, near = (
        (augmentation.get(name)(images, generator()) - images).abs().mean().item() for name in ("strong", "shift")
    )
    assert far > 1.2 * near


def test_color_changes_hue_only_where_there_is_colour() -> None:
    grey = torch.rand(20, 1, 16, 16, generator=generator()).expand(-1, 3, -1, -1)
    out = augmentation.get("color")(grey, generator())
    assert (out - out.mean(dim=1, keepdim=True)).abs().max() < 1e-5


def test_a_misspelt_policy_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown augmentation 'shfit'; did you mean 'shift'"):
        augmentation.get("shfit")
