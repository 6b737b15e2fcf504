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

from raytl.adaptation.moments import LEAST_SEEN, match_moments
from raytl.evaluation.apartness import LEAST_TOLD_APART, are_apart
from raytl.evaluation.chance import DOUBT, by_chance
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
FEWEST_GROUPS = 10
"""Of fewer, the one held out is as unlike the others as images of another kind are: where the two sets were of two
kinds, probes told it of four groups in one of three cases, of ten in half, of fifteen in all."""
STRENGTHS = (1e-3, 1e-2, 1e-1)
EVEN = 0.5
"""A share of right answers that chance gives less often than this speaks for knowledge more than against it."""
FALLS_BEHIND = 0.05
"""A share of right answers below others' by more than luck gives as often as this is taken for more than bad luck."""


@dataclass(frozen=True)
class _Answers:
    """Of a domain's probe to the images of another place, of the classes that the domain has.

    share: of right ones, the mean over these classes. of_all: the same over all classes that the place has. right,
    asked: how many. by_chance: how often chance has as many right.
    """

    share: float
    of_all: float
    right: int
    asked: int
    by_chance: float

    @property
    def knows(self) -> bool:
        """Whether they are right more often than chance would have it."""
        return self.by_chance < DOUBT


@dataclass
class _Domain:
    """A domain's labelled images in two halves, and what a probe of the first one answered elsewhere.

    told: by place, without those that have fewer than two classes in common with the domain: these tell nothing of it.
    """

    name: str
    learned: LabelledImages
    held: LabelledImages
    probe: Probe | None = None
    told: dict[str, _Answers] = field(default_factory=dict)

    def knows(self, place: str) -> bool:
        """Whether its probe was asked there, and is right more often than chance would have it."""
        return place in self.told and self.told[place].knows


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
        told = _confirmed(asked) if data.target is None else [d for d in asked if d.knows(TARGET)]
        if told or len(asked) < 2:
            best = (1.0, asked, uri)  # telling enough, or nothing to tell apart: a network takes longer to look
            break
        # The features under which most is known where it was not learned.
        carries = float(np.mean([answers.share for domain in asked for answers in domain.told.values()] or [0.0]))
        if carries > best[0]:
            best = (carries, asked, uri)
    _, asked, uri = best
    order = _order(asked, len(data.classes), has_target=data.target is not None)
    set_aside = _contradicted(asked, has_target=data.target is not None)
    left = [name for name in order if name not in set_aside]
    frequencies, note, apart, unclear = _of_the_unlabelled(workspace, uri)
    notes = [f"source domain {name} set aside: {why}" for name, why in set_aside.items()]
    compared = {place for domain in asked for place in (domain.name, *domain.told) if domain.told} - {TARGET}
    unconfirmed = tuple(name for name in left if name in compared)
    if data.target is not None or len(unconfirmed) < 2 or _confirmed(asked):
        unconfirmed = ()
    if unconfirmed:
        notes.append(
            f"none of the source domains {', '.join(sorted(unconfirmed))} confirms another's labels, and there are no "
            f"target labels to tell which are right: '{left[0]}' is believed; leave out the ones that are not to be "
            f"trusted"
        )
    if apart:
        notes.append(
            "the images without labels are of another kind than the labelled ones: heads that learn from them too are "
            "taken only where labels tell that they are better"
        )
    if unclear:
        notes.append(f"whether the images without labels are of another kind than the labelled ones, {unclear}")
    said = (*notes, *([note] if note else []))
    borne_out = _borne_out(asked)
    agreed = tuple(name for name in left if name in borne_out)
    return Survey(tuple(left), set_aside, frequencies, said, apart, unclear, unconfirmed, agreed)


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

    def note(domain: _Domain, place: str, said: np.ndarray, images: LabelledImages) -> None:
        answers = _judged(said, images, np.unique(domain.learned.labels))
        if answers is not None:
            domain.told[place] = answers

    for domain in domains:
        learned = _last(workspace, uri, domain.learned)
        if not np.isfinite(learned).all():
            continue
        domain.probe = asked = _fitted(learned, domain.learned, len(data.classes))
        for other in domains:
            if other is not domain:
                said = domain.probe.logits(_last(workspace, uri, other.held)).argmax(1)
                note(domain, other.name, said, other.held)
        if labelled is None:
            continue
        if seen is not None and len(seen) >= LEAST_SEEN:
            like = torch.tensor(_last(workspace, uri, seen))
            asked = _fitted(match_moments(torch.tensor(learned), like).numpy(), domain.learned, len(data.classes))
        said = asked.logits(_last(workspace, uri, labelled)).argmax(1)
        note(domain, TARGET, said, labelled)


def _fitted(features: np.ndarray, images: LabelledImages, classes: int) -> Probe:
    return fit_logistic(features, images.labels, classes, groups=images.groups, strengths=STRENGTHS, max_folds=3)


def _judged(said: np.ndarray, images: LabelledImages, known: np.ndarray) -> _Answers | None:
    """What a probe that knows some classes, (c,), said of images (n,); None where these have fewer than two of them.

    It is asked of these classes alone: what it cannot know speaks neither for its labels nor against them.
    """
    present = np.unique(images.labels)
    common = np.intersect1d(present, known)
    if len(common) < 2:
        return None
    asked = np.isin(images.labels, common)
    said, labels = said[asked], images.labels[asked]
    right = said == labels
    recalls = [right[labels == label].mean() for label in common]
    of_all = float(np.sum(recalls)) / len(present)
    chance = by_chance(said, labels, len(images.classes))
    return _Answers(float(np.mean(recalls)), of_all, int(right.sum()), len(right), chance)


def _order(domains: Sequence[_Domain], classes: int, *, has_target: bool) -> list[str]:
    """Names, the most promising first; the name decides between equals, so that no order of options does.

    By what a domain's probe gets right of all that the target has, or without target labels of the other domains, times
    the share of the classes that it has. One that could be asked of no other is taken to be as right as these are.
    """
    abroad = {d.name: [told.share for place, told in d.told.items() if place != TARGET] for d in domains}
    usual = float(np.mean([share for shares in abroad.values() for share in shares] or [1.0]))

    def promise(domain: _Domain) -> tuple[float, float, str]:
        of_target = domain.told[TARGET].of_all if has_target and TARGET in domain.told else 0.0
        right = float(np.mean(abroad[domain.name] or [usual]))
        covered = len(np.unique(domain.learned.labels)) / classes
        return (-of_target, -round(right * covered, 9), domain.name)  # a sum's last digits follow the options' order

    return [domain.name for domain in sorted(domains, key=promise)]


def _confirmed(domains: Sequence[_Domain]) -> set[str]:
    """Names of those whose probe knows another domain's labels, and that one's probe theirs."""
    by_name = {domain.name: domain for domain in domains}
    return {
        domain.name
        for domain in domains
        for place, answers in domain.told.items()
        if place != TARGET and answers.knows and by_name[place].knows(domain.name)
    }


def _borne_out(domains: Sequence[_Domain]) -> set[str]:
    """Names of those whose labels the target's bear out, or another domain's and the target's not less than chance.

    Two that have exchanged the same classes know each other's labels, and are mostly wrong of the target's.
    """
    found = {domain.name for domain in domains if domain.knows(TARGET)}
    confirmed = _confirmed(domains)
    for domain in domains:
        of_target = domain.told.get(TARGET)
        if domain.name in confirmed and (of_target is None or of_target.by_chance < EVEN):
            found.add(domain.name)
    return found


def _contradicted(domains: Sequence[_Domain], *, has_target: bool) -> dict[str, str]:
    """Domains whose labels nobody confirms although others confirm each other, by name, with the reason.

    A domain is confirmed where its probe knows the target, or another domain and that one's probe knows it. A domain
    that nobody confirms is set aside only if somebody else is confirmed on the same features: else they carry nothing
    over, and nothing is known of anyone. And only where it was asked as they were and falls behind them: of other
    classes than theirs they know nothing, and a label or two of the target tell nothing.
    """
    confirmed = _confirmed(domains)
    agreed = [d for d in domains if d.name in confirmed or (has_target and d.knows(TARGET))]
    if not agreed or len(domains) < 2:
        return {}
    found = {}
    for domain in domains:
        known_by = any(other.knows(domain.name) for other in domains)
        knows = any(answers.knows for answers in domain.told.values())
        if domain.name not in {d.name for d in agreed} and not known_by and not knows and _falls_behind(domain, agreed):
            against = ", ".join(d.name for d in agreed) + (" and the target's labels" if has_target else "")
            found[domain.name] = f"its labels are no better than chance against {against}"
    return found


def _falls_behind(domain: _Domain, others: Sequence[_Domain]) -> bool:
    """Whether somewhere a domain's probe is right less often than those of others that know the place are.

    By more than luck gives either of them (Fisher's exact test).
    """
    from scipy.stats import fisher_exact  # a second of import, which few searches come to need

    pairs = [(mine, other.told[place]) for place, mine in domain.told.items() for other in others if other.knows(place)]
    tables = ([[told.right, told.asked - told.right] for told in pair] for pair in pairs)
    return any(fisher_exact(table, alternative="less").pvalue < FALLS_BEHIND for table in tables)


def _of_the_unlabelled(workspace: Workspace, uri: str) -> tuple[tuple[float, ...], str, bool, str]:
    """Frequencies of the classes in the target domain, a sentence, and :func:`_are_apart`.

    Nothing without target labels or unlabelled images. A source domain's labels do not do: its classes may look
    different, and no prediction would show it.
    """
    data = workspace.data
    if data.unlabelled is None or data.target is None:
        return (), "", False, ""
    labelled = sample(data.target, MOST_IMAGES, workspace.settings.seed)
    few = _spread(data.unlabelled, MOST_IMAGES)
    seen = _last(workspace, uri or PLAIN, labelled)
    probe = fit_logistic(seen, labelled.labels, len(data.classes), groups=labelled.groups)
    of_few = _last(workspace, uri or PLAIN, few)
    said = softmax(probe.logits(of_few), axis=1)  # as out of fold, before any temperature
    held = np.isfinite(probe.out_of_fold).all(axis=1)
    # An only image of its class was not held out: it is what its label says.
    kinds = np.where(held, np.nan_to_num(probe.out_of_fold, neginf=-np.inf).argmax(axis=1), labelled.labels)
    apart = _are_apart(seen, of_few, (kinds, said.argmax(axis=1)), (labelled.groups, few.groups))
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
        return tuple((counts + 1.0) / (counts.sum() + len(counts))), "", *apart
    shares, of_labels = tuple(float(share) for share in estimate.frequencies), counts / counts.sum()
    differs = estimate.furthest_from(of_labels)
    if differs is None:
        same = "class frequencies of the target estimated, and none is known to differ from that of the labels"
        return shares, same, *apart
    which, low, high = differs
    found = f"'{data.classes[which]}' {100 * shares[which]:.0f} % (90 % interval {100 * low:.0f} to {100 * high:.0f})"
    of_these = f"{100 * of_labels[which]:.0f} % of the labels"
    return shares, f"class frequencies of the target estimated, {found} and {of_these}", *apart


def _are_apart(
    labelled: np.ndarray,
    unlabelled: np.ndarray,
    kinds: tuple[np.ndarray, np.ndarray],
    groups: tuple[np.ndarray | None, np.ndarray | None],
) -> tuple[bool, str]:
    """Whether labelled (n, d) and unlabelled (m, d) features are told apart; where that says nothing, why.

    kinds: (n,) and (m,), the classes that a probe names them. groups: (n,) and (m,), or None.
    """
    if are_apart(labelled, unlabelled, kinds, groups):
        return True, ""
    fewest = min((len(np.unique(own)) for own in groups if own is not None), default=FEWEST_GROUPS)
    if fewest >= FEWEST_GROUPS or min(len(labelled), len(unlabelled)) < LEAST_TOLD_APART:
        return False, ""
    return False, "one group cannot tell" if fewest == 1 else f"{fewest} groups cannot tell"


def _last(workspace: Workspace, uri: str, images: Images) -> np.ndarray:
    """Features (n, d) behind all stages."""
    return pooled_features(workspace, uri, images)[len(info(uri, channels=workspace.data.channels).stages) - 1]


def _spread(images: Images, most: int) -> Images:
    if len(images) <= most:
        return images
    return images.subset(np.sort(np.random.default_rng(0).choice(len(images), most, replace=False)))
