"""The search space: which strategies there are, conditional where one choice decides whether another exists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from raytl import adaptation, finetuning
from raytl.core.dimensions import Choice, Dimension, Float, Int, build, dimensions
from raytl.core.errors import UserError, nearest
from raytl.finetuning import augmentation
from raytl.finetuning.optimizers import OPTIMIZERS, SCHEDULES
from raytl.search.space.files import Lines, find_space, parse_assignment, place, read_yaml
from raytl.sources.heads import CONVEX, HEADS, NEAR
from raytl.training.settings import PretrainSettings

C = TypeVar("C")
COMPONENTS = {"adaptation": adaptation, "regulariser": finetuning.regularisers}
ANY = "any"
NONE = "none"
ALL = "all"
# What a strategy key may hold; a space narrows it. `cut` and the models are checked against the models themselves.
LIMITS: dict[str, Dimension] = {
    "head_lr": Float(1e-8, 100.0),
    "backbone_ratio": Float(0.0, 10.0),
    "weight_decay": Float(0.0, 1.0),
    "warmup": Float(0.0, 0.9),
    "label_smoothing": Float(0.0, 0.9),
    "ema": Float(0.0, 0.9999),
    "head": Choice(tuple(head for head in HEADS if head not in CONVEX or head in NEAR)),
    "start": Choice(("random", "probe")),
    "class_weights": Choice(("none", "balanced")),
    "optimizer": Choice(OPTIMIZERS),
    "schedule": Choice(SCHEDULES),
    "batch_norm": Choice(("joint", "separate")),
    "cached_views": Int(0, 64),
}
FREE = ("source_model", "source_domain", "cut", "augmentation")
STRATEGY_KEYS = (*FREE, *LIMITS, *COMPONENTS)
LICENCES = ("any", "commercial")


@dataclass(frozen=True)
class SpaceSettings:
    """What holds for every strategy of a space.

    epochs: the full budget; grace_epochs: no trial is stopped before; reduction_factor: one in so many trials goes on
    at each rung. steps_per_epoch: 0 for one pass over the largest role that a strategy trains on, within bounds.
    image_size: pixels, 0 for each model's own. largest_image_size: up to which heads may be tried on larger images, 0
    for none; whoever assigns an ``image_size`` alone gets no other. trials: how many with neither --trials nor
    --time-budget. licence: what that of published weights has to allow, one of :data:`LICENCES`.
    """

    epochs: int = 12
    grace_epochs: int = 3
    reduction_factor: int = 3
    steps_per_epoch: int = 0
    batch_size: int = 64
    image_size: int = 0
    largest_image_size: int = 0
    trials: int = 40
    licence: str = "any"


@dataclass(frozen=True)
class SearchSpace:
    """A parsed space, not yet bound to a task.

    plain: dimensions by strategy key; by_optimizer: dimensions that differ between optimizers (key -> optimizer ->
    dimension). components: for ``adaptation`` and ``regulariser``, name -> setting -> dimension. first: partial
    strategies to try before anything is learned. values: what the space was parsed from, assignments included.
    """

    name: str
    about: str
    settings: SpaceSettings
    pretrain: PretrainSettings
    plain: dict[str, Dimension]
    by_optimizer: dict[str, dict[str, Dimension]]
    components: dict[str, dict[str, dict[str, Dimension]]]
    first: tuple[dict[str, Any], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def says(self, key: str) -> bool:
        """Whether the space names options of a dimension itself; what it is silent on is left to its defaults."""
        return key in (self.values.get("space") or {})


def load_space(name_or_path: str, assignments: Sequence[str] = ()) -> SearchSpace:
    """Read a shipped space by name or a file, narrowed by ``key=value`` assignments. Raises UserError with the line."""
    path = find_space(name_or_path)
    values, lines = read_yaml(path)
    parsed = [parse_assignment(assignment) for assignment in assignments]
    if any(keys == ("image_size",) for keys, _ in parsed):
        values.pop("largest_image_size", None)
    for assignment, (keys, value) in zip(assignments, parsed, strict=True):
        _assign(values, keys, value, assignment)
        path_keys = ("space", *keys) if keys[0] in STRATEGY_KEYS else keys
        lines = {key: line for key, line in lines.items() if key[: len(path_keys)] != path_keys}
        lines[path_keys] = f"--set {assignment}"
    return _Parser(path, values, lines).parse()


def parse_space(name: str, values: Mapping[str, Any]) -> SearchSpace:
    """A space from the ``values`` of an earlier one, whatever became of its file. Raises UserError."""
    return _Parser(Path(f"{name}.yaml"), dict(values), {}).parse()


def _assign(values: dict[str, Any], keys: tuple[str, ...], value: Any, text: str) -> None:
    """Set a value in the raw mapping.

    ``adaptation.mcc.weight=1`` narrows nothing else; ``adaptation=mcc`` keeps the settings that the file gives for mcc.
    """
    space = values.setdefault("space", {})
    if not isinstance(space, dict):
        return  # the parser will say so
    root = space if keys[0] in STRATEGY_KEYS else values
    for key in keys[:-1]:
        inner = root.get(key)
        if isinstance(inner, list) or (key in COMPONENTS and isinstance(inner, str)):
            inner = {str(item): {} for item in (inner if isinstance(inner, list) else [inner])}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            raise UserError(f"--set {text}: '{key}' has no settings of its own")
        root[key] = inner
        root = inner
    old = root.get(keys[-1])
    if keys[-1] in COMPONENTS and len(keys) == 1 and isinstance(old, dict):
        names = value if isinstance(value, list) else [value]
        value = {name: old.get(name, {}) for name in names}
    root[keys[-1]] = value


class _Parser:
    def __init__(self, path: Path, values: dict[str, Any], lines: Lines) -> None:
        self.path = path
        self.values = values
        self.lines = lines

    def where(self, *keys: str) -> str:
        return place(self.lines, self.path.name, keys)

    def parse(self) -> SearchSpace:
        settings_keys = {spec.name for spec in fields(SpaceSettings)}
        known = {"about", "space", "pretrain", "first", *settings_keys}
        for key in self.values:
            if key not in known:
                raise UserError(
                    f"{self.where(str(key))}: unknown key '{key}'{nearest(str(key), [*known, *STRATEGY_KEYS])}"
                )
        given = {key: self.values[key] for key in self.values if key in settings_keys}
        settings = self._build(SpaceSettings, given)
        self._check_settings(settings)
        pretrain = self._build(PretrainSettings, self._mapping(self.values.get("pretrain", {}), "pretrain"), "pretrain")
        space = self._mapping(self.values.get("space"), "space")
        plain: dict[str, Dimension] = {}
        by_optimizer: dict[str, dict[str, Dimension]] = {}
        components: dict[str, dict[str, dict[str, Dimension]]] = {name: {"none": {}} for name in COMPONENTS}
        for key, value in space.items():
            path = ("space", str(key))
            if key not in STRATEGY_KEYS:
                raise UserError(f"{self.where(*path)}: unknown key '{key}'{nearest(str(key), STRATEGY_KEYS)}")
            if key in COMPONENTS:
                components[key] = self._components(key, value)
            elif isinstance(value, dict) and set(value) & set(OPTIMIZERS):
                by_optimizer[key] = {
                    self._optimizer(name, path): self._dimension(item, LIMITS.get(key), (*path, name))
                    for name, item in value.items()
                }
            else:
                plain[key] = self._dimension(value, LIMITS.get(key), path)
        if "source_model" not in plain:
            raise UserError(f"{self.where('space')}: 'source_model' is missing: list at least one source model")
        self._check_augmentation(plain)
        self._check_cut(plain)
        first = self._first(self.values.get("first", []))
        about = str(self.values.get("about", "")).strip()
        return SearchSpace(
            self.path.stem, about, settings, pretrain, plain, by_optimizer, components, first, self.values
        )

    def _first(self, value: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, list):
            raise UserError(f"{self.where('first')}: 'first' must be a list of mappings")
        for item in value:
            for key in self._mapping(item, "first"):
                head, dot, rest = str(key).partition(".")
                if head not in STRATEGY_KEYS:
                    raise UserError(f"{self.where('first')}: unknown key '{key}'{nearest(str(key), STRATEGY_KEYS)}")
                if dot:
                    self._check_first_setting(head, *rest.partition(".")[::2])
        return tuple(value)

    def _check_first_setting(self, kind: str, name: str, setting: str) -> None:
        """``adaptation.mcc.weight`` under ``first``: the component and its setting must exist."""
        try:
            known = dimensions(COMPONENTS[kind].get(name).config) if kind in COMPONENTS else {}
        except UserError as error:
            raise UserError(f"{self.where('first')}: {error}") from None
        if setting not in known:
            hint = nearest(setting, known)
            raise UserError(f"{self.where('first')}: unknown key '{kind}.{name}.{setting}'{hint}")

    def _check_settings(self, settings: SpaceSettings) -> None:
        for key, low in [("epochs", 1), ("grace_epochs", 1), ("reduction_factor", 2), ("steps_per_epoch", 0),
                         ("batch_size", 2), ("image_size", 0), ("largest_image_size", 0), ("trials", 1)]:  # fmt: skip
            if getattr(settings, key) < low:
                raise UserError(f"{self.where(key)}: '{key}' is {getattr(settings, key)}; give at least {low}")
        if settings.licence not in LICENCES:
            raise UserError(f"{self.where('licence')}: 'licence' is '{settings.licence}'; give {' or '.join(LICENCES)}")

    def _check_augmentation(self, plain: dict[str, Dimension]) -> None:
        dimension = plain.get("augmentation")
        for name in dimension.options if isinstance(dimension, Choice) else ():
            if name not in augmentation.names():
                where = self.where("space", "augmentation")
                raise UserError(f"{where}: unknown augmentation '{name}'{nearest(str(name), augmentation.names())}")

    def _check_cut(self, plain: dict[str, Dimension]) -> None:
        dimension = plain.get("cut", Int(0, 0))
        for cut in _ends(dimension):
            whole = isinstance(cut, int) and not isinstance(cut, bool)
            if not (whole or (isinstance(dimension, Choice) and cut in (ANY, ALL))):
                raise UserError(f"{self.where('space', 'cut')}: cut '{cut}'; give whole numbers, 'any' or 'all'")

    def _build(self, config: type[C], values: dict[str, Any], *path: str) -> C:
        """:func:`build`, with each key's own line in the error."""
        for key, value in values.items():
            build(config, {str(key): value}, self.where(*path, str(key)))
        return build(config, values, self.where(*path))

    def _mapping(self, value: Any, *path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UserError(f"{self.where(*path)}: '{path[-1]}' must be a mapping of keys to values")
        return value

    def _optimizer(self, name: str, path: tuple[str, ...]) -> str:
        if name not in OPTIMIZERS:
            raise UserError(f"{self.where(*path, name)}: unknown optimizer '{name}'{nearest(name, OPTIMIZERS)}")
        return name

    def _components(self, kind: str, value: Any) -> dict[str, dict[str, Dimension]]:
        """``[none, mcc]`` takes each one's own sub-space; ``{mcc: {weight: 1.0}}`` overrides parts of it."""
        if not isinstance(value, dict):
            value = {name: {} for name in (value if isinstance(value, list) else [value])}
        found: dict[str, dict[str, Dimension]] = {}
        for name, overrides in value.items():
            path = ("space", kind, str(name))
            if name is None or name == "none":
                found["none"] = {}
                continue
            try:
                config = COMPONENTS[kind].get(str(name)).config
            except UserError as error:
                raise UserError(f"{self.where(*path)}: {error}") from None
            own = dimensions(config)
            every = {spec.name for spec in fields(config)}
            for key, override in self._mapping(overrides or {}, *path).items():
                if key not in every:
                    raise UserError(f"{self.where(*path, key)}: unknown key '{key}'{nearest(key, every)}")
                own[key] = self._dimension(override, None, (*path, key))
                for end in _ends(own[key]):
                    build(config, {key: end}, self.where(*path, key))
            found[str(name)] = own
        return found

    def _dimension(self, value: Any, limit: Dimension | None, path: tuple[str, ...]) -> Dimension:
        """A scalar is fixed, a list is a choice, {low, high, log} a range."""
        where = self.where(*path)
        key = path[-1]
        if isinstance(value, dict):
            if set(value) - {"low", "high", "log"} or not {"low", "high"} <= set(value):
                odd = next(iter(set(value) - {"low", "high", "log"}), None)
                hint = (
                    f"unknown key '{odd}'{nearest(str(odd), ['low', 'high', 'log'])}" if odd else "needs low and high"
                )
                raise UserError(f"{where}: '{key}': {hint}")
            low, high, log = value["low"], value["high"], value.get("log", False)
            numbers = all(Float(-math.inf, math.inf).contains(item) for item in (low, high))
            if not numbers or not isinstance(log, bool) or low > high or (log and low <= 0):
                rule = "numbers low <= high, low > 0 where log"
                raise UserError(f"{where}: '{key}' has the range {low} to {high}; give {rule}")
            dimension: Dimension = Float(float(low), float(high), log)
            if isinstance(low, int) and isinstance(high, int) and limit is None:
                dimension = Int(low, high, log)
        else:
            options = tuple(value) if isinstance(value, list) else (value,)
            if not options or any(isinstance(option, list | dict) for option in options):
                raise UserError(f"{where}: '{key}' needs at least one plain value")
            dimension = Choice(options)
        for end in _ends(dimension):
            if limit is not None and not limit.contains(end):
                raise UserError(f"{where}: '{key}' is {end!r}; give {limit}")
        return dimension


def _ends(dimension: Dimension) -> tuple[Any, ...]:
    """The options, or both ends of the range."""
    return dimension.options if isinstance(dimension, Choice) else (dimension.low, dimension.high)
