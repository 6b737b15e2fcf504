"""A strategy: one point of the joint search space, and its plain-value form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from raytl import adaptation, finetuning
from raytl.adaptation import AdaptationConfig
from raytl.core.dimensions import as_default, build
from raytl.core.errors import UserError, nearest
from raytl.core.hashing import hash_json
from raytl.sources.heads import CONVEX, READS

_COMPONENTS: dict[str, Callable[[str], Any]] = {
    "adaptation": adaptation.get,
    "regulariser": finetuning.regularisers.get,
}

_LATER = {("head", "linear"), ("start", "random"), ("class_weights", "none")}


@dataclass(frozen=True)
class Strategy:
    """How to get from a source model to a model of the task.

    source_model: URI; ``pretrain:<source domain>/<architecture>`` means trained on that source domain first.
    source_domain: the source domain whose labelled images join the training, or None.
    target_labels: whether the target's labels train the model (False only in the source-only baseline).
    cut: number of stages frozen, from the input side.
    head: ``linear``; ``mlp`` with a hidden layer of 256 units; ``logistic``, a linear one on frozen stages that is
        solved for (L2-regularised logistic regression, the strength by cross-validation) and has no rates;
        ``stages``, one of these on every stage, their probabilities averaged; ``nearest-mean`` and ``k-nn``, what a
        class's mean, or single labelled images, are near; or ``zero-shot``, made of the classes' names by the source
        model's text tower, without labels.
    start: of a linear head, ``random`` (or taken over from a source model with the same labels), or ``probe``: solved
        for on the source model's features before anything is trained (LP-FT; Kumar et al., 2022).
    class_weights: ``none``, or ``balanced``: every class counts as much as the others however few images it has.
    head_lr: peak learning rate of the head; backbone_ratio: the other stages' rate over the head's.
    optimizer: ``sgd`` (Nesterov, momentum 0.9) or ``adamw``. schedule: ``cosine``, ``constant`` or ``inverse``
        (lr0 (1 + 10 p)^-0.75); all with ``warmup`` (share of the budget).
    weight_decay: not applied to norms and biases.
    adaptation: name of the loss, or ``none``; adaptation_config: its settings.
    regulariser, regulariser_config: likewise (L2-SP).
    augmentation: name of the policy, or ``none``.
    cached_views: 0 augments every batch anew; K >= 1 augments every image K times beforehand and draws one of the K for
        each batch, so that frozen stages have to be run K times and no more.
    batch_norm: whose statistics batch norm uses in training where two domains are seen: ``joint`` (one mixed batch) or
        ``separate`` (each domain normalised by its own, running statistics follow the target).
    label_smoothing: in [0, 1). ema: decay per step of the weight average that is evaluated, 0 for none.
    """

    source_model: str
    source_domain: str | None = None
    target_labels: bool = True
    cut: int = 0
    head: str = "linear"
    start: str = "random"
    class_weights: str = "none"
    head_lr: float = 1e-2
    backbone_ratio: float = 0.1
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.1
    adaptation: str = "none"
    adaptation_config: AdaptationConfig | None = None
    regulariser: str = "none"
    regulariser_config: Any = None
    augmentation: str = "none"
    cached_views: int = 0
    batch_norm: str = "joint"
    label_smoothing: float = 0.0
    ema: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain flat values: component settings under dotted keys (``adaptation.weight``).

        A component without settings of its own has its defaults written out, as it will be trained with.
        """
        flat: dict[str, Any] = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.name.endswith("_config"):
                prefix = spec.name.removesuffix("_config")
                name = getattr(self, prefix)
                if name == "none":
                    continue
                value = value or _COMPONENTS[prefix](name).config()
                for inner in fields(value):
                    flat[f"{prefix}.{inner.name}"] = as_default(inner, getattr(value, inner.name))
            else:
                flat[spec.name] = as_default(spec, value)
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Strategy:
        """Inverse of :meth:`to_dict`; missing keys take their defaults, unknown keys raise UserError."""
        plain: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {prefix: {} for prefix in _COMPONENTS}
        known = {spec.name: spec for spec in fields(cls) if not spec.name.endswith("_config")}
        for key, value in flat.items():
            prefix, dot, rest = key.partition(".")
            if dot and prefix in nested:
                nested[prefix][rest] = value
            elif key in known:
                plain[key] = as_default(known[key], value)
            else:
                raise UserError(f"strategy: unknown key '{key}'{nearest(key, known)}")
        if "source_model" not in plain:
            raise UserError("strategy: 'source_model' is missing; give the URI of the model to start from")
        for prefix, entry in _COMPONENTS.items():
            name = plain.get(prefix, "none")
            if name != "none":
                plain[f"{prefix}_config"] = build(entry(name).config, nested[prefix], f"{prefix} '{name}'")
            elif nested[prefix]:
                raise UserError(f"strategy: settings for {prefix} given, but {prefix} is 'none'")
        return cls(**plain)

    @property
    def convex(self) -> bool:
        """Whether its head is solved for, on stages that are all frozen, and nothing is trained."""
        return self.head in CONVEX

    @cached_property
    def key(self) -> str:
        """Hash of all settings (12 hex digits): equal strategies have equal keys.

        A setting that strategies were given later leaves the keys alone of those that do without it.
        """
        plain = {name: value for name, value in self.to_dict().items() if (name, value) not in _LATER}
        if self.head == "stages":
            plain["features"] = READS[0]  # what it read before was another thing, and is not to be mixed with this
        return hash_json(plain)[:12]
