"""The network under training: what its head computes in."""

from __future__ import annotations

import pytest
import torch

from raytl import sources
from raytl.training.network import Network


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_computes_in_full_precision_as_it_is_served(kind: str) -> None:
    """Weights that are solved for on many features cancel each other, of which half precision would leave nothing."""
    model = sources.load("plain:pixels", channels=1, image_size=8)
    network = Network(model, ("a", "b"), 1, device=torch.device("cpu"), head=kind)
    features = torch.rand(4, model.feature_dim)
    with torch.no_grad():
        for parameter in network.model.head.parameters():
            parameter.mul_(1000)
        expected = network.model.head(features)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.nn.functional.linear(features, features).dtype == torch.bfloat16
            full = network.head(features)
    assert full.dtype == torch.float32
    torch.testing.assert_close(full, expected)
