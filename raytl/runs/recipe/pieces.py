"""Pieces of scripts that do not depend on how a trial trains: reading images, evaluating, and what replaces raytl."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from raytl.tasks.preprocessing import Preprocessing

INSTEAD = {
    "Views": '''@dataclass
class Views:
    """One domain's part of a batch: features (n, d), logits (n, k), also of a stronger augmentation, labels (n,)."""

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None
    strong_logits: Tensor | None = None''',
    "AdaptationLoss": '''class AdaptationLoss(nn.Module):
    """What all adaptation losses have."""

    def __init__(self, config: SimpleNamespace, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.config = config''',
    "Regulariser": '''class Regulariser:
    """What all regularisers have."""

    def __init__(self, config: SimpleNamespace, stages: list[nn.Module], cut: int) -> None:
        self.config, self.stages, self.cut = config, stages, cut''',
}
"""Classes of raytl's that know its registries, as a script has them."""

ALWAYS = (
    "import sys",
    "from pathlib import Path",
    "import numpy as np",
    "import torch",
    "from PIL import Image, ImageOps",
    "from torch import Tensor, nn",
    "from torch.nn import functional as F",
)
SOURCE_DOC = '"""The network to start from, cut into stages, input side first."""\n'


@dataclass
class Code:
    """What one way of training adds to a script. settings: constants; functions: whole definitions; main: the last."""

    settings: str
    main: str
    functions: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)


def constants(values: dict[str, Any]) -> str:
    """One assignment a line."""
    return "\n".join(f"{name} = {value if isinstance(value, _Raw) else repr(value)}" for name, value in values.items())


class _Raw(str):
    """An expression, not a text."""


def raw(expression: str) -> str:
    """For :func:`constants`: code as it is."""
    return _Raw(expression)


def reading(preprocessing: Preprocessing) -> str:
    """Functions from names of files to tensors of pixels, resized as they were for the trial."""
    size, mode = preprocessing.size, "L" if preprocessing.channels == 1 else "RGB"
    filter_ = f"Image.Resampling.{preprocessing.interpolation.upper()}"
    if preprocessing.tiles > 1:
        resize = _tiles(size // preprocessing.tiles, preprocessing.tiles, filter_)
    elif preprocessing.resize == "squash":
        resize = f"image = image.resize(({size}, {size}), {filter_})"
    elif preprocessing.resize == "crop":
        resize = textwrap.dedent(f"""\
            scale = {round(size / preprocessing.crop_fraction)} / min(image.size)
            width, height = (max({size}, round(side * scale)) for side in image.size)
            left, top = (width - {size}) // 2, (height - {size}) // 2
            image = image.resize((width, height), {filter_}).crop((left, top, left + {size}, top + {size}))""")
    else:
        resize = textwrap.dedent(f"""\
            scale = {size} / max(image.size)
            whole = image.resize([max(1, round(side * scale)) for side in image.size], {filter_})
            image = Image.new(whole.mode, ({size}, {size}))
            image.paste(whole, (({size} - whole.width) // 2, ({size} - whole.height) // 2))""")
    return _READING.format(mode=mode, size=size, resize=textwrap.indent(resize, "    ").lstrip())


def _tiles(side: int, tiles: int, filter_: str) -> str:
    return textwrap.dedent(f"""\
        reach, whole = min({side}, *image.size), Image.new(image.mode, ({tiles * side}, {tiles * side}))
        for row, column in np.ndindex({tiles}, {tiles}):
            left = (image.width - reach) * column / {tiles - 1}
            top = (image.height - reach) * row / {tiles - 1}
            if reach == {side}:
                left, top = round(left), round(top)
            box = (left, top, min(image.width, left + reach), min(image.height, top + reach))
            whole.paste(image.resize(({side}, {side}), {filter_}, box), (column * {side}, row * {side}))
        image = whole""")


_READING = '''\
def read(name: str) -> Tensor:
    """One image, uint8 (channels, {size}, {size}): upright, on white where it is transparent."""
    image = Image.open(ROOT / name)
    if image.format == "JPEG" and min(image.size) >= 2048:
        image.draft(None, (1024, 1024))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("{mode}")
    {resize}
    return torch.from_numpy(np.array(image).reshape({size}, {size}, -1).transpose(2, 0, 1).copy())


def pixels(names: list[str]) -> Tensor:
    """All images, uint8 (n, channels, {size}, {size})."""
    return torch.stack([read(name) for name in names])


def normalise(images: Tensor) -> Tensor:
    """Values in [0, 1] to what the network was trained on."""
    mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def half() -> torch.autocast:
    """Half precision on a GPU that has it."""
    has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=has)'''

EVALUATING = """\
predicted = probabilities([name for name, _ in VALIDATION])
truth = torch.tensor([label for _, label in VALIDATION])
accuracy = (predicted.argmax(1) == truth).float().mean().item()
log_loss = -predicted[torch.arange(len(truth)), truth].double().clamp(1e-7, 1).log().mean().item()
print(f"accuracy {accuracy:.4f}  log loss {log_loss:.4f}  on {len(truth)} validation images")"""

SAVING = """\
if len(sys.argv) > 1:  # where to save the model
    torch.save({"stages": stages.state_dict(), "head": head.state_dict()}, sys.argv[1])"""


def common(preprocessing: Preprocessing, classes: tuple[str, ...]) -> dict[str, Any]:
    """Constants that every script has."""
    return {
        "CLASSES": list(classes),
        "MEAN": preprocessing.mean,
        "STD": preprocessing.std,
        "device": raw('torch.device("cuda" if torch.cuda.is_available() else "cpu")'),
    }


def block(*lines: str) -> str:
    """Lines of a function's body, each possibly several, empty ones left out."""
    return textwrap.indent("\n".join(line for line in lines if line), "    ")
