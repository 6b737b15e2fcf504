"""What every source model, and every architecture of untrained ones, must do."""

from __future__ import annotations

import pytest
import torch

from raytl import sources
from raytl.core.errors import UserError
from raytl.core.hashing import hash_tensors
from raytl.sources import SourceModel
from raytl.sources.architectures.base import registry
from raytl.sources.staging import batch_norm_stages


class SourceModelSuite:
    """For one source model of a provider.

    uri: of the model. image_size: side of the images that it is tried with, pixels; None for its own.
    """

    uri: str
    image_size: int | None = None

    def load(self, **settings: int) -> SourceModel:
        """The model, at the size that it is tried with."""
        return sources.load(self.uri, image_size=self.image_size, **settings)

    def images(self, model: SourceModel, n: int = 4) -> torch.Tensor:
        """Random ones (n, c, s, s) of the kind that the model takes."""
        pre = model.preprocessing
        return torch.randn(n, pre.channels, pre.size, pre.size, generator=torch.Generator().manual_seed(0))

    def test_info_agrees_with_the_model(self) -> None:
        """A search plans by it, before any weights are loaded."""
        info, model = sources.info(self.uri, image_size=self.image_size), self.load()
        assert info.stages == model.stage_names
        assert info.feature_dim == model.feature_dim
        assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert info.image_size == model.preprocessing.size
        assert info.pretrained == model.pretrained
        assert info.labels == model.labels
        assert info.batch_norm_stages in (None, batch_norm_stages(model.stages.items()))

    def test_stages_lead_to_the_features_and_leave_their_input_alone(self) -> None:
        """A cached activation may be handed to a stage again."""
        model = self.load()
        x = self.images(model)
        with torch.inference_mode():
            expected = model(x)
            for stage in model.stage_list():
                given = x.clone()
                y = stage(x)
                assert torch.equal(x, given)
                x = y
            assert x.shape == (4, model.feature_dim)
            assert torch.equal(model.head(x), expected)

    def test_is_the_same_in_eval_mode_whatever_else_is_in_the_batch(self) -> None:
        """It comes in eval mode: frozen stages are run once for each image."""
        model = self.load()
        images = self.images(model)
        assert not any(module.training for module in model.modules())
        with torch.inference_mode():
            torch.testing.assert_close(model.run(images)[:2], model.run(images[:2]), rtol=1e-3, atol=1e-4)

    def test_weights_depend_on_the_seed_alone(self) -> None:
        """And torch's own generator stays as it was."""
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first = hash_tensors(self.load(seed=3).state_dict())
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(6)
        assert hash_tensors(self.load(seed=3).state_dict()) == first

    def test_every_parameter_of_the_stages_learns(self) -> None:
        """What no gradient reaches is searched over in vain."""
        model = self.load().train()
        model.run(self.images(model)).square().sum().backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in model.backbone_parameters())

    def test_a_wrong_name_is_a_sentence_for_a_person(self) -> None:
        """Not a traceback."""
        with pytest.raises(UserError):
            sources.info(f"{self.uri.partition(':')[0]}:no-such-model-anywhere")


class ArchitectureSuite(SourceModelSuite):
    """For a registered architecture of untrained networks; name: the one it is registered under."""

    name: str

    @property
    def uri(self) -> str:  # type: ignore[override]
        """Of the untrained network."""
        return f"scratch:{self.name}"

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("above", [0, 1, 5, 16, 37])
    @pytest.mark.parametrize("n", [1, 3])
    def test_takes_any_size_from_its_smallest(self, channels: int, above: int, n: int) -> None:
        """Pixels above it; odd ones too."""
        size = registry.get(self.name).min_size + above
        model = sources.load(self.uri, channels=channels, image_size=size)
        assert (model.preprocessing.size, model.preprocessing.channels) == (size, channels)
        assert model.run(torch.zeros(n, channels, size, size)).shape == (n, model.feature_dim)
        info = sources.info(self.uri, channels=channels, image_size=size)
        assert info.parameters == sum(parameter.numel() for parameter in model.parameters())

    def test_smaller_images_are_enlarged(self) -> None:
        """To the smallest size."""
        smallest = registry.get(self.name).min_size
        assert sources.load(self.uri, image_size=smallest - 1).preprocessing.size == smallest

    def test_another_seed_gives_other_weights(self) -> None:
        """Otherwise repeated trials from scratch would be one trial."""
        first, other = (hash_tensors(self.load(seed=seed).state_dict()) for seed in (3, 4))
        assert first != other

    def test_every_parameter_learns(self) -> None:
        """By a gradient that is not zero everywhere; the head's included."""
        model = self.load().train()
        model(self.images(model)).square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
