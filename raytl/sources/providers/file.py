"""``file:PATH``: a model that raytl saved, or ``file:PATH.safetensors?arch=<URI>``: bare weights of a known network.

Bare weights may also be a .pth or .pt file, in the names of the network, of raytl, or of other common libraries; how
images were prepared for them may stand behind the architecture (:mod:`raytl.sources.stated`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from raytl.core.errors import UserError
from raytl.core.places import expanded, is_file, is_folder
from raytl.sources.base import Built, Provider, Request, SourceEntry, provider, providers
from raytl.sources.beside import Network, sort_out
from raytl.sources.checkpoint import load_checkpoint
from raytl.sources.licences import UNKNOWN
from raytl.sources.lookup import info, untrained_uri
from raytl.sources.manifest import MANIFEST_FILE, Manifest, read_manifest
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import fit_original
from raytl.sources.stated import assumed, split_stated, stated
from raytl.sources.torchvision_stages import ChannelAffine
from raytl.sources.weights import SUFFIXES, in_own_names, read_weights


@provider("file")
class File(Provider):
    """Weights on this machine. Their channels and preprocessing stay; only the size follows the task where it can."""

    def load(self, name: str, request: Request) -> SourceModel:
        """Nothing in the files is executed. Raises UserError where they are missing, damaged or do not fit."""
        path, bare = _split(name)
        if bare is not None:
            model = _load_bare(path, bare, request)
        else:
            manifest, model = load_checkpoint(path)
            size = _architecture(manifest, request).image_size
            own = model.preprocessing
            model.preprocessing = replace(own, size=size, tiles=own.tiles if size == own.size else 1)
        model.uri = f"file:{name}"
        model.pretrained = True
        return model

    def info(self, name: str, request: Request) -> SourceInfo:
        """From the manifest, read anew each time. ``parameters`` counts the architecture with its own head."""
        path, bare = _split(name)
        if bare is None:
            manifest = read_manifest(path)
            known, labels = _architecture(manifest, request), manifest.labels
            crops, licence = manifest.preprocessing.resize == "crop", _licence(manifest)
        else:
            known, labels = _bare_info(bare, request), None
            crops, licence = bare.said.get("resize", "crop" if known.crops else "") == "crop", UNKNOWN
        return replace(known, uri=f"file:{name}", pretrained=True, labels=labels, crops=crops, licence=licence)

    def build(self, name: str, request: Request) -> Built:
        """Not offered: a path is no architecture."""
        raise UserError(f"file:{name}: is no architecture; name one, for example scratch:cnn-small")

    def untrained(self, name: str) -> str | None:
        """That of the architecture, which takes the task's own channels where it can."""
        path, bare = _split(name)
        return untrained_uri(read_manifest(path).architecture if bare is None else bare.architecture)

    def names(self) -> list[str]:
        """None: files are named by the user."""
        return []

    def entry(self, name: str) -> SourceEntry:
        """From the manifest, or from the architecture of bare weights, which are not read."""
        path, bare = _split(name)
        known = self.info(name, Request())
        if bare is None:
            preprocessing = read_manifest(path).preprocessing
        else:
            preprocessing = _built(bare, Request()).model.preprocessing
        return SourceEntry(
            known.uri,
            known.parameters,
            known.stages,
            preprocessing.size,
            weights="in its folder" if bare is None else "in its file",
            licence=known.licence,
            preprocessing=preprocessing,
        )

    def licence(self, name: str) -> str:
        """As a bundle says of the weights that its model began with; nobody says of bare weights."""
        path, bare = _split(name)
        return _licence(read_manifest(path)) if bare is None else UNKNOWN


def _licence(manifest: Manifest) -> str:
    """Of a saved model; unknown where whoever wrote it did not say."""
    known = manifest.provenance.get("licence")
    return known if isinstance(known, str) and known else UNKNOWN


@dataclass(frozen=True)
class _Bare:
    """What the URI of bare weights says of them. said: how images were prepared, by :data:`raytl.sources.stated.KEYS`.

    where: the URI, for messages.
    """

    architecture: str
    said: dict[str, Any]
    where: str

    def at(self, request: Request) -> Request:
        """The request with the size that is stated, where none is wished for."""
        return replace(request, image_size=request.image_size or self.said.get("size"))


def _split(name: str) -> tuple[Path, _Bare | None]:
    """The path, and what is said of bare weights there. Raises UserError where they do not go together."""
    text, mark, query = name.partition("?")
    path = expanded(text)
    if not mark:
        bare = path.suffix in SUFFIXES or is_file(path)  # checkpoints have all sorts of names
        if bare and path.name != MANIFEST_FILE and not is_folder(path):
            raise UserError(
                f"file:{name}: bare weights need their architecture; add ?arch=torchvision:resnet18 or the like"
            )
        return path, None
    key, _, architecture = query.partition("=")
    if key != "arch" or not architecture:
        raise UserError(f"file:{name}: write the architecture of bare weights as ?arch=<URI>")
    if not is_file(path):
        raise UserError(f"{path}: does not exist or is no file; give the path of a .safetensors, .pth or .pt file")
    architecture, said = split_stated(architecture, f"file:{name}")
    return path, _Bare(architecture, said, f"file:{name}")


def _architecture(manifest: Manifest, request: Request) -> SourceInfo:
    """What the manifest's architecture is for a task: it keeps its channels, and its size where that is fixed."""
    saved = info(manifest.architecture, channels=manifest.channels, image_size=manifest.image_size)
    if saved.patch is not None:  # as many positions as it was saved with
        return replace(saved, fixed_size=True)
    if saved.fixed_size or request.image_size is None:
        return saved
    return info(manifest.architecture, channels=manifest.channels, image_size=request.image_size)


def _bare_info(bare: _Bare, request: Request) -> SourceInfo:
    asked = bare.at(request)
    known = info(bare.architecture, channels=asked.channels, image_size=asked.image_size)
    if "size" in bare.said and request.image_size is None and known.image_size != asked.image_size:
        raise UserError(
            f"{bare.where}: {bare.architecture} takes images of {known.image_size} pixels, not of {asked.image_size}"
        )
    return known


def _load_bare(path: Path, bare: _Bare, request: Request) -> SourceModel:
    if "size" in bare.said:
        _bare_info(bare, request)  # which knows whether the network takes it
    state = read_weights(path)
    built = _built(bare, replace(request, channels=_channels(state, request.channels)))
    for module in built.model.modules():
        if isinstance(module, ChannelAffine):  # the network has it outside its weights; what the file holds goes before
            module.use_inception()
    network = _network(built)
    own = list(dict.fromkeys([*built.renames, *built.model.state_dict()]))
    given = in_own_names(state, own, [*network.head, *(name for name in own if name.startswith("head."))])
    if not any(name.startswith("stages.") for name in given):  # raytl's own names have nothing beside them
        found = sort_out(given, network)
        given, built.model.notes = found.state, tuple(found.notes)
    fit_original(built, given, str(path), head_optional=True)
    taken = assumed(built.model.preprocessing, bare.said, bare.architecture)
    built.model.notes += (taken,) if taken else ()
    built.model.labels = None
    return built.model.eval()


def _built(bare: _Bare, request: Request) -> Built:
    """The untrained network, with the preprocessing that is said."""
    kind, _, rest = bare.architecture.partition(":")
    built = providers.get(kind).build(rest, bare.at(request))
    built.model.preprocessing = stated(built.model.preprocessing, bare.said, bare.where)
    return built


def _network(built: Built) -> Network:
    """The built network under the names it has outside raytl."""
    tensors = built.model.state_dict()
    renames = built.renames or {name: name for name in tensors}
    return Network(
        {original: tensors[ours] for original, ours in renames.items()},
        [original for original, ours in renames.items() if ours.startswith("head.")],
        built.model.feature_dim,
    )


def _channels(state: dict[str, Tensor], wished: int) -> int:
    """Input channels of weights in raytl's own names; elsewhere the provider knows."""
    for name, tensor in state.items():
        if name.startswith("stages.stem.") and tensor.ndim == 4 and tensor.shape[1] in (1, 3):
            return int(tensor.shape[1])
    return wished
