"""Which column of a table holds the images, which the labels, the groups and the splits."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pyarrow as pa

from raytl.core.errors import UserError, nearest
from raytl.core.names import few, printable
from raytl.tasks.formats import is_image
from raytl.tasks.readers.group_by import NOBODY, read_group_by
from raytl.tasks.readers.labels import is_list, multi_label, number, text_values
from raytl.tasks.readers.listing import Listing, TableOptions
from raytl.tasks.readers.split_columns import named_column, numbers_splits, split_column

IMAGE_COLUMNS = (
    *("image", "images", "img", "image_bytes", "bytes", "image_path", "image_file", "path", "file", "file_name"),
    *("filename", "file_path", "filepath", "filepaths", "uri", "url", "image_url", "image_name", "img_name"),
    *("img_path", "imgpath", "image_id", "img_id", "imageid", "image_index", "picture", "photo"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "classname", "category", "target", "species", "diagnosis", "tag"),
    *("label_name", "class_label", "class_id", "category_name", "ground_truth", "choice", "y"),
)
GROUP_COLUMNS = ("group", "groups", "group_id", "patient", "patient_id", "subject", "subject_id")
# Of these only where their values come again: others number the images. The widest first: a patient has studies.
_OF_WHOM = (
    *("patient", "subject", "participant", "person", "individual", "donor", "animal", "case", "specimen", "lesion"),
    *("study", "slide", "video", "clip", "product", "item", "identity"),
)
_OF_SOMEBODY = re.compile(
    r"patient|subject|participant|donor|case|specimen|lesion|study|slide|video|clip", re.IGNORECASE
)  # which no class is, where something else may be
_NOT_OBEYED = re.compile(
    r"(is_?)?(exclude|excluded|ignore|ignored|skip|skipped|bad|drop|dropped|remove|removed|discard|discarded|deleted|usable"
    r"|keep|include|included|use|used|ok|approved|reviewed|verified|checked|invalid|outlier|duplicate|blurry)",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"(second(ary)?|other|further|additional|sub)?[ _-]?(label|labels|class|category|tag)s?[ _-]?\d*", re.I
)
_ENOUGH = 7  # values from which on something can be said of a column
_FEW_GROUPS, _MOST_KINDS = 3, 50
_KIND = re.compile(r"[^\W\d_]{2,}([ _-][^\W\d_]+)*")  # words, and no numbers
_WORDS = 4  # a value with as many is a sentence
_PIXEL = re.compile(r"^(pixel|px|p)?[_ ]?\d+(x\d+)?$")
_NAMED = 6
_TRIED = 20  # values of a column that files are looked for


@dataclass(frozen=True)
class Columns:
    """image, label, group, split: names, None where there is no such column. one_hot: the columns of 0 and 1."""

    image: str
    label: str | None
    group: str | None
    split: str | None
    one_hot: tuple[str, ...] = ()


def choose_columns(table: Any, listing: Listing, is_file: Callable[..., bool], options: TableOptions) -> Columns:
    """As the options say; else by usual names, else by type and content. What is ambiguous is an error or said.

    is_file: whether a value is the name of an image file, with or without its ending.
    Raises UserError naming the columns where no column holds images, or the rows have several labels each.
    """
    told = _told(table, options.label, "--label", listing.name, must=options.must)
    image = _told(table, options.image_column, "--image-column", listing.name, must=options.must)
    image = image or _image_column(table, listing.name, is_file, told)
    usual = _group_column(table, {name for name in (image, told) if name is not None})
    group = usual if options.group_by is None else _told_group(table, options, listing.name)
    if usual is not None and options.group_by is None:
        listing.announce(f"images of one '{usual}' stay on one side of every split")
    taken = {name for name in (image, told, usual, group) if name is not None}
    _say_not_obeyed(table, taken, listing)
    split = split_column(table, taken, listing)
    if told is not None or not options.labels:
        return Columns(image, told if options.labels else None, group, split)
    taken |= {name for name in (split,) if name is not None}
    named = [column for name in LABEL_COLUMNS if (column := named_column(table, (name,), taken)) is not None]
    if any(name.strip().lower() == "x" for name in table.column_names if name not in taken):
        named = [name for name in named if name.strip().lower() != "y"]  # a place in the image
    if named:
        label = _chosen_label(table, named, listing)
        _say_further_labels(table, label, taken | set(named), listing)
        _say_other_words(table, label, taken | set(named), listing)
        refuse_texts(table, label, listing.name)
        return Columns(image, label, group, split)
    others = [name for name in table.column_names if name not in taken and not numbers_splits(table, name)]
    flags = [name for name in others if _is_flag(table.column(name))]
    likely = [name for name in others if name not in flags and _repeats(table, name)]
    if len(flags) >= 2 and not likely:
        _one_hot(table, flags, listing)
        return Columns(image, None, group, split, tuple(flags))
    if (
        group is not None
        and group == usual
        and _are_kinds(table, group)
        and not (likely and _OF_SOMEBODY.search(group))
    ):
        other = f", else --label {shlex.quote((likely or others)[0])}" if likely or others else ""
        listing.unlabelled_because = (
            f"column '{group}' may hold the labels, or say what images belong together; if they are the labels pass "
            f"--label {shlex.quote(group)}{other}"
        )
        return Columns(image, None, group, split)
    likely += flags
    if len(others) == 1 and (_is_text(kind := table.schema.field(others[0]).type) or _is_integer(kind)):
        refuse_texts(table, others[0], listing.name)
        listing.announce(f"labels are taken from column '{others[0]}', the only one beside '{image}'")
        return Columns(image, others[0], group, split)
    if len(likely) == 1:
        listing.announce(f"labels are taken from column '{likely[0]}'; --label NAME takes another")
        return Columns(image, likely[0], group, split)
    if group is not None and not likely:
        listing.unlabelled_because = (
            f"its images are kept together by column '{group}', and no other holds labels; if that one does pass "
            f"--label {shlex.quote(group)}"
        )
    elif others:
        again = [name for name in others if not _all_different(table.column(name))]
        listing.unlabelled_because = (
            f"none of its columns {few(others, _NAMED, quoted=True)} is named 'label'; say which one holds the labels, "
            f"as in --label {shlex.quote((likely or again or others)[0])}"
        )
    return Columns(image, None, group, split)


def _told_group(table: Any, options: TableOptions, shown: str) -> str | None:
    """The column that ``--group-by`` names, where it names one."""
    told = read_group_by(options.group_by)
    if told is None or told.wish == NOBODY:
        return None
    return _told(table, told.wish, "--group-by", shown, must=told.is_column and options.lone)


def _group_column(table: Any, taken: set[str]) -> str | None:
    """What says of whom or of what an image is, where it does."""
    found = named_column(table, GROUP_COLUMNS, taken)
    if found is None:
        plain = {
            name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace(" ", "_").replace("-", "_")
            for name in table.column_names
            if name not in taken
        }
        for whom in _OF_WHOM:
            own = {whom, f"{whom}_id", f"{whom}id", f"id_{whom}", f"{whom}_number"}
            found = next((name for name in plain if plain[name] in own and _come_again(table, name)), None)
            if found is not None:
                break
    return found


def _are_kinds(table: Any, column: str) -> bool:
    """Whether a column that says of whom an image is may as well say what it shows: few words, again and again."""
    values = {value for value in text_values(table, column) if value is not None}
    return _repeats(table, column) and len(values) <= _MOST_KINDS and all(map(_KIND.fullmatch, values))


def _come_again(table: Any, column: str) -> bool:
    """Whether most values of a column are there more than once, and there are many."""
    if pa.types.is_nested(table.schema.field(column).type):
        return False
    values = [value for value in text_values(table, column) if value is not None]
    different = set(values)
    words = len(different) <= len(values) / 50 and all(map(_KIND.fullmatch, different))  # words for many images each
    return bool(values) and not words and _FEW_GROUPS < len(different) < len(values)


def _say_not_obeyed(table: Any, taken: set[str], listing: Listing) -> None:
    """Columns that set rows apart: raytl reads all."""
    for name in table.column_names:
        column = table.column(name)
        speaks = name not in taken and _NOT_OBEYED.fullmatch(name.strip().replace(" ", "_")) and _is_flag(column)
        if speaks and len(set(column.to_pylist())) > 1:
            listing.announce_warning(f"column '{name}' is not obeyed: all rows are read; leave out those not meant")


def _say_further_labels(table: Any, label: str, taken: set[str], listing: Listing) -> None:
    """``label2`` beside ``label``."""
    for name in table.column_names:
        if name in taken or not _AGAIN.fullmatch(name.strip()):
            continue
        if any(value is not None for value in text_values(table, name)):
            listing.announce_warning(
                f"labels are taken from column '{label}', and '{name}' is not looked at; --label takes another"
            )


def _say_other_words(table: Any, label: str, taken: set[str], listing: Listing) -> None:
    """``colour`` beside ``species``: words that come again, and might as well be what is to be told apart."""
    others = [
        name
        for name in table.column_names
        if name not in taken and not _AGAIN.fullmatch(name.strip()) and not numbers_splits(table, name)
        if _is_text(table.schema.field(name).type) and _repeats(table, name) and not _is_flag(table.column(name))
    ]
    words = [name for name in others if all(map(_KIND.fullmatch, filter(None, text_values(table, name))))]
    if words:
        listing.announce(
            f"labels are taken from column '{label}'; --label NAME takes another, such as {few(words, 2, quoted=True)}"
        )


def refuse_texts(table: Any, column: str, shown: str) -> None:
    """Raise for a column of sentences or of measurements, as good as all of them different."""
    if pa.types.is_struct(table.schema.field(column).type):
        return  # told apart where its parts are known
    values = [value for value in text_values(table, column) if value is not None]
    different = set(values)
    if len(values) < _ENOUGH or len(different) <= max(_ENOUGH, len(values) // 2):
        return
    numbers = [found for value in different if (found := number(value)) is not None]
    measured = len(numbers) == len(different) and any(found != int(found) for found in numbers if isfinite(found))
    if measured or 2 * sum(len(value.split()) >= _WORDS for value in different) > len(different):
        what = "measurements" if measured else "texts"
        raise UserError(
            f"{shown}: column '{column}' has {len(different)} different values in {len(values)} rows "
            f"('{str(values[0])[:40]}', …), {what} rather than labels; name the column of labels with --label COLUMN"
        )


def _told(table: Any, wish: str | None, option: str, shown: str, *, must: bool) -> str | None:
    """The column that an option names. Raises UserError where there is none, unless it is for other tables."""
    wish = None if wish is None else printable(wish)
    if wish is None or wish in table.column_names:
        return wish
    found = next((name for name in table.column_names if name.strip().lower() == wish.strip().lower()), None)
    if found is None and must:
        columns = list(table.column_names)
        raise UserError(
            f"{shown}: {option}: no column '{wish}' among {few(columns, _NAMED, quoted=True)}{nearest(wish, columns)}"
        )
    return found


def _repeats(table: Any, column: str) -> bool:
    """Whether a column has a few values, again and again, as labels are."""
    kind = table.schema.field(column).type
    if not (_is_text(kind) or _is_integer(kind) or pa.types.is_boolean(kind)):
        return False
    values = [value for value in text_values(table, column) if value is not None]
    return 2 <= len(set(values)) <= len(values) // 2


def _chosen_label(table: Any, named: list[str], listing: Listing) -> str:
    """Of several columns with names of labels the first; words rather than the numbers that stand for them."""
    first = text_values(table, named[0])
    same = [named[0]]
    for other in named[1:]:
        pairs = set(zip(first, text_values(table, other), strict=True))
        if len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs):
            same.append(other)
        else:
            listing.announce(f"labels are taken from column '{named[0]}', not from '{other}'; --label takes another")
    words = [name for name in same if not all((value or "0").isdigit() for value in text_values(table, name))]
    return (words or same)[0]


def _holds_bytes(kind: Any) -> bool:
    if is_list(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name in {"bytes", "path"} for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind))


def _image_column(table: Any, shown: str, is_file: Callable[..., bool], label: str | None) -> str:
    fits = [f.name for f in table.schema if _holds_bytes(f.type) or _is_text(f.type) or pa.types.is_null(f.type)]
    fits = [name for name in fits if name != label]
    found = named_column(table.select(fits), IMAGE_COLUMNS, set())
    if found is not None:
        return found
    candidates = [f.name for f in table.schema if f.name in fits and _holds_bytes(f.type)]
    candidates = candidates or [name for name in fits if is_image(_first(table.column(name)))]
    if not candidates:
        texts = [f.name for f in table.schema if f.name != label and (_is_text(f.type) or _is_integer(f.type))]
        candidates = [name for name in texts if _name_files(table.column(name), is_file)]
        candidates = candidates or [name for name in texts if _number_files(table.column(name), is_file)]
    if len(candidates) > 1:  # numbers of files, beside columns of 0 and 1
        different = [name for name in candidates if _all_different(table.column(name))]
        candidates = different if len(different) == 1 else candidates
    if len(candidates) == 1:
        return str(candidates[0])
    if candidates:
        raise UserError(
            f"{shown}: its columns {few(candidates, _NAMED, quoted=True)} may each hold the images; say which, as in "
            f"--image-column {shlex.quote(candidates[0])}"
        )
    if sum(bool(_PIXEL.match(name)) for name in table.column_names) > _ENOUGH or "pixels" in table.column_names:
        raise UserError(f"{shown}: it holds pixels as numbers; write each image to a file, or as PNG bytes to Parquet")
    odd = next((f.name for f in table.schema if f.name.lower() in IMAGE_COLUMNS and pa.types.is_nested(f.type)), None)
    if odd is not None:
        what = f"{shown}: column '{odd}' holds {table.schema.field(odd).type}, and no images"
        raise UserError(f"{what}; write each image as PNG bytes, or its path")
    columns = few(table.column_names, 2 * _NAMED, quoted=True) or "none"
    raise UserError(
        f"{shown}: no column with images among {columns}; name it 'image' (bytes) or "
        "'path', and pass --images DIR where the files lie elsewhere"
    )


def _all_different(column: Any) -> bool:
    if pa.types.is_nested(column.type) or _holds_bytes(column.type):
        return False
    values = [value for value in column.to_pylist() if value is not None]
    return len(values) > 1 and len(set(values)) == len(values)


def _first(column: Any) -> str:
    return str(next((value for value in column.to_pylist() if value), ""))


def _name_files(column: Any, is_file: Callable[..., bool]) -> bool:
    values = [str(value) for value in column.to_pylist()[:_TRIED] if value is not None and str(value).strip()]
    return bool(values) and sum(map(is_file, values)) > len(values) / 2


def _number_files(column: Any, is_file: Callable[..., bool]) -> bool:
    """Whether a column numbers the files, each once: a spreadsheet takes the zeros from 0012."""
    values = [str(value).strip() for value in column.to_pylist() if value is not None]
    several = len(values) > 1 and len(set(values)) == len(values)
    return several and all(value.isdecimal() and is_file(value, by_number=True) for value in values[:_TRIED])


def _is_flag(column: Any) -> bool:
    """Whether all values are 0 or 1, as numbers, text or booleans."""
    if pa.types.is_nested(column.type):
        return False
    values = set(column.to_pylist())
    return bool(values) and all(number(value) in {0.0, 1.0} for value in values)


def _one_hot(table: Any, flags: list[str], listing: Listing) -> None:
    """Say that columns of 0 and 1 are the label; raise where they are not exactly one label a row."""
    columns = [[number(value) for value in table.column(name).to_pylist()] for name in flags]
    sums = [sum(value or 0.0 for value in row) for row in zip(*columns, strict=True)]
    names = few(flags, 4, quoted=True)
    if max(sums) > 1:
        raise multi_label(listing.name, f"columns {names}, of which row {sums.index(max(sums)) + 1} has several set")
    if min(sums) < 1:
        raise UserError(
            f"{listing.name}: row {sums.index(0) + 1} has no 1 in any of the columns {names}; "
            "add a column 'label' that says what it is"
        )
    listing.announce(f"its columns {names} hold a single 1 a row; they are read as {len(flags)} classes")
