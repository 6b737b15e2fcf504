"""How often an image passes through its network in a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import MODEL, PRETRAINED, STAGES, data, shapes

from raytl.search.propose.effort import Effort
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training import Strategy
from raytl.training.workspace import Budget

BUDGET = Budget(epochs=10, steps_per_epoch=0, batch_size=32, looks=(2, 6))
PLAIN = Strategy(PRETRAINED)


@pytest.fixture
def effort(tmp_path: Path) -> Effort:
    file = tmp_path / "effort.yaml"
    file.write_text(f"space:\n  source_model: ['pretrain:*/{MODEL}', '{MODEL}']\n  cut: any\n")
    return Effort(BoundSpace(load_space(str(file)), data()), BUDGET)


def test_a_convex_head_trains_nothing(effort: Effort) -> None:
    assert effort.passes(Strategy(PRETRAINED, cut=STAGES, head="stages")).trained == 0.0


def test_a_head_passes_the_images_of_all_domains_that_join_it(tmp_path: Path) -> None:
    file = tmp_path / "effort.yaml"
    file.write_text(f"space:\n  source_model: ['{PRETRAINED}', '{MODEL}']\n  cut: any\n")
    held = replace(data(), source_domains={"bright": shapes(12, 3), "dim": shapes(9, 5)})
    effort = Effort(BoundSpace(load_space(str(file)), held), BUDGET)
    head = Strategy(PRETRAINED, cut=STAGES, head="stages")
    joined = [effort.passes(replace(head, source_domain=name)).forward for name in ("bright", "dim", "bright + dim")]
    none = effort.passes(head).forward
    assert joined[2] - none == pytest.approx(sum(joined[:2]) - 2 * none) and joined[1] > none


def test_a_head_looks_at_some_images_without_labels_still_and_moved(tmp_path: Path) -> None:
    file = tmp_path / "effort.yaml"
    file.write_text(f"space:\n  source_model: ['{PRETRAINED}', '{MODEL}']\n  cut: any\n")
    head = Strategy(PRETRAINED, cut=STAGES, head="stages")
    for of_a_class, looked in ((9, 54), (100, 256), (None, 0)):
        space = BoundSpace(load_space(str(file)), data(unlabelled=of_a_class))
        assert Effort(space, BUDGET).passes(head).looked == looked


def test_every_step_passes_a_batch_of_every_role(effort: Effort) -> None:
    alone, joined = effort.passes(PLAIN).trained, effort.passes(replace(PLAIN, source_domain="bright")).trained
    target = data().target
    assert target is not None
    batch = BUDGET.batch_for(round(0.8 * len(target)))
    assert alone == 10 * 10 * batch
    assert joined > 1.9 * alone


def test_what_is_frozen_and_kept_passes_once(effort: Effort) -> None:
    whole = effort.passes(PLAIN)
    kept = effort.passes(replace(PLAIN, cut=STAGES - 1))
    views = effort.passes(replace(PLAIN, cut=STAGES - 1, augmentation="shift", cached_views=4))
    anew = effort.passes(replace(PLAIN, cut=STAGES - 1, augmentation="shift"))
    assert kept.trained == views.trained == anew.trained == pytest.approx(whole.trained / STAGES)
    assert kept.forward < views.forward < anew.forward


def test_an_adapted_strategy_passes_the_unlabelled_images_as_well(effort: Effort) -> None:
    assert effort.passes(replace(PLAIN, adaptation="mcc")).trained > 1.9 * effort.passes(PLAIN).trained
