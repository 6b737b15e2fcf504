"""A strategy that a person puts together: the rest of it, and what is said where the space does not have it."""

from __future__ import annotations

import pytest
from tiny import MODEL, PRETRAINED, STAGES, data

from raytl.core.errors import UserError
from raytl.search.space.binding import BoundSpace
from raytl.search.space.by_hand import complete
from raytl.search.space.definition import load_space

SPACE = f"""
space:
  source_model: [{PRETRAINED}, {MODEL}]
  cut: any
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  optimizer: [sgd, adamw]
  weight_decay: {{sgd: {{low: 0.0001, high: 0.01}}, adamw: 0.05}}
  adaptation: [none, mcc, coral]
"""


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "mine.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data())


def test_what_is_not_said_is_as_in_the_trial_that_it_is_like(bound: BoundSpace) -> None:
    like = complete(bound, ["cut=2", "head_lr=0.5", "adaptation=mcc", "adaptation.mcc.weight=2.0"])
    assert (like.source_model, like.cut, like.head_lr, like.optimizer) == (PRETRAINED, 2, 0.5, "sgd")
    changed = complete(bound, ["optimizer=adamw"], like.to_dict())
    assert changed.to_dict() == {**like.to_dict(), "optimizer": "adamw", "weight_decay": 0.05}
    assert complete(bound, ["adaptation.weight=3.0"], like.to_dict()).to_dict()["adaptation.weight"] == 3.0
    assert complete(bound, ["cut=-1"]).cut == STAGES - 1


def test_what_no_longer_goes_with_it_is_left_out(bound: BoundSpace) -> None:
    like = complete(bound, ["adaptation=mcc", "adaptation.mcc.weight=2.0"])
    assert complete(bound, ["adaptation=none"], like.to_dict()).adaptation == "none"
    frozen = complete(bound, ["cut=all", "adaptation=none"], like.to_dict())
    assert (frozen.cut, frozen.head) == (STAGES, "logistic")


@pytest.mark.parametrize(
    ("assignments", "why"),
    [
        (["cut"], "write key=value"),
        (["cutt=0"], "--set cutt=0: unknown key 'cutt'; did you mean 'cut'?"),
        (["cut=9"], f"--set cut=9: 'cut' is 9; give one of 0, 1, 2, 3, 4, {STAGES}"),
        (["head_lr=7.0"], "--set head_lr=7.0: 'head_lr' is 7.0; give a number from 0.001 to 1"),
        (["head_lr=fast"], "'head_lr' is 'fast'; give a number from 0.001 to 1"),
        (["optimizer=lion"], "'optimizer' is 'lion'; give one of sgd, adamw"),
        (["source_model=scratch:resnet"], f"give one of {PRETRAINED}, {MODEL}"),
        (["adaptation.weight=2.0"], "is not searched over, or does nothing beside the other settings"),
        (["ema=0.9"], "--set ema=0.9: 'ema' is not searched over"),
        (["optimizer=adamw", "weight_decay=0.3"], "weight_decay"),
    ],
)
def test_what_the_space_does_not_have_is_said(bound: BoundSpace, assignments: list[str], why: str) -> None:
    with pytest.raises(UserError) as told:
        complete(bound, assignments)
    assert why in str(told.value)
