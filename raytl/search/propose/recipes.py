"""Strategies that every search has, whatever is proposed besides: probes, the usual recipes, and the winner's controls.

All follow from what was found out so far (which source models and domains promise most), never from the order in which
options were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raytl import adaptation, sources
from raytl.adaptation.moments import LEAST_SEEN
from raytl.adaptation.propagation import PROPAGATION
from raytl.judging.verdict import (
    AT_USUAL_SIZE,
    FROM_SCRATCH,
    ON_A_SMALL_MIDDLE,
    ON_PLAIN_FEATURES,
    ON_THE_MIDDLE,
    ON_WHOLE_IMAGES,
    USUAL_FINE_TUNING,
    WITHOUT_DOMAIN_AND_LOSS,
    Part,
    lacks,
)
from raytl.search.jobs import Survey
from raytl.search.space.binding import BoundSpace
from raytl.sources import is_untrained
from raytl.sources.heads import ZERO_SHOT
from raytl.sources.uris import at_size, is_squashed, split_size, tiles_of
from raytl.tasks.task import Role, together
from raytl.training.pretrain import parse_pretrain
from raytl.training.strategy import Strategy

FINE_TUNE = "fine-tune"
SCRATCH = "scratch"
LINEAR_PROBE = "linear-probe"
SOURCE_ONLY = "source-only"
PIXELS = "pixels"
PLAIN_PIXELS = "plain:pixels"
"""The classical control: what any practitioner tries first, without a network."""
MOST_TOGETHER = 4
"""Source domains that join together: each is as many images to solve for again, in every fold."""
MOMENTS = "moments"
"""The adaptation that heads which are solved for on a source domain alone have."""
# A recipe that a careful practitioner would start from; a weak one would flatter all that is held against it.
_RECIPE = Strategy(source_model="", head_lr=0.03, backbone_ratio=0.3, augmentation="shift")


@dataclass(frozen=True)
class Control:
    """The winner with one part taken out. name: for people. part: what differs. strategy: what is trained instead."""

    name: str
    part: Part
    strategy: Strategy


class Recipes:
    """The strategies that a task and its space call for.

    by_label: whether what is meant by good goes by the label that is named (:mod:`raytl.evaluation.metrics`). by_class:
    whether every class counts as much in it as any other.
    """

    def __init__(self, space: BoundSpace, *, by_label: bool = True, by_class: bool = True) -> None:
        self._space = space
        self._labelled = space.data.target is not None
        # Where one class has several times the images of another, each is to count: the rare one is named at all, and
        # more of all answers are right. Of several classes ranks and probabilities are better for it too, of two they
        # are worse (in AUROC by 0.3 to 5 points with 60 to 600 labels).
        weights = "balanced" if space.skewed and (by_label or len(space.data.classes) > 2) else "none"
        self._recipe = replace(_RECIPE, class_weights=weights)
        # Of all answers a head is right more often by 2 to 3 points either way (digits, one class with ten times the
        # images of another): two classes that overlap are better told with equal weights, five without. Labels decide.
        self._both_ways = space.skewed and by_label and not by_class

    # --- probes -----------------------------------------------------------------------------------------------------

    def probes(self, survey: Survey) -> dict[str, list[Strategy]]:
        """Convex heads by source model: on the target's labels, and joined with a domain's.

        The domain is the model's own where it learned one, else the most promising, and besides it all together whose
        labels are borne out (without target labels all together alone, on all stages); of those that the space names,
        where it says which may join. Where there are unlabelled images its features take on the target's moments, and
        heads learn from these images as well, besides one that does not.
        All on all stages of the network, and the first on the last alone. Without target labels all are on the
        domain's. Beside them, a head made of the classes' names where the model reads these, and those of the space's
        own that go by what an image is near to.
        """
        models = [
            uri
            for uri in self._space.source_models
            if not is_untrained(uri) and (parse_pretrain(uri) or ("",))[0] not in survey.set_aside
        ]
        return {uri: self._probes_of(uri, survey) for uri in dict.fromkeys([PLAIN_PIXELS, *models])}

    def _probes_of(self, uri: str, survey: Survey) -> list[Strategy]:
        pretraining = parse_pretrain(uri)
        domains = self._joining(survey.domains)
        own = pretraining[0] if pretraining is not None and pretraining[0] in domains else None
        domain = own or next(iter(domains), None)
        count = self._space.stage_count(uri)
        last = Strategy(uri, cut=count, head="logistic", class_weights=self._recipe.class_weights)
        joined = replace(last, head="stages", source_domain=domain)
        seen = self._space.data.unlabelled
        adapts = seen is not None and len(seen) >= LEAST_SEEN and not self._space.forbids_adaptation
        if adapts:
            joined = _adapted(joined, MOMENTS)
        several = [] if own is not None or uri == PLAIN_PIXELS else self._together(survey, domains)
        if not self._labelled:
            bare = replace(last, source_domain=domain)
            heads = ["logistic", *self._space.near_heads]
            whole = replace(joined, source_domain=together(several) if several else domain)
            learned = [] if domain is None else [whole, *(replace(joined, head=head) for head in heads), bare]
            if adapts and domain is not None:
                learned.append(_adapted(whole, PROPAGATION))
            return list(dict.fromkeys([*learned, *self._named(uri, count)]))
        found = [replace(last, head="stages"), last] if count > 1 else [last]
        if self._both_ways:
            found.append(replace(found[0], class_weights="none"))
        found += [replace(last, head=head) for head in self._space.near_heads]
        alike = [] if domain is None else [joined]
        if several:
            alike.append(replace(joined, source_domain=together(several)))
        found += alike
        if adapts:
            found += [_adapted(probe, PROPAGATION) for probe in (replace(last, head="stages"), *alike)]
        return [*found, *self._named(uri, count)]

    def _together(self, survey: Survey, domains: Sequence[str]) -> list[str]:
        """Those of the domains that join a head together; none where it is not several.

        Without target labels the most promising is among them, whether or not others bear it out.
        """
        agreed = [name for name in survey.agreed if name in domains]
        if len(agreed) < 2:
            return []
        if not self._labelled and domains[0] not in agreed:
            agreed = [domains[0], *agreed]
        return agreed[:MOST_TOGETHER]

    def _joining(self, domains: Sequence[str]) -> list[str]:
        """Those that probes and baselines learn from: all, unless the space says which.

        Without target labels these too, where the survey has set aside the ones that it names.
        """
        named = self._space.source_domains if self._space.space.says("source_domain") else domains
        found = [domain for domain in domains if domain in named]
        return found if found or self._labelled else list(domains)

    def _named(self, uri: str, count: int) -> list[Strategy]:
        """A head made of the classes' names, where these mean something to the source model."""
        can = self._space.reads_names(uri) and not sources.why_no_zero_shot(self._space.data.classes)
        return [Strategy(uri, cut=count, head=ZERO_SHOT)] if can else []

    # --- baselines --------------------------------------------------------------------------------------------------

    def baselines(self, order: Sequence[str], survey: Survey) -> dict[str, Strategy]:
        """Baselines by name, the default recipe first. order: of the source models, the most promising first.

        ``fine-tune``: the most promising pretrained source model, nothing frozen, a third of the head's rate below the
        head. ``linear-probe``: logistic regression on its features; ``pixels``: on plain pixels. ``scratch``: the same
        architecture untrained. ``source-only``: trained on the labels of the most promising source domain alone,
        of those that the space names. Without target labels all of them learn from that domain's.
        """
        domain = next(iter(self._joining(survey.domains)), None)
        labelled = None if self._labelled else domain
        found: dict[str, Strategy] = {}
        reference = next(
            (uri for uri in order if not is_untrained(uri) and sources.info(_network(uri)).trainable), None
        )
        if reference is not None:
            found[FINE_TUNE] = replace(self._recipe, source_model=reference, source_domain=labelled)
        scratch = self._scratch(reference)
        if scratch is not None:
            found[SCRATCH] = replace(self._recipe, source_model=scratch, source_domain=labelled, backbone_ratio=1.0)
        start = reference or scratch
        if domain is not None and start is not None:
            found[SOURCE_ONLY] = replace(self._recipe, source_model=start, source_domain=domain, target_labels=False)
        return found

    def classical(self, order: Sequence[str], survey: Survey) -> dict[str, Strategy]:
        """The baselines that are probes, and were tried as such."""
        probes = self.probes(survey)
        learned = next((uri for uri in order if uri in probes and not uri.startswith("plain:")), None)
        found = {} if learned is None else {LINEAR_PROBE: _plain(probes[learned])}
        if probes[PLAIN_PIXELS]:
            found[PIXELS] = _plain(probes[PLAIN_PIXELS])
        return found

    def _scratch(self, reference: str | None) -> str | None:
        """The reference's architecture untrained, or the space's own untrained model."""
        found = self.untrained(reference) if reference is not None else None
        return found or next((uri for uri in self._space.source_models if is_untrained(uri)), None)

    def untrained(self, uri: str) -> str | None:
        """The same architecture without what it has learned; None where there is no such thing.

        What is trained on a domain may have begun with learned weights, which it does without as well.
        """
        start = _network(uri)
        return start if is_untrained(start) else sources.untrained_uri(start)

    # --- which domain to join ---------------------------------------------------------------------------------------

    def joined(self, survey: Survey, order: Sequence[str]) -> list[Strategy]:
        """The default recipe joined with each domain that may join, from its own model where there is one.

        They are stopped early like any strategy, the worse ones first: that tells domains apart where fine-tuning from
        them does not.
        """
        trained = [uri for uri in order if not is_untrained(uri) and not uri.startswith("plain:")]
        allowed = [name for name in survey.domains if name in self._space.source_domains]
        found = []
        for domain in allowed:
            own = next((uri for uri in trained if (parse_pretrain(uri) or ("",))[0] == domain), None)
            start = own or next(iter(trained), None) or self._scratch(None)
            if start is not None:
                found.append(replace(self._recipe, source_model=start, source_domain=domain))
        return found

    # --- controls ---------------------------------------------------------------------------------------------------

    def controls(self, winner: Strategy, order: Sequence[str], survey: Survey) -> list[Control]:
        """The winner with one part taken out at a time; what it does without has no control.

        Nobody freezes random weights, and a head that is solved for has nothing to unfreeze: there, usual recipes stand
        for what is left, under names that say so. What is trained is held against training from scratch as well: the
        winner's rates were found for learned weights, and random ones may need others. And what has no learned weights
        against the usual fine-tuning, which has.
        In the order in which they are worth their time, should it not suffice for all.
        """
        convex = winner.convex
        usual = self._at_usual_size(winner.source_model)
        sized = usual != winner.source_model
        # Trainings at the usual size: at several times as many pixels one would take hours, and its memory.
        baselines = self.baselines([usual, *order], survey)
        found: list[Control] = []
        start = self.untrained(winner.source_model)
        learned = start is not None and not is_untrained(winner.source_model)
        if start is not None and learned and not convex:
            found.append(Control("without pretrained weights", Part.SOURCE_MODEL, _from(winner, start)))
        if convex and winner.head != ZERO_SHOT and not winner.source_model.startswith("plain:"):
            found.append(Control(ON_PLAIN_FEATURES, Part.SOURCE_MODEL, self._on_plain_features(winner, order)))
        if winner.adaptation != "none":
            bare = replace(winner, adaptation="none", adaptation_config=None)
            found.append(Control("without adaptation", Part.ADAPTATION, bare))
        if winner.source_domain is not None and self._labelled and winner.target_labels:
            alone = replace(winner, source_domain=None)
            needs = winner.adaptation != "none" and Role.SOURCE_DOMAIN in adaptation.get(winner.adaptation).needs
            if needs:
                alone = replace(alone, adaptation="none", adaptation_config=None)
            name = WITHOUT_DOMAIN_AND_LOSS if needs else "without the source domain"
            found.append(Control(name, Part.SOURCE_DOMAIN, alone))
        if sized:
            name = ON_WHOLE_IMAGES if tiles_of(winner.source_model) > 1 else AT_USUAL_SIZE
            if is_squashed(winner.source_model):
                alike = self._space.squashed(usual) == winner.source_model
                name = ON_THE_MIDDLE if alike else ON_A_SMALL_MIDDLE
            found.append(Control(name, Part.PIXELS, replace(winner, source_model=usual)))
        other = self._unrelated(winner, order)
        if other is not None:
            found.append(Control("pretrained on another domain", Part.OTHER_SOURCE, other))
        if convex and winner.cached_views:
            as_they_are = replace(winner, augmentation="none", cached_views=0)
            found.append(Control("without augmentation", Part.AUGMENTATION, as_they_are))
        if learned and SCRATCH in baselines:  # a training, so after the heads
            scratch = baselines[SCRATCH] if convex else _learning_from_as_much(baselines[SCRATCH], winner)
            found.append(Control(FROM_SCRATCH, Part.RECIPE if sized else Part.SOURCE_MODEL, scratch))
        unfrozen = baselines.get(FINE_TUNE)
        if convex and unfrozen is not None and unfrozen.source_model == usual:
            # What a winner gains that sees or learns from more, or from no label at all, need not be freezing's.
            more = sized or winner.head == ZERO_SHOT or lacks(unfrozen.to_dict(), winner.to_dict())
            found.append(Control(USUAL_FINE_TUNING, Part.RECIPE if more else Part.FREEZING, unfrozen))
        elif winner.cut and not convex and not winner.source_model.startswith("plain:"):  # in which nothing is learned
            found.append(Control("with nothing frozen", Part.FREEZING, replace(winner, cut=0, cached_views=0)))
        if winner.augmentation != "none" and not convex:
            found.append(Control("without augmentation", Part.AUGMENTATION, replace(winner, augmentation="none")))
        if unfrozen is not None and (is_untrained(winner.source_model) or winner.source_model.startswith("plain:")):
            found.append(Control(USUAL_FINE_TUNING, Part.RECIPE, unfrozen))
        first = {control.strategy.key: control for control in reversed(found)}
        return [control for control in found if first[control.strategy.key] is control and control.strategy != winner]

    def _at_usual_size(self, uri: str) -> str:
        """A source model at the space's size, where that is what it is in the space."""
        own = self._space.source_models
        bare = split_size(uri)[0]
        return next((other for other in (uri, bare, *own) if other in own and split_size(other)[0] == bare), uri)

    def _on_plain_features(self, winner: Strategy, order: Sequence[str]) -> Strategy:
        """The winner's head on what needs no network: of such features, on those that promise most.

        Of the same pieces of the images, where it sees these: what they show is not the network's doing.
        """
        uri = next((uri for uri in order if uri.startswith("plain:")), PLAIN_PIXELS)
        count, tiles = self._space.stage_count(uri), tiles_of(winner.source_model)
        if tiles > 1:
            uri = at_size(uri, split_size(winner.source_model)[1] or 0, tiles)
        # On a single stage alone, as the probe on it is.
        single = count == 1 and winner.source_domain is None and winner.adaptation == "none"
        head = "logistic" if single and winner.head == "stages" else winner.head
        return replace(winner, source_model=uri, cut=count, head=head)

    def _unrelated(self, winner: Strategy, order: Sequence[str]) -> Strategy | None:
        """The winner from the model of the domain that promises least, of the same architecture."""
        pretraining = parse_pretrain(winner.source_model)
        if pretraining is None:
            return None
        same = [uri for uri in order if (parse_pretrain(uri) or ("", ""))[1] == pretraining[1]]
        others = [uri for uri in same if uri != winner.source_model]
        return replace(winner, source_model=others[-1]) if others else None


def _adapted(probe: Strategy, name: str) -> Strategy:
    return replace(probe, adaptation=name, adaptation_config=adaptation.get(name).config())


def _plain(probes: Sequence[Strategy]) -> Strategy:
    """Of a model's probes, the one that practitioners know: on the last stage, and nothing adapted."""
    return next(probe for probe in probes if (probe.head, probe.adaptation) == ("logistic", "none"))


def _from(winner: Strategy, start: str) -> Strategy:
    """The winner from an untrained network: there is nothing to freeze, and nothing to be kept close to."""
    return replace(
        winner, source_model=start, cut=0, cached_views=0, start="random", regulariser="none", regulariser_config=None
    )


def _learning_from_as_much(recipe: Strategy, winner: Strategy) -> Strategy:
    """A recipe joined with the winner's domain and adapted as it is, so that it differs in what is trained and how."""
    return replace(
        recipe,
        source_domain=winner.source_domain,
        target_labels=winner.target_labels,
        adaptation=winner.adaptation,
        adaptation_config=winner.adaptation_config,
    )


def _network(uri: str) -> str:
    pretraining = parse_pretrain(uri)
    return pretraining[1] if pretraining is not None else uri
