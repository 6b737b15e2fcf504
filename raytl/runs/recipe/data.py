"""The images of a trial as a script names them: lists of files, each role's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raytl.core.errors import UserError
from raytl.tasks.images import ImageItem, Images, LabelledImages
from raytl.tasks.items import FileItem

WIDTH = 116


class Files:
    """Names of images relative to one folder, by role.

    exported: a folder to write images to that are in no file of this machine; without it they are refused.
    """

    def __init__(self, exported: Path | None) -> None:
        self._exported = exported
        self._roles: dict[str, list[tuple[str, int | None]]] = {}

    def add(self, role: str, images: Images, index: np.ndarray | None = None, classes: Sequence[str] = ()) -> None:
        """Images of a role, all or those at ``index``. classes: of the task, where they are labelled.

        Raises UserError for images that lie in no file of this machine, where no folder was given for them.
        """
        rows = range(len(images)) if index is None else [int(row) for row in index]
        labels: list[int | None] = [None] * len(images)
        if isinstance(images, LabelledImages) and classes:
            labels = [classes.index(images.classes[label]) for label in images.labels]
        self._roles[role] = [(self._path(role, images.items[row], row), labels[row]) for row in rows]

    def count(self, role: str) -> int:
        """Images of a role."""
        return len(self._roles[role])

    def code(self) -> str:
        """``ROOT`` and a list for each role: pairs of name and class index, or names alone."""
        paths = [path for files in self._roles.values() for path, _ in files]
        root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
        lines = [f"ROOT = Path({root!r})"]
        for role, files in self._roles.items():
            named = [(os.path.relpath(path, root), label) for path, label in files]
            entries = [repr(name if label is None else (name, label)) for name, label in named]
            lines += [f"{role.upper()} = [", *wrapped(entries), "]"]
        return "\n".join(lines)

    def _path(self, role: str, item: ImageItem, row: int) -> str:
        if isinstance(item, FileItem) and item.filesystem is None:
            return str(Path(item.path).absolute())
        if self._exported is None:
            raise UserError(
                f"{item.name}: is in no file of its own on this machine; --images DIR writes the images there first"
            )
        path = self._exported.absolute() / role / f"{row:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        item.open().save(path)
        return str(path)


def wrapped(entries: Sequence[str]) -> list[str]:
    """Lines of a list's entries."""
    lines: list[str] = []
    for entry in entries:
        if lines and len(lines[-1]) + len(entry) + 2 <= WIDTH:
            lines[-1] += f" {entry},"
        else:
            lines.append(f"    {entry},")
    return lines


def settings(config: Any) -> str:
    """A component's settings as a script writes them."""
    values: Mapping[str, Any] = vars(config)
    return f"SimpleNamespace({', '.join(f'{name}={value!r}' for name, value in values.items())})"
