"""Writing to disk so that a reader never sees half a file, and a full disk is one clear sentence."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from raytl.core.errors import NotWrittenError, UserError


@contextmanager
def writing(path: Path, instead: str = "choose another --storage") -> Iterator[None]:
    """Turn an operating-system error while writing ``path`` into a NotWrittenError that names it.

    instead: what else may be done where it cannot be written.
    """
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise NotWrittenError(
            f"{path}: cannot be written ({why}). Free space or mend its permissions, or {instead}."
        ) from error


@contextmanager
def replacing(path: Path, instead: str = "choose another --storage") -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` in one step when the block ends well, and vanishes otherwise.

    instead: as of :func:`writing`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path, instead):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):  # a disk that cannot be written to: what it said first is told
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically; NaN and infinities become null, as JSON has no word for them."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace") + b"\n")  # undecodable file names: JSON's own escape


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError where the file is missing, unreadable or not an object."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); the run cannot be read") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: is not a JSON object; the run cannot be read")
    return document


def plain(value: Any, *, finite: bool = True) -> Any:
    """The value in JSON's own types: NumPy scalars and arrays, tuples, enumerations and paths are converted.

    finite: replace NaN and infinities by None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, finite=finite) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else float(value)
    if hasattr(value, "to_json"):
        return plain(value.to_json(), finite=finite)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return plain(value.tolist(), finite=finite)
    return str(value)
