"""Which kind of strategy does better than which on task after task, whatever this task's few images say."""

from __future__ import annotations

from dataclasses import replace

from raytl.adaptation.propagation import PROPAGATION
from raytl.sources.heads import NEAR, ZERO_SHOT
from raytl.sources.uris import is_published, is_squashed, split_size, tiles_of
from raytl.tasks.task import TOGETHER
from raytl.training.pretrain import parse_pretrain
from raytl.training.strategy import Strategy

_ON_LAST = ("logistic", *NEAR)
"""Heads on the last stage's features: what is near them tells no more than what separates them."""
_EITHER = ("stages", *_ON_LAST)
"""Where images are of another kind: what early stages read of them is light and background more than what they show."""


def yields_to(one: Strategy, other: Strategy, *, labelled: bool = True, apart: bool = False) -> bool:
    """Whether the other strategy is a head on frozen features of a kind that does better on task after task.

    Better than a network that is trained on the target's images alone is, as long as these are few, a head on all
    stages of published weights, or of any that learned from the unlabelled images too; what the trained one is surer of
    on the unlabelled images it is often wrong in. Of two heads on frozen features: on all stages better than on the
    last (by logistic regression as by what is near), of the same network, and there with a source domain better than
    without, with several whose labels are borne out better than with one of these, and with what is believed of the
    unlabelled images: how much these are heard follows from the target's labels. On published weights better than on
    plain features. A network that was pretrained on the user's own source domain is better than these only where the
    domain is related. labelled: whether target labels tell that; where there are none, such a network is trusted less
    than published weights, a domain's features as they are less than with the target's moments, and what learned from
    the domain alone less than a head that learned from the unlabelled images too, whether it is a head or a network.
    apart: whether the unlabelled images are of another kind than the labelled ones: then what goes over to neighbours
    goes astray, and folds do not show it, for what they hold out is like the labelled ones. A head that learned from
    them is not better than the same without, but where labels say so; and one that learned from the labelled ones alone
    is no better on all stages than on the last. A network that was pretrained on a source domain yields there to a head
    on published weights that this domain taught: it has seen few images in all, and folds of like ones flatter it. And
    what sees images to their edges yields to the same on their middle: at the edges of a photographed page lies the
    desk, which folds do not show.
    """
    if is_on_the_middle(other, one):
        return True
    published = is_published(other.source_model)
    if not labelled and apart and goes_astray(other):
        return False
    if not one.convex:
        if not labelled:
            return one.adaptation == "none" and other.convex and other.adaptation == PROPAGATION
        if apart:
            return other.head in _EITHER and published and on_target_alone(one)
        better = other.head == "stages" and (published or other.adaptation == PROPAGATION)
        return better and on_target_alone(one)
    if not other.convex:
        return False
    unlike = apart and one.source_domain is other.source_domain is None
    if not labelled:
        return _trust(one)[:1] < _trust(other)[:1] if unlike else _trust(one) < _trust(other)
    same = one.source_model == other.source_model and other.head == "stages"
    stages = same and one.head in _ON_LAST and (one.source_domain is None or other.source_domain is not None)
    less, more = _heard(one), _heard(other)
    joined = all(a <= b for a, b in zip(less, more, strict=True)) and (less != more or _is_among(one, other))
    joined = joined and same and one.head == "stages"
    if unlike:
        alone = one.source_model == other.source_model and other.head in _EITHER
        stages, joined = False, alone and goes_astray(one) and not goes_astray(other)
    if other.head == ZERO_SHOT or not published:
        return stages or joined
    # Both know the domain: one by all that it is, the other by its head.
    own = (parse_pretrain(one.source_model) or (None,))[0]
    domains_own = apart and own is not None and own in (other.source_domain or "").split(TOGETHER)
    return stages or joined or domains_own or one.source_model.startswith("plain:")


def outdone(one: Strategy, other: Strategy, *, apart: bool = False) -> bool:
    """Whether a head on all stages is better than another strategy whatever a score without labels says.

    Whatever learned from a few target images alone is sure and wrong: a head on the last features of the same network,
    or a network that was trained on them, on the unlabelled ones too: those it was made sure of, and the score asks how
    sure it is. On seven tasks of one label a class the best of such networks by the score was right 26 % of the time,
    and the head on all stages 37 %. And a source domain is heard as far as the target's images bear it out. Never
    by what is trusted less otherwise: of two heads each would take the other's place for ever. apart: as for
    :func:`yields_to`; then a head on the last features is as good, for whatever learned from the target's images alone.
    """
    if not other.convex or other.head not in (_EITHER if apart else ("stages",)) or (apart and goes_astray(other)):
        return False
    if not one.convex:
        learned = one.source_domain is not None or one.source_model.startswith("pretrain:")
        return (not learned or on_target_alone(one)) and is_published(other.source_model)
    if other.head != "stages" or (apart and one.source_domain is other.source_domain is None):
        return False
    if one.source_model != other.source_model or one.head == ZERO_SHOT or _trust(other) < _trust(one):
        return False
    alike = other.source_domain == one.source_domain or (one.source_domain is not None and _is_among(one, other))
    taught = _heard(other)[1] and not _heard(one)[1] and alike
    return taught or (one.source_domain is None and (one.head in _ON_LAST or other.source_domain is not None))


def is_on_the_middle(one: Strategy, other: Strategy) -> bool:
    """Whether a strategy is another one that squashes images, but sees their middle, at the usual size or the same.

    Whether either learned from augmented views too is another question, that only what led is asked.
    """
    if not is_squashed(other.source_model) or is_squashed(one.source_model) or tiles_of(one.source_model) > 1:
        return False
    (bare, side), (usual, size) = split_size(other.source_model), split_size(one.source_model)
    twin = replace(other, source_model=one.source_model, augmentation=one.augmentation, cached_views=one.cached_views)
    return bare == usual and size in (None, side) and twin == one


def differs_in_size(one: Strategy, other: Strategy) -> bool:
    """Whether a strategy is another one, but for the size at which it sees images, and how much of them."""
    same = split_size(one.source_model)[0] == split_size(other.source_model)[0]
    return same and one != other and replace(other, source_model=one.source_model) == one


def goes_astray(strategy: Strategy) -> bool:
    """Whether the target's labels alone go over to unlabelled images: to wrong ones where these are of another kind."""
    return _heard(strategy) == (False, True)


def _is_among(one: Strategy, other: Strategy) -> bool:
    """Whether a strategy's source domain joins another one together with others."""
    mine, theirs = ((each.source_domain or "").split(TOGETHER) for each in (one, other))
    return set(mine) < set(theirs)


def on_target_alone(strategy: Strategy) -> bool:
    """Whether a strategy learned from the labelled target images and from nothing else of the user's."""
    return strategy.source_domain is None and strategy.adaptation == "none"


def _heard(strategy: Strategy) -> tuple[bool, bool]:
    """Whether a head learned from a source domain, and whether from the unlabelled images."""
    return strategy.source_domain is not None, strategy.adaptation == PROPAGATION


def _trust(strategy: Strategy) -> tuple[bool, ...]:
    """What does better on task after task without target labels, the more of it the better."""
    return (
        is_published(strategy.source_model),
        strategy.head == "stages",
        strategy.adaptation != "none",
        strategy.adaptation == PROPAGATION,
    )
