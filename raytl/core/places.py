"""Looking at places on this machine, wherever one may not look or is not at home.

``pathlib`` raises for what lies in a folder that one may not enter, for names that are too long, and for the home of
nobody; here these are places where nothing is.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from raytl.core.errors import NotWrittenError
from raytl.core.machine import takes_files


def expanded(place: str | os.PathLike[str]) -> Path:
    """With the home of ``~`` or ``~user`` in its place; as it is where there is no such user."""
    return Path(os.path.expanduser(place))  # noqa: PTH111  # as above


def is_folder(place: str | os.PathLike[str]) -> bool:
    """Whether a folder is there."""
    return os.path.isdir(place)  # noqa: PTH112


def is_file(place: str | os.PathLike[str]) -> bool:
    """Whether a file is there."""
    return os.path.isfile(place)  # noqa: PTH113


def is_there(place: str | os.PathLike[str]) -> bool:
    """Whether anything is there."""
    return os.path.exists(place)  # noqa: PTH110


def check_folder(folder: Path) -> None:
    """Raise NotWrittenError where files cannot be made in a folder, or in the one above that it would be made in."""
    absolute = folder.absolute()
    there = next(path for path in (absolute, *absolute.parents) if is_there(path))
    if is_folder(there) and os.access(there, os.W_OK | os.X_OK) and takes_files(there):
        return
    why = os.strerror(errno.EACCES if is_folder(there) else errno.ENOTDIR)
    raise NotWrittenError(f"{folder}: cannot be written ({why}); choose another place")
