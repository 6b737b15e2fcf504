"""Features without learned weights: known without data, exact by plain formulas, and saved like any other model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from raytl import sources
from raytl.core.errors import UserError
from raytl.sources.checkpoint import load_checkpoint, write_checkpoint
from raytl.sources.descriptors import area_weights

URIS = ["plain:pixels", "plain:colour", "plain:gradients"]


def test_the_catalogue_lists_them() -> None:
    assert {entry.uri for entry in sources.catalogue("plain")} == set(URIS)


def test_an_unknown_one_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown plain features 'color'; did you mean 'colour'"):
        sources.info("plain:color")


@pytest.mark.parametrize("uri", URIS)
class TestEveryDescriptor:
    @settings(max_examples=25, deadline=None)
    @given(size=st.integers(8, 150), channels=st.sampled_from([1, 3]), n=st.integers(1, 3))
    def test_is_what_info_says_at_any_size(self, uri: str, size: int, channels: int, n: int) -> None:
        info = sources.info(uri, channels=channels, image_size=size)
        model = sources.load(uri, channels=channels, image_size=size)
        assert (info.stages, info.feature_dim, info.image_size) == (model.stage_names, model.feature_dim, size)
        assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert not info.trainable
        assert not model.trainable
        images = torch.rand(n, channels, size, size) * 2 - 1
        features = model.run(images)
        assert features.shape == (n, info.feature_dim)
        assert features.isfinite().all()
        torch.testing.assert_close(model.run(images[-1:]), features[-1:], rtol=1e-4, atol=1e-5)

    def test_smaller_images_are_enlarged(self, uri: str) -> None:
        assert sources.info(uri, image_size=5).image_size == 8

    @pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
    def test_a_flat_image_has_finite_features_and_gradients(self, uri: str, value: float) -> None:
        images = torch.full((2, 3, 24, 24), value, requires_grad=True)
        features = sources.load(uri, image_size=24).run(images)
        features.sum().backward()
        assert features.isfinite().all()
        assert images.grad is not None
        assert images.grad.isfinite().all()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_comes_back_from_a_checkpoint_bit_for_bit(self, uri: str, channels: int, tmp_path: Path) -> None:
        made = sources.load(uri, channels=channels, image_size=30, seed=3)
        made.replace_head(2, ("a", "b"))
        write_checkpoint(tmp_path / "m", made, {})
        manifest, read = load_checkpoint(tmp_path / "m")
        images = torch.rand(2, channels, 30, 30) * 2 - 1
        assert manifest.architecture == uri
        with torch.inference_mode():
            assert torch.equal(read(images), made(images))
        again = sources.load(f"file:{tmp_path}/m", image_size=64)  # its features are of its own size
        assert again.preprocessing.size == sources.info(f"file:{tmp_path}/m", image_size=64).image_size == 30
        assert not sources.info(f"file:{tmp_path}/m").trainable

    def test_can_be_exported(self, uri: str) -> None:
        model = sources.load(uri, image_size=20)
        images = torch.rand(2, 3, 20, 20) * 2 - 1
        program = torch.export.export(model, (images,))
        torch.testing.assert_close(program.module()(images), model(images))


class TestAreaWeights:
    @given(size=st.integers(1, 60), cells=st.integers(1, 60))
    def test_rows_average_and_nothing_is_lost(self, size: int, cells: int) -> None:
        weights = area_weights(size, cells)
        torch.testing.assert_close(weights.sum(1), torch.ones(cells))
        torch.testing.assert_close(weights.sum(0), torch.full((size,), cells / size))

    def test_a_border_inside_a_pixel_shares_it(self) -> None:
        expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
        torch.testing.assert_close(area_weights(3, 2), expected)


def test_pixels_are_block_means() -> None:
    images = torch.rand(2, 3, 48, 48)
    expected = images.reshape(2, 3, 16, 3, 16, 3).mean((3, 5)).flatten(1)
    torch.testing.assert_close(sources.load("plain:pixels", image_size=48).run(images), expected)
    small = torch.rand(2, 1, 9, 9)
    assert torch.equal(sources.load("plain:pixels", channels=1, image_size=9).run(small), small.flatten(1))


def test_colour_counts_what_a_loop_over_pixels_counts() -> None:
    images = torch.rand(1, 3, 12, 12) * 2 - 1
    counts = np.zeros((3, 3, 4, 4, 4))
    for y in range(12):
        for x in range(12):
            red, green, blue = (
                [max(0.0, 1 - abs((float(images[0, c, y, x]) + 1) * 1.5 - level)) for level in range(4)]
                for c in range(3)
            )
            counts[y // 4, x // 4] += np.einsum("i,j,k", red, green, blue)
    expected = np.sqrt(counts / 16 + 1e-4).reshape(1, -1)
    features = sources.load("plain:colour", image_size=12).run(images).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_colour_does_not_know_where_in_a_cell_a_colour_is_but_knows_the_cell() -> None:
    model = sources.load("plain:colour", channels=1, image_size=24)
    image = torch.rand(1, 1, 24, 24) * 2 - 1
    within = image.clone()
    within[..., :8, :8] = image[..., :8, :8].flip(2)
    torch.testing.assert_close(model.run(within), model.run(image), rtol=1e-4, atol=1e-5)
    assert (model.run(image.flip(3)) - model.run(image)).abs().max() > 0.05


def stripes(angle_degrees: float, size: int = 64) -> torch.Tensor:
    """A sine grating whose gradient points along the angle."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle = torch.deg2rad(torch.tensor(angle_degrees))
    return torch.sin((x * angle.cos() + y * angle.sin()) * 0.7)[None, None]


class TestGradients:
    @pytest.mark.parametrize("orientation", range(9))
    def test_the_orientation_of_stripes_has_the_most_votes(self, orientation: int) -> None:
        model = sources.load("plain:gradients", channels=1, image_size=64)
        votes = model.run(stripes(20.0 * orientation)).reshape(9, 64).sum(1)
        assert int(votes.argmax()) == orientation

    def test_contrast_and_brightness_do_not_matter(self) -> None:
        model = sources.load("plain:gradients", channels=1, image_size=64)
        image = torch.rand(1, 1, 64, 64) - 0.5
        torch.testing.assert_close(model.run(image * 0.5 + 0.3), model.run(image), rtol=0.05, atol=0.05)

    def test_the_strongest_channel_counts(self) -> None:
        grey = stripes(40.0)
        colour = torch.cat([grey * 0.1, grey, grey * 0.3], dim=1)
        of_grey = sources.load("plain:gradients", channels=1, image_size=64).run(grey)
        found = sources.load("plain:gradients", image_size=64).run(colour)
        torch.testing.assert_close(found, of_grey, rtol=0, atol=1e-4)  # where next to nothing changes, the first does

    def test_what_the_last_bits_of_its_input_are_does_not_matter(self) -> None:
        """In images of 256 levels, gradients in two channels are often equal."""
        model = sources.load("plain:gradients", image_size=24)
        pixels = torch.randint(0, 256, (500, 3, 24, 24), generator=torch.Generator().manual_seed(0))
        image = pixels / 255 * 2 - 1
        moved = ((image - 0.4) / 0.2) * 0.2 + 0.4
        torch.testing.assert_close(model.run(moved), model.run(image), rtol=0, atol=1e-5)

    def test_flat_images_have_no_edges(self) -> None:
        noise = 0.5 + torch.randn(1, 3, 32, 32) * 1e-4
        assert sources.load("plain:gradients", image_size=32).run(noise).abs().max() < 0.1


def test_each_tells_apart_what_it_is_made_for() -> None:
    """A linear model on each: shades for pixels, colours for colour, directions for gradients, each beyond chance."""
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(60) % 2
    noise = torch.rand(60, 3, 32, 32, generator=generator) - 0.5
    red, blue = torch.tensor([0.4, 0.0, -0.4]), torch.tensor([-0.4, 0.0, 0.4])
    tint = torch.where(torch.tensor(labels)[:, None] == 0, red, blue)[:, :, None, None]
    half = torch.zeros(1, 1, 32, 32)
    half[..., :16] = 0.5
    phase = torch.randint(0, 9, (60,), generator=generator)
    across, down = stripes(0.0, 32)[0], stripes(90.0, 32)[0]
    lines = torch.stack(
        [
            torch.roll(down if label else across, (int(shift), int(shift)), (1, 2))
            for label, shift in zip(labels, phase, strict=True)
        ]
    )
    tasks = {
        "plain:pixels": noise + half * torch.tensor(1 - 2.0 * labels)[:, None, None, None],
        "plain:colour": (noise + tint).clamp(-1, 1),
        "plain:gradients": (noise * 0.5 + 0.5 * lines).clamp(-1, 1).float(),
    }
    for uri, images in tasks.items():
        features = sources.load(uri, image_size=32).run(images.float()).numpy()
        score = LogisticRegression(max_iter=500).fit(features[:30], labels[:30]).score(features[30:], labels[30:])
        assert score > 0.9, uri
