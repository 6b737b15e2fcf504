"""timm's networks: cut where that is exact, in one piece elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch

from raytl import sources
from raytl.core.errors import UserError
from raytl.sources.base import Request, providers


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet10t", 5),
        ("vit_tiny_patch16_224", 6),
        ("convnext_atto", 6),
        ("efficientnet_b0", 9),
        ("mobilenetv3_small_050", 8),
        ("regnetx_002", 5),
        ("densenet121", 6),
        ("xcit_nano_12_p16_224", 1),  # no plain sequence: one stage, still exact
    ],
)
def test_stages_concatenate_to_the_network(name: str, stages: int) -> None:
    info = sources.info(f"timm:{name}@none", image_size=64)
    model = sources.load(f"timm:{name}@none", image_size=64, seed=1)
    assert len(info.stages) == stages
    assert info.stages == model.stage_names
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    whole = timm.create_model(name).eval()
    # The same tensors under timm's own names, through the table that bare weights are read with.
    renames = providers.get("timm").build(f"{name}@none", Request()).renames
    state = model.state_dict()
    whole.load_state_dict({theirs: state[ours] for theirs, ours in renames.items()})
    images = torch.randn(2, 3, info.image_size, info.image_size)
    with torch.inference_mode():
        features = model.run(images)
        torch.testing.assert_close(model.head(features), whole(images), rtol=1e-4, atol=1e-5)
    assert features.shape == (2, info.feature_dim)


def test_without_timm_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for ask in (lambda: sources.load("timm:resnet18"), lambda: sources.catalogue("timm", "timm:convnext")):
        with pytest.raises(UserError, match=r"pip install 'raytl\[timm\]'"):
            ask()
    assert sources.catalogue(match="scratch:")


def test_offline_without_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="HF_HOME to a cache that has them, or use timm:resnet10t@none"):
        sources.load("timm:resnet10t")


def test_a_network_without_a_linear_classifier_is_refused() -> None:
    with pytest.raises(UserError, match="not one linear layer"):
        sources.info("timm:dla34@none")
