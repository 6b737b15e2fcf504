"""Which images a saved model has learned from, so that none is taken for a new one: ``learned.safetensors``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from raytl.core.errors import UserError
from raytl.core.places import expanded, is_file
from raytl.sources.manifest import read_manifest
from raytl.sources.uris import joined_parts, split_size

LEARNED_FILE = "learned.safetensors"
VERSION = "1"
MOST = 1 << 20
"""Images that are kept of, eight bytes each: of more those with the lowest hashes, so that any two lists can be one."""
_FEATURES_FILE = "features.safetensors"
"""In which bundles of before have hashes of some of their images."""


@dataclass(frozen=True)
class Learned:
    """Labelled images that a model, or what it began with, was trained on.

    hashes: uint64 (n,), ascending: the first eight bytes of each image's digest. whole: whether these are all.
    """

    hashes: np.ndarray
    whole: bool = True

    @classmethod
    def of(cls, digests: Iterable[str]) -> Learned:
        """Those of digests of 64 hex digits."""
        return cls(np.unique(_hashes(digests)))._bounded()

    def joined(self, *others: Learned | None) -> Learned:
        """All of these and of others. None stands for a model of which it is not known."""
        known = [self, *(other for other in others if other is not None)]
        whole = all(each.whole for each in known) and len(known) == 1 + len(others)
        return Learned(np.unique(np.concatenate([each.hashes for each in known])), whole)._bounded()

    def among(self, digests: Sequence[str]) -> np.ndarray:
        """Which of some images are among them, bool (n,)."""
        return np.isin(_hashes(digests), self.hashes)

    def _bounded(self) -> Learned:
        return self if len(self.hashes) <= MOST else Learned(self.hashes[:MOST], whole=False)


def learned_by(uri: str) -> Learned | None:
    """What a source model has learned from by its own account.

    None for models that keep none: published weights, bare ones, and bundles of before or without images.
    Raises UserError where the account is damaged.
    """
    found = None
    for part in joined_parts(uri):
        kind, _, rest = split_size(part)[0].partition(":")
        own = read_learned(expanded(rest)) if kind == "file" and "?" not in rest else None
        found = found if own is None else own if found is None else found.joined(own)
    return found


def learned_bytes(learned: Learned, weights: str) -> bytes:
    """The file's content. weights: SHA-256 of the model's, of which it tells."""
    told = {"version": VERSION, "weights": weights, "whole": str(int(learned.whole))}
    return bytes(safetensors.numpy.save({"hashes": learned.hashes.astype(np.uint64)}, told))


def read_learned(directory: Path) -> Learned | None:
    """That of a saved model; None of one without. Raises UserError where it is damaged or of another model."""
    path = Path(directory) / LEARNED_FILE
    if not is_file(path):
        return _of_features(Path(directory) / _FEATURES_FILE)
    try:
        if path.stat().st_size > 9 * MOST:
            raise ValueError("it is too large")
        with safetensors.safe_open(path, "numpy") as file:
            told, hashes = file.metadata() or {}, file.get_tensor("hashes")
        if told.get("version") != VERSION:
            return None
        if told["weights"] != read_manifest(Path(directory)).weights.sha256:
            raise ValueError("it belongs to other weights")
        if hashes.ndim != 1 or hashes.dtype != np.uint64:
            raise ValueError("its array is of another kind")
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: is damaged ({error}); export the model again, or delete the file") from error
    return Learned(np.unique(hashes), told["whole"] == "1")


def _of_features(path: Path) -> Learned | None:
    """What a bundle of before kept to be extended with: a sample where its images were many."""
    if not is_file(path):
        return None
    try:
        with safetensors.safe_open(path, "numpy") as file:
            digests = file.get_tensor("digests")
    except (OSError, ValueError, safetensors.SafetensorError):
        return None  # who extends the bundle is told
    if digests.ndim != 2 or digests.dtype != np.uint8 or digests.shape[1] < 8:
        return None
    return Learned(np.unique(np.ascontiguousarray(digests[:, :8]).view(">u8").astype(np.uint64)), whole=False)


def _hashes(digests: Iterable[str]) -> np.ndarray:
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)
