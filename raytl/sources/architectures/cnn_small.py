"""``scratch:cnn-small``: about 100 k parameters, made to train in seconds on one CPU core."""

from __future__ import annotations

from torch import nn

from raytl.sources.architectures.base import architecture, conv_norm_relu
from raytl.sources.staging import Pool, Stages


@architecture("cnn-small", image_size=32, min_size=16)
def cnn_small(channels: int) -> tuple[Stages, int]:
    """Four convolutions; the large-kernelled stem halves the size at once, where a pixel costs most."""
    stages: Stages = [
        ("stem", conv_norm_relu(channels, 32, kernel=5, stride=2)),
        ("stage1", conv_norm_relu(32, 48)),
        ("stage2", conv_norm_relu(48, 64, stride=2)),
        ("stage3", nn.Sequential(conv_norm_relu(64, 96), Pool())),
    ]
    return stages, 96
