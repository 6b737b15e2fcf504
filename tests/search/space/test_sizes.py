"""Which sides of the input are tried beside the space's: of what sees images in patches, whole numbers of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import data

from raytl import sources
from raytl.search.space import sizes

IMAGES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": True, "size": {"shortest_edge": 256}}


def tower(folder: Path, kind: str, patch: int, made_for: int) -> str:
    """URI of a folder that says all there is to know of an image tower, without its weights; it is shown 224 pixels."""
    shape = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 24}
    config = {"model_type": kind, "patch_size": patch, "image_size": made_for} | shape
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES | {"crop_size": 224}))
    return f"hf:{folder}"


@pytest.mark.parametrize(
    ("kind", "patch", "made_for", "larger", "closer"),
    [
        ("dinov2", 14, 518, ["224px", "154px", "126px"], ["308px", "448px"]),  # 288 and 384 are no multiples of 14
        ("clip_vision_model", 32, 224, ["224px", "160px", "128px"], ["3x96px", "320px", "3x128px", "448px"]),
        ("vit", 16, 224, ["224px", "160px", "128px"], ["3x96px", "320px", "3x128px", "448px"]),
    ],
)
def test_an_image_tower_is_tried_at_whole_numbers_of_patches(
    kind: str, patch: int, made_for: int, larger: list[str], closer: list[str], tmp_path: Path
) -> None:
    uri = tower(tmp_path, kind, patch, made_for)
    known = sources.info(uri, image_size=96)
    images = replace(data(), target_side=512, piece_side=512)
    found = sizes.larger(uri, known, images, 448)
    assert [at for at, _ in found] == [f"{uri}@{size}" for size in larger]
    assert found[0][1] == (224 / known.image_size) ** 2
    assert [at for at, _ in sizes.closer(uri, known, images, 448)] == [f"{uri}@{size}" for size in closer]
    for at, _ in [*found, *sizes.closer(uri, known, images, 448)]:  # which is what they come to
        assert sources.info(at).image_size == sources.split_size(at)[1]
    assert not sizes.larger(uri, known, images, 0)


def test_the_weights_of_torchvisions_vision_transformer_take_one_size() -> None:
    known = sources.info("torchvision:vit_b_16", image_size=96)
    assert (known.image_size, known.fixed_size, known.patch) == (224, True, 16)
    assert not sources.info("torchvision:vit_b_16@none").fixed_size
