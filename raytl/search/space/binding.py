"""A search space bound to a task: what of it applies to this data, and how a sampler walks through it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from raytl import adaptation, sources
from raytl.core.dimensions import Choice, Int
from raytl.core.errors import UserError, nearest
from raytl.finetuning import augmentation
from raytl.search.space import sizes
from raytl.search.space.allowed import NotAllowedError, check_licence
from raytl.search.space.choices import Suggester, choose, sample
from raytl.search.space.definition import ALL, ANY, COMPONENTS, NONE, SearchSpace
from raytl.search.space.drawn import judge_drawn
from raytl.search.space.known import known_by
from raytl.search.space.usual import usual_metric
from raytl.sources import SourceInfo, WeightsMissingError, is_untrained
from raytl.sources.heads import NEAR
from raytl.sources.uris import is_published
from raytl.tasks import Problem, Severity, TrainingData
from raytl.tasks.task import Role
from raytl.training.pretrain import parse_pretrain, pretrain_uri
from raytl.training.strategy import Strategy

LOGISTIC = "logistic"
MOST_VIEWED = 1000
"""Labelled images up to which heads learn from views too: of more these tell little, and several times as many pass."""
_CHOSEN_APART = frozenset({"source_model", "source_domain", "cut", "head", "cached_views"})


class BoundSpace:
    """The strategies of a space that this task's data allows.

    left_out: why a source model is not among them, by its URI; problems: the same for the user to see. known: images
    that source models have learned from before.

    Raises UserError where a named source domain does not exist or nothing is left to choose from: no source model, or
    no adaptation loss (``none`` is one) that the data allows.
    """

    def __init__(self, space: SearchSpace, data: TrainingData) -> None:
        self.space = space
        self.data = data
        self.left_out: dict[str, str] = {}
        self.problems: list[Problem] = []
        models = self._available(self._expand_models())
        self._infos = {uri: self._info(uri) for uri in models}
        self.stages = {uri: len(info.stages) for uri, info in self._infos.items()}
        self.adaptations = self._expand_adaptations(self._expand_domains())
        self.source_domains = list(self.adaptations)
        self.source_models = self._adaptable(models)
        self.known, said = known_by(self.source_models, data)
        self.problems += said
        for uri in self.source_models:
            # Whoever names such a model may count on what it makes of the names.
            why = sources.why_no_zero_shot(data.classes) if self.reads_names(uri) else ""
            if why:
                self.problems.append(Problem(Severity.INFO, uri, why))
        learned = [parts[0] for uri in self.source_models if (parts := parse_pretrain(uri)) is not None]
        if self._trains():
            self.problems += judge_drawn(space, data, list(dict.fromkeys(learned)))

    def _trains(self) -> bool:
        """Whether a strategy of the space trains a network, and does not only solve for heads."""
        return any(
            cut < self.stages[uri] or set(self.losses(uri, cut, domain)) != {NONE}
            for uri in self.source_models
            if self.is_trainable(uri)
            for cut in self.cuts(uri)
            for domain in self.domains(uri, cut)
        )

    @property
    def can_train(self) -> bool:
        """Whether anything tells that a trained network beats a head on published weights: that it is sure does not."""
        return self.data.can_hold_out or (self.data.can_score and not any(map(is_published, self.source_models)))

    # --- what applies -----------------------------------------------------------------------------------------------

    def _expand_models(self) -> list[str]:
        domains = sorted(self.data.source_domains)  # in this order, whatever that of the options: it is drawn by place
        models: list[str] = []
        for uri in self._options("source_model"):
            pretraining = parse_pretrain(str(uri))
            if pretraining is None:
                models.append(str(uri))
                continue
            domain, architecture = pretraining
            if domain != "*" and domain not in domains:
                raise UserError(f"source model '{uri}': no source domain '{domain}'{nearest(domain, domains)}")
            models += [pretrain_uri(name, architecture) for name in (domains if domain == "*" else [domain])]
        if not models:
            raise UserError(
                f"search space '{self.space.name}' has only source models that are pretrained on source domains, and "
                "the task has none: add --source-domain, or take another --space"
            )
        return list(dict.fromkeys(models))

    def _available(self, models: list[str]) -> list[str]:
        """The models whose weights can be had and may be used; the others go to ``left_out`` with the reason.

        Downloading happens here, once, rather than in every lane.
        """
        kept: list[str] = []
        for uri in models:
            pretraining = parse_pretrain(uri)
            architecture = pretraining[1] if pretraining else uri
            try:
                check_licence(architecture, self.space.settings.licence)
                if not is_untrained(architecture):
                    size = self.space.settings.image_size or None
                    loaded = sources.load(architecture, channels=self.data.channels, image_size=size)
                    self.problems += [Problem(Severity.INFO, uri, note) for note in loaded.notes]
                kept.append(uri)
            except (WeightsMissingError, NotAllowedError) as error:
                self.left_out[uri] = str(error)
                why = str(error).removeprefix(f"{uri}: ")
                kind = "licence" if isinstance(error, NotAllowedError) else "weights"
                self.problems.append(Problem(Severity.WARNING, uri, f"left out: {why}", kind=kind))
        if not kept:
            raise UserError(next(iter(self.left_out.values())))
        return kept

    def stage_count(self, uri: str) -> int:
        """Stages of a source model, one of the space or not."""
        return len((self._infos.get(uri) or self._info(uri)).stages)

    def is_trainable(self, uri: str) -> bool:
        """Whether a source model's stages hold anything to train."""
        return (self._infos.get(uri) or self._info(uri)).trainable

    def reads_names(self, uri: str) -> bool:
        """Whether class names mean something to a source model."""
        return (self._infos.get(uri) or self._info(uri)).text_tower

    def squashed(self, uri: str) -> str | None:
        """See :func:`raytl.search.space.sizes.squashed`."""
        return sizes.squashed(uri, self._info(uri), self.space.settings.largest_image_size)

    def larger(self, uri: str) -> list[tuple[str, float]]:
        """See :func:`raytl.search.space.sizes.larger`."""
        return sizes.larger(uri, self._info(uri), self.data, self.space.settings.largest_image_size)

    def closer(self, uri: str) -> list[tuple[str, float]]:
        """See :func:`raytl.search.space.sizes.closer`."""
        return sizes.closer(uri, self._info(uri), self.data, self.space.settings.largest_image_size)

    @property
    def head_augmentations(self) -> list[str]:
        """The policies by which heads may learn from views too: none where the space has none, mirrored as it mirrors.

        On seven tasks with 60 to 360 labels crops were worth 1.0 point on average, from -0.5 to 2.6; turned and sheared
        versions, which networks are trained with, cost up to 3.
        """
        dimension = self.space.plain.get("augmentation")
        names = [str(name) for name in (dimension.options if isinstance(dimension, Choice) else ()) if name != NONE]
        mirrored = ["crop-flip"] if any(augmentation.flips(name) for name in names) else []
        few = self.data.target is not None and len(self.data.target) <= MOST_VIEWED
        return ["crop", *mirrored] if names and few else []

    def _adaptable(self, models: list[str]) -> list[str]:
        """The models that some allowed loss (``none`` is one) can do something to; the others are told of."""
        kept = [uri for uri in models if self.cuts(uri)]
        losses = ", ".join(name for name in self.space.components["adaptation"])
        for uri in [uri for uri in models if uri not in kept]:
            message = f"left out: no adaptation that the space allows ({losses}) does anything to what is not frozen"
            self.problems.append(Problem(Severity.WARNING, uri, message, kind="adaptation"))
        if not kept:
            raise UserError(
                f"search space '{self.space.name}': adaptation {losses} does nothing to any of its source models, of "
                "which all that it acts on is frozen or missing; allow adaptation 'none', or other cuts"
            )
        return kept

    def _info(self, uri: str) -> SourceInfo:
        pretraining = parse_pretrain(uri)
        architecture = pretraining[1] if pretraining else uri
        size = self.space.settings.image_size or None
        return sources.info(architecture, channels=self.data.channels, image_size=size)

    @cached_property
    def skewed(self) -> bool:
        """Whether the classes are so unlike in size that it may matter how much each of them counts."""
        return usual_metric(self.data) != "accuracy"

    def set_aside(self, domains: Collection[str]) -> None:
        """Leave out domains whose labels turned out to be wrong, before a strategy was suggested.

        None of them joins a training, and no model that learned one is started from.
        """
        kept = {name: losses for name, losses in self.adaptations.items() if name not in domains}
        self.adaptations = kept or {NONE: [NONE]}
        self.source_domains = list(self.adaptations)
        wrong = {uri for uri in self.source_models if (parse_pretrain(uri) or ("",))[0] in domains}
        self.source_models = [uri for uri in self.source_models if uri not in wrong] or self.source_models

    def _expand_domains(self) -> list[str]:
        """Names of the domains that may join the training, ``none`` for no domain."""
        found: list[str] = []
        for option in self._options("source_domain", NONE):
            if option in (None, NONE):
                if self.data.target is not None:
                    found.append(NONE)
            elif option == ANY:
                found += self.data.joinable
            elif option in self.data.joinable:
                found.append(str(option))
            elif option in self.data.source_domains:
                raise UserError(
                    f"source domain '{option}' has labels that the task does not know; it can only pretrain"
                )
            else:
                raise UserError(f"no source domain '{option}'{nearest(str(option), self.data.source_domains)}")
        if not found and self.data.target is None:
            found = list(self.data.joinable)
        return list(dict.fromkeys(found)) or [NONE]

    @property
    def forbids_adaptation(self) -> bool:
        """Whether the space says that there is to be none; one that is silent on it leaves the probes their own."""
        return self.space.says("adaptation") and set(self.space.components["adaptation"]) == {NONE}

    def _expand_adaptations(self, domains: list[str]) -> dict[str, list[str]]:
        """The losses whose roles are there, by the domain (or none) that joins the training; domains without any go."""
        missing: dict[str, set[Role]] = {}
        found: dict[str, list[str]] = {}
        for domain in domains:
            roles = {Role.UNLABELLED} if self.data.unlabelled is not None else set()
            if domain != NONE:
                roles.add(Role.SOURCE_DOMAIN)
            lacks = {name: _needs(name) - roles for name in self.space.components["adaptation"]}
            missing |= {name: gone for name, gone in lacks.items() if gone}
            allowed = [name for name, gone in lacks.items() if not gone]
            if allowed:
                found[domain] = allowed
        if not found:
            name, gone = next(iter(missing.items()))
            raise UserError(
                f"search space '{self.space.name}': adaptation '{name}' needs {_named(gone, ' and ')}, which the task "
                "does not have; add that, or allow adaptation 'none'"
            )
        never = [name for name in missing if not any(name in names for names in found.values())]
        if never:
            losses = set(self.space.components["adaptation"]) - {NONE}
            what = "all losses" if losses == set(never) else ", ".join(never)
            least = min((missing[name] for name in never), key=len)
            message = f"left out: {what}; the task has no {_named(least, ' and no ')}"
            self.problems.append(Problem(Severity.INFO, "adaptation", message))
        return found

    def _options(self, key: str, default: Any = None) -> list[Any]:
        dimension = self.space.plain.get(key, Choice((default,)))
        if not isinstance(dimension, Choice):
            raise UserError(f"search space '{self.space.name}': '{key}' must be a list of names")
        return list(dimension.options)

    def cuts(self, source_model: str) -> list[int]:
        """Allowed cuts of a source model, above which some allowed loss, or ``none``, has something to act on.

        A negative cut counts from the head; untrained models are never frozen.
        """
        return [cut for cut in self._wanted_cuts(source_model) if self.domains(source_model, cut)]

    def domains(self, source_model: str, cut: int) -> list[str]:
        """The domains (or none) that may join the training, with which some loss, or ``none``, can act."""
        return [domain for domain in self.source_domains if self.losses(source_model, cut, domain)]

    def losses(self, source_model: str, cut: int, domain: str) -> list[str]:
        """The losses whose roles are there and that act on something which is not frozen."""
        info = self._infos[source_model]
        if not info.trainable:
            return [loss for loss in self.adaptations[domain] if loss == NONE]
        open_stages = info.stages[cut:]
        norms = info.stages if info.batch_norm_stages is None else info.batch_norm_stages
        features, batch_norm = bool(open_stages), any(stage in norms for stage in open_stages)
        return [
            loss
            for loss in self.adaptations[domain]
            if loss == NONE or adaptation.get(loss).can_act(features=features, batch_norm=batch_norm)
        ]

    def _wanted_cuts(self, source_model: str) -> list[int]:
        stages = self.stages[source_model]
        if not self.is_trainable(source_model):
            return [stages]
        if is_untrained(source_model):
            return [0]
        dimension = self.space.plain.get("cut", Choice((ANY,)))
        options = range(dimension.low, dimension.high + 1) if isinstance(dimension, Int) else self._options("cut", ANY)
        cuts: set[int] = set()
        for option in options:
            if option == ANY:
                cuts |= set(range(stages + 1))
            elif option == ALL:
                cuts.add(stages)
            else:
                cuts.add(max(0, stages + option) if option < 0 else min(option, stages))
        return sorted(cuts)

    # --- sampling ---------------------------------------------------------------------------------------------------

    def suggest(self, trial: Suggester) -> Strategy:
        """One strategy, asking the sampler only for the dimensions that exist given the choices before them.

        A dimension whose set of options depends on an earlier choice carries that choice in its name, because a sampler
        must see one distribution per name.
        """
        values: dict[str, Any] = {}
        model = values["source_model"] = choose(trial, "source_model", self.source_models)
        cuts = self.cuts(model)
        values["cut"] = choose(trial, f"cut/{len(cuts)}of{self.stages[model]}", cuts)
        domains = self.domains(model, values["cut"])
        domain = choose(trial, _name("source_domain", domains, self.source_domains), domains)
        values["source_domain"] = None if domain == NONE else domain
        losses = self.losses(model, values["cut"], domain)
        values["adaptation"] = choose(
            trial, _name("adaptation", losses, list(self.space.components["adaptation"])), losses
        )
        heads = self._heads(frozen=values["cut"] == self.stages[model] and values["adaptation"] == NONE)
        values["head"] = choose(trial, _name("head", heads, self._options("head", Strategy.head)), heads)
        solved = values["cut"] == self.stages[model] and values["adaptation"] == NONE and values["head"] == "linear"
        if solved or values["head"] in NEAR:
            # All there is to train is solved for, and has none of training's settings.
            values["head"] = LOGISTIC if solved else values["head"]
            if "class_weights" in self.space.plain and self.skewed:
                values["class_weights"] = sample(trial, "class_weights", self.space.plain["class_weights"])
            return Strategy.from_dict(values)
        values["regulariser"] = self._regulariser(trial, values)
        for kind in COMPONENTS:
            for key, dimension in self.space.components[kind].get(values[kind], {}).items():
                values[f"{kind}.{key}"] = sample(trial, f"{kind}.{values[kind]}.{key}", dimension)
        for key, dimension in self.space.plain.items():
            if key not in _CHOSEN_APART and self._applies(key, values):
                values[key] = sample(trial, key, dimension)
        optimizer = values.get("optimizer", Strategy.optimizer)
        for key, per_optimizer in self.space.by_optimizer.items():
            if optimizer in per_optimizer and self._applies(key, values):
                values[key] = sample(trial, f"{key}/{optimizer}", per_optimizer[optimizer])
        if "cached_views" in self.space.plain and _views_exist(values):
            values["cached_views"] = sample(trial, "cached_views", self.space.plain["cached_views"])
        return Strategy.from_dict(values)

    def _applies(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a setting of the training does anything beside what was chosen before it."""
        if key == "start":
            return values["head"] == "linear" and not is_untrained(values["source_model"])
        if key == "class_weights":
            return self.skewed
        if key == "backbone_ratio":
            return bool(values["cut"] < self.stages[values["source_model"]])
        if key == "batch_norm":
            return values["source_domain"] is not None
        return True

    @property
    def near_heads(self) -> list[str]:
        """Those of the space's heads that go by what an image is near to."""
        return [head for head in self._options("head", Strategy.head) if head in NEAR]

    def _heads(self, *, frozen: bool) -> list[str]:
        """The space's heads; frozen: whether nothing below them is trained, which those stand on that are near."""
        heads = self._options("head", Strategy.head)
        return heads if frozen else [head for head in heads if head not in NEAR] or [Strategy.head]

    def _regulariser(self, trial: Suggester, values: Mapping[str, Any]) -> str:
        """Regularisers pull towards the source model: nothing to pull towards from scratch or with all frozen."""
        names = list(self.space.components["regulariser"])
        model = values["source_model"]
        if is_untrained(model) or values["cut"] == self.stages[model]:
            return NONE
        return str(choose(trial, "regulariser", names))


def _name(dimension: str, options: list[str], every: list[str]) -> str:
    """What a sampler is told that a dimension is called which has these of all its options."""
    return dimension if len(options) == len(every) else f"{dimension}/{','.join(options)}"


def _views_exist(values: Mapping[str, Any]) -> bool:
    """Whether there are augmented images and frozen stages that need not see a new version of them in every batch."""
    loss = values["adaptation"]
    strong = loss != NONE and adaptation.get(loss).loss.wants_strong_view
    return bool(values["cut"] > 0 and (strong or values.get("augmentation", Strategy.augmentation) != NONE))


def _needs(loss: str) -> set[Role]:
    return set() if loss == NONE else set(adaptation.get(loss).needs)


def _named(roles: set[Role], joined: str) -> str:
    names = {
        Role.UNLABELLED: "unlabelled images (--unlabelled)",
        Role.SOURCE_DOMAIN: "source domain with the label names of the target (--source-domain)",
    }
    return joined.join(names[role] for role in sorted(roles))
