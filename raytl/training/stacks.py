"""Linear heads side by side: their logits and gradients on the same features, in one product of matrices each.

A head's numbers are those that it has alone, bit for bit on the CPU. So nothing is summed up across heads, and each
head's rows are a multiple of the tiles in which matrix kernels work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.training.devices import autocast

TILE = 16
"""A head that began within a tile would be summed up in another order than alone."""

Parameters = tuple[Tensor, Tensor]


class LinearStack:
    """Linear heads (h of them, for k classes and d features).

    parameters: weights (h, rows, d) and biases (h, rows), copies of the heads', changed in place by who trains them.
    Rows beyond the classes are zero and stay so.
    """

    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        self._classes, width = heads[0].weight.shape
        rows = TILE * -(-self._classes // TILE)
        weight = heads[0].weight.new_zeros(len(heads), rows, width)
        bias = weight.new_zeros(len(heads), rows)
        for index, head in enumerate(heads):
            weight[index, : self._classes] = head.weight.detach()
            bias[index, : self._classes] = head.bias.detach()
        self.parameters: Parameters = (weight, bias)

    def logits(self, features: Tensor, parameters: Parameters) -> Tensor:
        """(n, h, k) of features (n, d), with these parameters."""
        weight, bias = parameters
        with autocast(features.device):
            stacked = F.linear(features, weight.view(-1, weight.shape[2]), bias.view(-1))
        return stacked.float().view(len(features), *bias.shape)[:, :, : self._classes]

    def gradients(self, features: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Parameters]:
        """Mean cross-entropy of each head (h,), and the gradients of their sum by the parameters.

        features: (n, d). labels: (n,). smoothing: of each head's labels (h,).
        """
        weight, bias = self.parameters
        known = self.logits(features, self.parameters).log_softmax(2)
        wanted = F.one_hot(labels, self._classes).float()[:, None, :]
        wanted = wanted * (1 - smoothing[:, None]) + smoothing[:, None] / self._classes
        # Sums run along memory, one head after the other: across it their order would depend on how many there are.
        loss = -(wanted * known).sum(2).T.contiguous().mean(1)
        by_logits = weight.new_zeros(*bias.shape, len(features))
        by_logits[:, : self._classes] = ((known.exp() - wanted) / len(features)).permute(1, 2, 0)
        by_weight = torch.mm(by_logits.view(-1, len(features)), features.float()).view(weight.shape)
        return loss, (by_weight, by_logits.sum(2))

    def head(self, index: int, parameters: Parameters) -> nn.Linear:
        """One head by itself, with these parameters."""
        weight, bias = (parameter[index, : self._classes] for parameter in parameters)
        head = nn.Linear(weight.shape[1], self._classes, device=weight.device)
        head.load_state_dict({"weight": weight, "bias": bias})
        return head
