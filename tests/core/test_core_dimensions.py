"""Settings made from plain values: what is wrong is said in one sentence, what is right comes out typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.core.dimensions import Choice, Float, Int, build, choice, dimensions, log_uniform, searchable, uniform
from raytl.core.errors import UserError


@dataclass(frozen=True)
class Settings:
    weight: float = searchable(1.0, log_uniform(0.1, 10.0))
    kernels: int = searchable(3, Int(1, 8))
    mode: str = searchable("a", choice("a", "b"))
    steps: int = 5
    name: str = "x"
    fast: bool = False


class TestBuild:
    def test_takes_defaults_for_what_is_not_given(self) -> None:
        assert build(Settings, {"kernels": 4}, "here") == Settings(kernels=4)

    def test_takes_values_outside_the_search_range(self) -> None:
        assert build(Settings, {"weight": 500.0, "kernels": 100}, "here") == Settings(500.0, 100)

    def test_a_whole_number_where_a_real_one_is_due_becomes_real(self) -> None:
        built = build(Settings, {"weight": 2}, "here")
        assert built.weight == 2.0 and isinstance(built.weight, float)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"wieght": 1.0}, "here: unknown key 'wieght'; did you mean 'weight'?"),
            ({"weight": "heavy"}, "here: 'weight' is 'heavy'; give a number"),
            ({"weight": True}, "here: 'weight' is True; give a number"),
            ({"weight": float("nan")}, "here: 'weight' is nan; give a number"),
            ({"weight": None}, "here: 'weight' is None; give a number"),
            ({"kernels": 2.5}, "here: 'kernels' is 2.5; give a whole number"),
            ({"steps": 2.0}, "here: 'steps' is 2.0; give a whole number"),
            ({"mode": "c"}, "here: 'mode' is 'c'; give one of a, b"),
            ({"mode": ["a"]}, "here: 'mode' is ['a']; give one of a, b"),
            ({"name": 3}, "here: 'name' is 3; give a word"),
            ({"fast": 1}, "here: 'fast' is 1; give true or false"),
        ],
    )
    def test_says_what_is_wrong_and_what_to_give(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as error:
            build(Settings, values, "here")
        assert str(error.value) == message


class TestDimensions:
    def test_are_the_searchable_fields_in_order(self) -> None:
        assert list(dimensions(Settings)) == ["weight", "kernels", "mode"]

    @given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-10, 10))
    def test_a_range_contains_what_lies_in_it(self, a: float, b: float, value: float) -> None:
        low, high = sorted((a, b))
        assert Float(low, high).contains(value) == (low <= value <= high)

    @pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf")])
    def test_a_range_contains_only_finite_numbers(self, value: object) -> None:
        assert not uniform(-1e9, 1e9).contains(value)

    @pytest.mark.parametrize("value", [True, 1.0, "1", None])
    def test_whole_numbers_are_of_their_type(self, value: object) -> None:
        assert not Int(0, 5).contains(value)

    def test_true_is_not_one(self) -> None:
        assert not Choice((1, 2)).contains(True)
        assert not Choice((True,)).contains(1)
        assert Choice((1, 2)).contains(1)
