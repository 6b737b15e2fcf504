"""A model on disk: ``model.safetensors`` and ``model.json`` in one folder, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from raytl.core.errors import NotWrittenError, UserError, nearest
from raytl.core.exchange import exchange
from raytl.core.places import check_folder, is_file, is_folder, is_there
from raytl.sources.heads import StagesHead, ZeroShotHead
from raytl.sources.lookup import build_architecture
from raytl.sources.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, Threshold, Weights, jsonable, read_manifest
from raytl.sources.model import SourceModel
from raytl.sources.staging import fit
from raytl.sources.weights import tensors

_LAST = ("head.parts.0.weight", "head.output.weight", "head.names", "head.means", "head.weight")
"""Tensors of heads that have a row for every label."""
_EXTRA = ("metrics", "provenance", "temperature", "threshold")


def write_checkpoint(directory: Path, model: SourceModel, extra: Mapping[str, Any]) -> None:
    """Save a model; the folder appears, or replaces an earlier saved model, in one step.

    extra: any of ``metrics`` and ``provenance`` (JSON values; non-finite numbers become null), ``temperature`` and
        ``threshold`` (a :class:`Threshold` or None).
    Raises UserError where the place holds something else than a saved model, NotWrittenError where it cannot be
    written; then nothing of the new model is left and the earlier one is as it was.
    """
    directory = Path(directory)
    _check_target(directory)
    write_files(directory, checkpoint_files(model, extra))


def check_place(directory: Path) -> None:
    """Raise what :func:`write_checkpoint` would, as far as it can be told before there is a model."""
    directory = Path(directory)
    _check_target(directory)
    check_folder(directory.resolve().parent)  # the folder appears there, or takes the place of the one that is there


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """The same with ready content: that of :func:`checkpoint_files`, and what a bundle has beside it."""
    directory = Path(directory)
    _check_target(directory)
    with _writing(directory):
        target = directory.resolve()  # a link keeps pointing at the folder, and "." has a name
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            for name, content in files.items():
                _write(staging / name, content)
            staging.chmod(0o755)
            _swap(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_metrics(directory: Path, metrics: Mapping[str, Any]) -> None:
    """Put other metrics into a saved model's manifest, in one step. Raises UserError, NotWrittenError."""
    manifest = read_manifest(directory).model_copy(update={"metrics": jsonable(metrics)})
    with _writing(directory):
        handle, name = tempfile.mkstemp(prefix=f".{MANIFEST_FILE}-", dir=directory)
        os.close(handle)
        try:
            _write(Path(name), manifest.to_text().encode())
            Path(name).chmod(0o644)
            Path(name).replace(directory / MANIFEST_FILE)
        finally:
            Path(name).unlink(missing_ok=True)


def checkpoint_files(model: SourceModel, extra: Mapping[str, Any]) -> dict[str, bytes]:
    """What :func:`write_checkpoint` writes, by the files' names."""
    unknown = [key for key in extra if key not in _EXTRA]
    if unknown:
        raise ValueError(f"write_checkpoint: unknown key '{unknown[0]}'{nearest(unknown[0], _EXTRA)}")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
    data = safetensors.torch.save(state)
    threshold = extra.get("threshold")
    manifest = Manifest(
        format_version=_format(model, threshold),
        architecture=model.architecture,
        stages=model.stage_names,
        feature_dim=model.feature_dim,
        channels=1 if model.preprocessing.channels == 1 else 3,
        image_size=model.preprocessing.size,
        preprocessing=model.preprocessing,
        labels=model.labels,
        weights=Weights(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)),
        raytl=_own_version(),
        torch=torch.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        threshold=threshold,
        **{key: jsonable(value) for key, value in extra.items() if key != "threshold"},
    )
    return {WEIGHTS_FILE: data, MANIFEST_FILE: manifest.to_text().encode()}


def _format(model: SourceModel, threshold: Threshold | None) -> int:
    """The oldest version of the format that has what the model has."""
    if isinstance(model.head, StagesHead) and max(model.head.places) > 1:
        return 8
    if isinstance(model.head, StagesHead) and any(model.head.peaks):
        return 7
    if model.preprocessing.tiles > 1:
        return 6
    if isinstance(model.head, ZeroShotHead):
        return 5
    return 4 if model.reads_stages else 1 if threshold is None else 2


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotWrittenError(
            f"{directory}: cannot be written ({error.strerror or error}); make room or choose another place"
        ) from error


def read_checkpoint(directory: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """The manifest and the weights of a saved model, after checking that they are whole and belong together.

    Nothing in the files is executed. Raises UserError for a missing, truncated, altered or newer model.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    path = directory / WEIGHTS_FILE
    try:
        size = path.stat().st_size
        if size != manifest.weights.size_bytes:
            raise UserError(
                f"{path}: has {size} bytes, not {manifest.weights.size_bytes}; copy or export the model again"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); copy or export the model again"
        ) from error
    if hashlib.sha256(data).hexdigest() != manifest.weights.sha256:
        raise UserError(f"{path}: was altered since it was written; copy or export the model again")
    return manifest, tensors(data, str(path))


def load_checkpoint(directory: Path) -> tuple[Manifest, SourceModel]:
    """Rebuild a saved model, in eval mode on the CPU. Raises UserError like :func:`read_checkpoint`."""
    manifest, state = read_checkpoint(directory)
    where = str(directory)
    try:
        model = build_architecture(manifest.architecture, channels=manifest.channels, image_size=manifest.image_size)
    except UserError as error:
        raise UserError(f"{where}: its architecture cannot be built here: {error}") from error
    built = (model.stage_names, model.feature_dim, model.preprocessing.channels, model.preprocessing.size)
    if built != (manifest.stages, manifest.feature_dim, manifest.channels, manifest.image_size):
        raise UserError(
            f"{where}: its manifest does not fit the architecture {manifest.architecture}; export the model again"
        )
    fit(model, state, where)
    last = next((name for name in _LAST if name in state), None)
    outputs = model.feature_dim if last is None else int(state[last].shape[0])
    outputs = int(state["head.says"].shape[-1]) if "head.says" in state else outputs
    if manifest.labels is not None and len(manifest.labels) != outputs:
        raise UserError(f"{where}: has {len(manifest.labels)} labels for {outputs} outputs; export the model again")
    model.uri = f"file:{directory}"
    model.labels = manifest.labels
    model.preprocessing = manifest.preprocessing
    model.pretrained = True
    return manifest, model.eval()


def is_checkpoint(directory: Path) -> bool:
    """Whether the folder claims to hold a saved model."""
    return is_file(Path(directory) / MANIFEST_FILE)


def _own_version() -> str:
    try:
        return version("raytl")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _check_target(directory: Path) -> None:
    with _writing(directory):
        if is_folder(directory) and not is_checkpoint(directory) and any(directory.iterdir()):
            raise UserError(f"{directory}: holds something else than a saved model; choose an empty or new folder")
    if is_there(directory) and not is_folder(directory):
        raise UserError(f"{directory}: is a file; choose an empty or new folder")


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _swap(staging: Path, directory: Path) -> None:
    """Put ``staging`` where ``directory`` is, whoever else is writing there: never a mixture of two models."""
    try:
        staging.rename(directory)  # enough where nothing is, or an empty folder
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if exchange(staging, directory):
        shutil.rmtree(staging, ignore_errors=True)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
    directory.rename(old)
    try:
        staging.rename(directory)
    except BaseException:  # an interruption, too
        if not directory.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)
