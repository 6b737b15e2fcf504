"""The task: what is to be learned, from data in up to three roles, with the test split sealed away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from raytl.core.hashing import hash_strings
from raytl.tasks import splits
from raytl.tasks.images import ImageItem, Images, LabelledImages


class Role(StrEnum):
    """What a set of images is for."""

    TARGET = "target"
    SOURCE_DOMAIN = "source_domain"
    UNLABELLED = "unlabelled"


class Setting(StrEnum):
    """Which kind of transfer the roles at hand allow."""

    INDUCTIVE = "inductive"  # target labels, no unlabelled data
    UNSUPERVISED = "unsupervised adaptation"  # a source domain and unlabelled target images
    SEMI_SUPERVISED = "semi-supervised adaptation"  # target labels and unlabelled images


TOGETHER = " + "
"""Between the names of source domains that join a training together."""


def together(names: Iterable[str]) -> str:
    """What several source domains that join a training together are called, in whatever order they come."""
    return TOGETHER.join(sorted(names))


@dataclass(frozen=True)
class TrainingData:
    """All that the search may see: no test image is reachable from here.

    classes: the labels to learn, sorted by name.
    target: labelled images of the domain that the model will be used in, or None.
    unlabelled: images of that domain without labels, or None. A group of theirs with the number of one of the target's
        is that one.
    source_domains: labelled images of other domains by name, each with its own classes.
    channels: 1 where every image of every role is greyscale, else 3.
    image_side: pixels that the longer side of nine in ten images does not exceed, of the role where it is largest;
        None where it is not known.
    target_side: the same of the target's labelled images, or else of the unlabelled ones.
    piece_side: pixels of the longer side of the usual labelled image of the target; None where there is none, or the
        images without labels are of another size: what is seen in pieces of these is at another scale.
    """

    name: str
    classes: tuple[str, ...]
    target: LabelledImages | None
    unlabelled: Images | None
    source_domains: dict[str, LabelledImages]
    channels: int
    image_side: int | None = None
    target_side: int | None = None
    piece_side: int | None = None

    def with_items(self, change: Callable[[ImageItem], ImageItem]) -> TrainingData:
        """The same data with images held in another way (:meth:`raytl.tasks.Images.with_items`), in this order."""
        return replace(
            self,
            target=self.target.with_items(change) if self.target is not None else None,
            unlabelled=self.unlabelled.with_items(change) if self.unlabelled is not None else None,
            source_domains={name: domain.with_items(change) for name, domain in self.source_domains.items()},
        )

    @property
    def setting(self) -> Setting:
        """Which kind of transfer this data allows."""
        if self.target is None:
            return Setting.UNSUPERVISED
        return Setting.INDUCTIVE if self.unlabelled is None else Setting.SEMI_SUPERVISED

    @property
    def joinable(self) -> tuple[str, ...]:
        """Source domains whose label names are all among the task's, so that they can join the training.

        By name: samplers draw by place, and samples are spread over them in turn, so that the order in which they were
        given would decide what is tried and what it is scored on.
        """
        return tuple(
            name for name, domain in sorted(self.source_domains.items()) if set(domain.classes) <= set(self.classes)
        )

    def domains_of(self, name: str) -> tuple[str, ...]:
        """The source domains that a name stands for: one, or those that join :func:`together`; none of another name."""
        if name in self.source_domains:
            return (name,)
        names = tuple(name.split(TOGETHER))
        return names if len(names) > 1 and set(names) <= set(self.joinable) and name == together(set(names)) else ()

    def domain(self, name: str) -> LabelledImages:
        """Labelled images of :meth:`domains_of` a name, of several with the task's classes. KeyError for others."""
        first, *others = (self.source_domains[part] for part in self.domains_of(name) or (name,))
        if not others:
            return first
        images = first.with_classes(self.classes)
        for other in others:
            images = images.joined(other.with_classes(self.classes))
        return images

    @property
    def can_score(self) -> bool:
        """Whether anything tells strategies apart: labels that can be held out, or images without labels."""
        return self.unlabelled is not None or self.can_hold_out

    @property
    def can_hold_out(self) -> bool:
        """Whether there are labels that can be held out, to tell how good a model is.

        A source domain's do where it may join the training, and has a class of several.
        """
        if any(max(self.source_domains[name].counts().values(), default=0) > 1 for name in self.joinable):
            return True
        return self.target is not None and splits.plan_folds(self.target.labels, self.target.groups)[0] > 0

    @property
    def fingerprint(self) -> str:
        """Hash of all content and roles."""
        parts = [*self.classes, str(self.channels)]
        for role, images in [(Role.TARGET, self.target), (Role.UNLABELLED, self.unlabelled)]:
            parts.append(f"{role}={images.fingerprint if images is not None else ''}")
        parts += [f"{name}={domain.fingerprint}" for name, domain in sorted(self.source_domains.items())]
        return hash_strings(parts)


class SealedTest:
    """The test split. It is opened once, after the search; opening it again raises RuntimeError."""

    def __init__(self, images: LabelledImages, part_of: SealedTest | None = None) -> None:
        self._images = images
        self._whole = part_of
        self._opened = False

    def __len__(self) -> int:
        return len(self._images)

    @property
    def fingerprint(self) -> str:
        """Hash of the sealed content; tells which test split it was without opening it."""
        return self._images.fingerprint

    @property
    def digests(self) -> list[str]:
        """Of the sealed images; tells which of them are known elsewhere without opening it."""
        return [item.digest for item in self._images.items]

    def subset(self, indices: np.ndarray) -> SealedTest:
        """Some of the images, under the same seal."""
        return SealedTest(self._images.subset(indices), part_of=self)

    def open(self) -> LabelledImages:
        """The labelled test images; once."""
        if self._opened:
            raise RuntimeError("the test split was opened before; a second look would bias the reported figures")
        if self._whole is not None:
            self._whole.open()
        self._opened = True
        return self._images
