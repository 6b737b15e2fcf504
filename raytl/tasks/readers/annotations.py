"""Exports of annotation tools, to a table of images and labels: Label Studio, COCO, CVAT, plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.core.names import so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import MAX_TABLE_BYTES, FileItem
from raytl.tasks.readers.delimited import read_json_lines
from raytl.tasks.readers.labels import multi_label
from raytl.tasks.readers.listing import Listing, Place, first_line
from raytl.tasks.readers.split_names import split_of

ANNOTATIONS = frozenset({".json", ".xml"})
_IMAGE, _LABEL = "image", "label"
_CONTENT = frozenset({"image", "img", "picture", "photo", "url", "path", "file", "file_name", "filename"})
_Pairs = list[tuple[str, str | None]]


class NoLabelsError(UserError):
    """A JSON or XML file is about something else than labels of images."""


def read_annotations(place: Place, listing: Listing, data: bytes | None = None, *, labels: bool = True) -> Any:
    """A table of an export; what was not looked at goes to the listing.

    data: what to take for what is in the file. labels: whether any are wanted; if not, an image may have several.
    Raises UserError where images have several labels or none, NoLabelsError where it is no such export.
    """
    if data is None:
        data = FileItem(place.shown, place.path, place.filesystem).read(most_bytes=MAX_TABLE_BYTES)
    if place.suffix == ".xml":
        return _cvat(data, place.shown, labels=labels)
    lines = []
    try:
        text = data.decode("utf-8-sig")
        lines = _objects_in_lines(text)
        content = lines or json.loads(text)
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{place.shown}: not a readable JSON file ({first_line(error)}); write it again") from None
    if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
        return _table(_coco(content, listing, labels=labels))
    if (
        isinstance(content, dict)
        and content
        and all(is_image(k) and isinstance(v, str | int) for k, v in content.items())
    ):
        return _table([(name, str(label)) for name, label in content.items()])  # {"a.jpg": "cat"}
    if isinstance(content, dict) and len(content) > 1 and all(map(_is_split, content)):
        raise NoLabelsError(
            f"{place.shown}: it lists the images of splits, which is not read; move them into folders of these names"
        )
    if isinstance(content, dict) and content and all(map(_are_names, content.values())):
        return _table([(name, label) for label, names in content.items() for name in names])  # {"cat": ["a.jpg"]}
    if isinstance(content, dict) and _are_pairs(content.get("labels")):
        return _table([(name, str(label)) for name, label in content["labels"]])  # {"labels": [["a.jpg", 0]]}
    if isinstance(content, dict) and content and all(map(is_image, content)):
        listed = [_only(name, value, place.shown) if labels else None for name, value in content.items()]
        if not labels or any(label is not None for label in listed):
            return _table(list(zip(content, listed, strict=True)))  # {"a.jpg": ["cat"]}, {"a.jpg": {"label": "cat"}}
    if isinstance(content, dict) and _are_columns(list(content.values())):
        return pa.table({name: pa.array(map(_as_text, value)) for name, value in content.items()})
    if isinstance(content, list) and content and all(isinstance(value, dict) for value in content):
        if all("annotations" in value or "completions" in value for value in content):
            return _table(_label_studio(content, listing, labels=labels))
        if lines:
            return read_json_lines(place, data)
        try:
            return pa.Table.from_pylist(_same_keys(content))
        except pa.ArrowException as error:
            raise UserError(f"{place.shown}: not a readable table ({first_line(error)}); write it as CSV") from None
    raise NoLabelsError(
        f"{place.shown}: no labels of images in a form that raytl knows (COCO, Label Studio, a list of objects); "
        "write them as a CSV file with the columns path and label"
    )


def _objects_in_lines(text: str) -> list[dict[str, Any]]:
    """The objects of a text that has one in each of its lines; none of any other."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        objects = [json.loads(line) for line in lines] if len(lines) > 1 and lines[0].startswith("{") else []
    except ValueError:
        return []
    return objects if all(isinstance(found, dict) for found in objects) else []


def _table(pairs: _Pairs) -> Any:
    images, labels = zip(*pairs, strict=True) if pairs else ((), ())
    return pa.table({_IMAGE: pa.array(images, pa.string()), _LABEL: pa.array(labels, pa.string())})


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and is_image(name) for name in value)


def _is_split(key: str) -> bool:
    found = split_of(key)
    return found is not None and not found[1]


def _are_columns(values: list[Any]) -> bool:
    lists = len(values) > 1 and all(isinstance(value, list) for value in values)
    return lists and len({len(value) for value in values}) == 1 and any(map(_are_names, values))


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _only(name: str, value: Any, shown: str) -> str | None:
    """The one label in a list, or in an object under a usual name; None where there is none."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("label", "labels", "class", "category", "name") if key in value), None)
    if isinstance(value, list):
        if len(value) > 1:
            raise multi_label(shown, f"{name} has {value[0]!r} and {value[1]!r}")
        value = value[0] if value else None
    return str(value) if isinstance(value, str | int) else None


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_pair, value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str | int)


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the cells that a table can hold; of Label Studio's choices the list."""
    for row in rows:
        row |= {name: cell["choices"] for name, cell in row.items() if isinstance(cell, dict) and "choices" in cell}
    names = dict.fromkeys(name for row in rows for name in row)  # the first may lack its label
    plain = [name for name in names if not any(isinstance(row.get(name), dict) for row in rows)]
    return [{name: row.get(name) for name in plain} for row in rows]


def _coco(content: Mapping[str, Any], listing: Listing, *, labels: bool) -> _Pairs:
    """COCO's form. An image has the one category of all that is annotated on it."""
    if not labels:
        return [(str(image["file_name"]), None) for image in content["images"] if "file_name" in image]
    try:
        names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        found: dict[Any, set[str]] = {image: set() for image in files}
        for annotation in content["annotations"]:
            found[annotation["image_id"]].add(names[annotation["category_id"]])
        boxes = sum(bool(annotation.get("bbox")) for annotation in content["annotations"])
    except (KeyError, TypeError, AttributeError):
        raise NoLabelsError(f"{listing.name}: no COCO file of categories; write the labels as CSV") from None
    several = next((image for image, names in found.items() if len(names) > 1), None)
    if several is not None:
        both = " and ".join(f"'{name}'" for name in sorted(found[several])[:2])
        raise multi_label(listing.name, f"{files[several]} has {both}{', in boxes' if boxes else ''}")
    if boxes:
        listing.announce(f"its {boxes} boxes are not looked at: each image is learned whole, by the category in it")
    return [(file, next(iter(found[image]), None)) for image, file in files.items()]


def _label_studio(tasks: Iterable[Mapping[str, Any]], listing: Listing, *, labels: bool) -> _Pairs:
    """Label Studio's own JSON: the choice of each task's last annotation that was not cancelled.

    One that is marked as the truth goes before those that come after it.
    """
    pairs: _Pairs = []
    shown, apart = listing.name, []
    for task in tasks:
        content = task.get("data", {})
        image = next((str(value) for name, value in content.items() if name.lower() in _CONTENT), None)
        if image is None:
            raise NoLabelsError(f"{shown}: a task without an image; write the labels as CSV")
        said: list[list[str]] = []
        annotations = task.get("annotations", task.get("completions", [])) if labels else []
        for annotation in sorted(annotations, key=lambda one: bool(one.get("ground_truth"))):
            results = [] if annotation.get("was_cancelled") else annotation.get("result", [])
            choices = [result.get("value", {}).get("choices", []) for result in results]
            said.append([str(choice) for chosen in choices for choice in chosen])
        said = [chosen for chosen in said if chosen]
        last = said[-1] if said else []
        if len(set(last)) > 1:
            raise multi_label(shown, f"{image} has '{last[0]}' and '{last[1]}'")
        if any(chosen != last for chosen in said) and not any(one.get("ground_truth") for one in annotations):
            apart.append(f"{image}: {', '.join(repr(chosen[0]) for chosen in said)}")
        pairs.append((image, last[0] if last else None))
    if apart:
        tasks_are = so_many(len(apart), "image has annotations", "images have annotations")
        listing.announce_warning(f"{tasks_are} that disagree (first: {apart[0]}); the last is taken")
    return pairs


def _cvat(data: bytes, shown: str, *, labels: bool) -> Any:
    """CVAT's XML: the tag of each image, and the subset that it is in."""
    head = data[:2000]
    if b"<annotations" not in head or b"<!ENTITY" in head:
        raise NoLabelsError(f"{shown}: no labels of images in a form that raytl knows; write them as CSV")
    try:
        images = ElementTree.fromstring(data).findall("image")  # without entities, see above
    except ElementTree.ParseError as error:
        raise UserError(f"{shown}: not a readable XML file ({first_line(error)}); export it again") from None
    pairs: _Pairs = []
    for image in images:
        tags = sorted({str(tag.get("label")) for tag in image.findall("tag")}) if labels else []
        if len(tags) > 1:
            raise multi_label(shown, f"{image.get('name')} has '{tags[0]}' and '{tags[1]}'")
        pairs.append((str(image.get("name")), tags[0] if tags else None))
    if labels and pairs and all(label is None for _, label in pairs):
        raise NoLabelsError(f"{shown}: its images have shapes and no tags; raytl learns one label an image")
    subsets = [image.get("subset") for image in images]
    table = _table(pairs)
    return table.append_column("subset", pa.array(subsets, pa.string())) if any(subsets) else table
