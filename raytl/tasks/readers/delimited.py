"""CSV, TSV and JSON-lines files as people write them, to tables of text."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.core.names import so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import MAX_TABLE_BYTES, FileItem
from raytl.tasks.readers.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from raytl.tasks.readers.listing import Listing, Place, first_line
from raytl.tasks.readers.split_columns import NAMELESS

DELIMITED = frozenset({".csv", ".tsv"})
JSON_LINES = frozenset({".jsonl", ".ndjson", ".manifest"})  # the last by SageMaker
_SEPARATOR_LINE = re.compile(r"sep=(.)\n")
_UNNAMED = re.compile(r"Unnamed: \d+$")  # what pandas calls a column without a name
_MOST_LINES = 20  # that a preamble may have
_SPARE = 20  # columns beyond the header's, to see what is in them


def read_delimited(place: Place, listing: Listing, data: bytes | None = None) -> Any:
    """All columns as text: a label '007' must not become 7.

    data: what to take for what is in the file.
    Quotes may be single; lines may end in a separator; a first line that is data is taken as data. What was noticed
    goes to the listing. Raises UserError where it is no such file, or a line has more cells than there are columns.
    """
    text = _text(place, "CSV", data)
    text = text.lstrip("\n")
    told = _SEPARATOR_LINE.match(text)  # Excel's
    text = text[told.end() :] if told else text
    text = _without_preamble(text, listing)
    header = text.split("\n", 1)[0]
    separator = told[1] if told else max(",;\t|", key=header.count)
    quote = "'" if header.lstrip().startswith("'") and header.rstrip(f" \r{separator}").endswith("'") else '"'
    first = next(csv.reader([header], delimiter=separator, quotechar=quote, skipinitialspace=True), [])
    frame = _frame(place, text, separator, quote, len(first))
    names = [name.strip() for name in first]
    spare = frame.iloc[:, len(names) :]
    over = spare.apply(lambda column: column.str.strip() != "").any(axis=1)
    if over.any():
        row = int(over.to_numpy().argmax())
        raise UserError(
            f"{place.shown}: line {row + 1} has more cells than the header's {len(names)}; put cells that hold a "
            f"'{separator}' into quotes"
        )
    frame = frame.iloc[:, : len(names)]
    if _is_data(names, frame.iloc[1:]):
        names = [f"{NAMELESS}{number}" for number in range(1, len(names) + 1)]
        listing.announce(f"the first line looks like data ({header.strip()[:60]}); read as a table without a header")
    else:
        frame = frame.iloc[1:]
        again = (frame == [*first]).all(axis=1)
        if again.any():
            lines = so_many(again.sum(), "line repeats", "lines repeat")
            listing.announce(f"{lines} its header; passed over")
            frame = frame[~again]
    frame = frame[frame.apply(lambda column: column.str.strip() != "").any(axis=1)]
    return _table(place, names, [frame[column].tolist() for column in frame.columns])


def _without_preamble(text: str, listing: Listing) -> str:
    """Without what stands above a header: lines that begin with ``#``, or one cell above rows of several."""
    lines = text.split("\n", _MOST_LINES + 1)[:-1]
    above = next((number for number, line in enumerate(lines) if not line.startswith("#")), 0)
    rest = [line for line in lines[above:] if line.strip()]
    if len(rest) < 2:
        return text
    mark = max(",;\t|", key=rest[1].count)
    cells = [line.rstrip(f"{mark} \r").count(mark) for line in rest[:3]]
    if above and lines[above - 1].count(mark) == rest[0].count(mark) > 0:
        above -= 1  # a header that begins with "#"
    elif _is_title(rest[0]) and len(cells) > 2 and cells[1] == cells[2] > 0:
        above += lines[above:].index(rest[0]) + 1
    if not above:
        return text
    listing.announce(f"what stands above its header is passed over ({lines[0].rstrip(f'{mark} ')[:40]})")
    return text.split("\n", above)[above]


def _is_title(line: str) -> bool:
    """Whether a line is one cell, and not a file's name."""
    text = line.rstrip(",;\t| \r")
    return not any(mark in text for mark in ",;\t|") and not is_image(text)


def read_json_lines(place: Place, data: bytes | None = None) -> Any:
    """One JSON object a line. data: as of :func:`read_delimited`. Raises UserError where it is no such file."""
    import pandas as pd

    text = _text(place, "JSON-lines", data)
    try:
        lines = not text.lstrip().startswith("[")  # else one list of objects
        frame = pd.read_json(io.StringIO(text), lines=lines, dtype=False, convert_dates=False)
        frame = frame.apply(lambda column: column if _is_of_one_kind(column) else column.map(_as_text))
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{place.shown}: not a readable JSON-lines file ({first_line(error)}); give one object a line"
        ) from None


def _is_of_one_kind(column: Any) -> bool:
    kinds = {type(value) for value in column if value is not None and value == value}
    return len(kinds) < 2 or kinds <= {int, float} or bool(kinds & {list, dict})


def _as_text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)


def _text(place: Place, kind: str, data: bytes | None) -> str:
    if data is None:
        data = FileItem(place.shown, place.path, place.filesystem).read(most_bytes=MAX_TABLE_BYTES)
    refuse_foreign(data, place.shown)
    try:
        # Excel's "Unicode text" is UTF-16 and says so; others that write it have a zero beside every letter.
        zeros = [data[start:200:2].count(0) for start in (0, 1)]
        wide = "utf-16-be" if zeros[0] > 50 > zeros[1] else "utf-16-le" if zeros[1] > 50 > zeros[0] else "utf-8-sig"
        text = data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else wide)
    except UnicodeDecodeError:
        raise UserError(f"{place.shown}: not a {kind} file in UTF-8; save it in that encoding") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_foreign(data: bytes, shown: str) -> None:
    """Raise for a table whose bytes are those of something else, as of downloads that went wrong."""
    if data.startswith(b"version https://git-lfs"):
        raise UserError(f"{shown}: a pointer of Git LFS, not the table; fetch it with git lfs pull")
    if data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{shown}: a web page, not a table; download it again")
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{shown}: a spreadsheet or an archive by another name; save it as CSV (UTF-8)")


def _frame(place: Place, text: str, separator: str, quote: str, columns: int) -> Any:
    """All lines, the first included, with some columns to spare. A name for each keeps pandas from taking an index."""
    import pandas as pd

    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, quotechar=quote, skipinitialspace=True, header=None, index_col=False,
            names=list(range(columns + _SPARE)), dtype=str, keep_default_na=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise UserError(
            f"{place.shown}: not a readable CSV file ({first_line(error)}); give one with a header"
        ) from None
    if frame.empty or not columns:
        raise UserError(f"{place.shown}: not a readable CSV file (it is empty); give one with a header")
    return frame.fillna("")


def _is_data(names: list[str], rows: Any) -> bool:
    """Whether what should be a header is a row: it names an image, or one of its cells comes again below it."""
    known = {*IMAGE_COLUMNS, *LABEL_COLUMNS}
    if any(name.lower() in known for name in names):
        return False
    if any(is_image(name) and not name.startswith(".") for name in names):
        return True
    words = [index for index, name in enumerate(names) if name and not name.lstrip("-").replace(".", "").isdigit()]
    return any((rows.iloc[:, index].str.strip() == names[index]).any() for index in words)


def _table(place: Place, names: list[str], columns: list[list[str]]) -> Any:
    """Without columns that have no name: the row numbers of an earlier program, or nothing at all."""
    kept: dict[str, Any] = {}
    for name, values in zip(names, columns, strict=True):
        if (not name or _UNNAMED.match(name)) and (not any(value.strip() for value in values) or _counts_up(values)):
            continue
        if name in kept:
            raise UserError(f"{place.shown}: two columns are named '{name}'; rename one")
        kept[name] = pa.array(values, pa.string())
    return pa.table(kept)


def _counts_up(values: list[str]) -> bool:
    start = values[0] if values else ""
    return start in {"0", "1"} and values == [str(number) for number in range(int(start), int(start) + len(values))]
