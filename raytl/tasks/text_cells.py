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
from raytl.tasks.rows import changed, state
from raytl.tasks.waiting import waited_for, waiting

_MARKS = tuple(mark.encode() for mark in BASE64)
_CHUNK_BYTES = 4 * 2**20
_LEFT = 32  # characters of an image that stay, so that whoever looks at the table sees what it is
_LONG = 1024  # characters from which on one is taken out: to say where it is takes about as much
_RUN = re.compile(
    # JSON may write + and / as escapes; in quotes there may be line breaks, as programs write base64 for mail.
    rb"[A-Za-z0-9+/\\]{%d,}={0,2}"
    rb"|(?:\A|(?<=[\"',]))(?:[A-Za-z0-9+/]{40,}\r?\n)+[A-Za-z0-9+/]*={0,2}(?=\r?\n?[\"'])" % _LONG
)
_ENDS = (b'"', b",", b";", b"\t", b"|", b"}")  # which nothing that is looked for goes beyond
_STAND_IN = re.compile(rf"(?:data:[^,]*,)?.{{{_LEFT}}}~base64~(\d+)", re.DOTALL)


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
            raise UserError(f"{name}: the table is not there any more; put it back") from None
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
        for piece in waited_for(_pieces(file), shown, filesystem):
            end = 0
            for found in _RUN.finditer(piece):
                run = found[0].rstrip(b"\\")  # of a quote that is escaped
                before = piece[max(0, found.start() - 8) : found.start()] or b"".join(light[-1:])[-8:]
                if not (run.startswith(_MARKS) or before.endswith(b"base64,") or len(run) >= NO_PATH):
                    continue
                light += [piece[end : found.start()], b"%b~base64~%d" % (run[:_LEFT], len(first))]
                first.append(place + found.start())
                length.append(len(run))
                end = found.start() + len(run)
            light.append(piece[end:])
            place += len(piece)
    return b"".join(light), cells


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
