"""Where torchvision's classification networks are cut: one function per family, chosen by the network's class."""

from __future__ import annotations

from functools import singledispatch
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as tv

from raytl.core.errors import UserError
from raytl.sources.staging import (
    Pool,
    Staged,
    chain,
    group_after_pool,
    group_by_stride,
    named,
    quarters,
    with_neck,
)


class ChannelAffine(nn.Module):
    """Per-channel scale and shift ahead of the stem.

    Two families undo ImageNet's normalisation in favour of their own inside the network. As buffers, the numbers travel
    with the weights; the untrained network has the identity.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))

    def use_inception(self) -> None:
        """From ImageNet's mean and deviation to 0.5 and 0.5, as torchvision's ``transform_input`` does."""
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.scale.copy_((std / 0.5).view(1, 3, 1, 1))
        self.shift.copy_(((mean - 0.5) / 0.5).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``, (n, 3, h, w)."""
        return x * self.scale + self.shift


class ViTStem(nn.Module):
    """Patches, class token and positions of a vision transformer: (n, 3, s, s) to (n, 1 + (s / patch)², d)."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.conv_proj = vit.conv_proj
        self.class_token = vit.class_token
        self.pos_embedding = vit.encoder.pos_embedding
        self.dropout = vit.encoder.dropout

    def forward(self, x: Tensor) -> Tensor:
        """The tokens, class token first."""
        patches = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        out: Tensor = self.dropout(tokens + self.pos_embedding)
        return out


class FirstToken(nn.Module):
    """(n, tokens, d) to (n, d): the class token."""

    def forward(self, x: Tensor) -> Tensor:
        """The first token of each image."""
        return x[:, 0]


@singledispatch
def stages_of(network: nn.Module) -> Staged:
    """Cut a torchvision classification network into its stages and its last linear layer.

    Raises UserError for a class that is none of torchvision's families.
    """
    raise UserError(f"torchvision: no stages are known for networks of class {type(network).__name__}")


def _linear(stages: list[tuple[str, nn.Module]], head: nn.Module) -> Staged:
    if not isinstance(head, nn.Linear):
        raise TypeError(f"a linear head was expected, not {type(head).__name__}")
    return Staged(stages, head, head.in_features)


@stages_of.register
def _(net: tv.ResNet) -> Staged:
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    stages = named([stem, [net.layer1], [net.layer2], [net.layer3], [net.layer4]])
    return _linear(with_neck(stages, [net.avgpool, nn.Flatten()]), net.fc)


@stages_of.register(tv.AlexNet)
@stages_of.register(tv.VGG)
def _(net: Any) -> Staged:
    stages = named(group_after_pool(net.features))
    *neck, head = net.classifier
    return _linear(with_neck(stages, [net.avgpool, nn.Flatten(), *neck]), head)


@stages_of.register
def _(net: tv.SqueezeNet) -> Staged:
    """The classifier is a convolution with ReLU before the pooling, so no linear layer on pooled features equals it.

    It becomes the neck: the features are its pooled activations, the network's own output is the features themselves,
    and a new head reads those activations.
    """
    conv = net.classifier[1]
    stages = named(group_after_pool(net.features))
    return Staged(with_neck(stages, [*net.classifier, nn.Flatten()]), nn.Identity(), conv.out_channels)


@stages_of.register
def _(net: tv.DenseNet) -> Staged:
    part = dict(net.features.named_children())
    groups = [
        [part["conv0"], part["norm0"], part["relu0"], part["pool0"]],
        [part["denseblock1"], part["transition1"]],
        [part["denseblock2"], part["transition2"]],
        [part["denseblock3"], part["transition3"]],
        [part["denseblock4"], part["norm5"]],
    ]
    return _linear(with_neck(named(groups), [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]), net.classifier)


@stages_of.register
def _(net: tv.GoogLeNet) -> Staged:
    groups = [
        [ChannelAffine(), net.conv1, net.maxpool1],
        [net.conv2, net.conv3, net.maxpool2],
        [net.inception3a, net.inception3b, net.maxpool3],
        [net.inception4a, net.inception4b, net.inception4c, net.inception4d, net.inception4e, net.maxpool4],
        [net.inception5a, net.inception5b],
    ]
    return _linear(with_neck(named(groups), [net.avgpool, nn.Flatten(), net.dropout]), net.fc)


@stages_of.register
def _(net: tv.Inception3) -> Staged:
    groups = [
        [ChannelAffine(), net.Conv2d_1a_3x3, net.Conv2d_2a_3x3, net.Conv2d_2b_3x3, net.maxpool1],
        [net.Conv2d_3b_1x1, net.Conv2d_4a_3x3, net.maxpool2],
        [net.Mixed_5b, net.Mixed_5c, net.Mixed_5d],
        [net.Mixed_6a, net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e],
        [net.Mixed_7a, net.Mixed_7b, net.Mixed_7c],
    ]
    return _linear(with_neck(named(groups), [net.avgpool, net.dropout, nn.Flatten()]), net.fc)


@stages_of.register
def _(net: tv.ShuffleNetV2) -> Staged:
    stages = named([[net.conv1, net.maxpool], [net.stage2], [net.stage3], [net.stage4]])
    return _linear(with_neck(stages, [net.conv5, Pool()]), net.fc)


@stages_of.register
def _(net: tv.RegNet) -> Staged:
    stages = named([[net.stem], *([block] for block in net.trunk_output)])
    return _linear(with_neck(stages, [net.avgpool, nn.Flatten()]), net.fc)


@stages_of.register(tv.MobileNetV2)
@stages_of.register(tv.MobileNetV3)
@stages_of.register(tv.EfficientNet)
def _(net: Any) -> Staged:
    *blocks, last_conv = net.features
    *neck, head = net.classifier
    pool = getattr(net, "avgpool", nn.AdaptiveAvgPool2d(1))  # MobileNetV2 pools in its forward
    return _linear(with_neck(named(group_by_stride(blocks)), [last_conv, pool, nn.Flatten(), *neck]), head)


@stages_of.register
def _(net: tv.MNASNet) -> Staged:
    layers = list(net.layers)
    stem, stacks, last_conv = layers[:8], layers[8:14], layers[14:]
    *neck, head = net.classifier
    stages = named([stem, *group_by_stride(stacks)])
    return _linear(with_neck(stages, [*last_conv, Pool(), *neck]), head)


@stages_of.register
def _(net: tv.ConvNeXt) -> Staged:
    *neck, head = net.classifier
    return _linear(with_neck(_stem_and_pairs(net.features), [net.avgpool, *neck]), head)


@stages_of.register
def _(net: tv.SwinTransformer) -> Staged:
    return _linear(
        with_neck(_stem_and_pairs(net.features), [net.norm, net.permute, net.avgpool, net.flatten]), net.head
    )


@stages_of.register
def _(net: tv.MaxVit) -> Staged:
    *neck, head = net.classifier
    return _linear(with_neck(named([[net.stem], *([block] for block in net.blocks)]), neck), head)


@stages_of.register
def _(net: tv.VisionTransformer) -> Staged:
    *neck, head = net.heads
    stages = named([[ViTStem(net)], *quarters(list(net.encoder.layers))])
    return _linear(with_neck(stages, [net.encoder.ln, FirstToken(), *neck]), head)


def _stem_and_pairs(features: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """``features`` is stem, blocks, (shrink, blocks) …: a shrinking layer goes with the blocks behind it."""
    stem, first, *rest = features
    return named([[stem], [first], *([chain(pair)] for pair in list(pairwise(rest))[::2])])
