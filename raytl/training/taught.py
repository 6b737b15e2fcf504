"""Heads that are solved for on unlabelled images too, on what is believed of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from raytl.adaptation.propagation import pass_on, propagate
from raytl.evaluation.calibration import apply_temperature, confidence_temperature, fit_temperature
from raytl.evaluation.head_probes import CLOSE, ON_CPU, Kinds, SolvedHead
from raytl.evaluation.mixing import mixture_shares
from raytl.evaluation.place_probes import EXPECTED, draw, fit_places
from raytl.evaluation.probes import fit_logistic
from raytl.sources.heads import StagesHead
from raytl.tasks.splits import spread_by_class

NEIGHBOURS_SAY, BESIDE_A_DOMAIN = 0.9, 0.5
"""Share of neighbours in what is believed where no label tells whether they or a head are right: with one label a
class. A head that learned from a source domain too knows more than one that did not."""
MOST_LABELLED = 1500
"""Labelled images among the neighbours: of more, the rest has nothing to add."""
ASKED_AT_ONCE = 256
STRENGTH = 0.1
"""Over the number of images, the penalty of layers that learn from what is believed. It makes no difference to speak of
over two decades, and choosing it takes most of the time."""
DOUBT = 3.0
"""Images' worth of trust that what is said is as sure as it should be."""
AGREED = 0.65
"""Cohen's kappa from which on neighbours are heard, a little above where Landis & Koch (1977) begin to call it
substantial. Of 69 pairs of a task and a domain or none, with none to 40 labels a class, what neighbours say was worth
up to 22 points to the 24 above and cost two of them 2 and 6; it cost the 45 below up to 28, and was worth one to three
to four."""
_NEVER = 1e-12


@dataclass(frozen=True)
class Believed:
    """Of the unlabelled images: probabilities (m, k).

    labelled: the same of the labelled ones of the target (n, k), by what none of them said of itself; NaN where nothing
    else did. confidence: how sure a head is to be on average that learns from them.
    """

    unlabelled: np.ndarray
    labelled: np.ndarray
    confidence: float

    @property
    def labels(self) -> np.ndarray:
        """(m,), the most probable."""
        return np.asarray(self.unlabelled.argmax(axis=1))

    @property
    def weights(self) -> np.ndarray:
        """(m,), in sum 1: the less sure, the less is learned from it (Iscen et al., 2019)."""
        p = np.clip(self.unlabelled, 1e-12, 1)
        certainty = 1 + (p * np.log(p)).sum(axis=1) / np.log(p.shape[1])
        certainty = np.maximum(certainty, 1e-6)
        return np.asarray(certainty / certainty.sum())


def are_heard(unlabelled: Tensor, said: np.ndarray, *, widths: Sequence[int]) -> bool:
    """Whether what a head says (m, k) of unlabelled images (m, d) and of their neighbours agrees often enough.

    What neighbours are right about is not told by the labels: where images of a session, a laboratory or a camera look
    alike before those of a class do, the labelled ones have companions of their own session among the labelled, and the
    unlabelled ones have none there.
    """
    said = np.clip(said, _NEVER, None)
    of_others = _as_frequent(pass_on(unlabelled, said, widths=widths)[1], said)
    return _agreement(said.argmax(axis=1), of_others.argmax(axis=1), said.shape[1]) >= AGREED


def believe(
    features: Tensor,
    labels: np.ndarray,
    unlabelled: Tensor,
    said: np.ndarray,
    out_of_fold: np.ndarray,
    *,
    widths: Sequence[int],
    groups: np.ndarray | None,
    balanced: bool,
    joined: bool,
) -> Believed:
    """What neighbours say and what a head says, averaged by how right they are on labelled images that taught neither.

    features: (n, d) of the labelled images, labels: (n,); unlabelled: features (m, d). said: (m, k) by the head, and
    out_of_fold: (n, k), NaN if never held. groups, balanced: as of :func:`raytl.adaptation.propagation.propagate`.
    joined: whether the head learned from a source domain too.
    """
    classes = said.shape[1]
    kept = np.arange(len(labels))
    if len(labels) > MOST_LABELLED:  # some that the head was asked of, by which the two are told apart
        asked = np.isfinite(out_of_fold).all(axis=1)
        some = np.flatnonzero(asked | ~np.isin(labels, labels[asked]))
        kept = some[spread_by_class(labels[some], MOST_LABELLED)]
    own = np.full((len(labels), classes), np.nan)
    of_neighbours, own[kept] = propagate(
        features[torch.as_tensor(kept, device=features.device)],
        labels[kept],
        unlabelled,
        classes,
        widths=widths,
        groups=None if groups is None else groups[kept],
        balanced=balanced,
    )
    reached = np.isfinite(of_neighbours).all(axis=1)
    of_neighbours[~reached] = said[~reached]
    # Of the only image of its class others can say nothing right.
    counts = np.bincount(labels, minlength=classes)
    own[counts[labels] < 2] = np.nan
    told = np.isfinite(own).all(axis=1) & np.isfinite(out_of_fold).all(axis=1)
    both = [_as_sure_as_right(p, q, labels, told) for p, q in ((of_neighbours, own), (said, out_of_fold))]
    usual = BESIDE_A_DOMAIN if joined else NEIGHBOURS_SAY
    shares = np.array([usual, 1 - usual])
    if told.any():
        weights = None
        if balanced:
            even = np.bincount(labels[told], minlength=classes)[labels[told]]
            weights = told.sum() / (len(np.unique(labels[told])) * even)
        shares = mixture_shares(np.stack([q[told] for _, q in both]), labels[told], weights)
    (neighbours, mine), (head, held) = both
    believed = shares[0] * neighbours + shares[1] * head
    return Believed(believed, shares[0] * mine + shares[1] * held, float(believed.max(axis=1).mean()))


def believe_a_domain(unlabelled: Tensor, said: np.ndarray, *, widths: Sequence[int]) -> Believed:
    """What a head says that learned from a source domain alone, pooled with what it says of each image's neighbours.

    unlabelled: features (m, d); said: (m, k). Neighbours are heard as far as they agree, without the image itself, with
    what is said of it, beyond chance (Cohen's kappa): how alike images of one class are to the network is then known
    without a label. Classes stay as frequent as the head has them, and what is said of both is multiplied, so that what
    either is sure is not the class is not. What neighbours say is spread thin, and no label tells how sure that is to
    be: a head that learns from it is as sure as the one without.
    """
    said = np.clip(said, _NEVER, None)
    heard, of_others = (_as_frequent(rows, said) for rows in pass_on(unlabelled, said, widths=widths))
    share = _agreement(said.argmax(axis=1), of_others.argmax(axis=1), said.shape[1])
    pooled = said ** (1 - share) * heard**share
    confidence = float(said.max(axis=1).mean())
    return Believed(pooled / pooled.sum(axis=1, keepdims=True), np.empty((0, said.shape[1])), confidence)


def _as_frequent(heard: np.ndarray, said: np.ndarray) -> np.ndarray:
    """What neighbours say (m, k), with every class as frequent as in what is said; without neighbours, what is said."""
    heard = np.clip(np.where(np.isfinite(heard), heard, said), _NEVER, None)
    heard = heard * (said.mean(axis=0) / heard.mean(axis=0))
    return np.asarray(heard / heard.sum(axis=1, keepdims=True))


def _agreement(one: np.ndarray, other: np.ndarray, classes: int) -> float:
    """Cohen's kappa of two answers (m,) in [0, classes) to the same images, 0 where it is below."""
    frequencies = (np.bincount(answers, minlength=classes) / len(answers) for answers in (one, other))
    chance = float(np.prod(list(frequencies), axis=0).sum())
    agreed = float(np.mean(one == other))
    return max(0.0, (agreed - chance) / (1 - chance)) if chance < 1 else 0.0


def _as_sure_as_right(
    said: np.ndarray, of_labelled: np.ndarray, labels: np.ndarray, told: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    logs = np.log(np.clip(of_labelled[told], 1e-7, 1))
    temperature = fit_temperature(logs, labels[told], pull=DOUBT)
    return apply_temperature(said, temperature), apply_temperature(of_labelled, temperature)


def solve_taught(
    features: Tensor,
    labels: np.ndarray,
    weights: np.ndarray,
    unlabelled: Tensor,
    believed: Believed,
    *,
    head: StagesHead,
    balanced: bool,
    target: np.ndarray,
) -> SolvedHead:
    """The layers of ``head`` for the labelled images' features (n, d) and the unlabelled ones' (m, d).

    weights: (n,) of the labelled images; the unlabelled ones weigh as much as one role of these. target: bool (n,),
    which of them are the target's, of which ``believed`` tells; there may be none. The average is as sure as
    ``believed.confidence``.
    """
    classes = believed.unlabelled.shape[1]
    everything = torch.cat([features, unlabelled])
    everything = everything.cpu() if len(everything) <= ON_CPU else everything
    everyone = np.concatenate([labels, believed.labels])
    shares = np.concatenate([weights, believed.weights])
    n, widths = len(everyone), list(zip(head.widths, head.places, strict=True))
    widest = max((width for width, count in widths if count > 1), default=0)
    learned = np.arange(n) < len(labels)
    drawn = draw(everyone, classes, shares, learned, widest, (learned, ~learned))
    taught = int((drawn.weights > 0).sum())
    alone = partial(
        fit_logistic,
        labels=everyone,
        classes=classes,
        strengths=(STRENGTH / n,),
        sample_weight=shares,
        class_balanced=balanced,
        max_folds=1,
        tolerance=CLOSE,
    )
    placed = partial(
        fit_places,
        labels=everyone,
        classes=classes,
        strengths=(EXPECTED / taught,),
        sample_weight=drawn.weights,
        class_balanced=balanced,
        max_folds=1,
    )
    parts = zip(everything.split(head.widths, dim=1), head.places, strict=True)
    probes = [placed(part, places=places) if places > 1 else alone(part) for part, places in parts]
    out_of_fold = np.full((len(labels), classes), np.nan)
    out_of_fold[target] = believed.labelled
    usual = Kinds(len(probes), head.peaks, head.places).usual_shares()
    found = SolvedHead(tuple(probes), 1, usual, out_of_fold, 1.0, 1.0, drawn.all_teach)
    said = said_by(found, head, unlabelled)
    sharpness = 1.0 / confidence_temperature(said, believed.confidence)
    return replace(found, sharpness=float(np.float32(sharpness)))


@torch.inference_mode()
def said_by(solved: SolvedHead, like: StagesHead, features: Tensor) -> np.ndarray:
    """Probabilities (m, k) by a head that reads what ``like`` does."""
    head = like.anew(len(solved.probes[0].bias), solved.members).to(features.device)
    solved.put_into(head)
    said = [head(part.float()).softmax(dim=1).double().cpu() for part in features.split(ASKED_AT_ONCE)]
    return np.asarray(torch.cat(said).numpy()) if said else np.empty((0, len(solved.probes[0].bias)))
