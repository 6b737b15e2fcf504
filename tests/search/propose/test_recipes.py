"""Probes, baselines and controls: what they are, and that no order of options decides them."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from tiny import CLASSES, MODEL, PRETRAINED, STAGES, data, shapes, workspace

from raytl import sources
from raytl.adaptation.mcc import MccConfig
from raytl.adaptation.moments import LEAST_SEEN
from raytl.judging.verdict import USUAL, lacks
from raytl.search.jobs import Survey
from raytl.search.propose.recipes import SOURCE_ONLY, Recipes
from raytl.search.propose.sampler import TpeSampler
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.sources.checkpoint import write_checkpoint
from raytl.tasks import TrainingData
from raytl.training import Strategy
from raytl.training.roles import PROBE_SAMPLE, held_out_for

OTHER = f"pretrain:other/{MODEL}"
RESNET = "torchvision:resnet18"
DARK = f"pretrain:dark/{MODEL}"
SPACE = """
space:
  source_model: [%s]
  source_domain: [none, any]
  adaptation: [none, coral, mcc]
  augmentation: [none, shift]
  cut: any
"""
SURVEY = Survey(("bright",))
ORDER = (PRETRAINED, OTHER, "plain:pixels", MODEL)


def bind(folder: Path, held: TrainingData, *models: str) -> BoundSpace:
    file = folder / "recipes.yaml"
    file.write_text(SPACE % ", ".join(f"'{uri}'" for uri in models or (f"pretrain:*/{MODEL}", MODEL)))
    return BoundSpace(load_space(str(file)), held)


def recipes(folder: Path, held: TrainingData | None = None, *models: str) -> Recipes:
    return Recipes(bind(folder, held or data(), *models))


def differing(one: Strategy, other: Strategy) -> set[str]:
    """Names of the settings that two strategies differ in."""
    return {spec.name for spec in fields(one) if getattr(one, spec.name) != getattr(other, spec.name)}


class TestProbes:
    def test_every_learned_source_model_has_one_and_so_have_plain_pixels(self, tmp_path: Path) -> None:
        probes = recipes(tmp_path).probes(SURVEY)
        assert list(probes) == ["plain:pixels", PRETRAINED, OTHER]  # of an untrained network there is nothing to ask
        heads = {uri: [s.head for s in strategies] for uri, strategies in probes.items()}
        # The outputs of a single stage are the last ones: all stages of plain pixels are the one.
        assert heads == {
            PRETRAINED: ["stages", "logistic", "stages", "stages", "stages"],
            OTHER: ["stages", "logistic", "stages", "stages", "stages"],
            "plain:pixels": ["logistic", "stages", "stages", "stages"],
        }
        assert {s.cut for s in probes[PRETRAINED]} == {STAGES}

    def test_a_model_is_also_probed_together_with_the_domain_that_it_learned(self, tmp_path: Path) -> None:
        held = data(8)
        held = replace(held, source_domains={**held.source_domains, "far": shapes(9, 6)})
        probes = recipes(tmp_path, held).probes(Survey(("far", "bright")))
        del probes[f"pretrain:far/{MODEL}"]
        domains = {uri: [strategy.source_domain for strategy in strategies] for uri, strategies in probes.items()}
        # The labels of 'other' are not the task's: it cannot join, and its model joins the most promising domain.
        assert domains == {
            PRETRAINED: [None, None, "bright", None, "bright"],
            OTHER: [None, None, "far", None, "far"],
            "plain:pixels": [None, "far", None, "far"],
        }

    def test_domains_whose_labels_are_borne_out_are_joined_together_as_well(self, tmp_path: Path) -> None:
        held = data(8)
        held = replace(held, source_domains={**held.source_domains, "dim": shapes(9, 5), "far": shapes(9, 6)})
        survey = Survey(("far", "bright", "dim"), agreed=("dim", "bright"))
        made = recipes(tmp_path, held)
        found = [(s.source_domain, s.adaptation) for s in made.probes(survey)[OTHER] if s.source_domain]
        both = "bright + dim"
        assert found == [("far", "moments"), (both, "moments"), ("far", "propagation"), (both, "propagation")]
        for alone in ((), ("dim",)):  # with its own network goes its own domain alone
            probes = made.probes(replace(survey, agreed=alone))
            assert {s.source_domain for uri in probes for s in probes[uri]} == {None, "far", "bright", "dim"}
        assert {s.source_domain for s in made.probes(survey)[PRETRAINED]} == {None, "bright"}
        assert {s.source_domain for s in made.probes(survey)["plain:pixels"]} == {None, "far"}

    def test_without_target_labels_those_that_agree_are_joined_on_all_stages_alone(self, tmp_path: Path) -> None:
        held = data(target=None)
        others = {
            "dim": shapes(9, 5),
            "far": shapes(9, 6),
            "half": shapes(9, 7, classes=CLASSES[:2]),
            "odd": shapes(9, 8),
        }
        made = recipes(tmp_path, replace(held, source_domains={**held.source_domains, **others}))

        def joined(*order: str, agreed: tuple[str, ...]) -> list[tuple[str | None, str, str]]:
            probes = made.probes(Survey(order, agreed=agreed))[OTHER]
            return [(s.source_domain, s.head, s.adaptation) for s in probes]

        both = "bright + dim"
        assert joined("bright", "dim", "far", agreed=("bright", "dim")) == [
            (both, "stages", "moments"),
            ("bright", "logistic", "moments"),
            ("bright", "logistic", "none"),
            (both, "stages", "propagation"),
        ]
        for order, agreed, wanted in (
            (("half", "bright", "dim"), ("half", "bright", "dim"), "bright + dim + half"),
            (("far", "bright", "dim"), ("bright", "dim"), "bright + dim + far"),  # which promises more than these
            (("bright", "dim"), ("bright",), "bright"),
            (("bright", "dim"), (), "bright"),
            # No more than four, and the one that promises most is one of them.
            (("far", "bright", "dim", "half", "odd"), ("bright", "dim", "half", "odd"), "bright + dim + far + half"),
        ):
            assert {domain for domain, head, _ in joined(*order, agreed=agreed) if head == "stages"} == {wanted}
        with_own = made.probes(Survey(("dim", "bright"), agreed=("dim", "bright")))
        assert {s.source_domain for s in with_own[PRETRAINED]} == {"bright"}
        assert {s.source_domain for s in with_own["plain:pixels"]} == {"dim"}

    @pytest.mark.parametrize(
        ("assignments", "wanted"),
        [
            ((), {"far", "bright", "bright + dim"}),
            (("source_domain=any",), {"far", "bright", "bright + dim"}),
            (("source_domain=[none, dim]",), {"dim"}),
            (("source_domain=[bright, dim]",), {"bright", "bright + dim"}),
            (("source_domain=none",), set()),
        ],
    )
    def test_where_the_space_names_domains_no_other_joins(
        self, tmp_path: Path, assignments: tuple[str, ...], wanted: set[str]
    ) -> None:
        file = tmp_path / "silent.yaml"
        file.write_text(f"space: {{source_model: ['pretrain:*/{MODEL}', {MODEL}]}}")
        held = data(8)
        held = replace(held, source_domains={**held.source_domains, "dim": shapes(9, 5), "far": shapes(9, 6)})
        made = Recipes(BoundSpace(load_space(str(file), assignments), held))
        survey = Survey(("far", "bright", "dim"), agreed=("bright", "dim"))
        learned = {uri: made.probes(survey)[uri] for uri in (PRETRAINED, OTHER)}
        assert {s.source_domain for strategies in learned.values() for s in strategies} - {None} == wanted
        alone = [made.baselines(ORDER, survey).get(SOURCE_ONLY)]
        assert {s.source_domain for s in alone if s is not None} <= wanted
        assert (alone != [None]) == bool(wanted)

    @pytest.mark.parametrize("named", ["far", "[far, bright]"])
    def test_without_target_labels_those_that_agree_join_only_where_the_space_names_them(
        self, tmp_path: Path, named: str
    ) -> None:
        file = tmp_path / "silent.yaml"
        file.write_text(f"space: {{source_model: ['pretrain:*/{MODEL}', {MODEL}], source_domain: {named}}}")
        held = data(target=None)
        others = {"dim": shapes(9, 5), "far": shapes(9, 6)}
        held = replace(held, source_domains={**held.source_domains, **others})
        made = Recipes(BoundSpace(load_space(str(file)), held))
        probes = made.probes(Survey(("far", "bright", "dim"), agreed=("bright", "dim")))[OTHER]
        assert {s.source_domain for s in probes} == {"far"}

    def test_where_the_only_domain_named_is_set_aside_and_nothing_else_has_labels_others_teach(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "silent.yaml"
        file.write_text(f"space: {{source_model: ['pretrain:*/{MODEL}', {MODEL}], source_domain: [dim]}}")
        held = data(target=None)
        held = replace(held, source_domains={**held.source_domains, "dim": shapes(9, 5)})
        space = BoundSpace(load_space(str(file)), held)
        survey = Survey(("bright",), set_aside={"dim": "its labels are no better than chance"})
        space.set_aside(survey.set_aside)
        made = Recipes(space)
        assert {s.source_domain for s in made.baselines(ORDER, survey).values()} == {"bright"}
        assert {s.source_domain for s in made.classical(ORDER, survey).values()} == {"bright"}

    @pytest.mark.parametrize("target", [20, None])
    @pytest.mark.parametrize(
        ("assignments", "wanted"), [((), True), (("adaptation=none",), False), (("adaptation=[none, mcc]",), True)]
    )
    def test_no_adaptation_is_obeyed(
        self, tmp_path: Path, target: int | None, assignments: tuple[str, ...], wanted: bool
    ) -> None:
        file = tmp_path / "silent.yaml"
        file.write_text(f"space: {{source_model: ['{PRETRAINED}', {MODEL}], source_domain: [any]}}")
        held = data() if target else data(target=None)
        held = replace(held, unlabelled=shapes(LEAST_SEEN, 5, name="seen").without_labels())
        probes = Recipes(BoundSpace(load_space(str(file), assignments), held)).probes(SURVEY)
        adapted = {s.adaptation for s in itertools.chain(*probes.values())} - {"none"}
        assert adapted == ({"propagation", "moments"} if wanted else set())

    def test_with_unlabelled_images_heads_learn_from_these_with_and_without_the_domain(self, tmp_path: Path) -> None:
        held = data(8)
        assert held.unlabelled is not None
        few = held.unlabelled.subset(np.arange(LEAST_SEEN - 1))
        plain = [("stages", None, "none"), ("logistic", None, "none")]
        taught = [("stages", "bright", "moments"), ("stages", None, "propagation"), ("stages", "bright", "propagation")]
        joined = [("stages", "bright", "none")]
        for images, wanted in ((held.unlabelled, taught), (few, joined), (None, joined)):
            found = recipes(tmp_path, replace(held, unlabelled=images)).probes(SURVEY)[PRETRAINED]
            assert [(s.head, s.source_domain, s.adaptation) for s in found] == [*plain, *wanted]

    def test_without_a_domain_that_may_join_there_is_nothing_to_take_on(self, tmp_path: Path) -> None:
        found = recipes(tmp_path).probes(Survey(()))[PRETRAINED]
        assert [(probe.head, probe.source_domain, probe.adaptation) for probe in found] == [
            ("stages", None, "none"),
            ("logistic", None, "none"),
            ("stages", None, "propagation"),
        ]

    def test_without_target_labels_they_learn_from_the_most_promising_domain(self, tmp_path: Path) -> None:
        probes = recipes(tmp_path, data(target=None)).probes(SURVEY)
        assert {s.source_domain for strategies in probes.values() for s in strategies} == {"bright"}
        kinds = [(s.head, s.adaptation) for s in probes[PRETRAINED]]
        assert kinds == [
            ("stages", "moments"),
            ("logistic", "moments"),
            ("logistic", "none"),
            ("stages", "propagation"),
        ]

    def test_a_domain_that_was_set_aside_is_asked_nothing(self, tmp_path: Path) -> None:
        probes = recipes(tmp_path).probes(Survey((), {"bright": "its labels are wrong"}))
        assert list(probes) == ["plain:pixels", OTHER]

    def test_heads_that_the_space_names_and_that_are_solved_for_have_theirs(self, tmp_path: Path) -> None:
        file = tmp_path / "near.yaml"
        file.write_text(SPACE % f"'{PRETRAINED}'" + "  head: [linear, nearest-mean, k-nn]\n")
        last = Strategy(PRETRAINED, cut=STAGES)
        near = [replace(last, head=head) for head in ("nearest-mean", "k-nn")]
        own = Recipes(BoundSpace(load_space(str(file)), data(domains=True))).probes(SURVEY)[PRETRAINED]
        assert own[:4] == [replace(last, head="stages"), replace(last, head="logistic"), *near]
        held = data(target=None)
        domains = Recipes(BoundSpace(load_space(str(file)), held)).probes(SURVEY)[PRETRAINED]
        joined = {(s.head, s.source_domain, s.adaptation) for s in domains if s.head in ("nearest-mean", "k-nn")}
        adapted = "moments" if held.unlabelled is not None and len(held.unlabelled) >= LEAST_SEEN else "none"
        assert joined == {(head, "bright", adapted) for head in ("nearest-mean", "k-nn")}


class TestSkewedClasses:
    @pytest.mark.parametrize(("rare", "weights"), [(2, "balanced"), (8, "none")])
    def test_each_counts_as_much_in_probes_and_recipes(self, tmp_path: Path, rare: int, weights: str) -> None:
        target = shapes(8, 1, name="target").subset([*range(16), *range(16, 16 + rare)])
        made = recipes(tmp_path, replace(data(8), target=target))
        probes = [strategy for strategies in made.probes(SURVEY).values() for strategy in strategies]
        found = [*probes, *made.baselines(ORDER, SURVEY).values()]
        assert {strategy.class_weights for strategy in found} == {weights}

    @pytest.mark.parametrize(
        ("classes", "by_label", "weights"), [(2, True, "balanced"), (2, False, "none"), (3, False, "balanced")]
    )
    def test_of_two_ranks_and_probabilities_are_the_better_for_what_there_is(
        self, tmp_path: Path, classes: int, by_label: bool, weights: str
    ) -> None:
        held = data(8, domains=False)
        assert held.target is not None
        target = held.target.subset([*range(8), *range(8, 10), *range(16, 16 + 8 * (classes - 2))])
        target = target.with_classes(held.classes[:classes])
        space = bind(tmp_path, replace(held, classes=held.classes[:classes], target=target))
        probes = Recipes(space, by_label=by_label).probes(Survey())
        assert {strategy.class_weights for found in probes.values() for strategy in found} == {weights}

    @pytest.mark.parametrize(("by_class", "rare"), [(True, 0), (False, 0), (False, 6)])
    def test_where_most_answers_are_to_be_right_images_that_count_alike_are_tried_too(
        self, tmp_path: Path, by_class: bool, rare: int
    ) -> None:
        """Which of the two is right more often differs between tasks; where no class is rare they are the same."""
        held = data(8, domains=False)
        assert held.target is not None
        target = held.target.subset([*range(8), *range(8, 10 + rare), *range(16, 24)])
        space = bind(tmp_path, replace(held, target=target))
        for probes in Recipes(space, by_class=by_class).probes(Survey()).values():
            first = probes[0]
            other = replace(first, class_weights="none")
            assert (other in probes[1:]) == (not by_class and not rare)
            assert len(probes) == len(set(probes))


class TestBaselines:
    def test_with_all_roles(self, tmp_path: Path) -> None:
        made = recipes(tmp_path)
        found = made.baselines(ORDER, SURVEY)
        assert list(found) == ["fine-tune", "scratch", "source-only"]
        assert found["fine-tune"].source_model == PRETRAINED and found["fine-tune"].cut == 0
        assert found["scratch"].source_model == MODEL
        assert differing(found["scratch"], found["fine-tune"]) == {"source_model", "backbone_ratio"}
        only = found["source-only"]
        assert only.source_domain == "bright" and not only.target_labels and only.adaptation == "none"

    def test_the_classical_ones_are_probes(self, tmp_path: Path) -> None:
        made = recipes(tmp_path)
        probes = made.probes(SURVEY)
        found = made.classical(ORDER, SURVEY)
        assert found == {"linear-probe": probes[PRETRAINED][1], "pixels": probes["plain:pixels"][0]}

    def test_follow_the_order_of_promise(self, tmp_path: Path) -> None:
        made = recipes(tmp_path)
        order = ("plain:pixels", OTHER, PRETRAINED)
        assert made.baselines(order, SURVEY)["fine-tune"].source_model == OTHER  # pixels cannot be trained
        assert made.classical(order, SURVEY)["linear-probe"].source_model == OTHER

    def test_without_target_labels_all_learn_from_the_source_domain(self, tmp_path: Path) -> None:
        made = recipes(tmp_path, data(target=None))
        found = made.baselines(ORDER, SURVEY) | made.classical(ORDER, SURVEY)
        assert {strategy.source_domain for strategy in found.values()} == {"bright"}

    def test_with_nothing_to_transfer_from_there_is_from_scratch(self, tmp_path: Path) -> None:
        made = recipes(tmp_path, data(domains=False), MODEL)
        assert list(made.baselines([MODEL], Survey())) == ["scratch"]
        assert list(made.classical(["plain:pixels"], Survey())) == ["pixels"]


class TestOrderOfOptions:
    """Of source models in the space and of source domains in the task."""

    def held(self, names: tuple[str, ...]) -> TrainingData:
        domains = data().source_domains | {"dark": shapes(8, 9, name="dark", light=-20)}
        return replace(data(), source_domains={name: domains[name] for name in names})

    def test_decides_nothing(self, tmp_path: Path) -> None:
        survey = Survey(("dark", "bright"))
        order = (DARK, PRETRAINED, OTHER, "plain:pixels", MODEL)
        told = []
        for names in itertools.permutations(("bright", "other", "dark")):
            for models in ((f"pretrain:*/{MODEL}", MODEL), (MODEL, f"pretrain:*/{MODEL}")):
                made = recipes(tmp_path, self.held(names), *models)
                winner = replace(made.baselines(order, survey)["fine-tune"], source_domain="bright", adaptation="coral")
                told.append(
                    (
                        dict(sorted(made.probes(survey).items())),
                        made.baselines(order, survey),
                        made.classical(order, survey),
                        made.joined(survey, order),
                        made.controls(winner, order, survey),
                    )
                )
        assert all(entry == told[0] for entry in told)
        assert told[0][1]["fine-tune"].source_model == DARK

    def test_nor_where_a_domain_has_no_model_of_its_own(self, tmp_path: Path) -> None:
        order, held = (DARK, OTHER, MODEL), self.held(("bright", "other", "dark"))
        for models in itertools.permutations((DARK, OTHER, MODEL)):
            found = recipes(tmp_path, held, *models).joined(Survey(("bright",)), order)
            assert [(s.source_domain, s.source_model) for s in found] == [("bright", DARK)]

    def test_nor_what_is_proposed(self, tmp_path: Path) -> None:
        proposed = []
        for names in (("dark", "bright", "other"), ("other", "bright", "dark")):
            sampler = TpeSampler(bind(tmp_path, self.held(names)), 0)
            asked = []
            for _ in range(12):
                handle, strategy = sampler.ask()
                asked.append(strategy)
                sampler.tell(handle, score=int(strategy.key[:6], 16) % 97 / 97)
            proposed.append(asked)
        assert proposed[0] == proposed[1]

    def test_nor_which_images_a_head_without_labels_is_scored_on(self, tmp_path: Path) -> None:
        domains = {name: shapes(160, seed, name=name) for seed, name in enumerate(("bright", "dark"))}
        head = Strategy("plain:gradients", cut=1, head="logistic", source_domain="bright")
        seen = []
        for names in (("bright", "dark"), ("dark", "bright")):
            held = replace(data(target=None), source_domains={name: domains[name] for name in names})
            images = held_out_for(workspace(tmp_path, held, folds=(0, 0)), head)
            assert images is not None and len(images) == PROBE_SAMPLE  # of 144 that are held out
            seen.append([item.name for item in images.items])
        assert seen[0] == seen[1]


class TestJoined:
    def test_every_domain_joins_once_from_its_own_model(self, tmp_path: Path) -> None:
        found = recipes(tmp_path).joined(SURVEY, ORDER)
        assert [(s.source_domain, s.source_model) for s in found] == [("bright", PRETRAINED)]
        found = recipes(tmp_path, None, OTHER, MODEL).joined(SURVEY, (OTHER, MODEL))
        assert [(s.source_domain, s.source_model) for s in found] == [("bright", OTHER)]

    def test_none_where_the_space_lets_none_join(self, tmp_path: Path) -> None:
        file = tmp_path / "alone.yaml"
        file.write_text(f"space: {{source_model: '{PRETRAINED}'}}")
        alone = Recipes(BoundSpace(load_space(str(file)), data()))
        assert alone.joined(SURVEY, (PRETRAINED,)) == []


PLAIN = Strategy(PRETRAINED, head_lr=0.02)
PARTS = {
    "source-model": {"source_model"},
    "other-source": {"source_model"},
    "adaptation": {"adaptation", "adaptation_config"},
    "source-domain": {"source_domain"},
    "freezing": {"cut"},
    "augmentation": {"augmentation"},
}


class TestControls:
    def of(self, folder: Path, winner: Strategy, held: TrainingData | None = None) -> dict[str, Strategy]:
        found = [c for c in recipes(folder, held).controls(winner, ORDER, SURVEY) if c.name not in USUAL]
        assert len({control.part for control in found}) == len(found)
        return {control.part: control.strategy for control in found}

    def test_a_winner_of_many_parts_has_one_for_each_that_differs_in_nothing_else(self, tmp_path: Path) -> None:
        winner = replace(PLAIN, source_domain="bright", adaptation="mcc", augmentation="shift", cut=2)
        found = self.of(tmp_path, winner)
        assert set(found) == set(PARTS)
        # What is told of first comes first, should the time not suffice for all.
        assert list(found)[:3] == ["source-model", "adaptation", "source-domain"]
        for part in set(PARTS) - {"source-model"}:
            assert differing(found[part], winner) <= PARTS[part]
            assert found[part] != winner
        # Untrained stages are not frozen: that goes with the weights.
        assert differing(found["source-model"], winner) == {"source_model", "cut"}
        assert found["source-model"].source_model == MODEL
        assert found["other-source"].source_model == OTHER

    def test_what_is_trained_is_held_against_usual_rates_from_scratch_too(self, tmp_path: Path) -> None:
        """With a hundredth of the head's rate random weights are nearly frozen: the same is no fair picture of them."""
        winner, made = replace(PLAIN, backbone_ratio=0.01), recipes(tmp_path)
        found = [c for c in made.controls(winner, ORDER, SURVEY) if c.part == "source-model"]
        assert [c.name for c in found] == ["without pretrained weights", "trained from scratch"]
        assert [c.strategy.backbone_ratio for c in found] == [0.01, 1.0]
        assert found[1].strategy == made.baselines(ORDER, SURVEY)["scratch"]  # which was tried, and is refitted anyhow
        adapted = replace(winner, source_domain="bright", adaptation="mcc", adaptation_config=MccConfig(weight=0.5))
        scratch = next(c.strategy for c in made.controls(adapted, ORDER, SURVEY) if c.name == "trained from scratch")
        assert lacks(scratch.to_dict(), adapted.to_dict()) == [] and scratch.backbone_ratio == 1.0
        assert scratch.adaptation_config == adapted.adaptation_config

    def test_from_scratch_means_without_what_training_on_a_domain_began_with(self, tmp_path: Path) -> None:
        """Neither what a domain has taught it nor the weights before: of published ones and of a model's folder."""
        write_checkpoint(tmp_path / "learned", sources.load(MODEL, channels=1, image_size=16), {})
        for start, bare in ((f"file:{tmp_path}/learned", MODEL), (RESNET, f"{RESNET}@none"), (MODEL, MODEL)):
            uris = [f"pretrain:{domain}/{start}" for domain in ("bright", "other")]
            made = recipes(tmp_path, None, MODEL)  # what controls are made of is not asked of the space
            assert [made.untrained(uri) for uri in uris] == [bare, bare]
            assert made.baselines(uris, SURVEY)["scratch"].source_model == bare
            controls = made.controls(replace(PLAIN, source_model=uris[0], cut=0), uris, SURVEY)
            without = {c.name: c.strategy.source_model for c in controls if c.part == "source-model"}
            assert without == {"without pretrained weights": bare, "trained from scratch": bare}

    def test_nothing_is_trained_twice_for_two_of_them(self, tmp_path: Path) -> None:
        made = recipes(tmp_path)
        winner = replace(made.baselines(ORDER, SURVEY)["scratch"], source_model=PRETRAINED)
        found = [c for c in made.controls(winner, ORDER, SURVEY) if c.part == "source-model"]
        assert [c.name for c in found] == ["without pretrained weights"]

    @pytest.mark.parametrize("uri", [MODEL, "plain:pixels"])
    def test_what_has_no_learned_weights_is_held_against_the_usual_fine_tuning(self, tmp_path: Path, uri: str) -> None:
        made, head = recipes(tmp_path), {"head": "logistic", "cut": 1} if uri.startswith("plain:") else {}
        found = made.controls(replace(PLAIN, source_model=uri, **head), ORDER, SURVEY)
        (usual,) = [c for c in found if c.name == "the usual fine-tuning, nothing frozen"]
        assert usual.part == "recipe" and usual.strategy == made.baselines(ORDER, SURVEY)["fine-tune"]
        assert not [c for c in made.controls(replace(PLAIN, cut=1), ORDER, SURVEY) if c.name == usual.name]

    def test_a_loss_that_needs_the_source_domain_goes_with_it(self, tmp_path: Path) -> None:
        found = self.of(tmp_path, replace(PLAIN, source_domain="bright", adaptation="coral"))
        assert differing(found["source-domain"], replace(PLAIN, source_domain=None)) == set()
        assert found["adaptation"].source_domain == "bright" and found["adaptation"].adaptation == "none"

    @pytest.mark.parametrize(
        ("winner", "parts"),
        [
            (PLAIN, {"source-model", "other-source"}),
            (replace(PLAIN, cut=1), {"source-model", "other-source", "freezing"}),
            (replace(PLAIN, augmentation="shift"), {"source-model", "other-source", "augmentation"}),
            (replace(PLAIN, source_model=MODEL), set()),
            (replace(PLAIN, source_model="plain:pixels", cut=1, head="mlp"), set()),  # nothing to unfreeze
            (replace(PLAIN, source_model=MODEL, adaptation="mcc"), {"adaptation"}),
        ],
    )
    def test_none_for_what_the_winner_does_without(self, tmp_path: Path, winner: Strategy, parts: set[str]) -> None:
        assert set(self.of(tmp_path, winner)) == parts

    def test_a_head_that_learned_from_views_is_held_against_one_that_did_not(self, tmp_path: Path) -> None:
        probe = Strategy(PRETRAINED, cut=STAGES, head="logistic")
        viewed = replace(probe, augmentation="crop", cached_views=4)
        parts = [(control.part, control.strategy) for control in recipes(tmp_path).controls(viewed, ORDER, SURVEY)]
        assert ("augmentation", probe) in parts
        last = next(number for number, (_, strategy) in enumerate(parts) if not strategy.convex)
        assert parts.index(("augmentation", probe)) < last  # it was tried before: no time goes into it

    def test_a_probe_is_held_against_heads_before_it_is_against_trainings(self, tmp_path: Path) -> None:
        """Of no trained network, of another, from scratch, and with nothing frozen: the first two take no time."""
        probe = Strategy(PRETRAINED, cut=STAGES, head="logistic")
        found = {c.name: c.strategy for c in recipes(tmp_path).controls(probe, ORDER, SURVEY)}
        plain, other, scratch, unfrozen = found.values()
        assert list(found) == [
            "on plain image features",
            "pretrained on another domain",
            "trained from scratch",
            "the usual fine-tuning, nothing frozen",
        ]
        assert (scratch.source_model, scratch.cut, scratch.head) == (MODEL, 0, "linear")
        assert (unfrozen.source_model, unfrozen.cut, unfrozen.head) == (PRETRAINED, 0, "linear")
        assert differing(other, probe) == {"source_model"}
        assert differing(plain, probe) <= {"source_model", "cut"} and plain.source_model == "plain:pixels"

    @pytest.mark.parametrize(
        ("more", "part"),
        [
            ({}, "freezing"),
            ({"source_domain": "bright"}, "recipe"),
            ({"source_domain": "bright", "adaptation": "moments"}, "recipe"),
            ({"adaptation": "propagation"}, "recipe"),
            ({"head": "zero-shot"}, "recipe"),  # which learns from no label at all
        ],
    )
    def test_what_a_domain_or_adaptation_may_have_brought_is_not_held_to_be_freezing(self, tmp_path, more, part):
        """The usual fine-tuning does without them, and is called what it is."""
        probe = replace(Strategy(PRETRAINED, cut=STAGES, head="stages"), **more)
        found = {c.name: c for c in recipes(tmp_path).controls(probe, ORDER, SURVEY)}
        control = found["the usual fine-tuning, nothing frozen"]
        assert control.part == part
        assert (control.strategy.source_domain, control.strategy.adaptation) == (None, "none")

    def test_what_needs_no_network_was_tried_as_a_probe(self, tmp_path: Path) -> None:
        """The winner's head, domain and adaptation, on the plain features that promise most: no trial of its own."""
        file = tmp_path / "plain.yaml"
        file.write_text(f"space: {{source_model: ['{PRETRAINED}', 'plain:gradients'], source_domain: any}}")
        made = Recipes(BoundSpace(load_space(str(file)), data()))
        probes = made.probes(SURVEY)
        adaptations = [probe.adaptation for probe in probes[PRETRAINED]]
        assert adaptations == ["none", "none", "moments", "propagation", "propagation"]
        for winner in probes[PRETRAINED]:
            controls = made.controls(winner, ("plain:gradients", PRETRAINED, "plain:pixels"), SURVEY)
            (found,) = [control.strategy for control in controls if control.name == "on plain image features"]
            assert found in probes["plain:gradients"]

    @pytest.mark.parametrize("size", ["64px", "3x16px", "32px-squash"])
    def test_what_sees_more_of_the_images_is_held_against_what_does_not(self, tmp_path: Path, size: str) -> None:
        """And against plain features of the same pieces, which are not the network's doing."""
        made = recipes(tmp_path, None, "scratch:cnn-small", "plain:pixels")
        usual = Strategy("scratch:cnn-small", cut=STAGES, head="logistic")
        winner = replace(usual, source_model=f"scratch:cnn-small@{size}")
        found = {control.part: control.strategy for control in made.controls(winner, ORDER, SURVEY)}
        assert found["pixels"] == usual
        plain = next(c.strategy for c in made.controls(winner, ORDER, SURVEY) if c.name == "on plain image features")
        assert plain.source_model == ("plain:pixels@3x16px" if size == "3x16px" else "plain:pixels")
        assert "pixels" not in {control.part for control in made.controls(usual, ORDER, SURVEY)}
        learned = replace(winner, source_model=f"{PRETRAINED}@{size}")
        trained = [c for c in recipes(tmp_path).controls(learned, ORDER, SURVEY) if not c.strategy.convex]
        assert trained and {c.part for c in trained} == {"recipe"}  # at the usual size: they differ in that as well
        assert not [c for c in trained if "@" in c.strategy.source_model]
        own = recipes(tmp_path, None, winner.source_model)
        assert "pixels" not in {control.part for control in own.controls(winner, ORDER, SURVEY)}

    @pytest.mark.parametrize("size", ["64px", "32px-squash"])
    def test_the_usual_size_of_a_source_model_may_be_its_own(self, tmp_path: Path, size: str) -> None:
        made = recipes(tmp_path, None, "plain:pixels", "scratch:cnn-small@32px")
        winner = Strategy(f"scratch:cnn-small@{size}", cut=STAGES, head="logistic")
        (usual,) = [c.strategy for c in made.controls(winner, ORDER, SURVEY) if c.part == "pixels"]
        assert usual == replace(winner, source_model="scratch:cnn-small@32px")

    def test_names_of_classes_are_nothing_that_plain_features_could_be_held_against(self, tmp_path: Path) -> None:
        winner = Strategy(PRETRAINED, cut=STAGES, head="zero-shot")
        parts = [control.name for control in recipes(tmp_path).controls(winner, ORDER, SURVEY)]
        assert "on plain image features" not in parts and "trained from scratch" in parts

    def test_without_target_labels_the_source_domain_is_no_part_to_do_without(self, tmp_path: Path) -> None:
        winner = replace(PLAIN, source_domain="bright", adaptation="mcc")
        assert "source-domain" not in self.of(tmp_path, winner, data(target=None))

    def test_of_a_start_from_the_probe_from_scratch_starts_at_random(self, tmp_path: Path) -> None:
        found = self.of(tmp_path, replace(PLAIN, start="probe", cut=1, augmentation="shift", cached_views=2))
        assert (found["source-model"].start, found["source-model"].cached_views) == ("random", 0)
        assert (found["freezing"].start, found["freezing"].cached_views) == ("probe", 0)
