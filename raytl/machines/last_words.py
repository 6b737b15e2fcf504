"""What is said of a process that had no time to say it itself.

Ray ends the process that it is used in, on the spot and without a word that a user understands, where the cluster's
head is away for a minute, or where Ray's own process on this machine (the raylet) is lost. So does the system where
memory is short.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PROGRAM = """
import sys
try:
    if not sys.stdin.buffer.read():
        sys.stderr.write(sys.argv[1] + "\\n")
except OSError:
    pass
"""


@contextmanager
def last_words(sentence: str) -> Iterator[None]:
    """While the block runs, another process waits, and says the sentence on stderr should this one be gone.

    It takes no part in a Ctrl-C. Where it cannot be started, nothing is said.
    """
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, sentence]
    waiting = None
    with suppress(OSError):
        # A session of its own: what the terminal sends to its foreground would end it first.
        waiting = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        if waiting is not None:
            with suppress(OSError):
                waiting.communicate(b"ended")
