"""Content hashes: the names under which computed things are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def hash_bytes(*chunks: bytes) -> str:
    """SHA-256 of the chunks (each with its length, so that their boundaries count), as 64 hex digits."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "big"))
        digest.update(chunk)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value with sorted keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def hash_strings(strings: Iterable[str]) -> str:
    """SHA-256 of a sequence of strings, order included."""
    return hash_bytes(*(string.encode("utf-8", "surrogateescape") for string in strings))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and values."""
    chunks: list[bytes] = []
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        chunks += [name.encode(), str(tensor.dtype).encode(), str(tuple(tensor.shape)).encode()]
        chunks.append(tensor.flatten().view(_bytes_type()).numpy().tobytes() if tensor.numel() else b"")
    return hash_bytes(*chunks)


def _bytes_type() -> Any:
    import torch

    return torch.uint8
