"""A journal on a store that cannot append: numbered segments, each put once.

``journal/SESSION-GENERATION-NUMBER.jsonl``. A session is one process that has the right to write the run; it begins
with the whole journal so far as segment 0, and does so again as a new generation when there are many. Readers take the
newest generation. So a process that lost its right and does not know it yet can put no line into the journal of the
next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from raytl.runs.storage.objects import Objects, Seen

FOLDER = "journal"
MANY = 64
SEGMENT_BYTES = 32 * 2**10
"""Segments are put together when there are many for the size of the journal: none is copied often."""
_KEY = re.compile(rf"{FOLDER}/(\d+)-(\d+)-(\d+)\.jsonl")


@dataclass(frozen=True, order=True)
class Segment:
    """A piece of a journal."""

    session: int
    generation: int
    number: int

    @property
    def key(self) -> str:
        """Its object's."""
        return f"{FOLDER}/{self.session:06d}-{self.generation:06d}-{self.number:06d}.jsonl"


def newest(listed: Mapping[str, Seen]) -> list[Segment]:
    """The segments of the journal as it is, in order; those after a gap are left out."""
    found = sorted(known for key in listed if (known := _parse(key)) is not None)
    if not found:
        return []
    last = found[-1]
    own = [s for s in found if (s.session, s.generation) == (last.session, last.generation)]
    return [segment for index, segment in enumerate(own) if segment.number == index]


class SegmentedJournal:
    """The writing end of a session, whose number is put down at once: the next one's is above it whatever comes.

    Raises OSError where the store does not take that.
    """

    def __init__(self, objects: Objects) -> None:
        session = 1 + max(map(_session, objects.list(FOLDER)), default=0)
        objects.put(f"{FOLDER}/{session:06d}", b"")
        self._objects = objects
        self._next = Segment(session, 0, 0)
        self._base = 0
        self._sent = 0

    def put(self, content: bytes) -> None:
        """Bring the store up to ``content``, which begins with what is there. Raises OSError; may be called again."""
        if len(content) <= self._sent and self._next.number:
            return
        if self._next.number >= max(MANY, self._base // SEGMENT_BYTES):
            self._begin(content, replace(self._next, generation=self._next.generation + 1, number=0))
        elif self._next.number == 0:
            self._begin(content, self._next)
        else:
            self._objects.put(self._next.key, content[self._sent :])
            self._next, self._sent = replace(self._next, number=self._next.number + 1), len(content)

    def compact(self, content: bytes) -> None:
        """Put all into one segment, at the end."""
        if self._next.number > 1:
            self._begin(content, replace(self._next, generation=self._next.generation + 1, number=0))

    def _begin(self, content: bytes, segment: Segment) -> None:
        self._objects.put(segment.key, content)
        self._next, self._base, self._sent = replace(segment, number=1), len(content), len(content)
        for key in self._objects.list(FOLDER):
            known = _parse(key)
            generation = known.generation if known is not None else segment.generation
            if (_session(key), generation) < (segment.session, segment.generation):
                self._objects.delete(key)


def _session(key: str) -> int:
    return int(key.removeprefix(f"{FOLDER}/")[:6])


def _parse(key: str) -> Segment | None:
    match = _KEY.fullmatch(key)
    return None if match is None else Segment(*map(int, match.groups()))
