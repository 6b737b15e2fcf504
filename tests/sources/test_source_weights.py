"""Bare weights in foreign layouts: found under other names, and what does not fit told in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models as tv

from raytl import sources
from raytl.core.errors import UserError
from raytl.core.hashing import hash_tensors
from raytl.sources.weights import in_own_names

ARCH = "torchvision:resnet18"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return tv.resnet18(num_classes=5).eval()


def wrapped(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def without_head(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def children(state: State) -> State:
    """As ``nn.Sequential(*resnet.children())[:-1]`` calls them."""
    order = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    return {
        f"{order.index(part)}.{rest}": value
        for name, value in without_head(state).items()
        for part, _, rest in [name.partition(".")]
    }


LAYOUTS: dict[str, Any] = {
    "plain": lambda state: state,
    "data-parallel": lambda state: wrapped("module.", state),
    "trainer": lambda state: {"epoch": 3, "state_dict": wrapped("model.", state), "optimizer": {"lr": 0.1}},
    "PyTorch's ImageNet example": lambda state: {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": wrapped("module.", state),
        "best_acc1": torch.tensor(76.1),
    },
    "compiled": lambda state: wrapped("_orig_mod.", state),
    "compiled in parallel by a trainer": lambda state: {"state_dict": wrapped("model.module._orig_mod.", state)},
    "compiled in part": lambda state: {name.replace("layer1.0.", "layer1.0._orig_mod."): state[name] for name in state},
    "settings under a network's name": lambda state: {"model": {"depth": 18}, "weights": state},
    "averaged": lambda state: {
        "model": wrapped("module.", state),
        "model_ema": {name: value * 0 for name, value in state.items()},
    },
    "averaged alone": lambda state: {"ema": {"module": state, "updates": torch.tensor(7)}},
    "teacher and student": lambda state: {
        "student": {name: value * 0 for name, value in state.items()},
        "teacher": wrapped("backbone.", state),
    },
    "nested twice": lambda state: {"model": {"state_dict": wrapped("module.backbone.", state)}},
    "self-supervised": lambda state: wrapped("backbone.", without_head(state)) | {"head.0.weight": torch.zeros(3, 3)},
    "two encoders": lambda state: wrapped("encoder.", without_head(state)) | wrapped("momentum_encoder.", state),
    "detector": lambda state: wrapped("module.encoder.", state) | {"module.decoder.weight": torch.zeros(2)},
    "without its head": without_head,
    "children": children,
    "wrapped children": lambda state: wrapped("encoder.", children(state)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("arch", [ARCH, "timm:resnet18"])  # the same names in both libraries
def test_every_layout_gives_the_same_features(layout: str, arch: str, network: nn.Module, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](network.state_dict()), tmp_path / "w.pth")
    model = sources.load(f"file:{tmp_path}/w.pth?arch={arch}", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    whole = nn.Sequential(*list(network.children())[:-1], nn.Flatten())
    with torch.inference_mode():
        torch.testing.assert_close(model.run(images), whole(images), rtol=1e-4, atol=1e-5)
    assert model.pretrained


def test_efficientnet_pytorch_names_go_to_timms_blocks_with_squeeze_and_excitation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("efficientnet_b0", num_classes=4).eval()
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    others = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    squeeze = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    repeats = [len(stage) for stage in network.blocks]
    theirs: State = {}
    for name, value in network.state_dict().items():
        parts = name.split(".")
        if parts[0] != "blocks":
            theirs[f"{names[parts[0]]}.{parts[1]}"] = value
            continue
        stage, place = int(parts[1]), int(parts[2])
        part = ".".join(parts[3:-1])
        table = (first if stage == 0 else others) | squeeze
        theirs[f"_blocks.{sum(repeats[:stage]) + place}.{table[part]}.{parts[-1]}"] = value
    save_file(theirs, tmp_path / "w.safetensors")
    model = sources.load(f"file:{tmp_path}/w.safetensors?arch=timm:efficientnet_b0", image_size=32)
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "model.backbone."])
def test_a_network_whose_own_names_begin_like_a_wrapper_keeps_them(prefix: str) -> None:
    with torch.device("meta"):
        own = tv.vit_b_32().state_dict()  # has encoder.layers..., class_token and heads...
    assert set(in_own_names(wrapped(prefix, own), list(own))) == set(own)


def test_raytls_own_names_in_a_pth_file(tmp_path: Path) -> None:
    saved = sources.load("scratch:cnn-small", channels=1, seed=4)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    model = sources.load(f"file:{tmp_path}/w.pt?arch=scratch:cnn-small", channels=3)
    assert hash_tensors(model.state_dict()) == hash_tensors(saved.state_dict())


class TestWhatDoesNotFit:
    def test_is_counted_and_the_first_of_each_kind_named(self, network: nn.Module, tmp_path: Path) -> None:
        state = network.state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3), "extra.weight": torch.zeros(1)}
        for name in [name for name in state if name.startswith("layer4.1.")]:
            del state[name]
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(UserError) as error:
            sources.load(f"file:{tmp_path}/w.pth?arch={ARCH}")
        text = str(error.value)
        assert "10 missing ('layer4.1.conv1.weight', 'layer4.1.bn1.weight', 'layer4.1.bn1.bias', …)" in text
        assert "1 unexpected ('extra.weight')" in text
        assert "1 of another shape or kind ('conv1.weight' has shape (64, 3, 3, 3), not (64, 3, 7, 7))" in text
        assert "w.pth: the weights do not fit torchvision:resnet18@none of 122 tensors" in text
        assert "\n" not in text

    def test_another_network_altogether(self, network: nn.Module, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "w.pth")
        with pytest.raises(UserError, match="give the matching architecture"):
            sources.load(f"file:{tmp_path}/w.pth?arch=torchvision:resnet50")

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (Path("an object of a class that is no tensor"), "holds more than tensors and plain values"),
            ({"epoch": 3, "lr": 0.1}, "holds no state dict"),
            ([1, 2, 3], "holds no state dict"),
            (torch.zeros(3), "holds no state dict"),
            ({"state_dict": {}}, "holds no state dict"),
        ],
    )
    def test_a_pth_file_of_something_else(self, content: object, sentence: str, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match=sentence):
            sources.load(f"file:{tmp_path}/w.pth?arch={ARCH}")

    @pytest.mark.parametrize("data", [b"", b"text", b"\x80\x02]q\x00.", b"PK\x03\x04" + b"\0" * 100])
    def test_a_damaged_pth_file(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "w.pth").write_bytes(data)
        with pytest.raises(UserError, match=r"w\.pth: (is|holds)"):
            sources.load(f"file:{tmp_path}/w.pth?arch={ARCH}")

    def test_a_truncated_pth_file(self, network: nn.Module, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "w.pth")
        data = (tmp_path / "w.pth").read_bytes()
        (tmp_path / "w.pth").write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match=r"w\.pth: is not a readable file of weights"):
            sources.load(f"file:{tmp_path}/w.pth?arch={ARCH}")

    def test_a_pth_file_needs_its_architecture(self, network: nn.Module, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"add \?arch="):
            sources.load(f"file:{tmp_path}/w.pth")


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.ckpt", "pytorch_model.bin", "weights"])
def test_a_checkpoint_of_any_name_is_bare_weights(name: str, network: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": network.state_dict()}, tmp_path / name)
    with pytest.raises(UserError, match=r"bare weights need their architecture; add \?arch=torchvision:resnet18"):
        sources.info(f"file:{tmp_path / name}")
    assert sources.load(f"file:{tmp_path / name}?arch={ARCH}", image_size=64).pretrained
