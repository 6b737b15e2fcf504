"""Everything that a long search may stumble over, looked at before it starts."""

from __future__ import annotations

import os
from urllib.parse import urlparse

from raytl.core.errors import UserError
from raytl.core.paths import default_storage
from raytl.core.places import expanded
from raytl.machines import looks
from raytl.machines.looks import Finding, Mark
from raytl.runs import RunStore
from raytl.runs.storage import is_uri

HUB_PATIENCE_S = 3.0
_SPACE = "vision-small"


def checkup(*, address: str | None = None, storage: str | os.PathLike[str] | None = None) -> list[Finding]:
    """What was found of versions, cluster, memory, disks, GPU, hubs and weights, worst first.

    address: of a cluster, RAY_ADDRESS by default. storage: folder or URI of runs. Nothing is changed, nothing is
    fetched; at a URI an empty object is written and removed.
    """
    runs = os.fspath(storage) if storage is not None else default_storage()
    found = [looks.python_version(), *looks.packages(), looks.cluster(address), looks.free_memory()]
    found += [looks.home_folder(), looks.temporary(), looks.cache(), _runs(runs)]
    found += [looks.shared_memory(), looks.gpu()]
    if all(finding.mark is not Mark.PROBLEM for finding in found if finding.name.startswith("torch")):
        found += _weights()
    return looks.worst_first([*found, _proxy()])


def _runs(storage: str) -> Finding:
    """Whether runs can be kept, and what a disk holds."""
    if not is_uri(storage):
        return looks.disk("runs", expanded(storage), "--storage")
    try:
        RunStore(storage).check()
    except UserError as error:
        return Finding("runs", Mark.PROBLEM, str(error), "mend that, or point --storage at another place")
    return Finding("runs", Mark.OK, f"{storage} can be written to")


def _weights() -> list[Finding]:
    """Whether the source models of the usual search space are here, and whether others could be fetched."""
    from raytl import sources
    from raytl.core.dimensions import Choice
    from raytl.search.space.definition import load_space
    from raytl.training.pretrain import parse_pretrain

    choice = load_space(_SPACE).plain["source_model"]
    assert isinstance(choice, Choice)
    named = [str(uri).partition(":") for uri in choice.options if parse_pretrain(str(uri)) is None]
    listed = [entry for kind, _, name in named for entry in sources.catalogue(kind, name) if entry.cached is not None]
    entries = {entry.uri: entry for entry in listed}
    here = [uri for uri, entry in entries.items() if entry.cached]
    missing = [entry for entry in entries.values() if not entry.cached]
    told = f"{len(here)} of the {len(entries)} published models of {_SPACE} are on this machine"
    hub = _hub()
    if here:
        return [hub, Finding("weights", Mark.OK, told)]
    if hub.mark is Mark.OK:
        return [hub, Finding("weights", Mark.OK, f"{told}; the first search fetches them")]
    install = next((entry.install for entry in missing if entry.install), "raytl sources list shows where they belong")
    return [hub, Finding("weights", Mark.WARNING, told, f"searches would begin from nothing learned: {install}")]


def _hub() -> Finding:
    """Whether published weights could be fetched now."""
    import httpx
    import torchvision

    address = torchvision.models.get_weight("ResNet18_Weights.DEFAULT").url
    host = urlparse(address).hostname
    try:
        httpx.head(address, timeout=HUB_PATIENCE_S, follow_redirects=True).raise_for_status()
    except (httpx.HTTPError, ImportError, ValueError) as error:  # the latter two of a proxy that httpx cannot use
        advice = "models that are not on this machine are left out of a search; set a proxy, or copy weights here"
        return Finding("model hub", Mark.WARNING, f"{host} cannot be reached ({type(error).__name__})", advice)
    return Finding("model hub", Mark.OK, f"{host} answers")


def _proxy() -> Finding:
    """Whether endpoints will go through HAProxy."""
    from raytl.serving.haproxy import find_binary

    try:
        return Finding("HAProxy", Mark.OK, find_binary())
    except FileNotFoundError:
        advice = "endpoints take fewer requests a second without it: pip install 'ray[serve]' on Linux"
        return Finding("HAProxy", Mark.WARNING, "not installed", advice)
