"""A strategy is plain values and back, and equal strategies have equal keys."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl import adaptation, finetuning
from raytl.core.dimensions import Choice, Dimension, Float, dimensions
from raytl.core.errors import UserError
from raytl.sources.heads import HEADS
from raytl.training import Strategy


def value_in(dimension: Dimension) -> st.SearchStrategy[Any]:
    if isinstance(dimension, Choice):
        return st.sampled_from(dimension.options)
    if isinstance(dimension, Float):
        return st.floats(dimension.low, dimension.high)
    return st.integers(dimension.low, dimension.high)


@st.composite
def strategies(draw: st.DrawFn) -> Strategy:
    flat: dict[str, Any] = {
        "source_model": draw(st.sampled_from(["scratch:cnn-small", "pretrain:a/scratch:cnn-small"])),
        "source_domain": draw(st.none() | st.sampled_from(["a", "b"])),
        "target_labels": draw(st.booleans()),
        "cut": draw(st.integers(0, 5)),
        "head": draw(st.sampled_from(HEADS)),
        "head_lr": draw(st.floats(1e-6, 10) | st.integers(1, 3)),
        "weight_decay": draw(st.floats(0, 1) | st.integers(0, 1)),
        "ema": draw(st.floats(0, 0.99) | st.just(0)),
    }
    for kind, room in (("adaptation", adaptation), ("regulariser", finetuning.regularisers)):
        name = draw(st.sampled_from(["none", *room.names()]))
        flat[kind] = name
        if name != "none":
            for key, dimension in dimensions(room.get(name).config).items():
                if draw(st.booleans()):
                    flat[f"{kind}.{key}"] = draw(value_in(dimension))
    return Strategy.from_dict(flat)


@given(strategies())
def test_survives_plain_values_and_json(strategy: Strategy) -> None:
    back = Strategy.from_dict(json.loads(json.dumps(strategy.to_dict())))
    assert back == strategy
    assert back.key == strategy.key


@given(strategies(), strategies())
def test_keys_are_equal_where_strategies_are(a: Strategy, b: Strategy) -> None:
    assert (a.key == b.key) == (a == b)


def test_a_setting_that_came_later_leaves_the_keys_of_earlier_runs() -> None:
    """As the first release hashed it; seeds are drawn from keys, and runs are resumed by them."""
    assert Strategy("scratch:cnn-small").key == "d0dbc9e8182e"


def test_one_and_one_point_nought_are_one_setting() -> None:
    assert Strategy("scratch:cnn-small", head_lr=1).key == Strategy("scratch:cnn-small", head_lr=1.0).key


def test_a_component_without_settings_is_the_one_with_its_defaults() -> None:
    default = adaptation.get("mcc").config()
    bare, full = Strategy("x:y", adaptation="mcc"), Strategy("x:y", adaptation="mcc", adaptation_config=default)
    assert bare.key == full.key
    assert bare.to_dict()["adaptation.temperature"] == default.temperature  # type: ignore[attr-defined]


def test_settings_of_a_loss_that_was_taken_out_do_not_count() -> None:
    strategy = Strategy("x:y", adaptation="mcc", adaptation_config=adaptation.get("mcc").config())
    assert replace(strategy, adaptation="none").key == Strategy("x:y").key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source_model": "a:b", "adaption": "mcc"}, "unknown key 'adaption'; did you mean 'adaptation'"),
        ({"source_model": "a:b", "adaptation": "mmc"}, "unknown adaptation loss 'mmc'; did you mean 'mcc'"),
        ({"source_model": "a:b", "adaptation": "mcc", "adaptation.temprature": 1.0}, "did you mean 'temperature'"),
        ({"source_model": "a:b", "adaptation.weight": 1.0}, "adaptation is 'none'"),
        ({"cut": 1}, "'source_model' is missing"),
    ],
)
def test_says_what_it_does_not_know(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Strategy.from_dict(values)
