"""Train a source model on a labelled source domain; kept on disk under the hash of all that it depends on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from raytl import sources
from raytl.core import tidying
from raytl.core.errors import UserError, nearest
from raytl.core.hashing import hash_bytes, hash_json
from raytl.core.seeding import derive_seed, seed_everything
from raytl.finetuning import augmentation
from raytl.finetuning.optimizers import build_optimizer, parameter_groups, set_progress
from raytl.sources import SourceModel
from raytl.sources.checkpoint import is_checkpoint, load_checkpoint, write_checkpoint
from raytl.sources.manifest import read_manifest
from raytl.sources.precision import autocast
from raytl.tasks.images import LabelledImages
from raytl.tasks.splits import spread
from raytl.training.arrays import file_lock
from raytl.training.batches import IndexStream
from raytl.training.devices import finish, upload
from raytl.training.material import Material
from raytl.training.network import Network
from raytl.training.pools import Pool, PoolMaker, to_inputs
from raytl.training.settings import PretrainSettings

PREFIX = "pretrain:"
EVALUATION_BATCH = 256
TRIED_STEPS = (5, 15)
"""From which to which step it is measured how long one takes; the first ones take longer."""
LEAST_STEPS = 30
"""However little time there is: fewer make no source model."""
LOOKED_STEPS = (1, 3, 5)
"""Steps from the first of which on it is looked whether even the least would take far too long, twice: a stall may be
all that the first look sees."""
OVERTIME, LITTLE_S = 2.0, 5.0
"""Times of what it may take that the least steps may, and seconds that they may in any case, before it is given up."""
MOST_HELD_OUT = 1000

Progress = Callable[[int, float], None]


def parse_pretrain(uri: str) -> tuple[str, str] | None:
    """``pretrain:<source domain>/<architecture>`` to its two parts; None for any other URI."""
    if not uri.startswith(PREFIX):
        return None
    domain, slash, architecture = uri.removeprefix(PREFIX).partition("/")
    if not slash or not domain or not architecture:
        raise UserError(f"source model '{uri}': write pretrain:<source domain>/<architecture>")
    return domain, architecture


def pretrain_uri(domain: str, architecture: str) -> str:
    """Inverse of :func:`parse_pretrain`."""
    return f"{PREFIX}{domain}/{architecture}"


def pretrained_on_domain(workspace: Material, domain: str, architecture: str) -> SourceModel:
    """The architecture trained on one of the task's source domains, from the cache or trained now.

    Several lanes that ask for the same one wait for the first. Raises UserError for an unknown domain.
    """
    known = workspace.data.source_domains
    if domain not in known:
        raise UserError(
            f"source model '{pretrain_uri(domain, architecture)}': no source domain '{domain}'{nearest(domain, known)}"
        )
    whole = checkpoint_path(workspace, domain, architecture)
    hurried = checkpoint_path(workspace, domain, architecture, workspace.settings.pretrain_s)
    with file_lock(whole.with_suffix(".lock")):
        wanted = _wanted(workspace, domain, architecture)
        model = next((found for place in wanted if (found := _kept(place)) is not None), None)
        if model is None:
            seed = derive_seed(workspace.settings.seed, "pretrain", domain, architecture)
            start, _ = workspace.source_model(architecture)
            train, held_out = workspace.source_split(domain)
            settings = workspace.settings.pretrain
            model, accuracy, steps = train_source_model(
                workspace, start, known[domain], train, held_out, settings, seed, most_s=workspace.settings.pretrain_s
            )
            directory = whole if steps == settings.steps else hurried
            provenance = {"domain": domain, "images": len(train), **asdict(settings), "steps": steps}
            provenance["hurried"] = steps < settings.steps
            write_checkpoint(directory, model, {"metrics": {"accuracy": accuracy}, "provenance": provenance})
            tidying.evict(workspace.models_root.parent, tidying.SOURCES, spares=_is_one_of_a_kind)
            _, model = load_checkpoint(directory)
    model.uri = pretrain_uri(domain, architecture)
    return model


def kept_checkpoint(workspace: Material, domain: str, architecture: str) -> Path | None:
    """The folder that :func:`pretrained_on_domain` takes the model from; None where it was not made yet."""
    return next((place for place in _wanted(workspace, domain, architecture) if is_checkpoint(place)), None)


def _wanted(workspace: Material, domain: str, architecture: str) -> list[Path]:
    """The folders that the model may be in, the better one first."""
    hurried = checkpoint_path(workspace, domain, architecture, workspace.settings.pretrain_s)
    if pretrain_uri(domain, architecture) in workspace.settings.hurried:
        return [hurried]
    return [checkpoint_path(workspace, domain, architecture), hurried]


def _kept(directory: Path) -> SourceModel | None:
    """The model that lies there, None where there is none or it is damaged: a cache is rebuilt, not complained of."""
    try:
        model = load_checkpoint(directory)[1]
    except UserError:
        shutil.rmtree(directory, ignore_errors=True)
        return None
    tidying.touch(directory)
    return model


def _is_one_of_a_kind(directory: Path) -> bool:
    """Whether a model was trained in as many steps as the clock allowed, and so would not be the same again."""
    try:
        return bool(read_manifest(directory).provenance.get("hurried"))
    except UserError:
        return False


def is_pretrained(workspace: Material, domain: str, architecture: str) -> bool:
    """Whether the model was made before."""
    kept = (
        checkpoint_path(workspace, domain, architecture, most_s) for most_s in (None, workspace.settings.pretrain_s)
    )
    return any(path.exists() for path in kept)


def is_hurried(workspace: Material, uri: str) -> bool:
    """Whether a pretrained model was given fewer steps than the settings say, for lack of time.

    Of one that was not made on this machine nothing is known here.
    """
    parsed = parse_pretrain(uri)
    if parsed is None or checkpoint_path(workspace, *parsed).exists():
        return False
    return checkpoint_path(workspace, *parsed, workspace.settings.pretrain_s).exists()


def checkpoint_path(workspace: Material, domain: str, architecture: str, most_s: float | None = None) -> Path:
    """Where the pretrained model is kept; the name depends on all that its weights depend on.

    most_s: of a model that had fewer steps than the settings say, the seconds that it was trained in.
    """
    images = workspace.data.source_domains[domain]
    settings = workspace.settings
    size = workspace.image_size(architecture)
    built = sources.info(architecture, channels=workspace.data.channels, image_size=size)
    parts = [
        architecture,
        [built.stages, built.feature_dim, built.parameters],
        images.fingerprint,
        workspace.data.channels,
        size,
        settings.seed,
        asdict(settings.pretrain),
        augmentation.definition(settings.pretrain.augmentation),
        str(torch.__version__),
        *([] if most_s is None else [most_s]),
        *sources.local_files(architecture),
        # Which images it does not see follows from the groups; without any, from what is above.
        *([] if images.groups is None else [hash_bytes(workspace.source_split(domain)[1].tobytes())]),
    ]
    return workspace.models_root / hash_json(parts)[:24]


def train_source_model(
    workspace: Material,
    start: SourceModel,
    images: LabelledImages,
    train: np.ndarray,
    held_out: np.ndarray,
    settings: PretrainSettings,
    seed: int,
    progress: Progress = lambda step, loss: None,
    most_s: float | None = None,
) -> tuple[SourceModel, float, int]:
    """Train ``start`` on labelled images (indices ``train``); returns it, its accuracy on ``held_out``, and the steps.

    most_s: seconds; where the first steps show that they do not suffice, there will be so many fewer of them, under the
    whole schedule. The accuracy is NaN where nothing is held out. Raises UserError where the loss stops being finite,
    and where the first steps show that the least number of them would take much longer.
    """
    seed_everything(seed)
    device = workspace.device
    network = Network(start, images.classes, cut=0, device=device)
    generator = torch.Generator().manual_seed(seed)
    device_generator = generator if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
    pool = PoolMaker(workspace, network, "", cached=False).make(images, images.labels)
    assert pool.labels is not None
    policy = augmentation.get(settings.augmentation)
    groups = parameter_groups(
        network.stages,
        0,
        [network.model.head],
        head_lr=settings.head_lr,
        backbone_ratio=1.0,
        weight_decay=settings.weight_decay,
    )
    optimizer = build_optimizer("sgd", groups)
    stream = IndexStream(len(train), settings.batch_size, generator)
    train_index = torch.as_tensor(train)
    network.train()
    step, steps, times = 0, settings.steps, [time.monotonic()]
    looked: list[float] = []
    while step < steps:
        if most_s is not None and workspace.gives_up and step in LOOKED_STEPS:
            finish(device)
            looked.append(time.monotonic())
            least = min(LEAST_STEPS, settings.steps)
            paces = [(now - before) / 2 for before, now in pairwise(looked)]
            if len(paces) == 2 and (least_s := least * min(paces)) > max(LITTLE_S, OVERTIME * most_s):
                raise UserError(
                    f"{images.name}: too slow to be learned by {network.model.architecture}: {least} steps would take "
                    f"{least_s:.0f} s, and {most_s:.0f} s of the time budget are for that"
                )
        if most_s is not None and step in TRIED_STEPS:
            finish(device)
            times.append(time.monotonic())
            if step == TRIED_STEPS[1]:
                steps = min(steps, max(LEAST_STEPS, _steps_within(most_s, times)))
        set_progress(optimizer, "cosine", step / steps, 0.1)
        index = train_index[stream.next()]
        batch = policy(upload(pool.take(index), device).float() / 255, device_generator)
        scale, shift = network.affine
        inputs = torch.addcmul(shift, batch, scale * 255).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            logits = network.head(network.features(inputs))
        loss = F.cross_entropy(logits.float(), pool.labels[upload(index, device)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        if step % 20 == 0 or step == steps:
            value = loss.item()
            if not np.isfinite(value):
                raise UserError(
                    f"{images.name}: pretraining diverged by step {step}; "
                    f"lower its learning rate ({settings.head_lr:g})"
                )
            progress(step, value)
    return network.model, _accuracy(network, pool.subset(spread(held_out, MOST_HELD_OUT))), steps


def _steps_within(most_s: float, times: list[float]) -> int:
    """How many steps fit, by the times of the start and of the tried steps."""
    started, first, last = times
    step_s = (last - first) / (TRIED_STEPS[1] - TRIED_STEPS[0])
    return TRIED_STEPS[1] + int(max(0.0, most_s - (last - started)) / max(step_s, 1e-6))


@torch.no_grad()
def _accuracy(network: Network, held_out: Pool) -> float:
    if not len(held_out):
        return float("nan")
    assert held_out.labels is not None
    network.eval()
    right = 0
    for batch, labels in zip(held_out.batches(EVALUATION_BATCH), held_out.labels.split(EVALUATION_BATCH), strict=True):
        logits = network.head(network.features(to_inputs(upload(batch, network.device), network)))
        right += int((logits.argmax(1) == labels).sum())
    return right / len(held_out)
