"""Folders of tables without image files: Parquet shards by split as hubs publish them, hive partitions, CSV files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import unquote

from raytl.core.errors import UserError
from raytl.core.names import few, printable, so_many
from raytl.tasks.items import FileItem
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.listing import Listing, Place, TableOptions
from raytl.tasks.readers.split_names import NONE, SplitsOrClassesError, shard_split, split_of
from raytl.tasks.readers.table import ARROW, PARQUET, list_table

_NUMBERED = re.compile(r"(.*?)[-_.](\d+)-of-(\d+)\b")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def list_tables(place: Place, paths: list[str], options: TableOptions, split: str | None) -> Listing:
    """The rows of all tables of a folder, with the splits that the files' or folders' names speak of.

    paths: of the tables. Parquet files go before others. split: "none" leaves names of splits alone.
    Raises UserError where the files belong to several data sets, or only some of their names speak of splits.
    """
    parquet = [path for path in paths if PurePosixPath(path).suffix.lower() in PARQUET | ARROW]
    chosen, caches = _without_caches(place, sorted(parquet or paths))
    shown = place.shown.rstrip("/") + "/"
    start = len(place.path.rstrip("/")) + 1
    relative = {path: path[start:] for path in chosen}
    _refuse_several(shown, list(relative.values()))
    splits = {path: None if split == NONE else _split(inner) for path, inner in relative.items()}
    odd = next((relative[path] for path, found in splits.items() if found is None), None)
    if odd is not None and any(splits.values()):
        known = next(relative[path] for path, found in splits.items() if found is not None)
        raise SplitsOrClassesError(
            f"{shown}: {printable(known)} is named like a split and {printable(odd)} is not; give one file, "
            "or pass --split none to take all together"
        )
    joined = Listing(shown, layout="tables")
    _say_missing_shards(joined, relative.values())
    if caches:
        files = so_many(len(caches), "Arrow file is", "Arrow files are")
        first = printable(caches[0][start:])
        joined.announce(f"{files} not named in state.json beside them (first: {first}), as caches are not; left out")
    together_bytes = _bytes(place, chosen)
    named_by: dict[bool, tuple[str, str]] = {}
    for path in chosen:
        inner = printable(relative[path])
        at = Place(place.filesystem, path, shown + inner)
        table = list_table(at, options, _keys(relative[path]), together_bytes)
        said = {problem.message for problem in joined.problems if problem.leading}
        joined.problems += [p for p in table.problems if not p.leading or p.message not in said]
        part = splits[path]
        labels = sorted({entry.label for entry in table.entries if entry.label is not None})
        if labels:
            named_by.setdefault(all(label.lstrip("-").isdecimal() for label in labels), (inner, labels[0]))
        joined.entries += [replace(entry, split=part or entry.split) for entry in table.entries]
        for name in dict.fromkeys(entry.split for entry in joined.entries if entry.split is not None):
            joined.split_names.setdefault(name, [name])
        joined.labelled = joined.labelled or table.labelled
        joined.unlabelled_because = joined.unlabelled_because or table.unlabelled_because
    if len(chosen) > 1 and not joined.labelled and not joined.unlabelled_because and not joined.split_names:
        names = ", ".join(printable(relative[path]) for path in chosen[:2])
        joined.unlabelled_because = f"its tables ({names}, …) have no column of labels; add one"
    if len(named_by) > 1:
        (one, word), (other, digit) = named_by[False], named_by[True]
        joined.announce_warning(
            f"its tables name classes in two ways, '{word}' in {one} and '{digit}' in {other}; they are learned apart"
        )
    if len(chosen) > 1 and not joined.split_names:
        joined.announce(f"{len(chosen)} tables are read as one")
    return joined


def _bytes(place: Place, paths: list[str]) -> int:
    """Of all files together."""
    if place.filesystem is None:
        return sum(os.stat(path).st_size for path in paths if os.path.isfile(path))  # noqa: PTH113, PTH116  # surrogate-escaped names
    if isinstance(place.filesystem, Archive):
        return sum(map(place.filesystem.size_of, paths))
    return sum(info.size or 0 for info in place.filesystem.get_file_info(paths))


def _without_caches(place: Place, paths: list[str]) -> tuple[list[str], list[str]]:
    """The files of data, and those that Hugging Face's ``map`` and ``filter`` left beside them."""
    kept: list[str] = []
    left: list[str] = []
    named: dict[str, set[str] | None] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in named:
            named[folder] = _data_files(FileItem("state.json", f"{folder}/state.json", place.filesystem))
        known = named[folder]
        is_cache = known is not None and name not in known and PurePosixPath(name).suffix.lower() in ARROW
        (left if is_cache else kept).append(path)
    return (kept, left) if kept else (left, [])


def _data_files(state: FileItem) -> set[str] | None:
    """The files that make up a data set, by what ``save_to_disk`` says of it; None where nothing does."""
    try:
        told = json.loads(state.read())["_data_files"]
        return {str(file["filename"]) for file in told} or None
    except (UserError, ValueError, KeyError, TypeError):
        return None


def _say_missing_shards(joined: Listing, relative: Iterable[str]) -> None:
    """``train-00000-of-00003.parquet`` says how many there should be."""
    found: dict[tuple[str, int], set[int]] = {}
    for path in relative:
        numbered = _NUMBERED.match(path)
        if numbered:
            found.setdefault((numbered[1], int(numbered[3])), set()).add(int(numbered[2]))
    for (name, count), there in found.items():
        lost = sorted(set(range(count)) - there)
        if lost and len(there) <= count:
            parts = so_many(len(lost), "is", "are")
            joined.announce_warning(
                f"of the {count} parts of {printable(name)} {parts} not there ({few(map(str, lost))})"
            )


def _keys(relative: str) -> dict[str, str | None]:
    """The columns in the names of a hive partition's folders: ``label=cat/part-0.parquet``."""
    keys: dict[str, str | None] = {}
    for part in relative.split("/")[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            keys[unquote(name)] = None if value == _HIVE_NULL else unquote(value)
    return keys


def _split(relative: str) -> str | None:
    *folders, name = relative.split("/")
    for folder in reversed(folders):
        key, equals, value = folder.partition("=")
        found = split_of(value if equals and key.lower() in {"split", "set", "subset"} else "" if equals else folder)
        if found is not None and not found[1]:
            return found[0]
    return shard_split(name)


def _refuse_several(shown: str, relative: list[str]) -> None:
    """Raise for files in folders that are neither splits nor partitions: several sets, or several forms of one."""
    sets: dict[tuple[str, ...], str] = {}
    for path in relative:
        folders = path.split("/")[:-1]
        kept = tuple(part for part in folders if "=" not in part and not ((found := split_of(part)) and not found[1]))
        sets.setdefault(kept, path)
    if len(sets) > 1:
        first, second, *_ = sets.values()
        folder = shown + (first.rpartition("/")[0] or "")
        raise UserError(
            f"{shown}: it holds several sets of tables ({printable(first)}, {printable(second)}); "
            f"give the folder of one, as in {printable(folder)}"
        )
