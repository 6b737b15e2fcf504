"""torchvision's networks: cut without changing what they compute, with weights from a local hub cache."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models as tv

from raytl import sources
from raytl.core.errors import UserError
from raytl.sources.checkpoint import write_checkpoint
from raytl.sources.torchvision_stages import stages_of

# One small member of every family, and a size that it accepts.
FAMILIES = {
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 33,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnet50": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_0": 32,
    "squeezenet1_1": 32,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 32,
    "vit_b_32": 64,
}
ALL = tv.list_models(module=tv)


PIECE = 2**20 + 7
POOL = torch.randn(2 * PIECE, generator=torch.Generator().manual_seed(0))


def drawn(tensor: torch.Tensor, *settings: object, **named: object) -> torch.Tensor:
    """Weights at the scale of a usual start, other ones in each layer, from a pool: to draw billions takes a minute."""
    scale, first = (tensor.numel() // len(tensor)) ** -0.5, int(torch.randint(PIECE, ()))
    with torch.no_grad():
        for piece in tensor.view(-1).split(PIECE):
            torch.mul(POOL[first : first + len(piece)], scale, out=piece)
    return tensor


def network(name: str, size: int) -> nn.Module:
    """The whole network, its weights moved so that no zero hides a difference."""
    torch.manual_seed(0)
    settings: dict[str, object] = {"image_size": size} if name.startswith("vit_") else {}
    if name in ("googlenet", "inception_v3"):
        settings = {"aux_logits": False, "init_weights": False}
    with pytest.MonkeyPatch.context() as patch:
        for start in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "xavier_uniform_"):
            patch.setattr(nn.init, start, drawn)
        model: nn.Module = tv.get_model(name, weights=None, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or not parameter.any():
                parameter.add_(0.05 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.inference_mode()
def assert_same(name: str, size: int, count: int) -> None:
    whole = network(name, size)
    images = torch.randn(count, 3, size, size)
    expected = whole(images)
    staged = stages_of(whole)
    assert 4 <= len(staged.stages) <= 8
    x = images
    for stage_name, stage in staged.stages:
        given = x.clone()
        y = stage.eval()(x)
        assert torch.equal(x, given), f"{stage_name} changes its input"
        x = y
    assert x.shape == (count, staged.feature_dim)
    torch.testing.assert_close(staged.head(x), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-4  # not constant, so that there was something to compare


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_concatenate_to_the_network(name: str) -> None:
    assert_same(name, FAMILIES[name], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in FAMILIES])
def test_stages_of_the_other_models_concatenate_too(name: str) -> None:
    assert_same(name, sources.info(f"torchvision:{name}@none", image_size=32).image_size, 1)


def test_every_listed_model_is_known_without_its_weights() -> None:
    entries = {entry.uri: entry for entry in sources.catalogue("torchvision")}
    assert set(entries) == {f"torchvision:{name}" for name in ALL}
    for name in ALL:
        entry = entries[f"torchvision:{name}"]
        published = tv.get_model_weights(name).DEFAULT.meta["num_params"]
        # inception's published count includes the auxiliary head, which is no part of the stages
        assert entry.parameters == published or name == "inception_v3"
        assert entry.size_bytes is not None
        assert entry.stages is not None
        assert 4 <= len(entry.stages) <= 8


def test_info_agrees_with_the_loaded_model() -> None:
    for uri in ("torchvision:mobilenet_v3_small@none", "torchvision:squeezenet1_1@none", "torchvision:vit_b_32@none"):
        info, model = sources.info(uri, image_size=70), sources.load(uri, image_size=70)
        assert info.stages == model.stage_names
        assert info.feature_dim == model.feature_dim
        assert info.image_size == model.preprocessing.size
        assert model.preprocessing.channels == 3
        assert model(torch.zeros(1, 3, info.image_size, info.image_size)).shape == (1, 1000)


def test_the_size_is_one_that_the_network_accepts() -> None:
    size = lambda uri, wished: sources.info(uri, image_size=wished).image_size  # noqa: E731
    assert size("torchvision:resnet18", None) == 224
    assert size("torchvision:resnet18", 64) == 64
    assert size("torchvision:alexnet", 32) == 63
    assert size("torchvision:vit_b_16", 64) == 224
    assert size("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1", None) == 384
    assert size("torchvision:vit_b_16@none", 65) == 80
    assert size("torchvision:maxvit_t", 64) == 224


def test_preprocessing_is_that_of_the_published_weights() -> None:
    pre = sources.load("torchvision:mobilenet_v3_small@none").preprocessing
    assert (pre.size, pre.resize, pre.crop_fraction, pre.interpolation) == (224, "crop", 0.875, "bilinear")
    assert pre.mean == (0.485, 0.456, 0.406)


def put_in_cache(name: str, model: nn.Module, home: Path) -> Path:
    """Weights of ours under the name of the published ones."""
    path = home / "hub" / "checkpoints" / Path(urlparse(tv.get_model_weights(name).DEFAULT.url).path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    return tmp_path


class TestPublishedWeights:
    @pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "densenet121"])
    def test_come_from_the_hub_cache(self, name: str, hub: Path) -> None:
        whole = network(name, 32)
        put_in_cache(name, whole, hub)
        model = sources.load(f"torchvision:{name}", image_size=32)
        images = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(model(images), whole(images), rtol=1e-5, atol=1e-5)
        assert model.pretrained
        assert model.labels is not None
        assert len(model.labels) == 1000
        assert model.architecture == f"torchvision:{name}@none"

    def test_at_a_size_of_their_own_whatever_is_wished_for_elsewhere(self, hub: Path) -> None:
        put_in_cache("squeezenet1_1", network("squeezenet1_1", 32), hub)
        uri = sources.at_size("torchvision:squeezenet1_1", 64)
        assert uri == "torchvision:squeezenet1_1@64px"
        model, info = sources.load(uri, image_size=32), sources.info(uri, image_size=32)
        assert model.pretrained and info.pretrained
        assert (model.preprocessing.size, info.image_size) == (64, 64)
        assert sources.at_size(uri, 48) == "torchvision:squeezenet1_1@48px"
        assert sources.untrained_uri(uri) == "torchvision:squeezenet1_1@none"
        assert sources.licence_of(uri) == sources.licence_of("torchvision:squeezenet1_1")
        with pytest.raises(UserError, match="4096"):
            sources.load("torchvision:squeezenet1_1@5000px")

    def test_on_pieces_of_the_images(self, hub: Path) -> None:
        put_in_cache("squeezenet1_1", network("squeezenet1_1", 32), hub)
        uri = sources.at_size("torchvision:squeezenet1_1@48px", 96, tiles=3)
        assert uri == "torchvision:squeezenet1_1@3x32px"
        model, info = sources.load(uri, image_size=48), sources.info(uri, image_size=48)
        assert (model.preprocessing.size, model.preprocessing.tiles, info.image_size) == (96, 3, 96)
        assert sources.at_size(uri, 48) == "torchvision:squeezenet1_1@48px"
        assert sources.untrained_uri(uri) == "torchvision:squeezenet1_1@none" and not sources.is_untrained(uri)
        write_checkpoint(tmp := hub / "on-pieces", model, {})
        assert json.loads((tmp / "model.json").read_text())["format_version"] == 6
        assert sources.load(f"file:{tmp}").preprocessing == model.preprocessing
        assert sources.load(f"file:{tmp}", image_size=48).preprocessing.tiles == 1
        assert sources.load(f"file:{tmp}@96px").preprocessing.tiles == 1

    def test_on_images_to_their_edges(self, hub: Path) -> None:
        put_in_cache("squeezenet1_1", network("squeezenet1_1", 32), hub)
        usual = "torchvision:squeezenet1_1"
        uri = sources.at_size(f"{usual}@64px", 48, squash=True)
        assert uri == f"{usual}@48px-squash" and sources.split_size(uri) == (usual, 48)
        model, middle = sources.load(uri, image_size=32), sources.load(f"{usual}@48px")
        image = Image.new("RGB", (96, 48))
        image.paste((255, 255, 255), (0, 0, 12, 48))
        assert model.preprocessing.to_uint8(image).max() == 255 and not middle.preprocessing.to_uint8(image).any()
        assert sources.info(f"{usual}@48px").crops and sources.info(usual).crops
        assert not sources.info(uri).crops and not sources.info(f"{usual}@2x24px").crops
        assert sources.untrained_uri(uri) == f"{usual}@none" and not sources.is_untrained(uri)
        write_checkpoint(tmp := hub / "squashed", model, {})
        assert sources.load(f"file:{tmp}").preprocessing == model.preprocessing
        assert not sources.info(f"file:{tmp}").crops
        write_checkpoint(tmp := hub / "cropped", middle, {})
        assert sources.info(f"file:{tmp}").crops
        assert sources.load(f"file:{tmp}@48px-squash").preprocessing == model.preprocessing
        with pytest.raises(UserError, match="unknown"):
            sources.load(f"{usual}@2x24px-squash")

    def test_with_auxiliary_heads_and_their_own_normalisation(self, hub: Path) -> None:
        whole = tv.googlenet(weights=None, aux_logits=True, transform_input=True, init_weights=False).eval()
        put_in_cache("googlenet", whole, hub)
        images = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            ours = sources.load("torchvision:googlenet", image_size=64)(images)
            torch.testing.assert_close(ours, whole(images), rtol=1e-5, atol=1e-5)
            torch.save({k: v for k, v in whole.state_dict().items() if not k.startswith("aux")}, hub / "own.pth")
            bare = sources.load(f"file:{hub / 'own.pth'}?arch=torchvision:googlenet", image_size=64)
            torch.testing.assert_close(bare(images), ours, rtol=1e-5, atol=1e-5)
            untrained = sources.load("torchvision:googlenet@none", image_size=64)
            assert torch.equal(untrained.stage_list()[0][0](images), images)

    def test_of_old_densenets_have_dotted_names(self, hub: Path) -> None:
        whole = network("densenet121", 32)
        path = put_in_cache("densenet121", whole, hub)
        state = {key: value for key, value in whole.state_dict().items() if not key.endswith("num_batches_tracked")}
        old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
        assert old.keys() != state.keys()
        torch.save(old, path)
        images = torch.randn(1, 3, 32, 32)
        with torch.inference_mode():
            ours = sources.load("torchvision:densenet121", image_size=32)(images)
            torch.testing.assert_close(ours, whole(images), rtol=1e-5, atol=1e-5)

    def test_missing_and_offline_says_where_to_put_them(self, hub: Path) -> None:
        with pytest.raises(UserError) as error:
            sources.load("torchvision:mobilenet_v3_small")
        text = str(error.value)
        assert str(hub / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth") in text
        assert "https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth" in text
        assert "torchvision:mobilenet_v3_small@none" in text

    @pytest.mark.parametrize("damage", ["truncated", "text", "object", "cut in a number"])
    def test_damaged_or_hostile_file_is_refused(self, damage: str, hub: Path) -> None:
        path = put_in_cache("mobilenet_v3_small", network("mobilenet_v3_small", 32), hub)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:100_000])
        elif damage == "text":
            path.write_text("not a file of weights")
        elif damage == "cut in a number":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a/data.pkl", b"\x80\x02J")
                archive.writestr("a/version", "3\n")
        else:
            torch.save({"weight": Path("an object of a class that is no tensor")}, path)
        with pytest.raises(UserError, match="delete it so that it is fetched again"):
            sources.load("torchvision:mobilenet_v3_small")

    def test_of_another_network_do_not_fit(self, hub: Path) -> None:
        path = put_in_cache("mobilenet_v3_small", network("shufflenet_v2_x0_5", 32), hub)
        assert path.exists()
        with pytest.raises(UserError, match="do not fit torchvision:mobilenet_v3_small@none"):
            sources.load("torchvision:mobilenet_v3_small")

    def test_catalogue_knows_what_is_in_the_cache(self, hub: Path) -> None:
        put_in_cache("squeezenet1_1", network("squeezenet1_1", 32), hub)
        cached = {entry.uri for entry in sources.catalogue("torchvision") if entry.cached}
        assert cached == {"torchvision:squeezenet1_1"}


def test_a_fresh_head_can_read_squeezenets_features() -> None:
    model = sources.load("torchvision:squeezenet1_1@none", image_size=32)
    model.replace_head(3, ("a", "b", "c"))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
