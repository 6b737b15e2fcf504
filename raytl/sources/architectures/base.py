"""What a scratch architecture is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from raytl.core.registry import Registry
from raytl.sources.staging import Stages

Body = Callable[[int], tuple[Stages, int]]


@dataclass(frozen=True)
class Architecture:
    """A registered architecture.

    body: number of input channels -> (stages, feature_dim); the last stage yields features of shape (n, feature_dim).
    image_size: default side of the input, pixels; min_size: the smallest it accepts. Any size above works.
    """

    body: Body
    image_size: int
    min_size: int


registry: Registry[Architecture] = Registry("architecture", "raytl.sources.architectures")


def architecture(name: str, *, image_size: int, min_size: int) -> Callable[[Body], Body]:
    """Decorator that registers a body under ``scratch:<name>``."""

    def register(body: Body) -> Body:
        registry.add(name, Architecture(body, image_size, min_size))
        return body

    return register


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; halves the size for stride 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
