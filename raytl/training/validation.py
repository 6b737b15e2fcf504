"""How a trial's network does on images that it does not train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raytl.evaluation import selection, validators
from raytl.evaluation.metrics import Metric
from raytl.evaluation.metrics.tables import log_losses
from raytl.finetuning.freezing import recalibrate_norm
from raytl.judging.choice import BALANCED_LOG_LOSS
from raytl.sources.precision import autocast
from raytl.training.devices import upload
from raytl.training.network import Network
from raytl.training.pools import Pool, to_inputs
from raytl.training.roles import Roles

BATCH = 256


@dataclass(frozen=True)
class Seen:
    """What a network said of images that it does not train on.

    metrics: with the selection ``score``. probabilities: (v, k), of the validation fold's v target images. answers:
    (k,), the share of the unlabelled target images that each class was the answer for; empty without such images.
    """

    metrics: dict[str, float]
    probabilities: np.ndarray
    answers: np.ndarray


class Validation:
    """Metrics of a network with its current weights; test images are not reachable from here.

    roles: the trial's pools. classes: how many. metric: by which the labelled images count. frequencies: of the
    classes, as far as known. recalibrates: whether batch norm takes its statistics from the unlabelled target images
    before anything is measured (AdaBN); before the last epoch they are put back afterwards.
    """

    def __init__(
        self,
        network: Network,
        roles: Roles,
        classes: int,
        *,
        metric: Metric,
        frequencies: tuple[float, ...],
        recalibrates: bool,
    ) -> None:
        self._network = network
        self._roles = roles
        self._classes = classes
        self._metric = metric
        self._frequencies = frequencies
        self._recalibrates = recalibrates and roles.unlabelled is not None

    def run(self, *, last: bool) -> Seen:
        """Ask the network.

        last: whether the epoch is, and so worth the slower validators and the larger sample. Raises FloatingPointError
        where the network's predictions are not finite.
        """
        kept = None
        if self._recalibrates:
            kept = None if last else _statistics(self._network)
            self._recalibrate()
        outputs = self._outputs(last=last)
        if kept is not None:
            _restore(kept)
        return self._scored(outputs, last=last)

    def _scored(self, outputs: validators.Outputs, *, last: bool) -> Seen:
        """The validators' scores, the metric and the selection scores, beside what they are made of."""
        seen = (outputs.target_probabilities, outputs.source_probabilities, outputs.unlabelled_probabilities)
        if not all(np.isfinite(array).all() for array in seen if array is not None):
            raise FloatingPointError("predictions are not finite")
        found = validators.score_all(outputs, last=last)
        target, labels = outputs.target_probabilities, outputs.target_labels
        share = loss = None
        if target is not None and labels is not None:
            found["target-metric"], share, loss = self._judged(target, labels)
        unlabelled = outputs.unlabelled_probabilities
        images = 0 if target is None else len(target)
        found |= selection.scores(found, share, images, unlabelled, self._frequencies, loss)
        none = np.empty((0, self._classes), dtype=np.float32)
        answers = np.empty(0) if unlabelled is None else _answers(unlabelled)
        return Seen(found, none if target is None else target, answers)

    def _judged(self, said: np.ndarray, labels: np.ndarray) -> tuple[float, float, float | None]:
        """Of probabilities (n, k): the metric, its share of the best value, and the loss by which ties are told."""
        value = self._metric(said, labels)
        # Else it would be the largest class that decides between those that tie in a mean over the classes.
        loss = float(BALANCED_LOG_LOSS(said, labels)) if self._metric.by_class else None
        return value, self._metric.share_of_best(value, labels, self._classes), loss

    def inside(self, said: np.ndarray, validated: np.ndarray) -> dict[str, float]:
        """What labels say of a head by all images that are not used otherwise, and of how many, as metrics.

        said: probabilities (n, k) of the target's images that it was solved for on, NaN rows of those that nothing is
        known of. validated: (v, k), of the validation fold's.
        """
        told = [labels_of(pool) for pool in (self._roles.training["target"], self._roles.validation)]
        labels = np.concatenate([one for one in told if one is not None])
        probabilities = np.concatenate([said, validated])
        known = np.isfinite(probabilities).all(axis=1)
        if not known.any():
            return {}
        _, share, loss = self._judged(probabilities[known], labels[known])
        log_loss = float(log_losses(probabilities[known], labels[known]).mean()) if loss is None else loss
        images = int(known.sum())
        return {
            selection.INSIDE: selection.labelled({}, share, images, log_loss),
            selection.INSIDE_IMAGES: float(images),
        }

    def _outputs(self, *, last: bool) -> validators.Outputs:
        """What the network says of the validation images, the held-out source images and a sample without labels."""
        sample, held_out = self._roles.evaluated(last=last)
        target, _ = self._predict(self._roles.validation)
        source, _ = self._predict(held_out)
        unlabelled, features = self._predict(sample[0] if sample else None, features=True)
        moved, _ = self._predict(sample[1] if sample else None)
        return validators.Outputs(
            target_probabilities=target,
            target_labels=labels_of(self._roles.validation),
            source_probabilities=source,
            source_labels=labels_of(held_out),
            unlabelled_probabilities=unlabelled,
            unlabelled_features=features,
            unlabelled_moved_probabilities=moved,
            class_frequencies=np.array(self._frequencies) if self._frequencies else None,
        )

    @torch.no_grad()
    def _recalibrate(self) -> None:
        """Batch-norm statistics of the target in the stages above the cut; what is frozen stays as it is."""
        network, pool = self._network, self._roles.unlabelled
        assert pool is not None
        network.eval()
        # Shuffled: folders come in the order of something, and a batch of one kind has other statistics than the whole.
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
        batches = (
            network.model.run(to_inputs(upload(pool.take(index), network.device), network), network.entry, network.cut)
            for index in order.split(BATCH)
        )
        recalibrate_norm(network.stages, network.cut, batches)

    @torch.inference_mode()
    def _predict(self, pool: Pool | None, *, features: bool = False) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Softmax probabilities (n, k) in eval mode, and features (n, d) if wanted; None of an empty pool or none."""
        if pool is None or not len(pool):
            return None, None
        network = self._network
        network.eval()
        probabilities, seen = [], []
        with autocast(network.device):
            for batch in pool.batches(BATCH):
                f = network.features(to_inputs(upload(batch, network.device), network))
                if features:
                    seen.append(f.float())
                probabilities.append(network.head(f).float().softmax(1))
        return torch.cat(probabilities).cpu().numpy(), torch.cat(seen).cpu().numpy() if features else None


def labels_of(pool: Pool | None) -> np.ndarray | None:
    """Known labels (n,) of a pool; None of an empty one or of none."""
    return None if pool is None or pool.labels is None or not len(pool) else pool.labels.cpu().numpy()


def _answers(probabilities: np.ndarray) -> np.ndarray:
    """The share of images (k,) that each class is the most probable of."""
    counts = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    return np.asarray(counts / len(probabilities))


def _statistics(network: Network) -> list[tuple[Tensor, Tensor]]:
    return [(buffer, buffer.clone()) for stage in network.stages for buffer in stage.buffers()]


def _restore(kept: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in kept:
        buffer.copy_(value)
