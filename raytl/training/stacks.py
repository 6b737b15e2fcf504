"""Heads of one kind side by side: their logits and gradients on the same features, in few products of matrices.

A head's numbers are those that it has alone, bit for bit on the CPU. So nothing is summed up across heads, and each
head's rows are a multiple of the tiles in which matrix kernels work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.sources.heads import MlpHead
from raytl.training.network import autocast

TILE = 16
"""A head that began within a tile would be summed up in another order than alone."""

Parameters = tuple[Tensor, ...]


class Stack(Protocol):
    """Heads (h of them, for k classes and d features) whose parameters are stacked along their first dimension.

    parameters: changed in place by who trains them; those of three dimensions are weights, of two biases.
    """

    parameters: Parameters

    def logits(self, features: Tensor, parameters: Parameters) -> Tensor:
        """(n, h, k) of features (n, d), with these parameters."""

    def gradients(self, features: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Parameters]:
        """Mean cross-entropy of each head (h,), and the gradients of their sum by the parameters.

        features: (n, d). labels: (n,). smoothing: of each head's labels (h,).
        """

    def head(self, index: int, parameters: Parameters) -> nn.Module:
        """One head by itself, with these parameters."""


def stack_of(heads: Sequence[nn.Module]) -> Stack:
    """Heads of one kind (:func:`raytl.sources.heads.make_head`) stacked, with copies of their parameters."""
    linear = [head for head in heads if isinstance(head, nn.Linear)]
    if len(linear) == len(heads):
        return LinearStack(linear)
    mlps = [head for head in heads if isinstance(head, MlpHead)]
    if len(mlps) == len(heads):
        return MlpStack(mlps)
    raise ValueError(f"heads of {len({type(head) for head in heads})} kinds cannot be stacked")


class LinearStack:
    """Linear heads: one wide product serves all. Rows beyond the classes are zero and stay so."""

    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        self._classes = heads[0].out_features
        self.parameters: Parameters = _padded(heads)

    def logits(self, features: Tensor, parameters: Parameters) -> Tensor:
        """As :meth:`Stack.logits`."""
        return _wide(features, *parameters)[:, :, : self._classes]

    def gradients(self, features: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Parameters]:
        """As :meth:`Stack.gradients`."""
        weight, bias = self.parameters
        loss, gap = _cross_entropy(self.logits(features, self.parameters), labels, smoothing)
        by_logits = gap.new_zeros(*bias.shape, len(features))
        by_logits[:, : self._classes] = gap.permute(1, 2, 0)
        return loss, (_by_wide_weight(by_logits, features, weight), by_logits.sum(2))

    def head(self, index: int, parameters: Parameters) -> nn.Module:
        """As :meth:`Stack.head`."""
        weight, bias = (parameter[index, : self._classes] for parameter in parameters)
        head = nn.Linear(weight.shape[1], self._classes, device=weight.device)
        head.load_state_dict({"weight": weight, "bias": bias})
        return head


class MlpStack:
    """Heads with a hidden layer: one wide product for all hidden layers, one by one for the small output layers.

    (A batched product of the output layers would be shared out among threads in another way for one head than for two.)
    """

    def __init__(self, heads: Sequence[MlpHead]) -> None:
        self._classes = heads[0].output.out_features
        self._width = heads[0].hidden.out_features
        self.parameters: Parameters = (
            *_padded([head.hidden for head in heads]),
            *_padded([head.output for head in heads]),
        )

    def logits(self, features: Tensor, parameters: Parameters) -> Tensor:
        """As :meth:`Stack.logits`."""
        return self._outputs(self._units(features, parameters), parameters)

    @staticmethod
    def _units(features: Tensor, parameters: Parameters) -> Tensor:
        """(h, n, m), what the hidden layers make of features (n, d)."""
        weight, bias, *_ = parameters
        return _wide(features, weight, bias).relu().transpose(0, 1).contiguous()

    def _outputs(self, units: Tensor, parameters: Parameters) -> Tensor:
        """Logits (n, h, k) of hidden units (h, n, m)."""
        *_, weight, bias = parameters
        with autocast(units.device):
            logits = [F.linear(*own) for own in zip(units, weight, bias, strict=True)]
        return torch.stack(logits, 1).float()[:, :, : self._classes]

    def gradients(self, features: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Parameters]:
        """As :meth:`Stack.gradients`."""
        hidden_weight, _, output_weight, output_bias = self.parameters
        units = self._units(features, self.parameters)
        loss, gap = _cross_entropy(self._outputs(units, self.parameters), labels, smoothing)
        by_logits = gap.new_zeros(*output_bias.shape, len(features))
        by_logits[:, : self._classes] = gap.permute(1, 2, 0)
        by_output = torch.stack([gradient @ own for gradient, own in zip(by_logits, units, strict=True)])
        by_active = torch.stack([own.T @ gradient for own, gradient in zip(output_weight, by_logits, strict=True)])
        by_units = (by_active * (units.transpose(1, 2) > 0)).contiguous()
        by_hidden = _by_wide_weight(by_units, features, hidden_weight)
        return loss, (by_hidden, by_units.sum(2), by_output, by_logits.sum(2))

    def head(self, index: int, parameters: Parameters) -> nn.Module:
        """As :meth:`Stack.head`."""
        names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
        sizes = (self._width, self._width, self._classes, self._classes)
        state = {name: p[index, :size] for name, p, size in zip(names, parameters, sizes, strict=True)}
        head = MlpHead(parameters[0].shape[2], self._classes, self._width).to(parameters[0].device)
        head.load_state_dict(state)
        return head


def _padded(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weights (h, rows, d) and biases (h, rows) of layers of one shape, with zero rows up to whole tiles."""
    outputs, width = layers[0].weight.shape
    rows = TILE * -(-outputs // TILE)
    weight = layers[0].weight.new_zeros(len(layers), rows, width)
    bias = weight.new_zeros(len(layers), rows)
    for index, layer in enumerate(layers):
        weight[index, :outputs] = layer.weight.detach()
        bias[index, :outputs] = layer.bias.detach()
    return weight, bias


def _wide(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n, h, rows) of features (n, d)."""
    with autocast(features.device):
        stacked = F.linear(features, weight.view(-1, weight.shape[2]), bias.view(-1))
    return stacked.float().view(len(features), *bias.shape)


def _by_wide_weight(by_outputs: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """Gradient by the weights of :func:`_wide`, from that by its outputs (h, rows, n)."""
    return torch.mm(by_outputs.view(-1, len(features)), features.float()).view(weight.shape)


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy with smoothed labels, of each head (h,), and its gradient by the logits (n, h, k)."""
    known = logits.log_softmax(2)
    wanted = F.one_hot(labels, logits.shape[2]).float()[:, None, :]
    wanted = wanted * (1 - smoothing[:, None]) + smoothing[:, None] / logits.shape[2]
    # The sum runs along memory, one head after the other: across it the order would depend on how many there are.
    loss = -(wanted * known).sum(2).T.contiguous().mean(1)
    return loss, (known.exp() - wanted) / len(labels)
