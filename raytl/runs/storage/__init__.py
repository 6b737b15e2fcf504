"""Where runs are kept: a folder, or a URI of an object store. Elsewhere only :mod:`places` is known of it."""

from __future__ import annotations

import os

from raytl.core.places import expanded
from raytl.runs.storage.disk import DiskPlace, DiskStorage
from raytl.runs.storage.places import DOCUMENT, JOURNAL, MODEL, Keeper, Place, Storage

__all__ = [
    "DOCUMENT",
    "JOURNAL",
    "MODEL",
    "DiskPlace",
    "DiskStorage",
    "Keeper",
    "Place",
    "Storage",
    "is_uri",
    "open_storage",
]


def is_uri(text: str) -> bool:
    """Whether a storage or run is named by a URI (``s3://…``)."""
    return "://" in text


def open_storage(storage: str | os.PathLike[str]) -> Storage:
    """The storage that a folder or a URI names; nothing is read or made yet. Raises UserError for an unknown URI."""
    text = os.fspath(storage)
    if not is_uri(text):
        return DiskStorage(expanded(text))
    from raytl.runs.storage.remote import ObjectStorage

    return ObjectStorage(text)
