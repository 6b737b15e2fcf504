"""Images in base64 in the cells of a large CSV or JSON file, which stay there until they are wanted.

What base64 is written with comes nowhere else so long without a space or a comma: so it is found in a text of whatever
form, and read where it lies, without what is around it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from array import array
from collections.abc import Iterator
from typing import Any

from raytl.core.errors import UserError, cause
from raytl.tasks.cells import BASE64, NO_PATH, content
from raytl.tasks.row_groups import opened, size_of
from raytl.tasks.rows import changed, gone, state
from raytl.tasks.waiting import waited_for, waiting

_MARKS = tuple(mark.encode() for mark in BASE64)
_CHUNK_BYTES = 4 * 2**20
_LONG = 1024  # characters from which on one is taken out: to say where it is takes about as much
_RUN = re.compile(
    # JSON may write + and / as escapes; in quotes there may be line breaks, as programs write base64 for mail.
    rb"(?:\A|(?<=[\"'])|(?<=base64,)|(?<=base64, ))(?:[A-Za-z0-9+/]{40,}+\r?\n)+[A-Za-z0-9+/]*={0,2}(?=\r?\n?[\"'])"
    rb"|(?<![A-Za-z0-9+/\\])[A-Za-z0-9+/\\]{%d,}+={0,2}" % _LONG
)
_URI = re.compile(rb"data:[^,\"'\s]{0,100}base64,$")
_LOOK = 128  # bytes before an image that say whether a cell begins with it
_BEGIN = 64  # of an image, to see what it is
# BMP, TIFF, icons, JPEG 2000, and what begins with a box as AVIF does; other long texts may be told apart.
_OTHERS = re.compile(rb"BM|II\*\0|MM\0\*|\0\0\x01\0|\0\0\0.(ftyp|jP  )", re.DOTALL)
_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{4}|.?)", re.DOTALL)
_MARK = "~base64~"
_JSON_END = re.compile(rb'(\\[nrt]| )*"')
_CSV_BEGIN = re.compile(rb"(\A|[,;\t|\r\n]) *[\"']?\Z")
_CSV_END = re.compile(rb"[\"']? *([,;\t|\r\n]|\Z)")
_ENDS = (b'"', b",", b";", b"\t", b"|", b"}")  # which nothing that is looked for goes beyond
_STAND_IN = re.compile(rf"(?:data:[^,]*,\s*)?[A-Za-z0-9+/]*{_MARK}(\d+)")


class TextCells:
    """The images in a text.

    path: on the local disk, or within ``filesystem``. size_bytes: of the file. first, length: by the number of an
    image, the byte it begins with, and how many it has there. is_json: whether characters may be escaped.
    """

    def __init__(
        self, path: str, filesystem: Any, size_bytes: int, first: array[int], length: array[int], *, is_json: bool
    ) -> None:
        self.path, self.filesystem, self.size_bytes = path, filesystem, size_bytes
        self._first, self._length, self._is_json = first, length, is_json
        self._seen: object = None  # of the file that was looked through, in the process that did

    def __reduce__(self) -> tuple[Any, ...]:
        return _text_cells, (self.path, self.filesystem, self.size_bytes, self._first, self._length, self._is_json)

    def on(self, filesystem: Any) -> TextCells:
        """The same by another way to where the file is."""
        return _text_cells(self.path, filesystem, self.size_bytes, self._first, self._length, self._is_json)

    def number_in(self, value: Any) -> int | None:
        """The number of the image that a cell of the light text stands for, None for any other."""
        held = content(value)
        found = _STAND_IN.fullmatch(held) if isinstance(held, str) else None
        return None if found is None or int(found[1]) >= len(self._first) else int(found[1])

    def stand_whole(self, values: Any) -> bool:
        """Whether whatever stands for an image among the values of a light text is all of its cell."""
        if isinstance(values, dict):
            return all(map(self.stand_whole, values.values()))
        if isinstance(values, list):
            return all(map(self.stand_whole, values))
        return not isinstance(values, str) or _MARK not in values or self.number_in(values) is not None

    def read(self, row: int, name: str, *, known: bool = True) -> bytes:
        """An encoded image, by its number. Raises UserError where it cannot be had any more.

        name: for messages. known: whether the caller knows what it has to be, so that a file in the first one's place
        will do.
        """
        try:
            with waiting(name, self.filesystem), opened(self.path, self.filesystem) as file:
                other = size_of(file) != self.size_bytes or not (known or state(file) == self._seen)
                if not other:
                    file.seek(self._first[row])
                    held = bytes(file.read(self._length[row]))
        except FileNotFoundError:
            raise gone(name, self.path) from None
        except OSError as error:
            raise UserError(f"{name}: cannot be read any more ({cause(error)}); check the table") from None
        if other or len(held) < self._length[row]:
            raise changed(name)
        try:
            return base64.b64decode(json.loads(b'"%b"' % held) if self._is_json else held)
        except (binascii.Error, ValueError):
            raise changed(name) from None

    def forget(self) -> None:
        """Nothing of the file is held."""


def _text_cells(
    path: str, filesystem: Any, size_bytes: int, first: array[int], length: array[int], is_json: bool
) -> TextCells:
    return TextCells(path, filesystem, size_bytes, first, length, is_json=is_json)


def light_text(path: str, filesystem: Any, shown: str = "", *, is_json: bool) -> tuple[bytes, TextCells]:
    """A text with something short in place of each image in base64, and where these are. Raises OSError.

    shown: in its place in messages. Of what is no UTF-8 nothing is taken out.
    """
    first, length = array("q"), array("q")
    light: list[bytes] = []
    with opened(path, filesystem) as file:
        cells = TextCells(path, filesystem, size_of(file), first, length, is_json=is_json)
        cells._seen = state(file)
        place = 0
        tail = b""  # of the piece before
        for piece in waited_for(_pieces(file), shown, filesystem):
            end = 0
            for found in _RUN.finditer(piece):
                run = found[0].rstrip(b"\\")  # of a quote that is escaped
                before = piece[max(0, found.start() - _LOOK) : found.start()]
                before = before if len(before) == _LOOK else (tail + before)[-_LOOK:]
                after = piece[found.start() + len(run) : found.start() + len(run) + _LOOK]
                if b"\n" in run and not _is_quoted(before, after):  # the line is over
                    run, after = run.partition(b"\n")[0].rstrip(b"\r"), b"\n"
                kind = _kind(run, is_uri=before.rstrip(b" ").endswith(b"base64,"), is_json=is_json)
                if kind is None or not _is_cell(before, after, is_json=is_json):
                    continue
                light += [piece[end : found.start()], b"%b%b%d" % (kind, _MARK.encode(), len(first))]
                first.append(place + found.start())
                length.append(len(run))
                end = found.start() + len(run)
            light.append(piece[end:])
            place += len(piece)
            tail = piece[-_LOOK:]
    return b"".join(light), cells


def _kind(run: bytes, *, is_uri: bool, is_json: bool) -> bytes | None:
    """What an image's base64 begins with, as far as it says the kind; None where it is none to be taken out."""
    begin = run[:_BEGIN]
    if is_json:
        begin = _ESCAPE.sub(lambda found: _unescaped(found[1]), begin)
    begin = b"".join(begin.split())
    mark = next((mark for mark in _MARKS if begin.startswith(mark)), None)
    if mark is None and not is_uri:
        known = len(run) >= NO_PATH and _OTHERS.match(base64.b64decode(begin[:16] + b"====")) is not None
        return begin[:4] if known else None
    return b"" if mark is None else mark


def _unescaped(escape: bytes) -> bytes:
    if escape.startswith(b"u"):  # or what is looked at ends in it
        return b"" if len(escape) == 1 else chr(int(escape[1:], 16)).encode("utf-8", "replace")
    return b" " if escape in {b"n", b"r", b"t"} else escape


def _without_uri(before: bytes) -> bytes:
    """What is before a cell, or its image: spaces, and the beginning of a data URI, are of the cell."""
    before = before.rstrip(b" ")
    found = _URI.search(before)
    return before if found is None else before[: found.start()].rstrip(b" ")


def _is_quoted(before: bytes, after: bytes) -> bool:
    quote = _without_uri(before)[-1:]
    return quote in {b'"', b"'"} and after.lstrip(b"\r\n ").startswith(quote)


def _is_cell(before: bytes, after: bytes, *, is_json: bool) -> bool:
    """Whether an image is all of a cell, by some bytes before and after it."""
    before, after = _without_uri(before), after.lstrip(b" ")
    if is_json:
        return before.endswith(b'"') and not before.endswith(b'\\"') and _JSON_END.match(after) is not None
    return _CSV_BEGIN.search(before) is not None and _CSV_END.match(after) is not None


def _end_of_line(chunk: bytes) -> int:
    """Where its last line ends that is longer than one of base64 for mail, which goes on below; -1 where none does."""
    end = chunk.rfind(b"\n")
    return end if end - chunk.rfind(b"\n", 0, max(0, end)) > _LONG else -1


def _pieces(file: Any) -> Iterator[bytes]:
    """All of a file, in pieces that end where no image does."""
    held: list[bytes] = []
    while chunk := bytes(file.read(_CHUNK_BYTES)):
        cut = 1 + max(*map(chunk.rfind, _ENDS), _end_of_line(chunk))
        if cut:
            yield b"".join([*held, chunk[:cut]])
            held = []
        held.append(chunk[cut:])
    yield b"".join(held)
