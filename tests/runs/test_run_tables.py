"""Any strategy fits into Parquet, with the types that its values allow."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.runs.tables import column, history_table, trials_table
from raytl.search.records import TrialRecord

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6))


def records(strategies: list[dict]) -> list[TrialRecord]:
    return [TrialRecord(number, "search", strategy, "k") for number, strategy in enumerate(strategies)]


@settings(max_examples=80)
@given(st.lists(st.dictionaries(st.sampled_from(["cut", "adaptation.weight", "a b"]), scalars), max_size=6))
def test_any_mixture_of_values_survives_parquet(strategies):
    buffer = io.BytesIO()
    pq.write_table(trials_table(records(strategies)), buffer)
    rows = pq.read_table(buffer).to_pylist()
    assert [row["number"] for row in rows] == list(range(len(strategies)))
    for row, strategy in zip(rows, strategies, strict=True):
        for key, value in strategy.items():
            kept = row[f"strategy.{key}"]
            if isinstance(kept, str) and not isinstance(value, str):
                assert kept == json.dumps(value)  # the column is mixed: all of it is text
            else:
                assert kept == value or isinstance(value, str)  # a lone surrogate becomes a question mark


@settings(max_examples=60)
@given(st.sampled_from([st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)]).flatmap(st.lists))
def test_a_column_of_one_kind_keeps_values_and_types(values):
    kept = column(values).to_pylist()
    assert kept == values
    assert [type(value) for value in kept] == [type(value) for value in values]


def test_only_the_mixed_column_becomes_text():
    table = trials_table(records([{"cut": 1, "size": 3}, {"cut": "all", "size": 4}]))
    assert table["strategy.cut"].to_pylist() == ["1", "all"]
    assert table["strategy.size"].to_pylist() == [3, 4]
    assert column([2**53 + 1, 0.5, None]).to_pylist() == [str(2**53 + 1), "0.5", None]


def test_numpy_values_are_taken_as_plain_ones():
    record = TrialRecord(
        np.int64(4),
        "search",
        {"head_lr": np.float32(0.5), "cut": np.int64(2)},
        "k",
        metrics={"accuracy": np.float64(1)},
    )
    row = trials_table([record]).to_pylist()[0]
    assert (row["number"], row["strategy.head_lr"], row["strategy.cut"], row["metric.accuracy"]) == (4, 0.5, 2, 1.0)


def test_curves_of_unlike_trials_share_a_table():
    first = TrialRecord(0, "search", {}, "a", history=[{"epoch": 1, "accuracy": 0.5}])
    second = TrialRecord(1, "search", {}, "b", history=[{"epoch": 1.0, "source_accuracy": 0.7}])
    assert history_table([first, second]).to_pylist() == [
        {"trial": 0, "epoch": 1, "accuracy": 0.5, "source_accuracy": None},
        {"trial": 1, "epoch": 1, "accuracy": None, "source_accuracy": 0.7},
    ]
