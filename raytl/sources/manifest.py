"""``model.json``: what a saved model is, in a form that a hostile or damaged file cannot abuse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import from_json

from raytl.core.errors import UserError
from raytl.core.names import encodable
from raytl.core.places import is_folder, is_there
from raytl.tasks.preprocessing import Preprocessing

FORMAT_VERSION = 8
"""The newest version that is read.

Version 2 added ``threshold``, version 3 heads that read all stages, version 4 the shares of their layers,
version 5 heads made of the classes' names, version 6 ``tiles`` of the preprocessing, version 7 the peaks of all stages,
version 8 every position of some; a model without any of these is still written as version 1, which every raytl reads.
"""
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "model.json"

_MAX_MANIFEST_BYTES = 16 * 2**20
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Label = Annotated[str, Field(max_length=1000)]


class Weights(BaseModel):
    """The file of weights beside the manifest: SHA-256 of its bytes (64 hex digits) and their number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=8)


def deciding(probability: float) -> str:
    """A probability that decides, for people: two digits of how far it is from 0 or 1, and three at least."""
    apart = min(probability, 1 - probability)
    digits = 3 if apart <= 0 else max(3, 1 - math.floor(math.log10(apart)))
    return f"{probability:.{digits}f}"


class Threshold(BaseModel):
    """Where a model of two classes decides: for ``label`` from a calibrated probability of ``value`` on, else not.

    A value of 0.2 finds more of the label's images than one half does, at the price of false alarms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    label: _Label
    value: float = Field(ge=0, le=1)


class Manifest(BaseModel):
    """Everything needed to rebuild and use a saved model, apart from the weights.

    architecture: URI of the untrained network; never a path. stages: their names, input side first.
    feature_dim: width of the head's input. channels, image_size (pixels): of the network's input.
    labels: of the head's outputs, in order; None for the outputs of an unknown task.
    temperature: by which logits are divided before the softmax; 1 is no calibration.
    threshold: the operating point of a model of two classes; None decides for the most probable label.
    raytl, torch: versions that wrote it. created: ISO 8601, UTC. metrics, provenance: free-form, for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["raytl-model"] = "raytl-model"
    format_version: int = Field(default=1, ge=1)
    architecture: _Name
    stages: tuple[_Name, ...] = Field(min_length=1, max_length=1000)
    feature_dim: int = Field(ge=1, le=1_000_000)
    channels: Literal[1, 3]
    image_size: int = Field(ge=1, le=4096)
    preprocessing: Preprocessing
    labels: tuple[_Label, ...] | None = Field(default=None, min_length=1, max_length=100_000)
    temperature: float = Field(default=1.0, gt=0, le=1000)
    threshold: Threshold | None = None
    weights: Weights
    raytl: str = Field(max_length=200)
    torch: str = Field(max_length=200)
    created: str = Field(max_length=100)
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    provenance: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        pre = self.preprocessing
        if (pre.size, pre.channels) != (self.image_size, self.channels):
            raise ValueError("preprocessing: size and channels must equal image_size and channels")
        if len(pre.mean) != pre.channels or len(pre.std) != pre.channels:
            raise ValueError("preprocessing: mean and std need one number per channel")
        if not all(map(math.isfinite, (*pre.mean, *pre.std, pre.crop_fraction))) or min(pre.std) <= 0:
            raise ValueError("preprocessing: numbers must be finite and std above 0")
        if not 0.05 <= pre.crop_fraction <= 1:
            raise ValueError("preprocessing: crop_fraction must be from 0.05 to 1")
        if pre.tiles < 1 or pre.size % pre.tiles:
            raise ValueError("preprocessing: size must be a multiple of tiles")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a label occurs twice")
        if self.threshold is not None:
            if self.format_version < 2:
                raise ValueError("threshold: there is none in format version 1")
            if self.labels is None or len(self.labels) != 2:
                raise ValueError("threshold: only a model of two classes has one")
            if self.threshold.label not in self.labels:
                raise ValueError(f"threshold: '{self.threshold.label}' is none of the labels")
        if self.architecture.partition(":")[0] == "file":
            raise ValueError("architecture: must not be a path")
        return self

    def to_text(self) -> str:
        """JSON, indented for people."""
        values = self.model_dump(mode="json", exclude={"threshold"} if self.threshold is None else None)
        values["preprocessing"] = self.preprocessing.to_json()
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a saved model alone. Raises UserError."""
    directory = Path(directory)
    path = directory / MANIFEST_FILE
    if not is_folder(directory):
        what = "is a file" if is_there(directory) else "does not exist"
        raise UserError(f"{directory}: {what}; give the folder of a saved model")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{directory}: has no {MANIFEST_FILE}, so it is no saved model; give a folder that raytl wrote"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Manifest:
    """A manifest from the bytes of its file.

    where: what to call it in messages. Raises UserError for anything but a manifest of a version known here.
    """
    if len(data) > _MAX_MANIFEST_BYTES:
        raise UserError(f"{where}: has {len(data)} bytes, more than a manifest can have; export the model again")
    try:
        values = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise UserError(f"{where}: is not valid JSON ({error}); export the model again") from error
    if not isinstance(values, dict) or values.get("format") != "raytl-model":
        raise UserError(f"{where}: is not the manifest of a raytl model; give a folder that raytl wrote")
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(
            f"{where}: has format version {version}, this raytl reads up to {FORMAT_VERSION}; update raytl to use it"
        )
    try:
        return Manifest.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(f"{where}: is damaged ({what}); export the model again") from error


def jsonable(value: Any) -> Any:
    """``value`` as JSON has it: every non-finite number null, bytes of file names that are no UTF-8 written out."""
    if isinstance(value, dict):
        return {jsonable(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
