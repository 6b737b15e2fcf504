"""``file:PATH``: a model that raytl saved, or ``file:PATH.safetensors?arch=<URI>``: bare weights of a known network.

Bare weights may also be a .pth or .pt file, in the names of the network, of raytl, or of other common libraries.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
from raytl.sources.torchvision_stages import ChannelAffine
from raytl.sources.weights import SUFFIXES, in_own_names, read_weights


@provider("file")
class File(Provider):
    """Weights on this machine. Their channels and preprocessing stay; only the size follows the task where it can."""

    def load(self, name: str, request: Request) -> SourceModel:
        """Nothing in the files is executed. Raises UserError where they are missing, damaged or do not fit."""
        path, architecture = _split(name)
        if architecture is not None:
            model = _bare(path, architecture, request)
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
        path, architecture = _split(name)
        if architecture is None:
            manifest = read_manifest(path)
            known, labels = _architecture(manifest, request), manifest.labels
            crops, licence = manifest.preprocessing.resize == "crop", _licence(manifest)
        else:
            known, labels = _provider_info(architecture, request), None
            crops, licence = known.crops, UNKNOWN
        return replace(known, uri=f"file:{name}", pretrained=True, labels=labels, crops=crops, licence=licence)

    def build(self, name: str, request: Request) -> Built:
        """Not offered: a path is no architecture."""
        raise UserError(f"file:{name}: is no architecture; name one, for example scratch:cnn-small")

    def untrained(self, name: str) -> str | None:
        """That of the architecture, which takes the task's own channels where it can."""
        path, architecture = _split(name)
        return untrained_uri(architecture or read_manifest(path).architecture)

    def names(self) -> list[str]:
        """None: files are named by the user."""
        return []

    def entry(self, name: str) -> SourceEntry:
        """From the manifest, or from the architecture of bare weights, which are not read."""
        path, architecture = _split(name)
        known = self.info(name, Request())
        if architecture is None:
            preprocessing = read_manifest(path).preprocessing
        else:
            preprocessing = _built(architecture, Request()).model.preprocessing
        return SourceEntry(
            known.uri,
            known.parameters,
            known.stages,
            preprocessing.size,
            weights="in its file" if architecture else "in its folder",
            licence=known.licence,
            preprocessing=preprocessing,
        )

    def licence(self, name: str) -> str:
        """As a bundle says of the weights that its model began with; nobody says of bare weights."""
        path, architecture = _split(name)
        return UNKNOWN if architecture is not None else _licence(read_manifest(path))


def _licence(manifest: Manifest) -> str:
    """Of a saved model; unknown where whoever wrote it did not say."""
    stated = manifest.provenance.get("licence")
    return stated if isinstance(stated, str) and stated else UNKNOWN


def _split(name: str) -> tuple[Path, str | None]:
    """Path and architecture, of which only bare weights have one. Raises UserError where they do not go together."""
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
    return path, architecture


def _architecture(manifest: Manifest, request: Request) -> SourceInfo:
    """What the manifest's architecture is for a task: it keeps its channels, and its size where that is fixed."""
    saved = info(manifest.architecture, channels=manifest.channels, image_size=manifest.image_size)
    if saved.patch is not None:  # as many positions as it was saved with
        return replace(saved, fixed_size=True)
    if saved.fixed_size or request.image_size is None:
        return saved
    return info(manifest.architecture, channels=manifest.channels, image_size=request.image_size)


def _provider_info(architecture: str, request: Request) -> SourceInfo:
    return info(architecture, channels=request.channels, image_size=request.image_size)


def _bare(path: Path, architecture: str, request: Request) -> SourceModel:
    state = read_weights(path)
    built = _built(architecture, replace(request, channels=_channels(state, request.channels)))
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
    built.model.labels = None
    return built.model.eval()


def _built(architecture: str, request: Request) -> Built:
    kind, _, rest = architecture.partition(":")
    return providers.get(kind).build(rest, request)


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
