"""What trials through Ray Serve need: bundles to try, requests all the while, and patience."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from raytl.serving import Endpoint, look


def variant(bundle: Path, folder: Path, *, permuted: bool = False) -> Path:
    """The same model exported again, or with its labels permuted."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["provenance"] = {"run": folder.name}
    if permuted:
        manifest["labels"] = manifest["labels"][1:] + manifest["labels"][:1]
        (folder / "reference.json").unlink()  # the mistake was made before it was exported
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


@dataclass
class Traffic:
    """Requests from two clients at a time, until the block ends. models: who answered, in order."""

    models: list[str] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)

    @contextmanager
    def to(self, endpoint: Endpoint, png: Callable[[int], bytes]) -> Iterator[Traffic]:
        stop = threading.Event()

        def hammer(first: int) -> None:
            with httpx.Client(trust_env=False, timeout=120) as client:
                number = first
                while not stop.is_set():
                    number += 1
                    try:
                        answer = client.post(f"{endpoint.url}/v1/predict", content=png(number % 50))
                        self.models.append(answer.raise_for_status().json()["model"])
                    except httpx.HTTPError as error:
                        self.failed.append(error)

        threads = [threading.Thread(target=hammer, args=(n,)) for n in (0, 25)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def settle(self, model: str, answers: int = 50) -> None:
        """Wait until the last answers, so many, are all a model's."""
        deadline = time.monotonic() + 120
        while self.models[-answers:] != [model] * answers:
            assert time.monotonic() < deadline, self.models[-answers:]
            time.sleep(0.05)


def until(condition: Callable[[dict[str, Any]], bool], name: str = "raytl", seconds: float = 120) -> dict[str, Any]:
    """What ``look`` says of an endpoint once the condition holds of it."""
    deadline = time.monotonic() + seconds
    while not condition(known := look(name)):
        assert time.monotonic() < deadline, known
        time.sleep(0.2)
    return known
