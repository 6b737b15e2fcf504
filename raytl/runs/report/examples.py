"""Which test images to show, and how to put them into the page."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from raytl.search.records import SearchOutcome

_PER_CELL = 6  # mistakes shown for one pair of true and predicted class
_AT_MOST = 60  # mistakes in all, and rightly classified ones
_SIDE_PX = 96


@dataclass(frozen=True)
class ReportExamples:
    """Test images with what the winner made of them, all of equal length.

    images: 8 bits per channel, any mode. labels, predicted: indices into ``classes``.
    confidences: of the prediction, in [0, 1].
    """

    images: Sequence[Image.Image]
    labels: Sequence[int]
    predicted: Sequence[int]
    classes: Sequence[str]
    confidences: Sequence[float]


def examples_of(outcome: SearchOutcome) -> ReportExamples | None:
    """What a search's winner made of the test images; None where there are none."""
    images, probabilities, named = outcome.test_images, outcome.best.test_probabilities, outcome.tested_labels()
    if images is None or probabilities is None or named is None:
        return None
    return ReportExamples(
        _Opened(images.items),
        images.labels.tolist(),
        named.tolist(),
        images.classes,
        probabilities[np.arange(len(named)), named].tolist(),
    )


def gallery(examples: ReportExamples) -> str:
    """The mistakes as figures, surest first; each carries its cell of the confusion matrix for the page to filter by.

    Ends with one rightly classified image per class, shown when its cell of the diagonal is picked.
    """
    order = sorted(range(len(examples.images)), key=lambda index: -float(examples.confidences[index]))
    shown: dict[bool, list[int]] = {False: [], True: []}
    taken: Counter[tuple[int, int]] = Counter()
    for index in order:
        cell = (int(examples.labels[index]), int(examples.predicted[index]))
        right = cell[0] == cell[1]
        if taken[cell] < (1 if right else _PER_CELL) and len(shown[right]) < _AT_MOST:
            taken[cell] += 1
            shown[right].append(index)
    return "\n".join(_figure(examples, index) for index in shown[False] + shown[True])


def data_uri(image: Image.Image) -> str:
    """A thumbnail as an inline PNG."""
    thumbnail = image if image.mode in ("L", "RGB") else image.convert("RGBA" if "A" in image.getbands() else "RGB")
    thumbnail = thumbnail.copy()
    thumbnail.thumbnail((_SIDE_PX, _SIDE_PX))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(examples: ReportExamples, index: int) -> str:
    label, guess = int(examples.labels[index]), int(examples.predicted[index])
    true, predicted = escape(str(examples.classes[label])), escape(str(examples.classes[guess]))
    sure = f"{100 * float(examples.confidences[index]):.0f} %"
    right = label == guess
    words = f"{true}, recognised" if right else f"{true}, taken for {predicted}"
    crisp = ' class="crisp"' if max(examples.images[index].size) < _SIDE_PX / 2 else ""
    caption = f"<b>{true}</b>" if right else f"<b>{true}</b> → {predicted}"
    return (
        f'<figure class="example" data-cell="{label},{guess}"{" hidden" if right else ""}>'
        f'<img src="{data_uri(examples.images[index])}" alt="Test image: {words} ({sure} sure)"{crisp}>'
        f"<figcaption>{caption}<br><small>{sure} sure</small></figcaption></figure>"
    )


class _Opened(Sequence[Image.Image]):
    """Opens images when asked for them: the report shows some dozens of perhaps thousands."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index].open()
