"""Images of a task that a source model has learned from before it: their labels it knows by heart, which flatters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import few
from raytl.core.places import expanded
from raytl.sources import Learned, learned_by, split_size
from raytl.sources.manifest import read_manifest
from raytl.sources.uris import joined_parts
from raytl.tasks import Images, Problem, SealedTest, Severity, TrainingData
from raytl.training.pretrain import parse_pretrain

_WITHOUT_LIST = (
    "was trained on the data at this very path or on what was there, and keeps no list of its images, as raytl before "
    "did not: what is held out of them now may be known to it, so that its figures flatter; train it again, or measure "
    "it on other images (--test)"
)


@dataclass(frozen=True)
class Known:
    """What the source models of a space have learned from.

    models: by their URIs without a size; of those that tell it. validated: how many of the images by which models are
    compared each knows, where it knows any; images: how many these are.
    """

    models: Mapping[str, Learned] = field(default_factory=dict)
    validated: Mapping[str, int] = field(default_factory=dict)
    images: int = 0

    def unseen(self, test: SealedTest | None) -> SealedTest | None:
        """The test without images that any of the models has learned from; None where none is left."""
        if test is None or not self.models:
            return test
        fresh = ~self._among(test.digests)
        return test if fresh.all() else test.subset(np.flatnonzero(fresh)) if fresh.any() else None

    def judge_test(self, test: SealedTest | None) -> list[Problem]:
        """What there is to say of the test; how it is opened then, says :meth:`unseen`."""
        if test is None:
            return []
        problems = []
        for uri, learned in self.models.items():
            known = int(learned.among(test.digests).sum())
            if known:
                left = self.unseen(test)
                done = f"left out of the test, which has {len(left)} images then" if left else "no test is left"
                more = (
                    "" if left and 2 * len(left) > len(test) else ". --test takes images that it has not learned from"
                )
                what = f"has learned from {_of(known, learned, len(test))} test images; {done}{more}"
                problems.append(Problem(Severity.WARNING, uri, what))
        return problems

    def _among(self, digests: Sequence[str]) -> np.ndarray:
        found = np.zeros(len(digests), dtype=bool)
        for learned in self.models.values():
            found |= learned.among(digests)
        return found


def known_by(uris: Sequence[str], data: TrainingData) -> tuple[Known, list[Problem]]:
    """What some source models know of a task's images, and what there is to say of it.

    Images without labels count for little: no model is compared by them. Raises UserError where a model's account of
    what it has learned from is damaged.
    """
    models, problems = {}, []
    for uri in dict.fromkeys(split_size(uri)[0] for uri in uris):
        pretraining = parse_pretrain(uri)
        start = uri if pretraining is None else pretraining[1]
        learned = learned_by(start)
        if learned is not None:
            models[uri] = learned
        elif _same_data(start, data):
            problems.append(Problem(Severity.WARNING, uri, _WITHOUT_LIST))
    if not models:
        return Known(), problems
    # With a target its images tell what is better; without, what is held out of the domains.
    compared = [data.target] if data.target is not None else list(data.source_domains.values())
    digests = [item.digest for images in compared for item in images.items]
    names = [item.name for images in compared for item in images.items]
    validated = {}
    for uri, learned in models.items():
        known = np.flatnonzero(learned.among(digests))
        if len(known):
            validated[uri] = len(known)
            those = f"{_of(len(known), learned, len(digests))} images that models are compared by"
            what = f"has learned from {those} ({few(names[index] for index in known)}), and knows them by heart"
            why = "what is held out of these flatters it, and the choice leans to it; only a test of other images tells"
            problems.append(Problem(Severity.WARNING, uri, f"{what}: {why}"))
        problems += _judge_unlabelled(uri, learned, data.unlabelled)
    return Known(models, validated, len(digests)), problems


def _judge_unlabelled(uri: str, learned: Learned, images: Images | None) -> list[Problem]:
    if images is None:
        return []
    known = int(learned.among([item.digest for item in images.items]).sum())
    if not known:
        return []
    what = f"has learned from {_of(known, learned, len(images))} unlabelled images, with labels: it is surer of these"
    return [Problem(Severity.INFO, uri, f"{what} than of others, which estimates of accuracy on them take for right")]


def _same_data(uri: str, data: TrainingData) -> bool:
    """Whether a model that keeps no list says that it was trained on what the task has."""
    roles = [data.target, *data.source_domains.values()]
    places = {os.path.abspath(expanded(images.name)) for images in roles if images is not None}  # noqa: PTH100
    for part in joined_parts(uri):
        kind, _, rest = split_size(part)[0].partition(":")
        if kind != "file" or "?" in rest:
            continue
        try:
            told = read_manifest(expanded(rest)).provenance.get("data")
        except UserError:  # said where it is loaded
            continue
        if isinstance(told, str) and told and (told == data.fingerprint or _place(told) in places):
            return True
    return False


def _place(text: str) -> str:
    return os.path.abspath(expanded(text))  # noqa: PTH100


def _of(known: int, learned: Learned, images: int) -> str:
    """``at least 3 of the 40``."""
    return f"{'' if learned.whole else 'at least '}{known} of the {images}"
