"""Hashes tell content apart, and are the same in every process."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raytl.core.hashing import hash_bytes, hash_file, hash_json, hash_strings, hash_tensors
from raytl.core.seeding import derive_seed, seed_everything

chunks = st.lists(st.binary(max_size=6), max_size=4)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


class TestHashes:
    @given(chunks, chunks)
    def test_bytes_are_the_same_only_with_the_same_boundaries(self, a: list[bytes], b: list[bytes]) -> None:
        assert (hash_bytes(*a) == hash_bytes(*b)) == (a == b)

    @given(st.text(min_size=2, max_size=9), st.data())
    def test_where_one_string_ends_and_the_next_begins_counts(self, text: str, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, len(text) - 1))
        assert hash_strings([text]) != hash_strings([text[:cut], text[cut:]])

    def test_strings_may_be_file_names_that_are_no_utf8(self) -> None:
        assert hash_strings(["a\udcff"]) != hash_strings(["a\udcfe"])

    @given(st.dictionaries(st.text(max_size=3), plain, max_size=4))
    def test_json_does_not_depend_on_the_order_of_keys(self, value: dict[str, object]) -> None:
        assert hash_json(value) == hash_json(dict(reversed(value.items())))

    def test_of_a_file_is_of_its_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"abc")
        assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestTensorHash:
    @pytest.mark.parametrize(
        "other",
        [
            {"b": torch.arange(6.0)},
            {"a": torch.arange(6)},
            {"a": torch.arange(6.0).reshape(2, 3)},
            {"a": torch.arange(6.0) + 1e-6},
            {"a": torch.arange(6.0), "b": torch.zeros(0)},
        ],
        ids=["name", "dtype", "shape", "value", "empty"],
    )
    def test_differs_where_anything_differs(self, other: dict[str, torch.Tensor]) -> None:
        assert hash_tensors({"a": torch.arange(6.0)}) != hash_tensors(other)

    def test_does_not_depend_on_memory_layout_or_order(self) -> None:
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        one = {"a": x, "b": torch.tensor(True)}
        other = {"b": torch.tensor(True), "a": x.to(memory_format=torch.channels_last)}
        assert hash_tensors(one) == hash_tensors(other)

    def test_takes_half_precision(self) -> None:
        assert hash_tensors({"a": torch.ones(2, dtype=torch.bfloat16)}) != hash_tensors({"a": torch.ones(2).half()})


class TestSeeds:
    @given(st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=4))
    def test_lie_in_the_range_that_every_library_takes(self, parts: list[object]) -> None:
        assert 0 <= derive_seed(*parts) < 2**31

    def test_of_a_name_that_is_no_utf8(self) -> None:
        assert derive_seed("file:a\udcff") != derive_seed("file:a\udcfe")

    def test_differ_with_every_part(self) -> None:
        seeds = {derive_seed(seed, use, k) for seed in range(10) for use in ("a", "b") for k in range(10)}
        assert len(seeds) == 200
        assert derive_seed("ab", "c") != derive_seed("a", "bc")

    def test_are_the_same_in_another_process_with_another_hash_salt(self) -> None:
        code = "from raytl.core.seeding import derive_seed; print(derive_seed(3, 'x', None))"
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == derive_seed(3, "x", None)

    def test_fix_python_numpy_and_torch(self) -> None:
        def draw() -> tuple[float, float, float]:
            seed_everything(5)
            return random.random(), float(np.random.rand()), float(torch.rand(()))

        assert draw() == draw()
