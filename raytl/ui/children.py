"""What is started from the page: commands of raytl in processes of their own, which outlive the page's server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from raytl.core.errors import UserError

LAST_LINES = 3


@dataclass
class _Child:
    words: list[str]
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]

    @property
    def name(self) -> str:
        """``search``, ``runs try``."""
        return " ".join(self.words[:2] if self.words[0] == "runs" else self.words[:1])


class Children:
    """The last command of each run. storage: where the runs are."""

    def __init__(self, storage: str) -> None:
        self._storage = storage
        self._mutex = threading.Lock()
        self._of: dict[str, _Child] = {}

    def start(self, run: str, *words: str) -> None:
        """Start ``raytl WORDS``. Raises UserError while an earlier command of the run is still busy."""
        with self._mutex:
            busy = self._of.get(run)
            if busy is not None and busy.process.poll() is None:
                raise UserError(f"run '{run}': 'raytl {busy.name}' is still busy with it; wait for it")
            # Without names: nothing of them is left when both processes have ended, whichever ends first.
            out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - open while it is read
            command = [sys.executable, "-m", "raytl", *words, "--storage", self._storage, "--json"]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
            self._of[run] = _Child(list(words), process, out, err)

    def of(self, run: str) -> dict[str, Any] | None:
        """What became of the last command of a run: words, exit code (None while it runs), its error or document."""
        child = self._of.get(run)
        if child is None:
            return None
        code = child.process.poll()
        document: dict[str, Any] = {}
        if code is not None:
            text = _all_of(child.out).strip()
            with suppress(ValueError):  # cut off by a full disk, or by its end
                document = json.loads(text)
        lines = _all_of(child.err).strip().splitlines()
        said = document.get("error") or ("" if code == 0 else " ".join(lines[-LAST_LINES:]))
        return {"command": child.name, "code": code, "said": said, "url": document.get("url")}


def _all_of(file: IO[bytes]) -> str:
    """What is in it so far. By position: the child writes where this process's own reading would leave off."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", errors="replace")
