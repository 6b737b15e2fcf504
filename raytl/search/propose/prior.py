"""What source models promise before any training: how well their features at each cut tell the classes apart.

LogME and H-score of the features of labelled images (:mod:`raytl.evaluation.transferability`), combined by their ranks.
The search tries the source models in this order; none is dropped for it, since such a score can err.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raytl.core.hashing import hash_json
from raytl.core.seeding import derive_seed
from raytl.evaluation.transferability import h_score, log_me, rank_aggregate
from raytl.search.jobs import CutScore
from raytl.search.space.binding import BoundSpace
from raytl.sources import SourceModel
from raytl.tasks import LabelledImages, splits
from raytl.training.devices import autocast, finish
from raytl.training.network import Network
from raytl.training.workspace import Workspace

MAX_IMAGES = 500
"""Images that a score looks at; more cost time and hardly move a rank."""
RESAMPLES = 20
RESAMPLED_IMAGES = 200
_BATCH = 64
_TIMED_BATCH = 16
_TIMED_STEPS = 3


@dataclass(frozen=True)
class Candidate:
    """A place in the ranking of source models and cuts.

    rank: 1 for the best; log_me_rank, h_score_rank: among all candidates by one score, ties share theirs.
    interval: of the rank, 90 % over halves of the images; None where it was not asked for.
    """

    source_model: str
    score: CutScore
    rank: int
    log_me_rank: float
    h_score_rank: float
    interval: tuple[float, float] | None = None


@dataclass
class SourcePrior:
    """The scores that came in so far, and the order they put the source models in.

    cuts: at which cuts each source model is scored (:func:`cuts_of_interest`).
    """

    cuts: Mapping[str, Sequence[int]]
    scores: dict[str, list[CutScore]] = field(default_factory=dict)

    def complete(self) -> bool:
        """Whether every source model has been scored."""
        return set(self.scores) == set(self.cuts)

    def ranking(self) -> list[Candidate]:
        """The source models scored so far at their cuts, best first: by the mean of their ranks in both scores."""
        pairs = [(uri, score) for uri, scores in self.scores.items() for score in scores]
        by_log_me = rank_aggregate({"": [score.log_me for _, score in pairs]})
        by_h_score = rank_aggregate({"": [score.h_score for _, score in pairs]})
        order = sorted(range(len(pairs)), key=lambda i: by_log_me[i] + by_h_score[i])
        return [
            Candidate(*pairs[index], place, by_log_me[index], by_h_score[index])
            for place, index in enumerate(order, start=1)
        ]

    def order(self) -> list[str]:
        """The source models scored so far, best first: each at the best of its cuts."""
        return list(dict.fromkeys(candidate.source_model for candidate in self.ranking()))


def cuts_of_interest(bound: BoundSpace) -> dict[str, list[int]]:
    """By source model, the cuts that the space allows and that have features, and always all stages.

    The features behind all stages are what such scores were made for; they stand for training everything, too.
    """
    return {uri: sorted({*bound.cuts(uri), bound.stages[uri]} - {0}) for uri in bound.source_models}


def labelled_images(workspace: Workspace) -> LabelledImages | None:
    """The images to score on: the target's, else held-out ones of the first source domain with the task's labels.

    At most ``MAX_IMAGES``, each class in its share. None where there are no such images.
    """
    data, seed = workspace.data, workspace.settings.seed
    if data.target is not None:
        return _sample(data.target, seed)
    if not data.joinable:
        return None
    # A model pretrained on this domain knows the images that it was trained on by heart.
    _, held_out = workspace.source_split(data.joinable[0])
    images = data.source_domains[data.joinable[0]].with_classes(data.classes)
    return _sample(images.subset(held_out) if len(held_out) > len(data.classes) else images, seed)


def score_cuts(workspace: Workspace, uri: str, images: LabelledImages, cuts: Sequence[int]) -> list[CutScore]:
    """Scores of a source model's features at the given cuts (from 1); its weights are made or loaded first.

    Features that are not finite score NaN, which ranks last.
    """
    features = pooled_features(workspace, uri, images)
    return [_score(cut, features[cut - 1], images.labels) for cut in cuts]


def _score(cut: int, features: np.ndarray, labels: np.ndarray, width: int | None = None) -> CutScore:
    if not np.isfinite(features).all():
        return CutScore(cut, float("nan"), float("nan"))
    return CutScore(cut, log_me(features, labels), h_score(features, labels, width))


def pooled_features(workspace: Workspace, uri: str, images: LabelledImages) -> list[np.ndarray]:
    """Outputs of every stage, averaged over positions: one (n, d) array per stage. Kept in the array cache."""
    model, weights = workspace.source_model(uri)
    key = hash_json([weights, model.architecture, model.preprocessing.to_json(), images.fingerprint])[:32]
    cache = workspace.cache
    widths = cache.get(f"prior-{key}-widths", lambda: np.array(_widths(workspace, model, images), dtype=np.int64))
    joined = cache.get(f"prior-{key}", lambda: np.concatenate(_run_stages(workspace, model, images), axis=1))
    return np.split(joined, np.cumsum(widths)[:-1], axis=1)


def _widths(workspace: Workspace, model: SourceModel, images: LabelledImages) -> list[int]:
    return [features.shape[1] for features in _run_stages(workspace, model, images.subset([0]))]


@torch.inference_mode()
def _run_stages(workspace: Workspace, model: SourceModel, images: LabelledImages) -> list[np.ndarray]:
    model = model.to(workspace.device).eval()
    outputs: list[list[Tensor]] = [[] for _ in model.stages]
    for chunk in workspace.pixels(images, model.preprocessing).split(_BATCH):
        x = model.preprocessing.normalise(chunk.to(workspace.device)).contiguous(memory_format=torch.channels_last)
        for stage, kept in zip(model.stage_list(), outputs, strict=True):
            x = stage(x)
            kept.append(pool_positions(x).float().cpu())
    return [torch.cat(kept).numpy() for kept in outputs]


def pool_positions(x: Tensor) -> Tensor:
    """Mean over positions: of maps (n, c, h, w) or (n, h, w, c), of tokens (n, t, c); (n, c) from any of them."""
    if x.ndim == 4:
        channels_last = x.shape[1] == x.shape[2] != x.shape[3]
        return x.mean(dim=(1, 2) if channels_last else (2, 3))
    return x.mean(dim=1) if x.ndim == 3 else x.flatten(1)


# --- for people -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankedSource:
    """A line of ``raytl sources rank``.

    step_ms: forward and backward of what is trained above the cut, milliseconds per image. parameters: trained ones.
    seconds: what loading, features and scores of the source model took, all its cuts together.
    """

    candidate: Candidate
    step_ms: float
    parameters: int
    seconds: float


def rank_sources(workspace: Workspace, bound: BoundSpace, images: LabelledImages) -> list[RankedSource]:
    """Rank the space's source models at their allowed cuts, with intervals and costs, best first.

    Models that learn a source domain first are trained here where no earlier run did.
    """
    prior = SourcePrior(cuts_of_interest(bound))
    features: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for uri in bound.source_models:
        started = time.perf_counter()
        features[uri] = pooled_features(workspace, uri, images)
        prior.scores[uri] = score_cuts(workspace, uri, images, prior.cuts[uri])
        seconds[uri] = time.perf_counter() - started
    intervals = _rank_intervals(prior, features, images.labels, workspace.settings.seed)
    ranked = []
    for candidate in prior.ranking():
        uri, cut = candidate.source_model, candidate.score.cut
        step_ms, parameters = _cost(workspace, uri, cut, images)
        ranked.append(RankedSource(replace(candidate, interval=intervals[uri, cut]), step_ms, parameters, seconds[uri]))
    return ranked


def _rank_intervals(
    prior: SourcePrior, features: dict[str, list[np.ndarray]], labels: np.ndarray, seed: int
) -> dict[tuple[str, int], tuple[float, float]]:
    """By source model and cut: between which ranks 90 % of random halves of the images put it.

    The spread over halves is that of the bootstrap, whose repeated images would flatter wide features.
    """
    rng = np.random.default_rng(derive_seed(seed, "prior"))
    subset = _stratified(labels, RESAMPLED_IMAGES, seed)
    labels = labels[subset]
    rotated = {
        (uri, score.cut): _rotated(features[uri][score.cut - 1][subset])
        for uri, scores in prior.scores.items()
        for score in scores
    }
    places: dict[tuple[str, int], list[int]] = {key: [] for key in rotated}
    for _ in range(RESAMPLES):
        index = _half(labels, rng)
        drawn = SourcePrior(prior.cuts)
        for (uri, cut), (values, width) in rotated.items():
            drawn.scores.setdefault(uri, []).append(_score(cut, values[index], labels[index], width))
        for candidate in drawn.ranking():
            places[candidate.source_model, candidate.score.cut].append(candidate.rank)
    return {key: (float(np.quantile(found, 0.05)), float(np.quantile(found, 0.95))) for key, found in places.items()}


def _rotated(features: np.ndarray) -> tuple[np.ndarray, int]:
    """The same features in at most n dimensions, and how many there were: both scores are the same, and cheap."""
    if features.shape[1] <= len(features) or not np.isfinite(features).all():
        return features, features.shape[1]
    u, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    return u * singular, features.shape[1]


def _half(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of half of each class, at least two of it where it has them."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.permutation(own)[: max(2, (len(own) + 1) // 2)] for own in members])


def _cost(workspace: Workspace, uri: str, cut: int, images: LabelledImages) -> tuple[float, int]:
    """Milliseconds per image of one training step above the cut, and the number of trained parameters."""
    model, _ = workspace.source_model(uri)
    network = Network(model, workspace.data.classes, cut, device=workspace.device)
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


def _sample(images: LabelledImages, seed: int) -> LabelledImages:
    return images if len(images) <= MAX_IMAGES else images.subset(_stratified(images.labels, MAX_IMAGES, seed))


def _stratified(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of about ``most`` images, each class in its share; all where there are no more."""
    if len(labels) <= most:
        return np.arange(len(labels))
    return splits.holdout(labels, None, most / len(labels), derive_seed(seed, "prior"))[1]
