"""Collections of images as the rest of raytl sees them: lazily decoded, hashed, with or without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from PIL import Image

from raytl.core.hashing import hash_strings
from raytl.core.names import printable

if TYPE_CHECKING:
    from torch import Tensor

    from raytl.tasks.preprocessing import Preprocessing


class ImageItem(Protocol):
    """One image: where it came from, what its bytes hash to, and how to get the pixels."""

    @property
    def name(self) -> str:
        """Path or row for messages."""

    @property
    def digest(self) -> str:
        """Hash of the encoded content."""

    def open(self) -> Image.Image:
        """Decoded, EXIF-oriented, mode L or RGB. Raises UserError naming the item where it cannot be decoded."""


@dataclass(frozen=True)
class Images:
    """Images without labels.

    name: what the collection is called in messages (its path).
    items: in a fixed order.
    groups: int64 (n,), images of one group must never be on two sides of a split (patients, near-duplicates);
        None where every image is its own group.
    """

    name: str
    items: Sequence[ImageItem]
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.items)

    def with_items(self, change: Callable[[ImageItem], ImageItem]) -> Self:
        """The same images held in another way: what ``change`` makes of each, which must keep its digest."""
        return replace(self, items=[change(item) for item in self.items])

    def subset(self, indices: Sequence[int] | np.ndarray) -> Images:
        """The images at ``indices``, in that order."""
        return Images(self.name, [self.items[i] for i in indices], _take(self.groups, indices))

    def tensor(self, preprocessing: Preprocessing) -> Tensor:
        """All images as uint8, shape (n, channels, size, size)."""
        import torch

        if not len(self):
            return torch.empty((0, preprocessing.channels, preprocessing.size, preprocessing.size), dtype=torch.uint8)
        return torch.from_numpy(np.stack([preprocessing.to_uint8(item.open()) for item in self.items]))

    def batches(self, preprocessing: Preprocessing, size: int) -> Iterator[Tensor]:
        """The same, decoded ``size`` images after the others; one part without images where there are none."""
        for first in range(0, max(1, len(self)), size):
            yield self.subset(range(first, min(first + size, len(self)))).tensor(preprocessing)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content and its order (64 hex digits)."""
        return hash_strings(item.digest for item in self.items)


@dataclass(frozen=True)
class LabelledImages(Images):
    """Images with labels.

    classes: the label names, as text of one line; labels: int64 (n,), indices into ``classes``.
    """

    classes: tuple[str, ...] = ()
    labels: np.ndarray = None  # type: ignore[assignment]  # required, but dataclass order puts it behind a default

    def __post_init__(self) -> None:
        if self.labels is None or len(self.labels) != len(self.items):
            raise ValueError(f"{self.name}: {len(self.items)} images need as many labels")
        object.__setattr__(self, "classes", tuple(map(printable, self.classes)))

    def subset(self, indices: Sequence[int] | np.ndarray) -> LabelledImages:
        """The images at ``indices``, in that order, with all the classes."""
        items = [self.items[i] for i in indices]
        return LabelledImages(
            self.name,
            items,
            _take(self.groups, indices),
            self.classes,
            self.labels[np.asarray(indices, dtype=np.int64)],
        )

    def joined(self, other: LabelledImages) -> LabelledImages:
        """These images and others with the same classes; no group of one is a group of the other."""
        groups = None
        if self.groups is not None or other.groups is not None:
            own = np.arange(len(self)) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]
            more = np.arange(len(other)) if other.groups is None else np.unique(other.groups, return_inverse=True)[1]
            groups = np.concatenate([own, more + own.max(initial=-1) + 1])
        labels = np.concatenate([self.labels, other.with_classes(self.classes).labels])
        return LabelledImages(self.name, [*self.items, *other.items], groups, self.classes, labels)

    def without_labels(self) -> Images:
        """The same images as a type that has no labels."""
        return Images(self.name, self.items, self.groups)

    def with_classes(self, classes: tuple[str, ...]) -> LabelledImages:
        """Relabel by name into ``classes``, which must contain every class that occurs."""
        index = {printable(name): i for i, name in enumerate(classes)}
        labels = np.array([index[self.classes[label]] for label in self.labels], dtype=np.int64)
        return LabelledImages(self.name, self.items, self.groups, classes, labels)

    def counts(self) -> dict[str, int]:
        """Images per class, in class order."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of content, order and label names (64 hex digits)."""
        return hash_strings([*(item.digest for item in self.items), *(self.classes[label] for label in self.labels)])


def _take(values: np.ndarray | None, indices: Any) -> np.ndarray | None:
    return None if values is None else values[np.asarray(indices, dtype=np.int64)]
