"""The command line that Ray is told: text, whatever bytes there are in it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ray
from raytl.machines.entrypoint import entrypoint_as_text

before = ray._private.utils.get_entrypoint_name
with entrypoint_as_text():
    told = ray._private.utils.get_entrypoint_name()
assert ray._private.utils.get_entrypoint_name is before
print(told.encode().decode().rpartition(" ")[2])
"""


def test_bytes_that_are_no_utf8_are_written_out():
    command = [sys.executable.encode(), b"-c", PROGRAM.encode(), b"--target", b"fotos-\xfc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fotos-\\xfc", done.stderr
