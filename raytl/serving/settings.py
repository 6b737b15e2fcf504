"""What an operator may set about a served model; a change of any of it reaches the replicas without a restart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from raytl.core.dimensions import build
from raytl.core.errors import UserError
from raytl.core.hashing import hash_file

KEPT_VERSIONS = 5
"""How many earlier versions of an endpoint stay at hand for a rollback."""

_LIMITS = ("max_batch_size", "max_images", "max_body_bytes", "max_pixels", "request_timeout_s", "capture_limit")
_IN_ITS_RUN = "model"
"""The folder of a run's model."""
_SHA256 = re.compile(r"([0-9a-fA-F]{64})?")


@dataclass(frozen=True)
class Candidate:
    """A new version on trial beside the one that is served.

    bundle, version, model: as of :class:`ServingSettings`. trial: names the trial; whoever judges it answers to it.
    share: of the requests, answered by the candidate; 0 has it answer nobody.
    promote_after: compared requests after which it takes over where it is not worse; 0 leaves that to people.
    max_disagreement: share of requests in which it may name another label. max_slowdown: how many times as long it may
        take.
    """

    bundle: str = ""
    version: str = ""
    model: str = ""
    trial: str = ""
    share: float = 0.0
    promote_after: int = 0
    max_disagreement: float = 0.1
    max_slowdown: float = 1.5

    def __post_init__(self) -> None:
        if not (self.bundle and 0 <= self.share < 1 and self.promote_after >= 0):
            raise UserError("serving: 'candidate' needs a bundle, a share from 0 to below 1, and promote_after from 0")
        if not (0 < self.max_disagreement <= 1 and self.max_slowdown >= 1):
            raise UserError("serving: 'candidate' needs max_disagreement above 0, to 1, and max_slowdown from 1")


@dataclass(frozen=True)
class ServingSettings:
    """Settings of one served model.

    bundle: directory of the bundle; every node that may hold a replica must see it under this path.
    version: what :func:`bundle_version` must find there ("" accepts any), so that no replica serves another model
        than the one that was deployed.
    model: what answers call the model; "" takes the bundle's own, see :func:`name_of`.
    max_batch_size: images in one pass through the network.
    max_images, max_body_bytes (also after unpacking), max_pixels (of all its images together, as decoded; a large JPEG
        is decoded at a fraction of its size): the most that one request may bring.
    request_timeout_s: time from when the request reached the replica to the answer, the wait for its turn included;
        beyond it the client gets 504, and 503 where half of it was over before its turn came.
    token_sha256: of the bearer token that requests must bring, 64 hex digits; "" asks for none.
    hosts: names by which an endpoint without a token may be asked, beside addresses and those of loopback; "*" is any.
    candidate: a new version on trial.
    since, previous, last_trial: not for the replicas, but what the endpoint's changes leave behind: when this version
        came (ISO 8601), those before it (mappings with bundle, version, model and since; the latest first), and what
        became of the last candidate.
    capture: folder for a sample of the images that come in, "" keeps none; capture_limit: images for each replica.
    """

    bundle: str = ""
    version: str = ""
    model: str = ""
    max_batch_size: int = 64
    max_images: int = 256
    max_body_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 256 * 1024 * 1024
    request_timeout_s: float = 30.0
    token_sha256: str = ""
    hosts: Sequence[str] = ()
    since: str = ""
    candidate: Candidate | None = None
    previous: Sequence[Mapping[str, Any]] = ()
    last_trial: Mapping[str, Any] | None = None
    capture: str = ""
    capture_limit: int = 1000

    def __post_init__(self) -> None:
        for name in _LIMITS:
            if getattr(self, name) <= 0:
                raise UserError(f"serving: '{name}' is {getattr(self, name)}; give a number above 0")
        if not _SHA256.fullmatch(self.token_sha256):
            raise UserError(
                "serving: 'token_sha256' is not the SHA-256 of a token; give its 64 hex digits, as "
                "tr -d '\\n' < FILE | sha256sum prints them"
            )
        if isinstance(self.hosts, str) or not all(isinstance(name, str) for name in self.hosts):
            raise UserError(f"serving: 'hosts' is {self.hosts!r}; give a list of names")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> ServingSettings:
        """Settings from plain values. Raises UserError for an unknown key, a wrong type or no bundle."""
        candidate = values.get("candidate")
        if candidate is not None:
            values = {**values, "candidate": build(Candidate, candidate, "serving: candidate")}
        settings = build(cls, values, "serving")
        if not settings.bundle:
            raise UserError("serving: no 'bundle'; give the directory of an exported bundle")
        return settings

    def to_json(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as plain values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        if self.candidate is not None:
            values["candidate"] = asdict(self.candidate)
        return values

    @property
    def of_candidate(self) -> ServingSettings:
        """Those under which the candidate answers."""
        assert self.candidate is not None
        tried = self.candidate
        return replace(self, candidate=None, bundle=tried.bundle, version=tried.version, model=tried.model)


def bundle_version(bundle: Path) -> str:
    """Twelve hex digits that change with anything in the bundle: its manifest holds the hash of the weights.

    Raises UserError where there is no manifest.
    """
    manifest = bundle / "model.json"
    if not manifest.is_file():
        raise UserError(f"{bundle}: no bundle here (model.json is missing); give a directory that 'raytl export' wrote")
    return hash_file(manifest)[:12]


def name_of(bundle: Path, provenance: Mapping[str, Any]) -> str:
    """What answers call a bundle's model: its run where it lies in that, as all do by the same name; else its folder.

    provenance: of its manifest.
    """
    folder = bundle.resolve().name
    return str((provenance.get("run") if folder == _IN_ITS_RUN else None) or folder)


IMPORT_PATH = "raytl.serving.app:build_app"
DEPLOYMENT = "Classifier"

# Ray's defaults (2 ongoing requests, 30 s up, 600 s down) are for seconds-long requests; a classifier answers in
# milliseconds, and a batch needs several requests in hand.
CPUS = 1.0
"""Kept for each replica, where nothing else is said."""
AUTOSCALING: dict[str, Any] = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_ongoing_requests": 8,
    "upscale_delay_s": 5,
    "downscale_delay_s": 120,
}
