"""How many of the labelled images a training draws, said where these are not all of them."""

from __future__ import annotations

import math
from collections.abc import Collection

from raytl.search.space.definition import SearchSpace
from raytl.tasks import Problem, Severity, TrainingData
from raytl.training.settings import Budget


def judge_drawn(space: SearchSpace, data: TrainingData, pretrained_on: Collection[str]) -> list[Problem]:
    """A sentence on each role of which a training of a network sees only a part, however often it is tried.

    pretrained_on: source domains that a source model learns before the search.
    """
    given, found = space.settings, []
    roles = [data.target] if data.target is not None else []
    roles += [data.source_domains[name] for name in data.joinable]
    budget = Budget(given.epochs, given.steps_per_epoch, given.batch_size)
    for images in roles:
        steps, batch = budget.steps_for(len(images)), budget.batch_for(len(images))
        drawn = budget.epochs * steps * batch
        if drawn < len(images):
            whole = math.ceil(len(images) / (budget.epochs * batch))
            message = (
                f"a training of a network draws {drawn:,} of the {len(images):,} labelled images ({budget.epochs} "
                f"epochs of {steps} batches of {batch}); with --set steps_per_epoch={whole} it sees all of them, and "
                f"takes {whole / steps:.1f} times as long"
            )
            found.append(Problem(Severity.INFO, images.name, message))
    for name in pretrained_on:
        images, pretrain = data.source_domains[name], space.pretrain
        drawn = pretrain.steps * pretrain.batch_size
        if drawn < len(images):
            message = (
                f"a source model that learns it first draws {drawn:,} of the {len(images):,} labelled images "
                f"({pretrain.steps} batches of {pretrain.batch_size}); with more steps under 'pretrain' in a search "
                "space of your own it sees more"
            )
            found.append(Problem(Severity.INFO, images.name, message))
    return found
