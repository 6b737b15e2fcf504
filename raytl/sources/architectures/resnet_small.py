"""``scratch:resnet-small``: about 300 k parameters, a residual network for small colour photographs."""

from __future__ import annotations

from torch import Tensor, nn

from raytl.sources.architectures.base import architecture, conv_norm_relu
from raytl.sources.staging import Pool, Stages


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., 2016); the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm_relu(inputs, outputs, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        return nn.functional.relu(self.second(self.first(x)) + self.shortcut(x))


@architecture("resnet-small", image_size=64, min_size=16)
def resnet_small(channels: int) -> tuple[Stages, int]:
    """A stem that halves the size and three residual stages of 32, 64 and 128 channels."""
    stages: Stages = [
        ("stem", conv_norm_relu(channels, 32, stride=2)),
        ("stage1", ResidualBlock(32, 32)),
        ("stage2", ResidualBlock(32, 64, stride=2)),
        ("stage3", nn.Sequential(ResidualBlock(64, 128, stride=2), Pool())),
    ]
    return stages, 128
