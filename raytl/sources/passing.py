"""How many images pass a network at once."""

from __future__ import annotations

import torch

PASSED, PASSED_SIDE = 128, 224
"""Images that pass a network on a GPU at once, and the side in pixels from which on there are fewer of them: what they
take of memory in between grows with their area, and would be 6 GB at 448 pixels."""
PASSED_ON_CPU, CPU_SIDE = 64, 112
"""The same on a processor, whose caches and whose pages of memory are few: of EfficientNet-Lite0 an image of 224 pixels
took 39 ms among 128, and 10 among 16."""


def at_once(side: int, device: torch.device) -> int:
    """Images of so many pixels a side that pass a network at once."""
    most, from_side = (PASSED_ON_CPU, CPU_SIDE) if device.type == "cpu" else (PASSED, PASSED_SIDE)
    return max(1, int(most * min(1.0, from_side / side) ** 2))
