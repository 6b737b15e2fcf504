"""Image towers in Hugging Face layout: they compute what was published, and say what is wrong with a copy."""

from __future__ import annotations

import json
import math
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from raytl import sources
from raytl.core.errors import UserError
from raytl.core.hashing import hash_tensors
from raytl.sources.checkpoint import load_checkpoint, write_checkpoint
from raytl.sources.hf_towers import Tower
from raytl.sources.staging import batch_norm_stages

D, HEADS, DEPTH, HIDDEN, PATCH, SIZE = 16, 2, 3, 24, 4, 16
TOKENS = (SIZE // PATCH) ** 2
REGISTERS = 2
SMALL = Tower("vit", 16, 1, 1, 8, 4, 16, "gelu", 1e-6)
PREPROCESSING: dict[str, Any] = {
    "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "resample": 3,
    "size": {"height": SIZE, "width": SIZE},
}  # fmt: skip
COMMON = {
    "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": DEPTH, "patch_size": PATCH, "image_size": SIZE,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"model_type": "vit", "intermediate_size": HIDDEN, "architectures": ["ViTModel"]} | COMMON,
    "dinov2": {"model_type": "dinov2", "mlp_ratio": 1.5, "architectures": ["Dinov2Model"]} | COMMON,
    "dinov2_with_registers": {
        "model_type": "dinov2_with_registers", "mlp_ratio": 1.5, "num_register_tokens": REGISTERS,
    } | COMMON,
    "siglip": {"model_type": "siglip_vision_model", "intermediate_size": HIDDEN} | COMMON,
}  # fmt: skip


def state_of(kind: str) -> dict[str, Tensor]:
    """Random weights under the names that such files have."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (D,)

    siglip = kind == "siglip"
    projection = "embeddings.patch_embedding" if siglip else "embeddings.patch_embeddings.projection"
    shapes[f"{projection}.weight"], shapes[f"{projection}.bias"] = (D, 3, PATCH, PATCH), (D,)
    if siglip:
        shapes["embeddings.position_embedding.weight"] = (TOKENS, D)
    else:
        shapes["embeddings.cls_token"], shapes["embeddings.position_embeddings"] = (1, 1, D), (1, TOKENS + 1, D)
    if kind == "dinov2_with_registers":
        shapes["embeddings.register_tokens"], shapes["embeddings.mask_token"] = (1, REGISTERS, D), (1, D)
    for block in range(DEPTH):
        names = block_names(kind, block)
        for key in ("q", "k", "v", "out"):
            linear(names[key], D, D)
        linear(names["fc1"], HIDDEN, D)
        linear(names["fc2"], D, HIDDEN)
        norm(names["norm1"])
        norm(names["norm2"])
        if kind.startswith("dinov2"):
            shapes[names["scale1"]] = shapes[names["scale2"]] = (D,)
    norm("post_layernorm" if siglip else "layernorm")
    if siglip:
        shapes["head.probe"] = (1, 1, D)
        shapes["head.attention.in_proj_weight"], shapes["head.attention.in_proj_bias"] = (3 * D, D), (3 * D,)
        linear("head.attention.out_proj", D, D)
        norm("head.layernorm")
        linear("head.mlp.fc1", HIDDEN, D)
        linear("head.mlp.fc2", D, HIDDEN)
    return {name: random(*shape) for name, shape in shapes.items()}


def block_names(kind: str, block: int) -> dict[str, str]:
    if kind == "siglip":
        at = f"encoder.layers.{block}"
        attention = {key: f"{at}.self_attn.{key}_proj" for key in ("q", "k", "v", "out")}
        rest = {"norm1": "layer_norm1", "norm2": "layer_norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    else:
        at = f"encoder.layer.{block}"
        words = {"q": "query", "k": "key", "v": "value"}
        attention = {key: f"{at}.attention.attention.{word}" for key, word in words.items()}
        attention["out"] = f"{at}.attention.output.dense"
        rest = {"norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
        rest |= {f"scale{place}": f"layer_scale{place}.lambda1" for place in (1, 2)}
        if kind == "vit":
            rest = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
            rest |= {"fc1": "intermediate.dense", "fc2": "output.dense"}
    return attention | {key: f"{at}.{name}" for key, name in rest.items()}


def plainly(kind: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The pooled features, (n, D), in float64."""
    w = {name: value.double() for name, value in state.items()}
    siglip, epsilon = kind == "siglip", 1e-12 if kind == "vit" else 1e-6

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, (D,), w[f"{name}.weight"], w[f"{name}.bias"], epsilon)

    def act(y: Tensor) -> Tensor:
        if siglip:
            return 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        return y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        for head in range(HEADS):
            place = slice(head * D // HEADS, (head + 1) * D // HEADS)
            scores = q[..., place] @ k[..., place].transpose(1, 2) / math.sqrt(D // HEADS)
            parts.append(scores.softmax(-1) @ v[..., place])
        return torch.cat(parts, -1)

    projection = "embeddings.patch_embedding" if siglip else "embeddings.patch_embeddings.projection"
    patches = F.conv2d(x.double(), w[f"{projection}.weight"], w[f"{projection}.bias"], PATCH).flatten(2).transpose(1, 2)
    if siglip:
        y = patches + w["embeddings.position_embedding.weight"]
    else:
        y = (
            torch.cat([w["embeddings.cls_token"].expand(len(x), -1, -1), patches], 1)
            + w["embeddings.position_embeddings"]
        )
    if kind == "dinov2_with_registers":
        y = torch.cat([y[:, :1], w["embeddings.register_tokens"].expand(len(x), -1, -1), y[:, 1:]], 1)
    for block in range(DEPTH):
        names = block_names(kind, block)
        z = norm(names["norm1"], y)
        z = linear(names["out"], attend(*(linear(names[key], z) for key in ("q", "k", "v"))))
        y = y + (z * w[names["scale1"]] if kind.startswith("dinov2") else z)
        z = linear(names["fc2"], act(linear(names["fc1"], norm(names["norm2"], y))))
        y = y + (z * w[names["scale2"]] if kind.startswith("dinov2") else z)
    if not siglip:
        return norm("layernorm", y)[:, 0]
    y = norm("post_layernorm", y)
    weights, biases = w["head.attention.in_proj_weight"].chunk(3), w["head.attention.in_proj_bias"].chunk(3)
    probe = w["head.probe"].expand(len(x), -1, -1)
    q, k, v = (of @ weight.T + bias for of, weight, bias in zip((probe, y, y), weights, biases, strict=True))
    y = linear("head.attention.out_proj", attend(q, k, v))
    return (y + linear("head.mlp.fc2", act(linear("head.mlp.fc1", norm("head.layernorm", y)))))[:, 0]


def put(folder: Path, kind: str, state: dict[str, Tensor], config: dict[str, Any] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or CONFIGS[kind]))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    save_file(state, folder / "model.safetensors")
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", CONFIGS)
class TestEveryTower:
    def test_computes_the_published_forward_pass(self, kind: str, tmp_path: Path) -> None:
        state = state_of(kind)
        uri = put(tmp_path / "m", kind, state)
        model, info = sources.load(uri), sources.info(uri)
        images = torch.randn(2, 3, SIZE, SIZE)
        with torch.inference_mode():
            features = model.run(images)
        expected = plainly(kind, state, images)
        assert expected.std() > 0.1
        torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-5)
        assert (info.stages, info.feature_dim, info.image_size) == (model.stage_names, D, SIZE)
        assert len(info.stages) >= 4
        assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert model.pretrained and info.pretrained
        assert info.batch_norm_stages == batch_norm_stages(model.stages.items()) == ()

    def test_whole_models_and_half_precision_give_the_same(self, kind: str, tmp_path: Path) -> None:
        state = {name: value.half() for name, value in state_of(kind).items()}
        prefix = {"siglip": "vision_model."}.get(kind, f"{kind}.")
        whole = {f"{prefix}{name}": value for name, value in state.items()} | {"text_model.bias": torch.zeros(2)}
        first = sources.load(put(tmp_path / "a", kind, state))
        config = {"model_type": "siglip", "vision_config": CONFIGS[kind]} if kind == "siglip" else None
        second = sources.load(put(tmp_path / "b", kind, whole, config))
        assert hash_tensors(first.stages.state_dict()) == hash_tensors(second.stages.state_dict())
        assert all(parameter.dtype == torch.float32 for parameter in first.parameters())

    def test_takes_other_sizes_in_whole_patches(self, kind: str, tmp_path: Path) -> None:
        uri = put(tmp_path / "m", kind, state_of(kind))
        model = sources.load(uri, image_size=22)
        assert model.preprocessing.size == sources.info(uri, image_size=22).image_size == 24
        features = model.run(torch.randn(2, 3, 24, 24))
        assert features.shape == (2, D)
        assert features.isfinite().all()

    def test_comes_back_from_a_checkpoint_without_the_folder(self, kind: str, tmp_path: Path) -> None:
        made = sources.load(put(tmp_path / "m", kind, state_of(kind)), image_size=24)
        made.replace_head(2, ("a", "b"))
        write_checkpoint(tmp_path / "saved", made, {})
        for file in (tmp_path / "m").iterdir():
            file.unlink()
        _, read = load_checkpoint(tmp_path / "saved")
        images = torch.randn(2, 3, 24, 24)
        with torch.inference_mode():
            assert torch.equal(read(images), made(images))
        assert read.preprocessing == made.preprocessing
        assert str(tmp_path) not in read.architecture


def test_a_classifier_and_its_labels_come_with_it(tmp_path: Path) -> None:
    state = {f"vit.{name}": value for name, value in state_of("vit").items()}
    state |= {"classifier.weight": torch.randn(2, D), "classifier.bias": torch.randn(2)}
    names = {"id2label": {"0": "cat", "1": "dog"}, "architectures": ["ViTForImageClassification"]}
    uri = put(tmp_path / "m", "vit", state, CONFIGS["vit"] | names)
    model = sources.load(uri)
    assert model.labels == sources.info(uri).labels == ("cat", "dog")
    assert torch.equal(model.head.weight, state["classifier.weight"])


def test_shards_are_read_together(tmp_path: Path) -> None:
    state = state_of("vit")
    whole = hash_tensors(sources.load(put(tmp_path / "m", "vit", state)).state_dict())
    (tmp_path / "m" / "model.safetensors").unlink()
    halves = {
        "model-00001-of-00002.safetensors": sorted(state)[:20],
        "model-00002-of-00002.safetensors": sorted(state)[20:],
    }
    for file, names in halves.items():
        save_file({name: state[name] for name in names}, tmp_path / "m" / file)
    index = {name: file for file, names in halves.items() for name in names}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert hash_tensors(sources.load(f"hf:{tmp_path}/m").state_dict()) == whole
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../../secret"}}))
    with pytest.raises(UserError, match="names no shards beside it"):
        sources.load(f"hf:{tmp_path}/m")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 20}, ("squash", 1.0, "bicubic", 20)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
         ("crop", 0.875, "bicubic", 224)),
        ({"size": {"height": 16, "width": 16}, "resample": 2}, ("squash", 1.0, "bilinear", 16)),
        ({"size": {"shortest_edge": 26}}, ("crop", 1.0, "bicubic", 24)),  # whole patches
        ({"size": 20, "do_resize": False}, ("squash", 1.0, "bicubic", SIZE)),
        ({"size": {"longest_edge": 20}}, ("squash", 1.0, "bicubic", SIZE)),
    ],
)  # fmt: skip
def test_preprocessing_is_what_its_file_says(values: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path) -> None:
    uri = put(tmp_path / "m", "vit", state_of("vit"))
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | values))
    found = sources.load(uri).preprocessing
    assert (found.resize, found.crop_fraction, found.interpolation, found.size) == expected
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    assert sources.info(uri).image_size == found.size


@pytest.mark.parametrize("size", [0, PATCH - 1, 10**6])
def test_a_size_that_no_image_is_prepared_to_is_refused(size: int, tmp_path: Path) -> None:
    uri = put(tmp_path / "m", "vit", state_of("vit"))
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | {"size": size}))
    with pytest.raises(UserError, match=r"preprocessor_config\.json: does not say how images are prepared"):
        sources.info(uri)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers"])
def test_positions_for_larger_images_than_a_tower_is_shown_are_resampled_as_published(
    kind: str, tmp_path: Path
) -> None:
    """Such as DINOv2's, of 518 pixels, which is shown 224."""
    shown = 2 * PATCH
    uri = put(tmp_path / "m", kind, state_of(kind))
    crop = {"do_center_crop": True, "crop_size": {"height": shown, "width": shown}, "size": {"shortest_edge": SIZE}}
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | crop))
    model = sources.load(uri)
    assert model.preprocessing.size == shown
    state = state_of(kind)
    token, grid = state["embeddings.position_embeddings"].split([1, TOKENS], dim=1)
    grid = grid.reshape(1, SIZE // PATCH, SIZE // PATCH, D).permute(0, 3, 1, 2)
    smooth = kind == "dinov2_with_registers"
    grid = F.interpolate(grid, size=(2, 2), mode="bicubic", align_corners=False, antialias=smooth)
    state["embeddings.position_embeddings"] = torch.cat([token, grid.flatten(2).transpose(1, 2)], dim=1)
    images = torch.randn(2, 3, shown, shown)
    with torch.inference_mode():
        torch.testing.assert_close(model.run(images).double(), plainly(kind, state, images), rtol=1e-4, atol=1e-5)


def test_a_bundle_keeps_as_many_positions_as_it_was_saved_with(tmp_path: Path) -> None:
    uri = put(tmp_path / "m", "vit", state_of("vit"))
    assert not sources.info(uri).fixed_size
    write_checkpoint(tmp_path / "saved", sources.load(uri, image_size=24), {})
    known = sources.info(f"file:{tmp_path}/saved", image_size=40)
    assert (known.image_size, known.fixed_size) == (24, True)
    assert sources.load(f"file:{tmp_path}/saved", image_size=40).preprocessing.size == 24


def test_what_a_processor_of_both_towers_saved_goes_first(tmp_path: Path) -> None:
    """As transformers 5 writes and reads it."""
    uri = put(tmp_path / "m", "vit", state_of("vit"))
    joint = {"processor_class": "SiglipProcessor", "image_processor": PREPROCESSING | {"image_mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "m" / "processor_config.json").write_text(json.dumps(joint))
    assert sources.load(uri).preprocessing.mean == (0.1, 0.2, 0.3)
    (tmp_path / "m" / "preprocessor_config.json").unlink()
    assert sources.load(uri).preprocessing.mean == (0.1, 0.2, 0.3)
    (tmp_path / "m" / "processor_config.json").write_text('{"processor_class": "SiglipProcessor"}')
    with pytest.raises(UserError, match=r"preprocessor_config\.json: cannot be read"):
        sources.load(uri)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_a_size_that_is_no_whole_number_of_patches_loses_what_is_left_over(kind: str, tmp_path: Path) -> None:
    """Such as SigLIP's 384 pixels in patches of 14."""
    whole = put(tmp_path / "whole", kind, state_of(kind))
    odd = put(tmp_path / "odd", kind, state_of(kind), CONFIGS[kind] | {"image_size": SIZE + PATCH - 1})
    models = [sources.load(uri) for uri in (whole, odd)]
    assert [model.preprocessing.size for model in models] == [SIZE, SIZE]
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(*(model.run(images) for model in models))


def test_the_licence_is_that_of_the_card(tmp_path: Path) -> None:
    uri = put(tmp_path / "m", "vit", state_of("vit"))
    assert sources.info(uri).licence == "unknown"
    card = tmp_path / "m" / "README.md"
    for text, licence in (
        ("---\nlicense: cc-by-nc-4.0\ntags: [vision]\n---\n# Model", "cc-by-nc-4.0"),
        ("---\nlicense: other\n---\n", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("# license: mit", "unknown"),
    ):
        card.write_text(text)
        assert sources.info(uri).licence == sources.licence_of(uri) == sources.licence_of(f"{uri}@32px") == licence
        assert sources.licence_of(f"joined:{uri}+plain:gradients") == licence
    assert sources.licence_of(f"{uri}@none") == sources.licence_of(f"hf:{SMALL.to_text()}") == "no weights"


def test_a_folder_is_told_about_when_asked_for(tmp_path: Path) -> None:
    uri = put(tmp_path / "m", "vit", state_of("vit"))
    (tmp_path / "m" / "README.md").write_text("---\nlicense: mit\n---\n")
    (entry,) = sources.catalogue("hf", uri)
    assert (entry.uri, entry.licence, entry.image_size, entry.weights) == (uri, "mit", SIZE, "in its folder")
    assert entry.preprocessing == sources.load(uri).preprocessing
    assert not sources.catalogue("hf")
    with pytest.raises(UserError, match="is no folder; give one with a config"):
        sources.catalogue("hf", f"{uri}-gone")


class TestMistakes:
    @pytest.mark.parametrize(
        ("config", "sentence"),
        [
            (
                {"model_type": "bert"},
                "model type 'bert' is no image tower known here; known are vit, dinov2, clip, siglip, and timm:NAME",
            ),
            ({"model_type": "dinov2", "num_register_tokens": 4}, "missing"),  # whose type says that there are none
            ({"num_channels": 1}, "num_channels is 1, a variant that is not supported"),
            ({"hidden_size": 10**9}, "width is 1000000000, not from 1 to 4096"),
            ({"num_attention_heads": 3}, "must divide into 3 heads"),
            ({"image_size": 3}, "size 3 into patches of 4"),
            ({"hidden_act": "relu6"}, "unknown activation 'relu6'"),
            ({"hidden_size": None}, "not a readable configuration"),
            ({"num_hidden_layers": 4}, "12 missing"),
            ({"hidden_size": 32}, "of another shape or kind"),
        ],
    )
    def test_another_configuration(self, config: dict[str, Any], sentence: str, tmp_path: Path) -> None:
        uri = put(tmp_path / "m", "vit", state_of("vit"), CONFIGS["vit"] | config)
        with pytest.raises(UserError) as error:
            sources.load(uri)
        assert sentence in str(error.value)
        assert str(tmp_path) in str(error.value)

    def test_a_folder_of_timms(self, tmp_path: Path) -> None:
        config = {"architecture": "vit_small_patch16_dinov3", "pretrained_cfg": {}}
        uri = put(tmp_path / "m", "vit", state_of("vit"), config)
        with pytest.raises(UserError, match=r"m/model\.safetensors\?arch=timm:vit_small_patch16_dinov3, or timm:vit_"):
            sources.info(uri)

    def test_missing_and_damaged_files(self, tmp_path: Path) -> None:
        put(tmp_path / "m", "vit", state_of("vit"))
        uri = f"hf:{tmp_path}/m"
        (tmp_path / "m" / "model.safetensors").write_bytes(b"\xff" * 50)
        with pytest.raises(UserError, match="not a readable safetensors file"):
            sources.load(uri)
        (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
        with pytest.raises(sources.WeightsMissingError, match=r"has no model\.safetensors"):
            sources.load(uri)
        (tmp_path / "m" / "preprocessor_config.json").unlink()
        with pytest.raises(UserError, match=r"preprocessor_config\.json: cannot be read"):
            sources.info(uri)
        (tmp_path / "m" / "config.json").write_text("{")
        with pytest.raises(UserError, match=r"config\.json: is not valid JSON"):
            sources.info(uri)
        for name in (f"{tmp_path}/gone", "models/my--vit", "models/my..vit"):
            with pytest.raises(UserError, match="is no folder; give one with a config"):
                sources.info(f"hf:{name}")

    def test_a_connection_that_breaks_off(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=_hang_up, args=[server], daemon=True).start()
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
            with pytest.raises(sources.WeightsMissingError, match="is not in the Hugging Face cache and could not be"):
                sources.info("hf:someone/tower")

    def test_a_model_id_that_cannot_be_had(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        for ask in (sources.load, sources.info):
            with pytest.raises(sources.WeightsMissingError, match="hf:someone/tower: is not in the Hugging Face cache"):
                ask("hf:someone/tower")


def _hang_up(server: socket.socket) -> None:
    """Close whatever connects, until the server is closed."""
    with suppress(OSError):
        while True:
            server.accept()[0].close()


def test_a_model_id_is_read_from_the_hubs_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    repository = tmp_path / "models--someone--tower"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    put(repository / "snapshots" / commit, "dinov2", state_of("dinov2"))
    assert sources.load("hf:someone/tower").pretrained
    assert sources.untrained_uri("hf:someone/tower") == "hf:someone/tower@none"


@given(
    width=st.sampled_from([64, 192, 384, 768, 1152]),
    hidden=st.integers(1, 5000),
    epsilon=st.sampled_from([1e-12, 1e-6, 1e-5]),
    bias=st.booleans(),
)
def test_the_shape_goes_through_its_text_and_into_the_network(
    width: int, hidden: int, epsilon: float, bias: bool
) -> None:
    tower = Tower("siglip", width, 1, 1, hidden, 14, 224, "gelu_pytorch_tanh", epsilon, bias)
    assert Tower.from_text(tower.to_text()) == tower
    assert len(f"hf:{tower.to_text()}") <= 200  # what a manifest takes


def test_the_shape_of_a_tower_without_registers_is_written_as_ever() -> None:
    assert "registers" not in SMALL.to_text()
    with_registers = replace(SMALL, kind="dinov2", registers=4)
    assert Tower.from_text(with_registers.to_text()) == with_registers
    for wrong in (replace(with_registers, registers=999), replace(SMALL, registers=4)):
        with pytest.raises(UserError, match="registers is not known"):
            Tower.from_text(wrong.to_text())


def test_a_width_that_is_no_round_ratio_is_built_as_it_is() -> None:
    network = Tower("siglip", 72, 1, 2, 269, 14, 28, "gelu_pytorch_tanh", 1e-6).network(28, 2)
    assert network.blocks[0].mlp.fc1.out_features == network.attn_pool.mlp.fc1.out_features == 269


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("vti?width=1", "unknown kind of image tower 'vti'; did you mean 'vit'"),
        ("vit?width=1", "an image tower needs activation, depth"),
        (Tower("vit", 16, 1, 1, 8, 4, 16, "gelu", 1e-6).to_text().replace("=16", "=x"), "give whole numbers"),
        (
            Tower("vit", 16, 1, 1, 8, 4, 16, "gelu", 1e-6).to_text().replace("depth=1", "depth=999999"),
            "depth is 999999",
        ),
    ],
)
def test_a_wrong_shape_gets_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sources.info(f"hf:{text}")
