"""``raytl sources rank``: what each source model's features are worth at each cut, and what training above it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from raytl.evaluation import metrics
from raytl.evaluation.intervals import Interval, metric_interval
from raytl.evaluation.probes import fit_logistic
from raytl.search.propose.features import pooled_features, sample
from raytl.search.space.binding import BoundSpace
from raytl.sources.precision import autocast
from raytl.tasks import LabelledImages
from raytl.training.devices import finish
from raytl.training.network import Network
from raytl.training.workspace import Workspace

MAX_IMAGES = 500
"""Images that a figure is from; more cost time and hardly move a rank."""
_TIMED_BATCH = 16
_TIMED_STEPS = 3


@dataclass(frozen=True)
class RankedSource:
    """A line of ``raytl sources rank``: a source model at a cut.

    rank: 1 for the best. value: of the metric, out of fold, by logistic regression on the features behind the cut; None
    where they are not finite. log_loss: likewise, in nats. step_ms: forward and backward of what is trained above the
    cut, milliseconds per image. parameters: trained ones. seconds: what loading and features of the source model took,
    all its cuts together.
    """

    source_model: str
    cut: int
    rank: int
    value: Interval | None
    log_loss: float
    step_ms: float
    parameters: int
    seconds: float


def cuts_of_interest(bound: BoundSpace) -> dict[str, list[int]]:
    """By source model, the cuts that the space allows and that have features, and always all stages."""
    return {uri: sorted({*bound.cuts(uri), bound.stages[uri]} - {0}) for uri in bound.source_models}


def labelled_images(workspace: Workspace) -> LabelledImages | None:
    """The images to rank on: the target's, else held-out ones of a source domain with the task's labels.

    At most ``MAX_IMAGES``, each class in its share. None where there are no such images.
    """
    data, seed = workspace.data, workspace.settings.seed
    if data.target is not None:
        return sample(data.target, MAX_IMAGES, seed)
    if not data.joinable:
        return None
    # A model pretrained on this domain knows the images that it was trained on by heart.
    name = min(data.joinable)
    _, held_out = workspace.source_split(name)
    images = data.source_domains[name].with_classes(data.classes)
    return sample(images.subset(held_out) if len(held_out) > len(data.classes) else images, MAX_IMAGES, seed)


def rank_sources(workspace: Workspace, bound: BoundSpace, images: LabelledImages) -> list[RankedSource]:
    """Rank the space's source models at their allowed cuts, best first, with costs.

    By the log loss of a convex head on the features, out of fold: what a search finds out first. Models that learn a
    source domain first are trained here where no earlier run did.
    """
    found: list[tuple[float, RankedSource]] = []
    for uri, cuts in cuts_of_interest(bound).items():
        started = time.perf_counter()
        features = pooled_features(workspace, uri, images)
        seconds = time.perf_counter() - started
        for cut in cuts:
            value, log_loss = _probed(workspace, features[cut - 1], images)
            step_ms, parameters = _cost(workspace, uri, cut, images)
            found.append((log_loss, RankedSource(uri, cut, 0, value, log_loss, step_ms, parameters, seconds)))
    ordered = [source for _, source in sorted(found, key=lambda entry: entry[0])]
    return [_at(source, rank) for rank, source in enumerate(ordered, start=1)]


def _at(source: RankedSource, rank: int) -> RankedSource:
    return RankedSource(**{**vars(source), "rank": rank})


def _probed(workspace: Workspace, features: np.ndarray, images: LabelledImages) -> tuple[Interval | None, float]:
    """The metric and the log loss, out of fold; infinite loss where nothing can be said."""
    if not np.isfinite(features).all():
        return None, float("inf")
    classes = len(workspace.data.classes)
    probe = fit_logistic(features, images.labels, classes, groups=images.groups, seed=workspace.settings.seed)
    known = ~np.isnan(probe.out_of_fold[:, 0])
    if not known.any():
        return None, float("inf")
    said, labels = probe.out_of_fold[known], images.labels[known]
    groups = None if images.groups is None else images.groups[known]
    value = metric_interval(workspace.metric, said, labels, groups)
    return value, float(metrics.get("log-loss")(said, labels))


def _cost(workspace: Workspace, uri: str, cut: int, images: LabelledImages) -> tuple[float, int]:
    """Milliseconds per image of one training step above the cut, and the number of trained parameters."""
    model, _ = workspace.source_model(uri)
    network = Network(model, workspace.data.classes, cut, device=workspace.device, images=workspace.images)
    pixels = workspace.pixels(images, network.preprocessing)[:_TIMED_BATCH].to(workspace.device)
    labels = torch.as_tensor(images.labels[:_TIMED_BATCH]).to(workspace.device)
    with torch.no_grad():
        network.eval()
        normalised = network.preprocessing.normalise(pixels).contiguous(memory_format=torch.channels_last)
        inputs = network.model.run(normalised, 0, cut)
    network.entry = cut
    network.train()
    fastest = float("inf")
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        with autocast(workspace.device):
            logits = network.head(network.features(inputs))
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        finish(workspace.device)
        fastest = min(fastest, time.perf_counter() - started)
    return 1000 * fastest / len(pixels), sum(parameter.numel() for parameter in network.trainable())
