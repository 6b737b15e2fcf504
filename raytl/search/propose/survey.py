"""The survey: which source domains are of use and whose labels contradict the others', before anything is trained.

Logistic regression on features that were learned from none of the domains: of each domain's images, asked of the
target's labelled images and of every other domain's. It takes seconds and needs no order of the options. What a domain
teaches is only seen where the features carry over at all; where nobody's do, nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import binomtest

from raytl.adaptation.moments import LEAST_SEEN, match_moments
from raytl.evaluation.class_frequencies import estimate_frequencies
from raytl.evaluation.probes import Probe, fit_logistic
from raytl.search.jobs import Survey
from raytl.search.propose.features import pooled_features, sample
from raytl.sources import info, is_untrained
from raytl.tasks import Images, LabelledImages
from raytl.training.workspace import Workspace

PLAIN = "plain:gradients"
"""Features of shape that no data set taught: the same for every task."""
MOST_IMAGES = 300
"""Of a domain, a split or a role: more hardly move a rank."""
STRENGTHS = (1e-3, 1e-2, 1e-1)
DOUBT = 0.01
"""A share of right answers that chance gives less often than this is taken for knowledge."""


@dataclass
class _Domain:
    """A domain's labelled images in two halves, and what a probe of the first one gets right elsewhere."""

    name: str
    learned: LabelledImages
    held: LabelledImages
    probe: Probe | None = None
    knows: dict[str, bool] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


TARGET = ""
"""The target, among the places where a domain's probe is asked."""


def survey(workspace: Workspace, source_models: Sequence[str]) -> Survey:
    """Look at the task's data. source_models: of the space; the first with weights of its own is asked as well."""
    data = workspace.data
    domains = [_halves(workspace, name) for name in data.joinable]
    best: tuple[float, list[_Domain], str] = (-1.0, domains, "")
    for uri in dict.fromkeys([PLAIN, *_learned_elsewhere(source_models)[:1]]):
        asked = [_Domain(domain.name, domain.learned, domain.held) for domain in domains]
        _ask(workspace, uri, asked)
        told = _confirmed(asked) if data.target is None else [d for d in asked if d.knows.get(TARGET, False)]
        if told or len(asked) < 2:
            best = (1.0, asked, uri)  # telling enough, or nothing to tell apart: a network takes longer to look
            break
        # The features under which most is known where it was not learned.
        carries = float(np.mean([share for domain in asked for share in domain.shares.values()] or [0.0]))
        if carries > best[0]:
            best = (carries, asked, uri)
    _, asked, uri = best
    order = _order(asked, has_target=data.target is not None)
    set_aside = _contradicted(asked, has_target=data.target is not None)
    left = [name for name in order if name not in set_aside]
    frequencies, note = _frequencies(workspace, uri)
    notes = [f"source domain {name} set aside: {why}" for name, why in set_aside.items()]
    if data.target is None and len(left) > 1 and not _confirmed(asked):
        notes.append(
            f"none of the source domains {', '.join(sorted(left))} confirms another's labels, and there are no target "
            f"labels to tell which are right: '{left[0]}' is believed; leave out the ones that are not to be trusted"
        )
    return Survey(tuple(left), set_aside, frequencies, (*notes, *([note] if note else [])))


def _learned_elsewhere(source_models: Sequence[str]) -> list[str]:
    """Source models with weights that none of the task's domains taught."""
    return [uri for uri in source_models if not uri.startswith(("pretrain:", "plain:")) and not is_untrained(uri)]


def _halves(workspace: Workspace, name: str) -> _Domain:
    """Held-out images are those that a pretrained source model will not have seen either."""
    images = workspace.data.source_domains[name].with_classes(workspace.data.classes)
    train, held = workspace.source_split(name)
    seed = workspace.settings.seed
    return _Domain(
        name,
        sample(images.subset(train), MOST_IMAGES, seed),
        sample(images.subset(held if len(held) >= len(workspace.data.classes) else train), MOST_IMAGES, seed),
    )


def _ask(workspace: Workspace, uri: str, domains: Sequence[_Domain]) -> None:
    """Fit each domain's probe and ask it of the other domains and of the target.

    Where there are enough unlabelled images, the probe that is asked of the target learned from features with the
    target's moments, as the heads will that are joined with a domain.
    """
    data = workspace.data
    labelled = None if data.target is None else sample(data.target, MOST_IMAGES, workspace.settings.seed)
    seen = None if data.unlabelled is None else _spread(data.unlabelled, MOST_IMAGES)
    for domain in domains:
        learned = _last(workspace, uri, domain.learned)
        if not np.isfinite(learned).all():
            continue
        domain.probe = asked = _fitted(learned, domain.learned, len(data.classes))
        for other in domains:
            if other is not domain:
                said = domain.probe.logits(_last(workspace, uri, other.held)).argmax(1)
                domain.shares[other.name], domain.knows[other.name] = _judged(said, other.held)
        if labelled is None:
            continue
        if seen is not None and len(seen) >= LEAST_SEEN:
            like = torch.as_tensor(_last(workspace, uri, seen))
            asked = _fitted(match_moments(torch.as_tensor(learned), like).numpy(), domain.learned, len(data.classes))
        said = asked.logits(_last(workspace, uri, labelled)).argmax(1)
        domain.shares[TARGET], domain.knows[TARGET] = _judged(said, labelled)


def _fitted(features: np.ndarray, images: LabelledImages, classes: int) -> Probe:
    return fit_logistic(features, images.labels, classes, groups=images.groups, strengths=STRENGTHS, max_folds=3)


def _judged(said: np.ndarray, images: LabelledImages) -> tuple[float, bool]:
    """Balanced accuracy, and whether the answers are right more often than chance would have it."""
    right = said == images.labels
    present = np.unique(images.labels)
    share = float(np.mean([right[images.labels == label].mean() for label in present]))
    # Answers drawn at random in the shares in which they were given, of labels in theirs.
    answered = np.bincount(said, minlength=len(images.classes)) / len(said)
    expected = float((answered * np.bincount(images.labels, minlength=len(images.classes)) / len(said)).sum())
    chance = binomtest(int(right.sum()), len(right), min(max(expected, 1e-9), 1.0), alternative="greater").pvalue
    return share, bool(chance < DOUBT)


def _order(domains: Sequence[_Domain], *, has_target: bool) -> list[str]:
    """Names, the most promising first; the name decides between equals, so that no order of options does.

    By what a domain's probe gets right of the target, or without target labels of the other domains.
    """

    def promise(domain: _Domain) -> tuple[float, float, str]:
        abroad = [share for place, share in domain.shares.items() if place != TARGET]
        mean = round(float(np.mean(abroad)), 9) if abroad else 0.0  # a sum's last digits follow the options' order
        return (-domain.shares.get(TARGET, 0.0) if has_target else 0.0, -mean, domain.name)

    return [domain.name for domain in sorted(domains, key=promise)]


def _confirmed(domains: Sequence[_Domain]) -> set[str]:
    """Names of those whose probe knows another domain's labels, and that one's probe theirs."""
    by_name = {domain.name: domain for domain in domains}
    return {
        domain.name
        for domain in domains
        for place, knows in domain.knows.items()
        if place != TARGET and knows and by_name[place].knows.get(domain.name, False)
    }


def _contradicted(domains: Sequence[_Domain], *, has_target: bool) -> dict[str, str]:
    """Domains whose labels nobody confirms although others confirm each other, by name, with the reason.

    A domain is confirmed where its probe knows the target, or another domain and that one's probe knows it. A domain
    that nobody confirms is set aside only if somebody else is confirmed on the same features: else they carry nothing
    over, and nothing is known of anyone.
    """
    confirmed = _confirmed(domains)
    agreed = [d.name for d in domains if d.name in confirmed or (has_target and d.knows.get(TARGET, False))]
    if not agreed or len(domains) < 2:
        return {}
    found = {}
    for domain in domains:
        known_by = any(other.knows.get(domain.name, False) for other in domains)
        if domain.name not in agreed and not known_by and not any(domain.knows.values()):
            against = ", ".join(agreed) + (" and the target's labels" if has_target else "")
            found[domain.name] = f"its labels are no better than chance against {against}"
    return found


def _frequencies(workspace: Workspace, uri: str) -> tuple[tuple[float, ...], str]:
    """Of the classes in the target domain, and a sentence; none without target labels or unlabelled images.

    A source domain's labels do not do: its classes may look different, and no prediction would show it.
    """
    data = workspace.data
    if data.unlabelled is None or data.target is None:
        return (), ""
    labelled = sample(data.target, MOST_IMAGES, workspace.settings.seed)
    few = _spread(data.unlabelled, MOST_IMAGES)
    seen = _last(workspace, uri or PLAIN, labelled)
    probe = fit_logistic(seen, labelled.labels, len(data.classes), groups=labelled.groups)
    said = softmax(probe.logits(_last(workspace, uri or PLAIN, few)), axis=1)  # as out of fold, before any temperature
    counts = np.bincount(data.target.labels, minlength=len(data.classes))
    estimate = estimate_frequencies(
        said,
        probe.out_of_fold,
        labelled.labels,
        target_counts=counts,
        groups=labelled.groups,
        seed=workspace.settings.seed,
    )
    if not estimate.reliable:
        # The labels may have been drawn with an even hand; where nothing better is known, that is no worse than even.
        return tuple((counts + 1.0) / (counts.sum() + len(counts))), ""
    shares = tuple(float(share) for share in estimate.frequencies)
    most = int(np.argmax(shares))
    low, high = 100 * estimate.low[most], 100 * estimate.high[most]
    largest = f"'{data.classes[most]}' {100 * shares[most]:.0f} % (90 % interval {low:.0f} to {high:.0f})"
    return shares, f"class frequencies of the target estimated, {largest}"


def _last(workspace: Workspace, uri: str, images: Images) -> np.ndarray:
    """Features (n, d) behind all stages."""
    return pooled_features(workspace, uri, images)[len(info(uri, channels=workspace.data.channels).stages) - 1]


def _spread(images: Images, most: int) -> Images:
    if len(images) <= most:
        return images
    return images.subset(np.sort(np.random.default_rng(0).choice(len(images), most, replace=False)))
