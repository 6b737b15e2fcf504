"""What a person would have without raytl, computed from nothing of raytl's: no search, no training code, no score."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polite  # noqa: F401
import torch
from packages import cache_folder, lite0
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tasks import Case
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.tasks import Images, LabelledImages

SIDE = 96  # pixels at which the pretrained network sees images
_SMALL = 32  # and at which networks trained on a source domain do
_BATCH = 32
_STEPS = 400  # of training from scratch: five seconds, on one core
_PIXELS = 16
_MANY = 1000  # images


@dataclass(frozen=True)
class Control:
    """One way without raytl. probabilities: of the truth's images, (n, k)."""

    probabilities: np.ndarray


def controls(case: Case) -> dict[str, Control]:
    """``majority``, ``pixels``, ``30-lines`` and ``scratch``, on the target's labels, without any on a source domain's.

    Nothing of raytl's changes them, so they are kept from one run of a benchmark to the next.
    """
    parts = [case.target, case.truth, *case.source_domains.values()]
    described = [Path(__file__).read_text(), *(part.fingerprint if part is not None else "" for part in parts)]
    kept = cache_folder() / "controls" / f"{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = {name: control.probabilities.tolist() for name, control in _controls(case).items()}
        staging = kept.with_suffix(f".{os.getpid()}")
        staging.write_text(json.dumps(found))
        staging.rename(kept)
    document = json.loads(kept.read_text())
    return {name: Control(np.array(probabilities)) for name, probabilities in document.items()}


def _controls(case: Case) -> dict[str, Control]:
    training = [case.target] if case.target is not None else list(joinable(case).values())
    found = {"majority": Control(_commonest(training[0], case.truth))}
    for name, views in (("pixels", ["pixels"]), ("30-lines", ["lite0", *case.source_domains])):
        tried = [
            (view, images, *_fitted(_see(view, images, case), images.labels)) for view in views for images in training
        ]
        # Where the estimates are equal the one named first stands.
        view, images, model, _ = max(tried, key=lambda entry: entry[3])
        rows = model.predict_proba(_see(view, case.truth, case))
        found[name] = Control(_columns(rows, model.classes_, images.classes, case.truth.classes))
    # Nothing is held out to choose by: of several domains the largest, whatever the order that they are given in.
    found["scratch"] = Control(_from_scratch(max(training, key=lambda images: (len(images), images.name)), case.truth))
    return found


def joinable(case: Case) -> dict[str, LabelledImages]:
    """Source domains with the task's label names."""
    known = set(case.truth.classes)
    return {name: domain for name, domain in case.source_domains.items() if set(domain.classes) <= known}


def _fitted(features: np.ndarray, labels: np.ndarray) -> tuple[Pipeline, float]:
    """The thirty lines: logistic regression, its strength by cross-validation; and the accuracy that this promises.

    Where there are over a thousand images the strength matters little, and a fifth of them is held out once.
    """
    folds = min(5, int(np.bincount(labels)[np.unique(labels)].min()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(features) > _MANY:
            order = np.random.default_rng(0).permutation(len(features))
            held, rest = np.split(order, [len(order) // 5])
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(features[rest], labels[rest])
            return model, float(model.score(features[held], labels[held]))
        if folds < 2:
            return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(features, labels), 0.0
        head = LogisticRegressionCV(
            Cs=np.logspace(-4, 1, 6), cv=folds, max_iter=500, l1_ratios=(0,), scoring="accuracy",
            use_legacy_attributes=False,
        )  # fmt: skip
        model = make_pipeline(StandardScaler(), head).fit(features, labels)
    return model, float(head.scores_.mean(axis=0).max())


def _columns(rows: np.ndarray, known: Sequence[int], names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """A model's columns at the places of the truth's classes."""
    out = np.zeros((len(rows), len(classes)))
    for column, label in enumerate(known):
        out[:, classes.index(names[int(label)])] = rows[:, column]
    return out


# --- what the regression sees ----------------------------------------------------------------------------------------

_FEATURES: dict[tuple[str, str], np.ndarray] = {}
_NETWORKS: dict[str, nn.Module] = {}


def _see(view: str, images: Images, case: Case) -> np.ndarray:
    """pixels; features of ``lite0``; or those of a small network that was trained on the source domain ``view``."""
    if view == "pixels":
        return np.stack([_array(item, _PIXELS, "L").ravel() for item in images.items])
    if view == "lite0":
        return lite0_features(images)
    domain = case.source_domains[view]
    if domain.fingerprint not in _NETWORKS:
        _NETWORKS[domain.fingerprint] = _small_network(domain)
    return _remembered(domain.fingerprint, _NETWORKS[domain.fingerprint], images, _SMALL)


def lite0_probe(case: Case, side: int = SIDE) -> Callable[[], np.ndarray]:
    """The thirty lines on EfficientNet-Lite0 alone, fitted; what is returned asks it of the truth.

    That gives probabilities of the truth's classes, (n, k).
    """
    target = case.target
    assert target is not None
    _FEATURES.clear()  # what it costs is measured
    _lite0_without_head.cache_clear()
    model, _ = _fitted(lite0_features(target, side), target.labels)

    def ask() -> np.ndarray:
        rows = model.predict_proba(lite0_features(case.truth, side))
        return _columns(rows, model.classes_, target.classes, case.truth.classes)

    return ask


def lite0_features(images: Images, side: int = SIDE) -> np.ndarray:
    """Of EfficientNet-Lite0 trained on ImageNet, (n, 1280)."""
    return _remembered(f"lite0-{side}", None, images, side)


def _remembered(key: str, network: nn.Module | None, images: Images, side: int) -> np.ndarray:
    digests = [item.digest for item in images.items]
    missing = {
        digest: item for digest, item in zip(digests, images.items, strict=True) if (key, digest) not in _FEATURES
    }
    if missing:
        network = network or _lite0_without_head()
        network.eval()
        pixels = tensor(list(missing.values()), side)
        with torch.inference_mode():
            rows = torch.cat([network(chunk) for chunk in pixels.split(64)]).numpy()
        _FEATURES.update({(key, digest): row for digest, row in zip(missing, rows, strict=True)})
    return np.stack([_FEATURES[key, digest] for digest in digests])


@cache
def _lite0_without_head() -> nn.Module:
    return pretrained(0)


def pretrained(classes: int) -> nn.Module:
    """EfficientNet-Lite0 with a fresh head, or none for no classes."""
    import timm
    from safetensors.torch import load_file

    network: nn.Module = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(load_file(lite0()))
    network.reset_classifier(classes)
    return network


def _array(item: Any, side: int, mode: str) -> np.ndarray:
    image = item.open().convert(mode).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) / 255


def tensor(items: Sequence[Any], side: int) -> Tensor:
    """RGB from -1 to 1, (n, 3, side, side)."""
    return (
        torch.from_numpy(np.stack([_array(item, side, "RGB") for item in items])).permute(0, 3, 1, 2).contiguous() * 2
        - 1
    )


def _commonest(images: LabelledImages, truth: LabelledImages) -> np.ndarray:
    """The commonest class; of several that are as common one by chance for each image: their order tells nothing."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    likely = [truth.classes.index(images.classes[index]) for index in np.flatnonzero(counts == counts.max())]
    said = np.random.default_rng(0).choice(likely, len(truth))
    return np.eye(len(truth.classes))[said]


def _from_scratch(images: LabelledImages, truth: LabelledImages) -> np.ndarray:
    """The same three convolutions with their head, from random weights: probabilities of the truth's images, (n, k)."""
    epochs = -(-_STEPS // -(-len(images) // _BATCH))
    network = _trained(images, epochs).eval()
    with torch.inference_mode():
        rows = torch.cat([network(part).softmax(1) for part in tensor(truth.items, _SMALL).split(64)]).numpy()
    return _columns(rows, range(len(images.classes)), images.classes, truth.classes)


def _small_network(domain: LabelledImages) -> nn.Module:
    """Three convolutions trained on a source domain, without their head."""
    body: nn.Module = _trained(domain, epochs=8)[0]
    return body


def _trained(images: LabelledImages, epochs: int) -> nn.Sequential:
    """Three convolutions, and their head."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for wide, wider in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(wide, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    whole = nn.Sequential(body, nn.Linear(256, len(images.classes)))
    train(whole, tensor(images.items, _SMALL), torch.from_numpy(images.labels), epochs, rate=1e-3)
    return whole


def train(network: nn.Module, pixels: Tensor, labels: Tensor, epochs: int, rate: float, batch: int = _BATCH) -> None:
    """AdamW, one cosine, cross-entropy, nothing else."""
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    steps = epochs * max(1, -(-len(pixels) // batch))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(pixels)).split(batch):
            if len(index) < 2 <= len(pixels):
                continue  # one image has no batch statistics
            optimizer.zero_grad()
            F.cross_entropy(network(pixels[index]), labels[index]).backward()
            optimizer.step()
            schedule.step()
