"""Several heads on one network: each answers as it does by itself, and the network is run once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raytl import sources
from raytl.sources.heads import StagesHead, make_head
from raytl.sources.model import SourceModel

ARCHITECTURES = ("scratch:cnn-small", "scratch:resnet-small", "plain:gradients")


def heads_on(model: SourceModel) -> list[nn.Module]:
    """Of every kind that reads the features otherwise."""
    torch.manual_seed(1)
    linear, other = make_head("linear", model.feature_dim, 4), make_head("mlp", model.feature_dim, 3)
    return [linear, *(StagesHead(model.stage_widths(quarters=q), 5, quarters=q) for q in (True, False)), other]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_answers_as_it_does_by_itself(architecture: str) -> None:
    model = sources.build_architecture(architecture, channels=1, image_size=32).eval()
    x, heads = torch.rand(3, 1, 32, 32), heads_on(model)
    together = model.answers(x, heads)
    for head, said in zip(heads, together, strict=True):
        model.head = head
        assert torch.equal(model(x), said)


def test_the_network_is_run_once() -> None:
    model = sources.build_architecture("scratch:cnn-small", channels=1, image_size=32).eval()
    runs: list[int] = []
    for stage in model.stage_list():
        stage.register_forward_hook(lambda *_: runs.append(1))
    heads = heads_on(model)
    runs.clear()
    model.answers(torch.rand(2, 1, 32, 32), heads)
    assert len(runs) == len(model.stage_list())
