"""The files below a folder, as a tree, without what operating systems and tools leave behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from raytl.core.errors import UserError
from raytl.core.names import printable
from raytl.tasks.formats import is_image
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.left_behind import is_visible
from raytl.tasks.readers.listing import Place
from raytl.tasks.waiting import waiting


@dataclass
class Tree:
    """One folder.

    path: in its filesystem. files: full paths, sorted; folders: by name, sorted.
    """

    path: str
    files: list[str] = field(default_factory=list)
    folders: dict[str, Tree] = field(default_factory=dict)

    def below(self) -> Iterator[str]:
        """All files, those of the folder itself first."""
        yield from self.files
        for folder in self.folders.values():
            yield from folder.below()

    def images(self) -> int:
        """How many files below have a suffix of images."""
        return sum(map(is_image, self.below()))


@dataclass
class Walk:
    """A tree, and what was passed over on the way.

    passed_over: names of places, and how many images are in them. odd: what is no file: pipes, sockets, devices,
    circles of links. lost: links to what is not there, that are not named like images. again: names that an archive
    holds more than once.
    """

    tree: Tree
    passed_over: dict[str, int] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def name_of(path: str) -> str:
    """The last part of a path, for people."""
    return printable(path.rstrip("/").rpartition("/")[2])


def walk(place: Place) -> Walk:
    """The tree below a folder. Links are followed, circles not. Raises UserError for a folder that cannot be read."""
    if place.filesystem is None:
        found = Walk(Tree(place.path))
        _local(found.tree, frozenset(), found, hidden=None)
        return found
    return _remote(place)


def _local(tree: Tree, above: frozenset[str], result: Walk, hidden: str | None) -> None:
    """hidden: the name of the place to be passed over that the tree lies in."""
    real = os.path.realpath(tree.path)
    if real in above:
        return  # a link to a folder that contains it
    try:
        with os.scandir(tree.path) as scan:
            children = sorted(scan, key=lambda child: child.name)
    except OSError as error:
        if hidden is not None:
            return  # nobody wanted to know
        raise UserError(
            f"{printable(tree.path)}: the folder cannot be read ({error.strerror}); check its permissions"
        ) from None
    for child in children:
        passed = hidden or (None if is_visible(child.name) else child.name)
        try:
            is_folder, is_file = child.is_dir(), child.is_file()
        except OSError:  # a link that leads to itself
            is_folder = is_file = False
        if is_folder:
            below = Tree(child.path)
            _local(below, above | {real}, result, passed)
            if passed is None:
                tree.folders[child.name] = below
        elif passed is None:
            if is_file or (is_image(child.name) and _leads_nowhere(child.path)):
                tree.files.append(child.path)  # but no pipe, which would be waited for
            elif _leads_nowhere(child.path):
                result.lost.append(f"{printable(child.path)} to {printable(os.readlink(child.path))}")  # noqa: PTH115  # as above
            else:
                result.odd.append(printable(child.path))
        elif is_image(child.name):
            result.passed_over[printable(passed)] = result.passed_over.get(printable(passed), 0) + 1


def _leads_nowhere(path: str) -> bool:
    """Whether it is a link to what is not there: reading it says so. Links in a circle lead somewhere."""
    return os.path.islink(path) and not os.path.exists(path) and not _in_circle(path)  # noqa: PTH110, PTH114  # surrogate-escaped names


def _in_circle(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116  # surrogate-escaped names
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _remote(place: Place) -> Walk:
    root = place.path.rstrip("/")
    result = Walk(Tree(place.path))
    if isinstance(place.filesystem, Archive):
        result.again = [printable(name) for name in place.filesystem.again() if is_image(name)]
    for path, is_folder in _paths(place):
        parts = path[len(root) :].strip("/").split("/")
        litter = next((part for part in parts if not is_visible(part)), None)
        if litter is not None:
            if not is_folder and is_image(path):
                result.passed_over[litter] = result.passed_over.get(litter, 0) + 1
            continue
        tree = result.tree
        for depth, part in enumerate(parts if is_folder else parts[:-1], 1):
            tree = tree.folders.setdefault(part, Tree("/".join([root, *parts[:depth]])))
        if not is_folder:
            tree.files.append(path)
    return result


def _paths(place: Place) -> list[tuple[str, bool]]:
    """All paths below, sorted, and whether each is a folder."""
    if isinstance(place.filesystem, Archive):
        root = place.path.rstrip("/") + "/"
        return [(name, False) for name in place.filesystem.names() if name.startswith(root)]
    from pyarrow import fs

    with waiting(place.shown, place.filesystem):
        infos = place.filesystem.get_file_info(fs.FileSelector(place.path, recursive=True))
    return sorted((str(info.path), info.type == fs.FileType.Directory) for info in infos)
