"""Several heads on one network: each answers as it does by itself, and the network is run once."""

from __future__ import annotations

import copy
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from raytl import sources
from raytl.sources.heads import READS, make_head
from raytl.sources.model import MOST_NUMBERS, SourceModel, at_places, read_stage
from raytl.training.network import Network

ARCHITECTURES = ("scratch:cnn-small", "scratch:resnet-small", "plain:gradients")


def heads_on(model: SourceModel) -> list[nn.Module]:
    """Of every kind that reads the features otherwise."""
    torch.manual_seed(1)
    linear, other = make_head("linear", model.feature_dim, 4), make_head("mlp", model.feature_dim, 3)
    return [linear, *(model.stages_head(5, reads=each) for each in READS), other]


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


SMALL = torch.zeros(2, 5, 6, 7)
SMALL[0, 1, 2, 3] = SMALL[1, 1, 4, 5] = 8.0


@pytest.mark.parametrize("x", [SMALL, SMALL.movedim(1, 3)[:, :, :6], SMALL.flatten(2).movedim(1, 2)])
def test_what_is_small_and_anywhere_is_in_the_peaks(x: torch.Tensor) -> None:
    """Whether maps have their channels first or last, or there are tokens; means tell where it is, if anything."""
    means, peaks = read_stage(x, "peaks")
    assert peaks.shape == (2, 10)
    assert torch.equal(peaks[:, :5], torch.tensor([[0.0, 8.0, 0.0, 0.0, 0.0]]).repeat(2, 1))
    count = x[0].numel() // 5
    spread = np.std([8.0, *[0.0] * (count - 1)])
    torch.testing.assert_close(peaks[:, 6], torch.full((2,), float(spread)))
    assert float(means.max()) <= 1.0
    assert [part.shape[1] for part in read_stage(x, "quarters")] == [means.shape[1]]


@pytest.mark.parametrize("x", [torch.rand(2, 5), torch.rand(2, 5, 1, 1), torch.rand(2, 1, 1, 5), torch.rand(2, 1, 5)])
def test_without_positions_there_is_the_output_alone(x: torch.Tensor) -> None:
    (only,) = read_stage(x, "peaks")
    assert torch.equal(only, x.reshape(2, 5))


def test_what_is_known_of_the_stages_holds_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial has a copy of its own, and an image passes all stages to learn how wide they are."""
    model = sources.load("scratch:cnn-small")
    known = model.stage_parts()
    copied = copy.deepcopy(model)
    monkeypatch.setattr(import_module("raytl.sources.model"), "read_stage", None)
    assert copied.stage_parts() == known
    copied.stage_parts()[0].clear()
    assert copied.stages_head(3).widths == known[0]


@pytest.mark.parametrize("x", [SMALL, SMALL.movedim(1, 3)[:, :, :6], SMALL.flatten(2).movedim(1, 2)])
def test_every_position_is_read_where_that_is_asked_for(x: torch.Tensor) -> None:
    *_, places = read_stage(x, "places", placed=True)
    at = places.unflatten(1, (5, -1))
    assert at.shape[2] == x[0].numel() // 5 and at[0, 1].max() == 8 and at.sum() == x.sum()
    assert len(read_stage(x, "places")) == len(read_stage(x, "peaks", placed=True)) == 2


def test_of_many_positions_neighbours_are_one_place() -> None:
    rows, tokens = torch.rand(1, 3, 60, 45), torch.rand(1, 900, 500)
    few = at_places(rows)
    assert few.shape == (1, 3, 20 * 15)
    torch.testing.assert_close(few.mean(), rows.mean())
    assert at_places(tokens).shape[2] * 500 <= MOST_NUMBERS


@pytest.mark.parametrize(
    ("uri", "placed"),
    [
        ("torchvision:resnet18@none", (1, 2, 3)),
        ("torchvision:mobilenet_v3_small@none", (2, 3, 4)),
        ("scratch:cnn-small", (1, 2, 3)),
        ("plain:gradients", ()),
    ],
)
def test_the_last_stages_that_are_fine_enough_are_read_at_every_position(uri: str, placed: tuple[int, ...]) -> None:
    """Of those with 32 pixels between two positions the first; the last stage has none left."""
    model = sources.load(uri)
    assert model.placed == placed
    widths, peaks, places = model.stage_parts()
    assert sum(count > 1 for count in places) == len(placed) and places[-1] == 1 and widths[-1] == model.feature_dim
    model.head = model.stages_head(4).eval()
    x = torch.rand(2, model.preprocessing.channels, model.preprocessing.size, model.preprocessing.size)
    with torch.inference_mode():
        assert model.all_stages(x).shape == (2, sum(widths))
        assert torch.equal(model.all_stages(x)[:, -model.feature_dim :], model.eval().run(x))
        assert model(x).shape == (2, 4)
    assert model.head.means(model.all_stages(x))[1] == [
        width for width, peak, count in zip(widths, peaks, places, strict=True) if not peak and count == 1
    ]


@pytest.mark.parametrize(
    ("classes", "images", "reads"),
    [(110, 60_000, "places"), (111, 0, "peaks"), (2, 61_000, "peaks")],
)
def test_positions_are_read_where_that_is_affordable(classes: int, images: int, reads: str) -> None:
    """8,192 numbers of one stage's positions times the classes squared, and 70 kB of each image."""
    model = sources.load("scratch:cnn-small")
    assert model.reads_for(classes, images) == reads
    names = tuple(str(number) for number in range(classes))
    network = Network(model, names, len(model.stage_names), device=torch.device("cpu"), head="stages", images=images)
    assert network.reads == network.model.head.reads == reads
    assert (max(network.model.head.places) > 1) == (reads == "places")
    seen = network.features(torch.rand(2, model.preprocessing.channels, 32, 32))
    assert network.head(seen).shape == (2, classes)
