"""What sits on the features: a linear layer, or a small network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

HEADS = ("linear", "mlp", "logistic")
HIDDEN = 256
"""Width of the hidden layer, that of the usual bottleneck between backbone and head."""


class MlpHead(nn.Module):
    """One hidden layer of rectified units, then a linear layer. features (n, d) -> logits (n, k)."""

    def __init__(self, features: int, outputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.output(F.relu(self.hidden(features)))
        return logits


def make_head(kind: str, features: int, outputs: int) -> nn.Module:
    """A head of one of the ``HEADS``, its weights drawn from torch's generator. Raises ValueError for another kind.

    A logistic one is a linear one; it differs in how its weights are found.
    """
    if kind in ("linear", "logistic"):
        return nn.Linear(features, outputs)
    if kind == "mlp":
        return MlpHead(features, outputs)
    raise ValueError(f"unknown head '{kind}'; known are {', '.join(HEADS)}")
