"""Bare weights in foreign layouts: found under other names, and what does not fit told in one sentence."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
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


def found_out(model: sources.SourceModel) -> list[str]:
    """What is said of the weights, beside how images are prepared for them."""
    return [note for note in model.notes if not note.startswith("images are prepared")]


def zeroed(state: State) -> State:
    return {name: value * 0 for name, value in state.items()}


def fastai(state: State) -> State:
    """The body and the head of a learner."""
    return wrapped("0.", children(state)) | {"1.2.weight": torch.zeros(1024), "1.8.weight": torch.zeros(5, 512)}


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
    "options of a parser beside it": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, data="x")},
    "NumPy's numbers beside it": lambda state: {
        "state_dict": state,
        "best": np.float64(76.1),
        "epoch": np.int64(3),
        "seen": np.bool_(True),
    },
    "MoCo": lambda state: {
        "state_dict": wrapped("module.encoder_k.", zeroed(state))
        | wrapped("module.encoder_q.", without_head(state))
        | {"module.encoder_q.fc.0.weight": torch.zeros(512, 512), "module.encoder_q.fc.2.weight": torch.zeros(9, 512)}
        | {"module.queue": torch.zeros(128, 10)}
    },
    "MoCo v3": lambda state: {
        "state_dict": wrapped("module.momentum_encoder.", zeroed(state)) | wrapped("module.base_encoder.", state)
    },
    "SwAV": lambda state: (
        wrapped("module.", without_head(state))
        | {"module.projection_head.0.weight": torch.zeros(2, 512), "module.prototypes.weight": torch.zeros(3, 2)}
    ),
    "Lightning, under any name": lambda state: {
        "state_dict": wrapped("resnet.", state) | {"criterion.weight": torch.zeros(5), "accuracy.total": torch.ones(1)}
    },
    "a feature extractor's": lambda state: wrapped("feature_extractor.", without_head(state)),
    "fastai": lambda state: {"model": fastai(state)},
    "a classifier in a row": lambda state: (
        without_head(state) | {"fc.1.weight": state["fc.weight"], "fc.1.bias": state["fc.bias"]}
    ),
    "a classifier of two layers": lambda state: (
        without_head(state)
        | {"fc.0.weight": torch.zeros(64, 512), "fc.0.bias": torch.zeros(64), "fc.2.weight": torch.zeros(5, 64)}
    ),
    "a classifier by another name": lambda state: without_head(state) | {"head.weight": torch.zeros(3, 512)},
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


def test_a_classifier_in_a_row_is_kept_and_what_is_left_out_said(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    torch.save(LAYOUTS["a classifier in a row"](state), tmp_path / "row.pth")
    model = sources.load(f"file:{tmp_path}/row.pth?arch={ARCH}", image_size=64)
    assert torch.equal(model.head.weight, state["fc.weight"]) and not found_out(model)
    torch.save(LAYOUTS["a classifier of two layers"](state), tmp_path / "two.pth")
    model = sources.load(f"file:{tmp_path}/two.pth?arch={ARCH}", image_size=64)
    assert found_out(model) == ["left out of its weights, as no part of the network: fc.0, fc.2"]


@pytest.mark.parametrize(("name", "inputs"), [("mobilenet_v3_small", 576), ("efficientnet_b0", 1280)])
def test_another_classifier_in_place_of_all_of_the_networks_own(name: str, inputs: int, tmp_path: Path) -> None:
    """What raytl counts among the network's layers hands on what it is given, so nothing of it is lost."""
    torch.manual_seed(0)
    whole = tv.get_model(name).eval()
    for place, head in enumerate((nn.Linear(inputs, 4), nn.Sequential(nn.Dropout(0.2), nn.Linear(inputs, 4)))):
        whole.classifier = head
        torch.save(whole.state_dict(), tmp_path / f"{place}.pth")
        model = sources.load(f"file:{tmp_path}/{place}.pth?arch=torchvision:{name}", image_size=64).eval()
        images = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            seen = whole.avgpool(whole.features(images)).flatten(1)
            features = model.run(images)
        if name == "mobilenet_v3_small":
            torch.testing.assert_close(features[:, :inputs], nn.functional.hardswish(seen), rtol=1e-4, atol=1e-5)
            assert not features[:, inputs:].any()
            assert "has no weights for 'classifier.0', in whose place its classifier was" in model.notes[0]
        else:
            torch.testing.assert_close(features, seen, rtol=1e-4, atol=1e-5)


def test_googlenets_further_classifiers_are_left_out(tmp_path: Path) -> None:
    torch.save(tv.googlenet(aux_logits=True, init_weights=False).state_dict(), tmp_path / "w.pth")
    model = sources.load(f"file:{tmp_path}/w.pth?arch=torchvision:googlenet", image_size=96)
    assert model.notes[0].startswith("left out of its weights, as no part of the network: aux1.conv.conv, ")


class TestVisionTransformers:
    ARCH = "timm:vit_tiny_patch16_224"

    @pytest.fixture(scope="class")
    def vit(self) -> State:
        torch.manual_seed(1)
        state: State = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
        return state

    @pytest.mark.parametrize(
        ("layout", "said"),
        [
            (lambda vit: {"teacher": wrapped("module.backbone.", vit) | {"module.head.mlp": vit["norm.bias"]}}, []),
            (lambda vit: vit | {"mask_token": torch.zeros(1, 192)}, ["mask_token"]),
            (
                lambda vit: {
                    "model": vit
                    | {"decoder_pos_embed": torch.zeros(1, 4, 5), "decoder_blocks.0.norm1.weight": torch.zeros(4)}
                },
                ["decoder_pos_embed", "decoder_blocks.0.norm1"],
            ),
            (
                lambda vit: {
                    name if (match := name.split("."))[0] != "blocks" else ".".join(
                        ["blocks", str(int(match[1]) // 4), *match[1:]]
                    ): value
                    for name, value in vit.items()
                },
                [],
            ),
        ],
        ids=["DINO", "DINOv2", "MAE", "blocks in chunks"],
    )  # fmt: skip
    def test_in_the_layouts_of_their_trainings(self, layout: Any, said: list[str], vit: State, tmp_path: Path) -> None:
        torch.save(layout(vit), tmp_path / "w.pth")
        model = sources.load(f"file:{tmp_path}/w.pth?arch={self.ARCH}")
        stem = model.stages["stem"].state_dict()
        assert torch.equal(stem["vit.pos_embed"], vit["pos_embed"])
        assert torch.equal(model.stages["stage4"].state_dict()["2.mlp.fc2.weight"], vit["blocks.11.mlp.fc2.weight"])
        notes = [f"left out of its weights, as no part of the network: {', '.join(said)}"] if said else []
        assert found_out(model) == notes

    def test_positions_of_another_size_are_resampled_as_timm_does_it(self, vit: State, tmp_path: Path) -> None:
        larger = torch.randn(1, 24 * 24 + 1, 192)
        torch.save(vit | {"pos_embed": larger}, tmp_path / "w.pth")
        model = sources.load(f"file:{tmp_path}/w.pth?arch={self.ARCH}")
        expected = timm.layers.resample_abs_pos_embed(larger, [14, 14], num_prefix_tokens=1)
        torch.testing.assert_close(model.stages["stem"].state_dict()["vit.pos_embed"], expected)
        assert found_out(model) == ["its positions for 24 x 24 patches were resampled for 14 a side"]

    @pytest.mark.parametrize("positions", [(1, 200, 192), (1, 577, 64), (1, 576, 192), (577, 192)])
    def test_positions_that_are_no_other_size_of_the_same_are_refused(
        self, positions: tuple[int, ...], vit: State, tmp_path: Path
    ) -> None:
        torch.save(vit | {"pos_embed": torch.zeros(positions)}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"1 of another shape or kind \('pos_embed'"):
            sources.load(f"file:{tmp_path}/w.pth?arch={self.ARCH}")

    @pytest.mark.parametrize("name", ["norm_pre.weight", "reg_token", "dist_token", "blocks.12.norm1.weight"])
    def test_what_may_be_more_of_the_network_is_never_left_out(self, name: str, vit: State, tmp_path: Path) -> None:
        torch.save(vit | {name: torch.zeros(192)}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=f"1 unexpected \\('{name}'"):
            sources.load(f"file:{tmp_path}/w.pth?arch={self.ARCH}")


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

    @pytest.mark.parametrize("prefix", ["", "module.", "resnet."])
    def test_further_blocks_are_not_left_out(self, prefix: str, tmp_path: Path) -> None:
        torch.save(wrapped(prefix, tv.resnet34().state_dict()), tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"96 unexpected \('layer1\.2\.conv1\.weight'"):
            sources.load(f"file:{tmp_path}/w.pth?arch={ARCH}")

    def test_a_classifier_of_two_layers_beside_half_a_network(self, network: nn.Module, tmp_path: Path) -> None:
        state = LAYOUTS["a classifier of two layers"](network.state_dict())
        torch.save({name: state[name] for name in state if not name.startswith("layer4.1.conv1")}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"1 missing \('layer4\.1\.conv1\.weight'\); 3 unexpected"):
            sources.load(f"file:{tmp_path}/w.pth?arch={ARCH}")

    def test_a_classifier_on_what_the_networks_own_layers_make_smaller(self, tmp_path: Path) -> None:
        whole = tv.alexnet()
        whole.classifier = nn.Linear(9216, 3)
        torch.save(whole.state_dict(), tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"missing \('classifier\.1\.weight'"):
            sources.load(f"file:{tmp_path}/w.pth?arch=torchvision:alexnet")

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
