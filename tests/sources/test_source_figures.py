"""Checkpoints hold figures beside weights: those of a training are read, and crafted ones are refused in a sentence."""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raytl.core.errors import UserError
from raytl.sources.figures import HARMLESS
from raytl.sources.weights import read_weights


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def dtype(name: str, order: str = "<", flags: int = 0) -> bytes:
    """The pickled ``numpy.dtype`` of a name, with the state that NumPy gives it."""
    state = b"(K\x03" + text(order) + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K" + bytes([flags]) + b"tb"
    return b"cnumpy\ndtype\n" + text(name) + b"\x89\x88\x87R" + state


def scalar(kind: bytes, data: str | None, core: str = "_core") -> bytes:
    """A pickled NumPy number of a kind, or one that says nothing of its bytes."""
    call = f"cnumpy.{core}.multiarray\nscalar\n".encode() + kind
    if data is None:
        return call + b"\x85R"
    return call + b"c_codecs\nencode\n" + text(data) + text("latin1") + b"\x86R\x86R"


def long(value: int) -> bytes:
    return b"\x8a\x10" + value.to_bytes(16, "little")


def by_hand(path: Path, pickled: bytes) -> Path:
    """A .pth file of that pickle, without its first and last opcode."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return path


def figures(path: Path, pickled: bytes) -> Any:
    """What that pickle is to torch, with what raytl lets it call."""
    with torch.serialization.safe_globals(HARMLESS):
        return torch.load(by_hand(path, pickled), weights_only=True)


class TestAFileThatWasCrafted:
    def test_a_number_that_is_an_object_at_no_address_does_not_end_the_process(self, tmp_path: Path) -> None:
        path = by_hand(tmp_path / "w.pth", scalar(dtype("f8", flags=0x02), None))
        read = "import pathlib, sys; from raytl.sources import weights; weights.read_weights(pathlib.Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", read, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "w.pth: is not a readable file of weights" in done.stderr

    @pytest.mark.parametrize(
        "pickled",
        [
            pytest.param(scalar(dtype("V300000000"), None), id="a number of 300 MB"),
            pytest.param(b"cnumpy\ndtype\n" + text("V300000000") + b"\x85R", id="a kind of 300 MB"),
            pytest.param(scalar(dtype("O"), "12345678"), id="an object"),
            pytest.param(scalar(dtype("f8"), "1234"), id="too few bytes"),
            pytest.param(scalar(dtype("f8", order="x"), "12345678"), id="no byte order"),
            pytest.param(scalar(text("f8"), "12345678"), id="a number of no kind"),
            pytest.param(scalar(b"cnumpy\ndtype\n)\x81", "12345678"), id="a kind that was never made"),
            pytest.param(b"cbuiltins\nbytearray\n" + long(10**15) + b"\x85R", id="more memory than there is"),
            pytest.param(b"cbuiltins\nbytearray\n" + long(10**30) + b"\x85R", id="more bytes than can be counted"),
            pytest.param(b"c_codecs\nencode\n" + text("a") + text("b") + b"\x86R", id="an unknown encoding"),
            pytest.param(b"J", id="cut within a number"),
        ],
    )
    def test_is_refused_in_one_sentence(self, pickled: bytes, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"w\.pth: is (not a readable file|damaged or holds more)"):
            read_weights(by_hand(tmp_path / "w.pth", pickled))


class TestFiguresOfATraining:
    @pytest.mark.parametrize("kind", "?bhilqBHILQefd")
    @pytest.mark.parametrize("core", ["core", "_core"])
    @pytest.mark.parametrize("order", "<>")
    def test_numpys_numbers_become_pythons(self, kind: str, core: str, order: str, tmp_path: Path) -> None:
        number = np.array(1, dtype=kind).astype(np.dtype(kind).newbyteorder(order))
        name, data = number.dtype.kind + str(number.dtype.itemsize), number.tobytes().decode("latin1")
        read = figures(tmp_path / "w.pth", scalar(dtype(name, number.dtype.str[0]), data, core))
        assert (type(read), read) == (type(number.item()), 1)

    def test_beside_options_and_weights(self, tmp_path: Path) -> None:
        state = {"fc.weight": torch.ones(2, 3)}
        args = argparse.Namespace(lr=np.float32(0.1), data="x")
        checkpoint = {"state_dict": state, "best_acc": np.float64(0.5), "epoch": np.int64(3), "args": args}
        torch.save(checkpoint, tmp_path / "w.pth")
        assert read_weights(tmp_path / "w.pth")["fc.weight"].equal(state["fc.weight"])
        torch.save(checkpoint, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        assert read_weights(tmp_path / "old.pth")["fc.weight"].equal(state["fc.weight"])

    def test_a_kind_alone(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {"w": torch.ones(2)}, "kind": np.dtype("<f4")}, tmp_path / "w.pth")
        assert list(read_weights(tmp_path / "w.pth")) == ["w"]
