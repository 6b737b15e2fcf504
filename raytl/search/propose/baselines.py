"""The recipes every search is held against: trained on the full budget and never stopped early."""

from __future__ import annotations

from dataclasses import replace

from raytl.search.space.binding import BoundSpace, untrained
from raytl.search.space.definition import NONE
from raytl.training.pretrain import parse_pretrain, pretrain_uri
from raytl.training.strategy import Strategy

FINE_TUNE = "fine-tune"
SCRATCH = "scratch"
LINEAR_PROBE = "linear-probe"
SOURCE_ONLY = "source-only"
# A recipe that a careful practitioner would start from; a weak one would flatter all that is held against it.
_RECIPE = Strategy(source_model="", head_lr=0.03, backbone_ratio=0.3, augmentation="shift")


def baselines(space: BoundSpace) -> dict[str, Strategy]:
    """Baselines by name, the default recipe first.

    ``fine-tune``: the space's first pretrained source model, nothing frozen, a third of the head's rate below the head.
    ``linear-probe``: the same with all stages frozen. ``scratch``: the same architecture untrained.
    ``source-only``: trained on the source domain's labels alone, where one has the task's labels.
    Without target labels all of them learn from the source domain's.
    """
    data = space.data
    joinable = [name for name in space.source_domains if name != NONE] or list(data.joinable)
    domain = joinable[0] if joinable else None
    labelled = None if data.target is not None else domain
    found: dict[str, Strategy] = {}
    reference = _reference(space, domain)
    if reference is not None:
        probe = space.stages[reference]
        found[FINE_TUNE] = replace(_RECIPE, source_model=reference, source_domain=labelled)
        found[LINEAR_PROBE] = replace(
            _RECIPE, source_model=reference, source_domain=labelled, cut=probe, augmentation="none", head_lr=0.1
        )
    scratch = _scratch(space, reference)
    if scratch is not None:
        found[SCRATCH] = replace(_RECIPE, source_model=scratch, source_domain=labelled, backbone_ratio=1.0)
    if domain is not None:
        start = reference or scratch
        if start is not None:
            found[SOURCE_ONLY] = replace(_RECIPE, source_model=start, source_domain=domain, target_labels=False)
    return found


def _reference(space: BoundSpace, domain: str | None) -> str | None:
    """The first source model with weights; of several domains' models, the one whose labels are the task's."""
    trained = [uri for uri in space.source_models if not untrained(uri)]
    for uri in trained:
        pretraining = parse_pretrain(uri)
        if pretraining is not None and domain is not None and pretraining[0] != domain:
            same = pretrain_uri(domain, pretraining[1])
            if same in space.source_models:
                return same
        return uri
    return None


def _scratch(space: BoundSpace, reference: str | None) -> str | None:
    """The reference's architecture untrained, or the space's own untrained model."""
    if reference is not None:
        pretraining = parse_pretrain(reference)
        if pretraining is not None:
            return pretraining[1]
        if reference.startswith(("torchvision:", "timm:")):
            return f"{reference.partition('@')[0]}@none"
    return next((uri for uri in space.source_models if untrained(uri)), None)
