"""A journal in segments reads as what was put, whoever else still writes to it."""

from __future__ import annotations

import pytest
from pyarrow import fs

from raytl.runs.storage.objects import Objects
from raytl.runs.storage.segments import MANY, SegmentedJournal, newest


@pytest.fixture
def objects(tmp_path):
    return Objects(fs.LocalFileSystem(), str(tmp_path), "file")


def read(objects: Objects) -> bytes:
    return b"".join(objects.get(segment.key) for segment in newest(objects.list()))


def test_it_reads_as_it_grew_in_a_bounded_number_of_objects(objects):
    journal, content = SegmentedJournal(objects), b""
    for number in range(3 * MANY):
        content += f"{number}\n".encode()
        journal.put(content)
        journal.put(content)  # a second time is nothing new
        assert read(objects) == content
        assert len(objects.list()) <= MANY + 1
    journal.compact(content)
    assert read(objects) == content and len(objects.list()) == 2


def test_a_process_that_lost_its_right_writes_into_nobody_elses_journal(objects):
    old = SegmentedJournal(objects)
    old.put(b"a\n")
    new = SegmentedJournal(objects)
    new.put(b"a\nb\n")
    for number in range(2 * MANY):  # also where it puts its own together
        old.put(b"a\n" + b"late\n" * (number + 1))
    new.put(b"a\nb\nc\n")
    assert read(objects) == b"a\nb\nc\n"


def test_what_comes_after_a_gap_is_left_out(objects):
    journal = SegmentedJournal(objects)
    for number in range(4):
        journal.put(b"x\n" * (number + 1))
    objects.delete(newest(objects.list())[2].key)
    assert read(objects) == b"x\nx\n"
