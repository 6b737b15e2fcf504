"""How the page goes on with a run: here, or as a job of the cluster that it ran on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from raytl.core.errors import UserError

ADDRESS = "RAY_API_SERVER_ADDRESS"


def words_to_go_on(name: str, settings: Mapping[str, Any], storage: str, wanted: Sequence[str]) -> list[str]:
    """The words of raytl's command that goes on with a run. wanted: by how much.

    settings: of the run. storage: where the page has its runs from. A job is sent to where its search ran, which takes
    the cluster's address and runs at a URI; what came along with it is not on this machine.
    Raises UserError where the page cannot do that, with the command that does.
    """
    if not was_a_job(settings):
        return ["search", "--resume", name, *wanted]
    if "://" in storage and os.environ.get(ADDRESS):
        return ["submit", "--resume", name, *wanted, "--detach"]
    stored = ["--storage", storage] if "://" in storage else []
    by_hand = shlex.join(["raytl", "submit", "--resume", name, *wanted, *stored, "--address", "http://HEAD:8265"])
    after = "" if stored else f", then 'raytl fetch {shlex.quote(name)}'"
    raise UserError(
        f"run '{name}' was a job of a cluster, and goes on there: '{by_hand}'{after}. With {ADDRESS} set and its runs "
        "at a URI, raytl ui sends it"
    )


def check_can_be_tried(name: str, settings: Mapping[str, Any]) -> None:
    """Raise UserError for a run on which this machine can try no strategy."""
    if settings.get("given") is None:
        raise UserError(f"run '{name}' got its data from memory, so that its search cannot be gone on with")
    if was_a_job(settings):
        raise UserError(
            f"run '{name}' was a job of a cluster: try strategies there, by 'raytl runs try' on a node of it"
        )


def was_a_job(settings: Mapping[str, Any]) -> bool:
    """Whether a run's search was sent to a cluster (``raytl submit``), rather than started where it could be seen."""
    return bool(settings.get("job"))
