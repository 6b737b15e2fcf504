"""Exports of annotation tools, to a table of images and labels: Label Studio, COCO, CVAT, plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.tasks.items import MAX_TABLE_BYTES, FileItem
from raytl.tasks.readers.labels import multi_label
from raytl.tasks.readers.listing import Listing, Place, first_line
from raytl.tasks.readers.tree import is_image

ANNOTATIONS = frozenset({".json", ".xml"})
_IMAGE, _LABEL = "image", "label"
_CONTENT = frozenset({"image", "img", "picture", "photo", "url", "path", "file", "file_name", "filename"})
_Pairs = list[tuple[str, str | None]]


class NoLabelsError(UserError):
    """A JSON or XML file is about something else than labels of images."""


def read_annotations(place: Place, listing: Listing) -> Any:
    """A table of an export; what was not looked at goes to the listing.

    Raises UserError where images have several labels or none, NoLabelsError where it is no such export.
    """
    data = FileItem(place.shown, place.path, place.filesystem).read(most_bytes=MAX_TABLE_BYTES)
    if place.suffix == ".xml":
        return _table(_cvat(data, place.shown))
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{place.shown}: not a readable JSON file ({first_line(error)}); write it again") from None
    if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
        return _table(_coco(content, listing))
    if (
        isinstance(content, dict)
        and content
        and all(is_image(k) and isinstance(v, str | int) for k, v in content.items())
    ):
        return _table([(name, str(label)) for name, label in content.items()])  # {"a.jpg": "cat"}
    if isinstance(content, dict) and content and all(map(_are_names, content.values())):
        return _table([(name, label) for label, names in content.items() for name in names])  # {"cat": ["a.jpg"]}
    if isinstance(content, dict) and content.get("labels") and all(map(_is_pair, content["labels"])):
        return _table([(name, str(label)) for name, label in content["labels"]])  # {"labels": [["a.jpg", 0]]}
    if isinstance(content, dict) and content and all(map(is_image, content)):
        listed = [_only(name, value, place.shown) for name, value in content.items()]
        if any(label is not None for label in listed):
            return _table(list(zip(content, listed, strict=True)))  # {"a.jpg": ["cat"]}, {"a.jpg": {"label": "cat"}}
    if isinstance(content, dict) and _are_columns(list(content.values())):
        return pa.table({name: pa.array(map(_as_text, value)) for name, value in content.items()})
    if isinstance(content, list) and content and all(isinstance(value, dict) for value in content):
        if all("annotations" in value or "completions" in value for value in content):
            return _table(_label_studio(content, place.shown))
        try:
            return pa.Table.from_pylist(_same_keys(content))
        except pa.ArrowException as error:
            raise UserError(f"{place.shown}: not a readable table ({first_line(error)}); write it as CSV") from None
    raise NoLabelsError(
        f"{place.shown}: no labels of images in a form that raytl knows (COCO, Label Studio, a list of objects); "
        "write them as a CSV file with the columns path and label"
    )


def _table(pairs: _Pairs) -> Any:
    images, labels = zip(*pairs, strict=True) if pairs else ((), ())
    return pa.table({_IMAGE: pa.array(images, pa.string()), _LABEL: pa.array(labels, pa.string())})


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and is_image(name) for name in value)


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


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str | int)


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the cells that a table can hold; of Label Studio's choices the list."""
    for row in rows:
        row |= {name: cell["choices"] for name, cell in row.items() if isinstance(cell, dict) and "choices" in cell}
    names = dict.fromkeys(name for row in rows for name in row)  # the first may lack its label
    plain = [name for name in names if not any(isinstance(row.get(name), dict) for row in rows)]
    return [{name: row.get(name) for name in plain} for row in rows]


def _coco(content: Mapping[str, Any], listing: Listing) -> _Pairs:
    """COCO's form. An image has the one category of all that is annotated on it."""
    try:
        names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        found: dict[Any, set[str]] = {image: set() for image in files}
        for annotation in content["annotations"]:
            found[annotation["image_id"]].add(names[annotation["category_id"]])
        boxes = sum(bool(annotation.get("bbox")) for annotation in content["annotations"])
    except (KeyError, TypeError, AttributeError):
        raise NoLabelsError(f"{listing.name}: no COCO file of categories; write the labels as CSV") from None
    several = next((image for image, labels in found.items() if len(labels) > 1), None)
    if several is not None:
        both = " and ".join(f"'{name}'" for name in sorted(found[several])[:2])
        raise multi_label(listing.name, f"{files[several]} has {both}{', in boxes' if boxes else ''}")
    if boxes:
        listing.announce(f"its {boxes} boxes are not looked at: each image is learned whole, by the category in it")
    return [(file, next(iter(found[image]), None)) for image, file in files.items()]


def _label_studio(tasks: Iterable[Mapping[str, Any]], shown: str) -> _Pairs:
    """Label Studio's own JSON: the choice of each task's last annotation that was not cancelled."""
    pairs: _Pairs = []
    for task in tasks:
        content = task.get("data", {})
        image = next((str(value) for name, value in content.items() if name.lower() in _CONTENT), None)
        if image is None:
            raise NoLabelsError(f"{shown}: a task without an image; write the labels as CSV")
        labels: list[str] = []
        for annotation in task.get("annotations", task.get("completions", [])):
            results = [] if annotation.get("was_cancelled") else annotation.get("result", [])
            choices = [result.get("value", {}).get("choices", []) for result in results]
            labels = [str(choice) for chosen in choices for choice in chosen] or labels
        if len(set(labels)) > 1:
            raise multi_label(shown, f"{image} has '{labels[0]}' and '{labels[1]}'")
        pairs.append((image, labels[0] if labels else None))
    return pairs


def _cvat(data: bytes, shown: str) -> _Pairs:
    """CVAT's XML: the tag of each image."""
    head = data[:2000]
    if b"<annotations" not in head or b"<!ENTITY" in head:
        raise NoLabelsError(f"{shown}: no labels of images in a form that raytl knows; write them as CSV")
    try:
        images = ElementTree.fromstring(data).findall("image")  # without entities, see above
    except ElementTree.ParseError as error:
        raise UserError(f"{shown}: not a readable XML file ({first_line(error)}); export it again") from None
    pairs: _Pairs = []
    for image in images:
        labels = sorted({str(tag.get("label")) for tag in image.findall("tag")})
        if len(labels) > 1:
            raise multi_label(shown, f"{image.get('name')} has '{labels[0]}' and '{labels[1]}'")
        pairs.append((str(image.get("name")), labels[0] if labels else None))
    if pairs and all(label is None for _, label in pairs):
        raise NoLabelsError(f"{shown}: its images have shapes and no tags; raytl learns one label an image")
    return pairs
