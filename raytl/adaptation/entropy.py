"""Entropies of softmax outputs, from the logits, shared by the losses that act on predictions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each row's softmax in nats, shape (n,); exact 0 and finite gradients for saturated logits."""
    log_p = torch.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def mean_prediction_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the batch's mean softmax, a scalar: log k where all classes are predicted equally often."""
    # Mean in log space, so that a class that is never predicted does not become log 0.
    log_mean = torch.log_softmax(logits, dim=1).logsumexp(dim=0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()


def certainty_weights(logits: Tensor) -> Tensor:
    """1 + exp(-H) for each row, shape (n,), scaled to mean 1 and detached: certain predictions count up to twice."""
    weights = 1.0 + torch.exp(-entropy(logits.detach()))
    return weights / weights.mean()
