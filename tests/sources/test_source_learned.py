"""Which images a saved model says it has learned from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny

from raytl import sources
from raytl.bundles import export_bundle
from raytl.core.errors import UserError
from raytl.sources import Learned, learned, learned_by
from raytl.sources.learned import LEARNED_FILE


def digests(numbers: range) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]


def saved(place: Path, numbers: range | None = None) -> Path:
    """A model that has learned from images of these numbers; of None it keeps no list."""
    model = sources.build_architecture(tiny.MODEL, num_classes=2, channels=1, image_size=16)
    model.labels = ("a", "b")
    known = None if numbers is None else Learned.of(digests(numbers))
    return export_bundle(place, model, metrics={}, provenance={}, learned=known)


def test_a_model_tells_what_it_has_learned_from(tmp_path: Path) -> None:
    found = learned_by(f"file:{saved(tmp_path / 'm', range(10))}@32px")
    assert found is not None and found.whole
    assert found.among(digests(range(8, 13))).tolist() == [True, True, False, False, False]


def test_others_tell_nothing(tmp_path: Path) -> None:
    assert learned_by(f"file:{saved(tmp_path / 'm')}") is None
    assert learned_by("scratch:cnn-small") is None
    assert learned_by(f"file:{tmp_path / 'gone'}") is None


def test_of_a_joined_model_all_parts_tell(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", range(5)), saved(tmp_path / "other", range(5, 9))
    found = learned_by(f"joined:file:{one}+file:{other}")
    assert found is not None and found.among(digests(range(10))).tolist() == [True] * 9 + [False]


def test_of_many_images_a_part_is_kept_that_is_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MOST", 50)
    everything = Learned.of(digests(range(200)))
    assert not everything.whole and len(everything.hashes) == 50
    halves = Learned.of(digests(range(100))).joined(Learned.of(digests(range(100, 200))))
    np.testing.assert_array_equal(halves.hashes, everything.hashes)
    assert everything.among(digests(range(200))).sum() == 50 and not everything.among(digests(range(200, 400))).any()


def test_what_began_with_a_model_that_keeps_no_list_knows_that_its_own_is_not_whole() -> None:
    assert not Learned.of(digests(range(3))).joined(None).whole
    assert Learned.of(digests(range(3))).joined(Learned.of(digests(range(5)))).whole


def test_a_bundle_of_before_tells_by_what_it_can_be_extended_with(tmp_path: Path) -> None:
    place = saved(tmp_path / "m")
    kept = np.stack([np.frombuffer(bytes.fromhex(digest), dtype=np.uint8) for digest in digests(range(4))])
    safetensors.numpy.save_file({"digests": kept}, place / "features.safetensors")
    found = learned_by(f"file:{place}")
    assert found is not None and not found.whole
    assert found.among(digests(range(6))).tolist() == [True] * 4 + [False] * 2


def test_a_damaged_list_is_refused_in_a_sentence(tmp_path: Path) -> None:
    place, other = saved(tmp_path / "m", range(4)), saved(tmp_path / "n", range(4))
    (place / LEARNED_FILE).write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"is damaged .*export the model again, or delete the file"):
        learned_by(f"file:{place}")
    told = {"version": "1", "weights": "0" * 64, "whole": "1"}
    safetensors.numpy.save_file({"hashes": np.zeros(3, dtype=np.uint64)}, other / LEARNED_FILE, told)
    with pytest.raises(UserError, match="it belongs to other weights"):
        learned_by(f"file:{other}")
