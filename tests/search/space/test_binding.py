"""A space bound to a task: only what its data allows, and every strategy that comes out can be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from safetensors.torch import save_file
from tiny import MODEL, PRETRAINED, data, shapes
from torchvision import models

from raytl import adaptation
from raytl.core.errors import UserError
from raytl.search.jobs import Survey
from raytl.search.planning import SearchSettings, wished_trials
from raytl.search.propose.recipes import Recipes
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import load_space
from raytl.search.space.files import shipped_spaces
from raytl.search.space.usual import usual_metric
from raytl.tasks import LabelledImages, TrainingData
from raytl.tasks.task import Role
from raytl.training import Strategy

SETTINGS: dict[str, TrainingData] = {
    "inductive": data(unlabelled=None, domains=False),
    "inductive with a source domain": data(unlabelled=None),
    "semi-supervised": data(),
    "semi-supervised without a source domain": data(domains=False),
    "unsupervised": data(target=None),
}
FULL = """
space:
  source_model: ["pretrain:*/scratch:cnn-small", scratch:cnn-small]
  source_domain: [none, any]
  cut: any
  optimizer: [sgd, adamw]
  head_lr: {sgd: {low: 0.01, high: 0.1, log: true}, adamw: {low: 0.001, high: 0.01, log: true}}
  backbone_ratio: [0.1, 1.0]
  weight_decay: {low: 1e-5, high: 0.1, log: true}
  schedule: [cosine, inverse]
  batch_norm: [joint, separate]
  augmentation: [none, shift]
  regulariser: [none, l2-sp, bss]
  ema: [0.0, 0.9]
  adaptation: [none, coral, mkmmd, dann, cdan, mcc, pseudo-label, mcc-pseudo-label, bnm, afn, adabn]
"""


def bind(tmp_path: Path, text: str, held: TrainingData, *assignments: str) -> BoundSpace:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return BoundSpace(load_space(str(path), assignments), held)


def offline(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """No published weights on this machine, and no network to fetch them from."""
    monkeypatch.setenv("TORCH_HOME", str(place))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def sample(space: BoundSpace, count: int = 150) -> list[Strategy]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def recipes(space: BoundSpace) -> list[Strategy]:
    """Baselines and probes, where no domain was set aside."""
    survey, found = Survey(tuple(space.data.joinable)), Recipes(space)
    probes = [strategy for strategies in found.probes(survey).values() for strategy in strategies]
    return [*found.baselines(space.source_models, survey).values(), *probes]


def check(space: BoundSpace, held: TrainingData, strategy: Strategy) -> None:
    """That the data has all that the strategy needs."""
    assert strategy.source_domain is None or strategy.source_domain in held.joinable
    assert held.target is not None or strategy.source_domain is not None
    if strategy.adaptation != "none":
        needs = adaptation.get(strategy.adaptation).needs
        assert Role.UNLABELLED not in needs or held.unlabelled is not None
        assert Role.SOURCE_DOMAIN not in needs or strategy.source_domain is not None
    assert 0 <= strategy.cut <= space.stage_count(strategy.source_model)
    assert strategy.head != "logistic" or strategy.cut == space.stage_count(strategy.source_model)
    if strategy.source_model.startswith("scratch:"):
        assert strategy.cut == 0 and strategy.regulariser == "none"


@pytest.mark.parametrize("setting", SETTINGS)
class TestEverySetting:
    def test_suggests_only_what_the_data_allows_and_all_of_it(self, tmp_path: Path, setting: str) -> None:
        held = SETTINGS[setting]
        if not held.source_domains:
            space = bind(tmp_path, FULL, held, "source_model=scratch:cnn-small")
        else:
            space = bind(tmp_path, FULL, held)
        strategies = sample(space)
        for strategy in strategies:
            check(space, held, strategy)
        names = {name for name in adaptation.names() if name in space.space.components["adaptation"]}
        roles = ({Role.UNLABELLED} if held.unlabelled else set()) | ({Role.SOURCE_DOMAIN} if held.joinable else set())
        allowed = {name for name in names if adaptation.get(name).needs <= roles}
        assert {strategy.adaptation for strategy in strategies} == allowed | {"none"}

    def test_every_strategy_survives_plain_values(self, tmp_path: Path, setting: str) -> None:
        space = bind(tmp_path, FULL, SETTINGS[setting], "source_model=scratch:cnn-small")
        for strategy in sample(space, 60):
            back = Strategy.from_dict(strategy.to_dict())
            assert back == strategy and back.key == strategy.key

    @pytest.mark.parametrize("name", shipped_spaces())
    def test_every_shipped_space_fits(self, setting: str, name: str) -> None:
        held = SETTINGS[setting]
        space = BoundSpace(load_space(name, ["source_model=[scratch:cnn-small, scratch:resnet-small]"]), held)
        for strategy in [*sample(space, 40), *recipes(space)]:
            check(space, held, strategy)
        assert space.space.settings.grace_epochs < space.space.settings.epochs


class TestAdaptation:
    def test_a_loss_that_the_data_never_allows_is_an_error_where_there_is_no_other(self, tmp_path: Path) -> None:
        message = (
            "search space 'mine': adaptation 'mcc' needs unlabelled images (--unlabelled), which the task does not "
            "have; add that, or allow adaptation 'none'"
        )
        with pytest.raises(UserError) as caught:
            bind(tmp_path, FULL, SETTINGS["inductive with a source domain"], "adaptation=mcc")
        assert str(caught.value) == message

    def test_losses_that_the_data_never_allows_are_named(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, SETTINGS["inductive with a source domain"], "adaptation=[none, mcc, coral]")
        assert [str(problem) for problem in space.problems] == [
            "adaptation: left out: all losses; the task has no unlabelled images (--unlabelled)"
        ]
        space = bind(
            tmp_path,
            FULL,
            SETTINGS["semi-supervised without a source domain"],
            "adaptation=[none, mcc, dann]",
            "source_model=scratch:cnn-small",
        )
        lacking = "the task has no source domain with the label names of the target (--source-domain)"
        assert [str(problem) for problem in space.problems] == [f"adaptation: left out: dann; {lacking}"]
        assert not bind(tmp_path, FULL, SETTINGS["semi-supervised"]).problems

    def test_what_a_training_sees_of_many_images_is_said_where_it_is_not_all(self, tmp_path: Path) -> None:
        """Of 18 images three epochs of two batches of two are 12; of 36 of the domain, pretraining is two of eight."""
        few = FULL + "epochs: 3\nsteps_per_epoch: 2\nbatch_size: 2\npretrain: {steps: 2, batch_size: 8}\n"
        said = [str(problem) for problem in bind(tmp_path, few, data()).problems]
        assert said == [
            "target: a training of a network draws 12 of the 18 labelled images (3 epochs of 2 batches of 2); with "
            "--set steps_per_epoch=3 it sees all of them, and takes 1.5 times as long",
            "bright: a training of a network draws 12 of the 36 labelled images (3 epochs of 2 batches of 2); with "
            "--set steps_per_epoch=6 it sees all of them, and takes 3.0 times as long",
            "bright: a source model that learns it first draws 16 of the 36 labelled images (2 batches of 8); with "
            "more steps under 'pretrain' in a search space of your own it sees more",
        ]
        enough = few.replace("steps_per_epoch: 2", "steps_per_epoch: 6").replace("steps: 2,", "steps: 5,")
        assert not bind(tmp_path, enough, data()).problems
        solved = ("source_model=plain:pixels", "source_domain=none", "adaptation=none")
        assert not bind(tmp_path, few, data(), *solved).problems  # heads that are solved for see all there are

    def test_no_strategy_is_without_a_loss_where_none_is_not_allowed(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, SETTINGS["semi-supervised"], "adaptation=coral")  # needs a source domain
        assert {(s.adaptation, s.source_domain is None) for s in sample(space, 40)} == {("coral", False)}


class TestWhatIsFrozen:
    """Losses are offered only where what they act on is there and not frozen."""

    NORMLESS = "torchvision:vgg11@none"
    MODELS = f"source_model=[{PRETRAINED}, {MODEL}, '{NORMLESS}']"

    def test_leaves_the_losses_that_act_on_something_else(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data(), self.MODELS)
        offered: dict[bool, set[str]] = {True: set(), False: set()}
        for strategy in sample(space, 300):
            offered[strategy.cut == 5].add(strategy.adaptation)
        everything = set(space.space.components["adaptation"])
        assert offered[False] == everything
        assert offered[True] == everything - {"adabn", "coral", "mkmmd", "dann", "cdan", "afn"}

    def test_adabn_is_not_offered_without_batch_norm(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data(), self.MODELS)
        assert "adabn" in space.losses(MODEL, 0, "none")
        assert set(space.losses(MODEL, 0, "none")) - set(space.losses(self.NORMLESS, 0, "none")) == {"adabn"}

    def test_cuts_that_leave_the_only_loss_nothing_are_not_offered(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data(), self.MODELS, "adaptation=[coral, adabn]")
        assert space.cuts(PRETRAINED) == [0, 1, 2, 3, 4]
        assert {(s.adaptation, s.source_domain) for s in sample(space) if s.source_model == self.NORMLESS} == {
            ("coral", "bright")  # without a domain there would be AdaBN alone
        }

    def test_a_model_that_the_only_loss_does_nothing_to_is_left_out_with_the_reason(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data(), self.MODELS, "adaptation=adabn")
        assert space.source_models == [PRETRAINED, MODEL]
        (problem,) = space.problems
        assert problem.where == self.NORMLESS and "(adabn) does anything to what is not frozen" in problem.message
        with pytest.raises(UserError, match="adaptation adabn does nothing to any of its source models"):
            bind(tmp_path, FULL, data(), f"source_model='{self.NORMLESS}'", "adaptation=adabn")

    def test_every_name_has_one_distribution(self, tmp_path: Path) -> None:
        for losses in ("[none, adabn, coral, mcc]", "[adabn, coral]", "[adabn, mcc, afn]"):
            space = bind(tmp_path, FULL, data(), self.MODELS, f"adaptation={losses}")
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            known: dict[str, Any] = {}
            for _ in range(150):
                trial = study.ask()
                space.suggest(trial)
                for name, distribution in trial.distributions.items():
                    assert known.setdefault(name, distribution) == distribution, name


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_does_without_the_models_whose_weights_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    offline(monkeypatch, tmp_path)
    held = SETTINGS["semi-supervised"]
    if name == "vision-gpu":  # holds nothing else
        with pytest.raises(UserError, match="weights"):
            BoundSpace(load_space(name), held)
        return
    space = BoundSpace(load_space(name), held)
    assert all(uri.startswith(("torchvision:", "package:")) for uri in space.left_out)

    assert [problem.where for problem in space.problems] == list(space.left_out)
    assert bool(space.left_out) == (name != "demo")
    assert space.source_models and not set(space.left_out) & set(space.source_models)
    for strategy in [*sample(space, 40), *recipes(space)]:
        check(space, held, strategy)


class TestModels:
    def test_those_whose_weights_cannot_be_had_are_left_out_with_the_reason(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        offline(monkeypatch, tmp_path)
        text = f"space: {{source_model: [torchvision:resnet18, {MODEL}]}}"
        space = bind(tmp_path, text, data())
        assert space.source_models == [MODEL]
        assert "resnet18" in space.left_out["torchvision:resnet18"]
        with pytest.raises(UserError, match="resnet18"):
            bind(tmp_path, "space: {source_model: torchvision:resnet18}", data())

    def test_a_star_is_every_source_domain(self, tmp_path: Path) -> None:
        space = bind(tmp_path, f"space: {{source_model: ['pretrain:*/{MODEL}', {PRETRAINED}]}}", data())
        assert space.source_models == [PRETRAINED, f"pretrain:other/{MODEL}"]

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (f"pretrain:brigth/{MODEL}", "no source domain 'brigth'; did you mean 'bright'"),
            ("pretrain:bright", "write pretrain:<source domain>/<architecture>"),
            ("scratch:cnn-smal", "did you mean 'cnn-small'"),
            ("skratch:cnn-small", "did you mean 'scratch'"),
        ],
    )
    def test_unknown_ones_name_the_nearest(self, tmp_path: Path, model: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            bind(tmp_path, f"space: {{source_model: '{model}'}}", data())

    def test_a_space_of_nothing_but_domain_models_needs_a_source_domain(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the task has none: add --source-domain"):
            bind(tmp_path, f"space: {{source_model: 'pretrain:*/{MODEL}'}}", data(domains=False))


class TestDomainsAndCuts:
    def test_a_domain_with_other_labels_can_only_pretrain(self, tmp_path: Path) -> None:
        text = f"space: {{source_model: {MODEL}, source_domain: %s}}"
        assert bind(tmp_path, text % "[none, any]", data()).source_domains == ["none", "bright"]
        with pytest.raises(UserError, match="'other' has labels that the task does not know"):
            bind(tmp_path, text % "other", data())
        with pytest.raises(UserError, match="no source domain 'brite'; did you mean 'bright'"):
            bind(tmp_path, text % "brite", data())

    def test_without_target_labels_some_domain_always_joins(self, tmp_path: Path) -> None:
        text = f"space: {{source_model: {MODEL}, source_domain: %s}}"
        for given in ("none", "[none, any]", "any"):
            assert bind(tmp_path, text % given, data(target=None)).source_domains == ["bright"]

    @pytest.mark.parametrize(
        ("given", "cuts"),
        [
            ("any", [0, 1, 2, 3, 4, 5]),
            ("all", [5]),
            ("[0, all]", [0, 5]),
            ("-1", [4]),
            ("[-1, 4, -9, 99]", [0, 4, 5]),
            ("{low: 1, high: 3}", [1, 2, 3]),
            ("{low: -2, high: -1}", [3, 4]),
            ("{low: 4, high: 9}", [4, 5]),
        ],
    )
    def test_cuts_fit_the_model(self, tmp_path: Path, given: str, cuts: list[int]) -> None:
        space = bind(tmp_path, f"space: {{source_model: [{PRETRAINED}, {MODEL}], cut: {given}}}", data())
        assert space.cuts(PRETRAINED) == cuts
        assert space.cuts(MODEL) == [0]  # untrained stages are not worth freezing

    def test_weights_in_a_file_are_frozen_whatever_their_architecture_is_called(self, tmp_path: Path) -> None:
        save_file(models.squeezenet1_1().state_dict(), tmp_path / "w.safetensors")
        trained = f"file:{tmp_path}/w.safetensors?arch=torchvision:squeezenet1_1@none"
        own = f"pretrain:bright/{MODEL}"
        space = bind(tmp_path, f"space: {{source_model: ['{trained}', '{own}', {MODEL}], cut: any}}", data())
        assert len(space.cuts(trained)) == space.stages[trained] + 1
        assert list(Recipes(space).probes(Survey(("bright",)))) == ["plain:pixels", trained, own]


class TestFirst:
    def test_takes_what_is_wanted_and_the_middle_of_the_rest(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data())
        wanted = {"source_model": PRETRAINED, "adaptation": "mcc", "adaptation.mcc.weight": 0.5, "optimizer": "adamw"}
        strategy = space.suggest(FirstChoices(wanted))
        assert (strategy.source_model, strategy.adaptation, strategy.optimizer) == (PRETRAINED, "mcc", "adamw")
        assert strategy.adaptation_config is not None and strategy.adaptation_config.weight == 0.5
        assert strategy.head_lr == pytest.approx(np.sqrt(0.001 * 0.01))
        assert strategy.weight_decay == pytest.approx(1e-3)

    def test_stays_inside_the_space(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data(), "optimizer=sgd")
        strategy = space.suggest(FirstChoices({"head_lr": 5.0, "adaptation": "nothing", "cut": 17}))
        assert (strategy.head_lr, strategy.adaptation, strategy.cut) == (0.1, "none", 0)


class TestHeads:
    def test_where_all_is_frozen_the_head_is_solved_for_and_has_no_rates(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data(), f"source_model={PRETRAINED}", "cut=all", "adaptation=none")
        strategies = set(sample(space, 30))
        assert strategies == {Strategy(PRETRAINED, domain, cut=5, head="logistic") for domain in (None, "bright")}

    def test_what_does_nothing_is_not_tried_for_one_optimizer_either(self, tmp_path: Path) -> None:
        text = f"space: {{source_model: {MODEL}, optimizer: [sgd], class_weights: {{sgd: [none, balanced]}}}}"
        assert {strategy.class_weights for strategy in sample(bind(tmp_path, text, data()), 30)} == {"none"}

    def test_class_weights_are_tried_only_where_classes_differ_in_size(self, tmp_path: Path) -> None:
        text = f"space: {{source_model: {MODEL}, class_weights: [none, balanced]}}"
        even = data()
        assert even.target is not None
        skewed = replace(even, target=even.target.subset([0, 1, 2, 3, 4, 5, 6, 12]))
        tried = {
            name: {strategy.class_weights for strategy in sample(bind(tmp_path, text, held), 30)}
            for name, held in {"even": even, "skewed": skewed}.items()
        }
        assert tried == {"even": {"none"}, "skewed": {"none", "balanced"}}

    def test_heads_that_go_by_what_is_near_stand_on_frozen_stages_and_have_no_rates(self, tmp_path: Path) -> None:
        held = data(domains=False)
        near = f"space: {{source_model: [{MODEL}, 'plain:pixels'], head: [%s], head_lr: {{low: 0.01, high: 0.1}}}}"
        strategies = sample(bind(tmp_path, near % "linear, nearest-mean, k-nn", held), 60)
        plain = {strategy for strategy in strategies if strategy.source_model == "plain:pixels"}
        assert plain == {Strategy("plain:pixels", cut=1, head=head) for head in ("logistic", "nearest-mean", "k-nn")}
        assert {strategy.head for strategy in strategies if strategy not in plain} == {"linear"}
        alone = bind(tmp_path, near % "k-nn", held)
        assert {(s.source_model, s.head) for s in sample(alone, 30)} == {(MODEL, "linear"), ("plain:pixels", "k-nn")}

    @pytest.mark.parametrize("head", ["logistic", "stages", "zero-shot"])
    def test_a_head_that_is_solved_for_is_no_choice_of_a_space(self, tmp_path: Path, head: str) -> None:
        """It was passed over in silence: probes are what tries such heads."""
        with pytest.raises(UserError, match=f"head.*'{head}'.*linear.*mlp"):
            bind(tmp_path, f"space: {{source_model: {MODEL}, head: [linear, {head}]}}", data())

    def test_a_start_from_the_probe_is_for_linear_heads_on_what_was_learned(self, tmp_path: Path) -> None:
        text = f"space: {{source_model: [{PRETRAINED}, {MODEL}], start: [random, probe], head: [linear, mlp]}}"
        starts = {(s.source_model, s.head, s.start) for s in sample(bind(tmp_path, text, data()))}
        assert {entry for entry in starts if entry[2] == "probe"} == {(PRETRAINED, "linear", "probe")}


class TestSettingAside:
    def test_no_strategy_learns_from_such_a_domain(self, tmp_path: Path) -> None:
        space = bind(tmp_path, FULL, data())
        space.set_aside({"bright": "its labels are wrong"})
        left = sample(space)
        assert {s.source_domain for s in left} == {None}
        assert {s.source_model for s in left} == {f"pretrain:other/{MODEL}", MODEL}
        assert not any(Role.SOURCE_DOMAIN in adaptation.get(s.adaptation).needs for s in left if s.adaptation != "none")


def in_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a network whose published weights are at hand."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    weights = models.SqueezeNet1_1_Weights.DEFAULT
    path = folder / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save(models.squeezenet1_1().state_dict(), path)
    return "torchvision:squeezenet1_1"


@pytest.mark.parametrize(
    ("side", "expected"),
    [(300, (224, 160, 128)), (224, (224, 160, 128)), (150, (160, 128)), (120, (128,)), (100, ()), (28, ()), (None, ())],
)
def test_published_weights_may_see_more_pixels_where_images_have_them(
    side: int | None, expected: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, own = in_cache(tmp_path, monkeypatch), f"pretrain:bright/{MODEL}"
    file = tmp_path / "space.yaml"
    file.write_text(f"image_size: 96\nlargest_image_size: 224\nspace: {{source_model: ['{uri}', '{own}', '{MODEL}']}}")
    space = BoundSpace(load_space(str(file)), replace(data(), target_side=side))
    assert space.larger(uri) == [(f"{uri}@{size}px", (size / 96) ** 2) for size in expected]
    assert not space.larger(own) and not space.larger(MODEL) and not space.larger("plain:pixels")
    for asked in ("image_size=96", "largest_image_size=0"):  # whoever says which size gets that one
        assert not BoundSpace(load_space(str(file), [asked]), space.data).larger(uri)
    both = ["largest_image_size=160", "image_size=96"]
    up_to = BoundSpace(load_space(str(file), both), space.data).larger(uri)
    assert [found for found, _ in up_to] == [f"{uri}@{size}px" for size in expected if size <= 160]


def test_what_is_shown_the_middle_of_images_may_see_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, own = in_cache(tmp_path, monkeypatch), f"pretrain:bright/{MODEL}"
    at_64 = f"{uri}@64px-squash"
    text = f"image_size: 96\nlargest_image_size: 96\nspace: {{source_model: ['{uri}', '{own}', '{MODEL}', '{at_64}']}}"
    space = bind(tmp_path, text, data())
    assert space.squashed(uri) == f"{uri}@96px-squash"
    assert [space.squashed(other) for other in (own, MODEL, at_64, "plain:pixels")] == [None] * 4
    assert bind(tmp_path, text, data(), "largest_image_size=0", "image_size=96").squashed(uri) is None


@pytest.mark.parametrize(
    ("side", "most", "expected"),
    [
        (300, 448, []),
        (320, 448, ["320px"]),
        (400, 448, ["3x96px", "320px"]),
        (900, 448, ["3x96px", "320px", "3x128px", "448px"]),
        (900, 320, ["3x96px", "320px"]),
        (900, 224, []),
        (None, 448, []),
    ],
)
def test_and_more_than_they_were_made_for_and_pieces_of_large_images(
    side: int | None, most: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = in_cache(tmp_path, monkeypatch)
    file = tmp_path / "space.yaml"
    file.write_text(f"image_size: 96\nlargest_image_size: {most}\nspace: {{source_model: ['{uri}', '{MODEL}']}}")
    space = BoundSpace(load_space(str(file)), replace(data(), target_side=side, piece_side=side))
    assert [found.rpartition("@")[2] for found, _ in space.closer(uri)] == expected
    of_another_size = BoundSpace(load_space(str(file)), replace(data(), target_side=side, piece_side=None))
    assert [f for f, _ in of_another_size.closer(uri)] == [f"{uri}@{size}" for size in expected if "x" not in size[:2]]
    assert dict(space.closer(uri)).get(f"{uri}@3x96px", 9.0) == 9.0
    assert not space.closer(MODEL) and not space.closer("plain:pixels")
    at_320 = BoundSpace(load_space(str(file), ["image_size=320", f"largest_image_size={most}"]), space.data)
    whole = [(found, times) for found, times in at_320.closer(uri) if found.endswith(("@320px", "@448px"))]
    assert whole == ([(f"{uri}@448px", (448 / 320) ** 2)] if "448px" in expected else [])


@pytest.mark.parametrize(
    ("target", "domains", "published", "trains"),
    [
        (1, False, True, False),  # only the unlabelled images tell, and they tell nothing of what was trained on them
        (1, False, False, True),
        (1, True, True, True),
        (2, False, True, True),
        (None, True, True, True),
    ],
)
def test_networks_are_trained_where_labels_tell_or_there_is_nothing_better(
    target: int | None, domains: bool, published: bool, trains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "space.yaml"
    models = [in_cache(tmp_path / "torch", monkeypatch), MODEL] if published else [MODEL]
    file.write_text(f"space: {{source_model: {models}}}")
    space = BoundSpace(load_space(str(file)), data(target=target, domains=domains))
    assert space.can_train == trains
    assert wished_trials(space, SearchSettings(trials=5)) == (5 if trains else 0)


def test_what_is_not_known_to_allow_commercial_use_is_left_out_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = in_cache(tmp_path, monkeypatch)
    text = f"space: {{source_model: ['{uri}', '{uri}@none', 'pretrain:bright/{uri}', 'plain:pixels', '{MODEL}']}}"
    assert uri in bind(tmp_path, text, data()).source_models
    space = bind(tmp_path, text, data(), "licence=commercial")
    assert space.source_models == [f"{uri}@none", "plain:pixels", MODEL]
    assert set(space.left_out) == {uri, f"pretrain:bright/{uri}"}
    told = [problem.message for problem in space.problems if problem.where == uri]
    assert told == [
        "left out: the licence of its weights (unknown) is not known to allow commercial use, which licence=commercial "
        "asks for"
    ]
    with pytest.raises(UserError, match="is not known to allow commercial use"):
        bind(tmp_path, f"space: {{source_model: ['{uri}']}}", data(), "licence=commercial")
    with pytest.raises(UserError, match="'licence' is 'commercal'; give any or commercial"):
        bind(tmp_path, text, data(), "licence=commercal")


def test_what_was_taken_for_granted_of_weights_is_said(tmp_path: Path) -> None:
    network = models.resnet18(num_classes=2).state_dict() | {"projection_head.0.weight": torch.zeros(2, 512)}
    torch.save(network, tmp_path / "w.pth")
    uri = f"file:{tmp_path}/w.pth?arch=torchvision:resnet18"
    problems = bind(tmp_path, f"space: {{source_model: ['{uri}']}}", data()).problems
    told = [problem.message for problem in problems if problem.where == uri]
    assert told[0] == "left out of its weights, as no part of the network: projection_head.0"


class TestSkewed:
    """What figures go by where nobody says, and how heads are trained, is one decision."""

    @staticmethod
    def domain(*counts: int) -> LabelledImages:
        whole = shapes(max(counts), 3)
        return whole.subset(np.concatenate([np.flatnonzero(whole.labels == k)[:n] for k, n in enumerate(counts)]))

    @pytest.mark.parametrize("target", [None, 6])
    @pytest.mark.parametrize(("counts", "skewed"), [((30, 3, 3), True), ((8, 6, 7), False)])
    def test_without_target_labels_the_domains_that_may_join_tell(
        self, target: int | None, counts: tuple[int, ...], skewed: bool, tmp_path: Path
    ) -> None:
        held = replace(data(target=target), source_domains={"a": self.domain(*counts)})
        space = bind(tmp_path, FULL, held, "source_model=scratch:cnn-small")
        balanced = skewed and target is None
        assert space.skewed == balanced
        assert usual_metric(held) == ("balanced-accuracy" if balanced else "accuracy")
        assert (recipes(space)[0].class_weights == "balanced") == balanced

    def test_by_the_classes_that_they_have(self) -> None:
        """That a domain lacks one of the task's says nothing of how skewed the others are."""
        held = replace(data(target=None), source_domains={"a": self.domain(8, 6, 0)})
        assert usual_metric(held) == "accuracy"
