"""What a job takes along: raytl itself, as the cluster may not have it, and small data, in one archive for Ray."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from raytl.core.errors import UserError
from raytl.core.places import expanded, is_there

LIMIT_BYTES = 100 * 2**20
"""Of all data together. Ray keeps what is sent in the head's memory and copies it to every node."""
DATA = "raytl-data"
"""Folder of the archive that data lies in."""
DIGEST = "raytl-data.digest"
_SAFE = re.compile(r"[^\w.-]+")


@dataclass
class Parcel:
    """Files to send, by their place below the job's data folder."""

    limit_bytes: int = LIMIT_BYTES
    size_bytes: int = 0
    _roots: dict[Path, str] = field(default_factory=dict)
    _files: dict[str, Path | bytes] = field(default_factory=dict)

    def add(self, path: Path, option: str, files: Sequence[Path] | None = None) -> str:
        """Take a folder along, or a file with the other files that it needs; returns its place in the data folder.

        option: where it was given, for the errors. files: what of the folder, or of that around the file, is needed;
            None for all of it, hidden files aside.
        Raises UserError where it is not there, needs what lies outside, or all of it together is too large.
        """
        shown, path = path, expanded(path).absolute()
        if not is_there(path):
            raise UserError(f"{option} {shown}: no such file or folder; check the path, or pass --on-cluster")
        root = path if path.is_dir() else path.parent
        needed = list(_below(path)) if files is None else [*files, *([] if path.is_dir() else [path])]
        place = self._place_of(root)
        for file in needed:
            if not file.is_relative_to(root):
                raise UserError(
                    f"{option} {shown} names {file}, which lies outside of {root.name}/ and cannot be sent along: move "
                    "it there, or pass --images"
                )
            self._take(f"{place}/{file.relative_to(root).as_posix()}", file, f"{option} {shown}")
        return place if path.is_dir() else f"{place}/{path.name}"

    def add_text(self, name: str, text: str) -> str:
        """Take a text along as a file; returns its place."""
        self._files[name] = text.encode()
        return name

    def write(self, archive: Path) -> None:
        """Write the archive. The same contents make the same bytes, which Ray then sends only once."""
        digest = hashlib.sha256()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for name, source in sorted(_package().items()):
                _put(file, name, source.read_bytes())
            for name, content in sorted(self._files.items()):
                data = content if isinstance(content, bytes) else content.read_bytes()
                digest.update(f"{name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
                _put(file, f"{DATA}/{name}", data)
            if self._files:
                _put(file, DIGEST, digest.hexdigest()[:16].encode())

    def _place_of(self, root: Path) -> str:
        if root not in self._roots:
            name = _SAFE.sub("-", root.name) or "files"
            number = 2
            place = name
            while place in {DATA, *self._roots.values()}:
                place, number = f"{name}-{number}", number + 1
            self._roots[root] = place
        return self._roots[root]

    def _take(self, place: str, file: Path, what: str) -> None:
        if place in self._files:
            return
        try:
            self.size_bytes += file.stat().st_size
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
        if self.size_bytes > self.limit_bytes:
            raise UserError(
                f"{what}: at most {self.limit_bytes // 2**20} MiB of data are sent along with a search, and this is "
                "more: copy it to storage that the cluster reads and pass that address (s3://bucket/photos), or, where "
                "a mount has it, its path there with --on-cluster"
            )
        self._files[place] = file


def _below(path: Path) -> Iterator[Path]:
    """All regular files of a folder, links followed but in circles, hidden ones left out; the file where it is one."""
    if path.is_file():
        yield path
        return
    above = {os.fspath(path): frozenset({path.resolve()})}
    for folder, folders, names in os.walk(path, followlinks=True):
        on_the_way = above.pop(folder)
        inside = {name: Path(folder, name).resolve() for name in sorted(folders) if not name.startswith(".")}
        here = Path(folder).resolve()
        folders[:] = [n for n, real in inside.items() if real not in on_the_way and not here.is_relative_to(real)]
        above |= {os.path.join(folder, name): on_the_way | {inside[name]} for name in folders}  # noqa: PTH118  # as walk does
        found = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in found if file.is_file())


def _package() -> dict[str, Path]:
    """The files of this raytl by their place: of a checkout too, where search spaces lie beside the package."""
    root = Path(str(resources.files("raytl")))
    files = {
        f"raytl/{path.relative_to(root).as_posix()}": path
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if not (root / "_data").is_dir():
        spaces = root.parent / "search_spaces"
        files |= {f"raytl/_data/search_spaces/{path.name}": path for path in spaces.glob("*.yaml")}
    return files


def _put(file: zipfile.ZipFile, name: str, data: bytes) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise UserError(
            f"{shown}: this name is not UTF-8, and cannot be sent as it is; rename it, or put the data where the "
            "cluster reads it"
        ) from None
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    file.writestr(entry, data)
