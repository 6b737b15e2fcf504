"""Heads that are solved for: they are the optimum that the probes of raytl.evaluation find on the same features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from tiny import CLASSES, MODEL, PRETRAINED, SIDE, STAGES, data, shapes, workspace
from torch.nn import functional as F

from raytl import sources
from raytl.adaptation.moments import match_moments
from raytl.core.errors import UserError
from raytl.evaluation.calibration import apply_temperature, fit_temperature
from raytl.evaluation.head_probes import BETWEEN_KINDS, CLOSE, DOUBT, KINDS, OF_MANY, SURER, solve_parts
from raytl.evaluation.mixing import mixture_shares
from raytl.evaluation.near_probes import solve_nearest_mean, solve_neighbours
from raytl.evaluation.place_probes import fit_places
from raytl.evaluation.probes import Probe, fit_logistic
from raytl.sources.checkpoint import write_checkpoint
from raytl.sources.heads import NEAR, StagesHead
from raytl.sources.staging import fit
from raytl.tasks import LabelledImages, TrainingData
from raytl.training import Strategy, loop
from raytl.training.convex import features_of, solve_head
from raytl.training.kept_features import gather_features
from raytl.training.loop import run_trial
from raytl.training.network import Network
from raytl.training.pools import Pool, PoolMaker
from raytl.training.taught import Believed, believe_a_domain
from raytl.training.trial import TrialError, TrialJob, TrialResult, prepare, trial_seed
from raytl.training.workspace import Workspace

HEAD = Strategy(PRETRAINED, cut=STAGES, head="logistic")


def train(space: Workspace, strategy: Strategy, fold: int | None = 0) -> TrialResult:
    return run_trial(space, TrialJob(strategy, fold), lambda metrics: None)


def features(space: Workspace, uri: str, images: LabelledImages) -> np.ndarray:
    """What the source model makes of the images, straight from its pixels."""
    model = space.source_model(uri)[0].eval()
    with torch.inference_mode():
        return model.run(model.preprocessing.normalise(images.tensor(model.preprocessing))).numpy()


def fitted(
    space: Workspace, strategy: Strategy, *parts: LabelledImages, fold: int | None = 0, **settings: Any
) -> Probe:
    """The probe of these images, each collection weighing the same in all."""
    made = np.concatenate([features(space, strategy.source_model, images) for images in parts])
    labels = np.concatenate([images.labels for images in parts])
    weights = np.concatenate([np.full(len(images), 1 / len(images)) for images in parts])
    seed = trial_seed(space, TrialJob(strategy, fold))
    return fit_logistic(made, labels, len(CLASSES), sample_weight=weights, seed=seed, **settings)


def assert_is(result: TrialResult, probe: Probe) -> None:
    weight, bias = result.model.head.weight.detach().numpy(), result.model.head.bias.detach().numpy()
    scale = np.abs(probe.weight).max()
    np.testing.assert_allclose(weight, probe.weight, atol=1e-3 * scale)
    np.testing.assert_allclose(bias - bias.mean(), probe.bias - probe.bias.mean(), atol=1e-2 * max(1.0, scale))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("convex"), data(8))


@pytest.fixture(scope="module")
def target(space: Workspace) -> LabelledImages:
    assert space.data.target is not None
    return space.data.target


class TestLogisticHead:
    def test_is_logistic_regression_on_the_folds_features(self, space: Workspace, target: LabelledImages) -> None:
        kept, held = space.folds[0]
        result = train(space, HEAD)
        probe = fitted(space, HEAD, target.subset(kept))
        assert_is(result, probe)
        said = softmax(probe.logits(features(space, PRETRAINED, target.subset(held))), axis=1)
        np.testing.assert_allclose(result.validation_probabilities, said, atol=1e-3)
        assert [entry["epoch"] for entry in result.history] == [1.0]

    def test_joined_with_a_domain_each_of_the_two_weighs_the_same(
        self, space: Workspace, target: LabelledImages
    ) -> None:
        strategy = replace(HEAD, source_domain="bright")
        joined = space.data.source_domains["bright"].subset(space.source_split("bright")[0])
        own = target.subset(space.folds[0][0])
        assert len(joined) != len(own)
        result = train(space, strategy)
        assert_is(result, fitted(space, strategy, own, joined))
        assert not np.allclose(result.model.head.weight.detach().numpy(), fitted(space, strategy, own).weight)

    def test_refitted_it_stands_on_all_labelled_images(self, space: Workspace, target: LabelledImages) -> None:
        assert_is(train(space, HEAD, None), fitted(space, HEAD, target, fold=None))

    def test_without_target_labels_it_is_the_source_domains(self, tmp_path: Path) -> None:
        blind = workspace(tmp_path, data(target=None), folds=(0, 0))
        strategy = replace(HEAD, source_domain="bright")
        joined = blind.data.source_domains["bright"].subset(blind.source_split("bright")[0])
        assert_is(train(blind, strategy, None), fitted(blind, strategy, joined, fold=None))

    def test_its_refit_is_its_probe_where_nothing_was_held_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Solving for 26 classes on every stage takes longer than the features of a few labelled images."""
        whole = workspace(tmp_path, data(8), folds=(0, 0))
        first = run_trial(whole, TrialJob(HEAD, None), lambda metrics: None)
        monkeypatch.setattr(loop, "solve_head", lambda *args, **told: pytest.fail("it was solved for again"))
        again = run_trial(whole, TrialJob(HEAD, None, final=True), lambda metrics: None)
        for one, other in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
            assert torch.equal(one, other)
        assert {name: again.metrics[name] for name in ("score", "unlabelled")} == {
            name: first.metrics[name] for name in ("score", "unlabelled")
        }

    def test_images_of_other_domains_are_looked_at_only_where_nothing_else_tells_what_is_right(
        self, space: Workspace, tmp_path: Path
    ) -> None:
        whole = workspace(tmp_path, data(8), folds=(0, 0))
        assert "source-accuracy" not in train(space, HEAD).metrics
        assert "source-accuracy" in train(whole, HEAD, None).metrics
        trained = replace(HEAD, head="linear", head_lr=0.1)
        assert "source-accuracy" in train(space, trained).metrics  # beside training it takes next to no time

    def test_is_the_same_in_another_lane(self, space: Workspace, tmp_path: Path) -> None:
        other = workspace(tmp_path, data(8))
        one, again = train(space, HEAD), train(other, HEAD)
        np.testing.assert_array_equal(one.validation_probabilities, again.validation_probabilities)

    def test_groups_stand_on_one_side_when_its_strength_is_chosen(self, tmp_path: Path) -> None:
        """Four copies of each image under labels that mean nothing: who looks at copies thinks that it knows."""
        images = shapes(6, 1, name="target").subset(np.repeat(np.arange(18), 4))
        labels = np.repeat(np.random.default_rng(0).permutation(np.arange(18) % 3), 4)
        copies = replace(images, labels=labels, groups=np.repeat(np.arange(18), 4))
        held = workspace(tmp_path, replace(data(), target=copies))
        kept = held.folds[0][0]
        assert copies.groups is not None
        own, groups = copies.subset(kept), copies.groups[kept]
        with_groups = fitted(held, HEAD, own, groups=groups)
        without = fitted(held, HEAD, own)
        assert with_groups.strength > 10 * without.strength
        assert_is(train(held, HEAD), with_groups)

    def test_balanced_every_class_counts_as_much(self, tmp_path: Path) -> None:
        skewed = shapes(12, 1, name="target").subset([*range(12), *range(12, 16), *range(24, 28)])
        held = workspace(tmp_path, replace(data(), target=skewed))
        strategy = replace(HEAD, class_weights="balanced")
        own = skewed.subset(held.folds[0][0])
        balanced = fitted(held, strategy, own, class_balanced=True)
        result = train(held, strategy)
        assert_is(result, balanced)
        assert not np.allclose(result.model.head.bias.detach().numpy(), fitted(held, strategy, own).bias, atol=0.01)

    def test_stands_on_frozen_stages_only(self, space: Workspace) -> None:
        with pytest.raises(UserError, match=f"'logistic' stands on frozen stages only; set cut to {STAGES}"):
            train(space, replace(HEAD, cut=1))

    def test_of_plain_pixels_too(self, space: Workspace, target: LabelledImages) -> None:
        strategy = Strategy("plain:pixels", cut=1, head="logistic")
        assert_is(train(space, strategy), fitted(space, strategy, target.subset(space.folds[0][0])))


class TestViews:
    """Augmented versions of the images are learned from like these."""

    VIEWED = replace(HEAD, augmentation="shift", cached_views=2)

    def versions(self, space: Workspace, images: LabelledImages, rows: np.ndarray) -> np.ndarray:
        """Features of images of a collection as they are, then of each view of all of it."""
        model = space.source_model(PRETRAINED)[0].eval()
        network = Network(model, CLASSES, STAGES, device=space.device)
        pool = PoolMaker(space, network, "", cached=False).make(images, images.labels, "shift", 2).subset(rows)
        shown = [version.take(torch.arange(len(rows))) for version in pool.versions()]
        with torch.inference_mode():
            return np.concatenate([model.run(model.preprocessing.normalise(pixels)).numpy() for pixels in shown])

    def test_it_is_logistic_regression_on_all_versions_an_images_on_one_side(
        self, space: Workspace, target: LabelledImages
    ) -> None:
        kept, held = space.folds[0]
        made, labels = self.versions(space, target, kept), np.tile(target.labels[kept], 3)
        seed, groups = trial_seed(space, TrialJob(self.VIEWED)), np.tile(np.arange(len(kept)), 3)
        telling = (np.arange(len(made)) < len(kept)).astype(float)  # how strong a penalty is told by images as they are
        probe = fit_logistic(made, labels, len(CLASSES), groups=groups, telling=telling, seed=seed)
        result = train(space, self.VIEWED)
        assert_is(result, probe)
        said = softmax(probe.logits(features(space, PRETRAINED, target.subset(held))), axis=1)
        np.testing.assert_allclose(result.validation_probabilities, said, atol=1e-3)
        assert len(result.validation_index) == len(held)
        as_they_are = fitted(space, HEAD, target.subset(kept)).weight
        assert not np.allclose(result.model.head.weight.detach().numpy(), as_they_are, atol=1e-3)

    def test_joined_with_a_domain_each_of_the_two_weighs_the_same_still(
        self, space: Workspace, target: LabelledImages
    ) -> None:
        strategy, job = replace(self.VIEWED, source_domain="bright"), TrialJob(HEAD)
        kept = space.folds[0][0]
        joined = space.data.source_domains["bright"].subset(space.source_split("bright")[0])
        made = [self.versions(space, target, kept), self.versions(space, joined, np.arange(len(joined)))]
        labels = np.concatenate([np.tile(target.labels[kept], 3), np.tile(joined.labels, 3)])
        weights = np.concatenate([np.full(len(part), 1 / len(part)) for part in made])
        groups = np.concatenate([np.tile(np.arange(len(kept)), 3), 1000 + np.tile(np.arange(len(joined)), 3)])
        seed = trial_seed(space, replace(job, strategy=strategy))
        as_they_are = [np.arange(len(part)) < len(part) // 3 for part in made]
        telling = np.concatenate(as_they_are) * 3 * weights
        probe = fit_logistic(
            np.concatenate(made), labels, len(CLASSES), sample_weight=weights, groups=groups, telling=telling, seed=seed
        )
        assert_is(train(space, strategy), probe)

    def test_copies_for_views_are_as_none(self, space: Workspace) -> None:
        """Strengths, shares and sharpness go by images: there are no more of them for having been augmented."""
        trial = prepare(space, TrialJob(replace(self.VIEWED, head="stages", source_domain="bright")))
        found = []
        for copies in (0, 4):
            training = {
                role: replace(pool, views=(pool.inputs,) * copies) for role, pool in trial.roles.training.items()
            }
            solve_head(trial.network, replace(trial.roles, training=training), balanced=False, seed=3)
            state = trial.network.model.head.state_dict()
            found.append({name: state[name].numpy() for name in ("shares", "sharpness")})
        for name, value in found[0].items():
            np.testing.assert_allclose(found[1][name], value, rtol=0.02, atol=0.01)

    @pytest.mark.parametrize("domain", [None, "bright"])
    def test_what_is_believed_of_unlabelled_images_is_learned_from_beside_them(
        self, space: Workspace, domain: str | None
    ) -> None:
        strategy = Strategy(PRETRAINED, domain, cut=STAGES, head="stages", adaptation="propagation")
        plain = train(space, strategy)
        viewed = train(space, replace(strategy, augmentation="shift", cached_views=2))
        assert not np.allclose(viewed.validation_probabilities, plain.validation_probabilities, atol=1e-3)
        assert viewed.metrics["target-accuracy"] >= plain.metrics["target-accuracy"] - 0.2


class TestStartFromTheProbe:
    START = Strategy(PRETRAINED, cut=STAGES, start="probe")

    def test_before_any_step_the_head_is_the_probe(self, space: Workspace, target: LabelledImages) -> None:
        job = TrialJob(self.START)
        trial = prepare(space, job)
        solve_head(trial.network, trial.roles, balanced=False, seed=trial_seed(space, job))
        probe = fitted(space, self.START, target.subset(space.folds[0][0]))
        weight = trial.network.model.head.weight.detach().numpy()
        np.testing.assert_allclose(weight, probe.weight, atol=1e-3 * np.abs(probe.weight).max())

    @pytest.mark.parametrize("cut", [0, 2, STAGES])
    def test_training_goes_on_from_there(self, space: Workspace, target: LabelledImages, cut: int) -> None:
        """With next to no rate it stays there; a head that starts at random would not be anywhere near."""
        still = replace(self.START, cut=cut, head_lr=1e-9)
        probe = fitted(space, still, target.subset(space.folds[0][0]))
        result = train(space, still)
        assert_is(result, probe)
        moved = train(space, replace(self.START, cut=cut, head_lr=0.3))
        assert not np.allclose(moved.validation_probabilities, result.validation_probabilities, atol=1e-3)

    def test_is_trained_for_all_epochs(self, space: Workspace) -> None:
        assert [entry["epoch"] for entry in train(space, self.START).history] == [1.0, 2.0]


class TestBrokenFeatures:
    @pytest.fixture(scope="class")
    def broken(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        """A source model whose last stage divides by nothing."""
        model = sources.load(MODEL, channels=1, image_size=SIDE)
        with torch.no_grad():
            for parameter in model.stage_list()[-1].parameters():
                parameter.fill_(float("inf"))
        folder = tmp_path_factory.mktemp("broken") / "model"
        write_checkpoint(folder, model, {})
        return f"file:{folder}"

    @pytest.mark.parametrize("values", [{"head": "logistic"}, {"start": "probe"}])
    def test_fail_the_trial_with_one_sentence(self, space: Workspace, broken: str, values: dict[str, str]) -> None:
        with pytest.raises(TrialError, match=r"model: its features of these images are not finite$"):
            train(space, Strategy(broken, cut=STAGES, **values))

    def test_of_unlabelled_images_too(self, space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        """One picture may be what a network makes nothing finite of, and the labelled ones are not it."""
        taught = Strategy(PRETRAINED, cut=STAGES, head="stages", adaptation="propagation")
        pools = []

        def some_broken(network: Network, pool: Pool) -> torch.Tensor:
            pools.append(pool)
            found = features_of(network, pool)
            return found if pool.labels is not None else found.index_fill(0, torch.tensor([0]), torch.nan)

        monkeypatch.setattr("raytl.training.convex.features_of", some_broken)
        with pytest.raises(TrialError, match=r"features of these images are not finite$"):
            train(space, taught)
        assert any(pool.labels is None for pool in pools)


class TestStages:
    """A head that reads every stage."""

    STRATEGY = replace(HEAD, head="stages")

    def test_is_a_few_probes_a_stage_whose_probabilities_are_averaged(self, space: Workspace) -> None:
        result = train(space, self.STRATEGY)
        model, target = space.source_model(PRETRAINED)[0].eval(), space.data.target
        assert target is not None
        training, validation = space.folds[0]
        outputs, kinds, x = [], [], model.preprocessing.normalise(target.tensor(model.preprocessing))
        with torch.inference_mode():
            for number, stage in enumerate(model.stage_list()):
                x = stage(x)
                if x.ndim == 4:
                    outputs.append(F.adaptive_avg_pool2d(x, 2).movedim(1, 3).flatten(1).numpy())
                    each = x.numpy()
                    outputs.append(np.concatenate([each.max(axis=(2, 3)), each.std(axis=(2, 3))], axis=1))
                    kinds += [0, 1]
                    if number in model.placed:
                        outputs.append(x.flatten(1).numpy())
                        kinds.append(2)
                else:
                    outputs.append(x.numpy())
                    kinds.append(0)
        labels, kinds, places = target.labels[training], np.array(kinds), result.model.head.places
        given = {"seed": trial_seed(space, TrialJob(self.STRATEGY, 0)), "max_folds": 3}
        even = np.full(len(training), 1 / len(training))
        probes = [
            fit_places(torch.as_tensor(f[training]), labels, len(CLASSES), count, sample_weight=even, **given)
            if kind == 2
            else fit_logistic(f[training], labels, len(CLASSES), **given)
            for f, kind, count in zip(outputs, kinds, places, strict=True)
        ]
        each = [softmax(probe.logits(f[validation]), axis=1) for probe, f in zip(probes, outputs, strict=True)]
        told = np.stack([probe.out_of_fold for probe in probes])
        shares, averages, sure = np.zeros(len(probes)), [], []
        for kind in range(3):
            own = kinds == kind
            shares[own] = mixture_shares(told[own], labels)
            averages.append(np.tensordot(shares[own], told[own], 1))
            usual = float(own.sum() ** -SURER)
            temperature = fit_temperature(np.log(averages[-1]), labels, pull=DOUBT, usual=usual)
            sure.append(apply_temperature(averages[-1], temperature))
        pull = BETWEEN_KINDS * np.array(KINDS) / sum(KINDS)
        between = [mixture_shares(np.stack(said), labels, pull=pull) for said in (averages, sure)]
        shares *= np.mean(between, axis=0)[kinds]
        found = result.model.head.shares.numpy()
        for own in (kinds == 0, kinds == 1):
            np.testing.assert_allclose(found[own] / found[own].sum(), shares[own] / shares[own].sum(), atol=1e-3)
        # Layers on places are compared some steps before their optimum, and those depend on the last digits.
        np.testing.assert_allclose(found, shares, atol=0.01)
        mean = np.log(np.tensordot(shares, np.stack(each), 1))
        sharpness = float(result.model.head.sharpness)
        assert 0.05 < sharpness < 20.0
        np.testing.assert_allclose(result.validation_probabilities, softmax(mean * sharpness, axis=1), atol=0.01)

    def test_says_the_same_from_pixels_as_from_kept_activations(self, space: Workspace, tmp_path: Path) -> None:
        kept = train(space, self.STRATEGY)
        settings = replace(space.settings, activation_cache=False)
        anew = train(Workspace(space.data, settings, tmp_path), self.STRATEGY)
        np.testing.assert_allclose(kept.validation_probabilities, anew.validation_probabilities, atol=1e-4)

    def test_shares_its_pass_through_the_network_with_the_head_on_the_last_stage(self, tmp_path: Path) -> None:
        own = workspace(tmp_path, data(8))
        train(own, self.STRATEGY)
        before = sorted(path.name for path in (tmp_path / "arrays").rglob("*") if path.is_file())
        train(own, HEAD)
        assert sorted(path.name for path in (tmp_path / "arrays").rglob("*") if path.is_file()) == before

    def test_is_part_of_the_model_that_is_kept(self, space: Workspace, tmp_path: Path) -> None:
        result = train(space, self.STRATEGY, fold=None)
        write_checkpoint(tmp_path / "m", result.model, {})
        read = sources.load(f"file:{tmp_path / 'm'}", channels=result.model.preprocessing.channels, image_size=SIDE)
        images = torch.randn(3, result.model.preprocessing.channels, SIDE, SIDE)
        with torch.inference_mode():
            torch.testing.assert_close(read.eval()(images), result.model.eval()(images), atol=1e-3, rtol=1e-4)

    def test_joined_with_a_domain_it_has_a_second_layer_on_each_stage(
        self, space: Workspace, target: LabelledImages
    ) -> None:
        strategy = replace(self.STRATEGY, source_domain="bright")
        head = train(space, strategy).model.head
        assert isinstance(head, StagesHead)
        assert (head.members, len(head.parts)) == (2, 2 * len(head.widths)) and len(head.widths) > STAGES
        assert float(head.shares.sum()) == pytest.approx(1.0)
        own = target.subset(space.folds[0][0])
        domain = space.data.source_domains["bright"].subset(space.source_split("bright")[0])
        for layer, images in ((head.parts[len(head.widths) - 1], [own]), (head.parts[-1], [own, domain])):
            strengths = OF_MANY if domain in images else None
            probe = fitted(space, strategy, *images, max_folds=3, strengths=strengths, tolerance=CLOSE)
            apart = np.linalg.norm(layer.weight.detach().numpy() - probe.weight)
            assert apart <= 0.05 * np.linalg.norm(probe.weight)

    def test_a_class_that_only_the_domain_has_is_not_silenced(self, tmp_path: Path) -> None:
        held = data(8)
        assert held.target is not None
        two = held.target.subset(np.flatnonzero(held.target.labels < 2))
        space = workspace(tmp_path, replace(held, target=two))
        head = train(space, replace(self.STRATEGY, source_domain="bright")).model.head
        assert isinstance(head, StagesHead)
        assert head.members == 1

    def test_a_domain_with_wrong_labels_is_hardly_heard(self, tmp_path: Path) -> None:
        held = data(30)
        bright = held.source_domains["bright"]
        domains = {**held.source_domains, "bright": replace(bright, labels=(bright.labels + 1) % len(CLASSES))}
        shares = []
        for number, domain in enumerate((held.source_domains, domains)):
            space = workspace(tmp_path / str(number), replace(held, source_domains=domain))
            head = train(space, replace(self.STRATEGY, source_domain="bright")).model.head
            assert isinstance(head, StagesHead)
            shares.append(float(head.shares[len(head.widths) :].sum()))
        assert shares[1] < 0.35 < 0.45 < shares[0], shares

    @pytest.mark.parametrize("labelled", [8, None])
    def test_features_of_a_domain_take_on_the_targets_moments(self, tmp_path: Path, labelled: int | None) -> None:
        space = workspace(tmp_path, data(labelled), folds=(5, 1) if labelled else (0, 0))
        strategy = replace(self.STRATEGY, source_domain="bright", adaptation="moments")
        fold = 0 if labelled else None
        trial = prepare(space, TrialJob(strategy, fold))
        assert trial.roles.sample is not None
        source = features_of(trial.network, trial.roles.training["source"])
        seen = [features_of(trial.network, trial.roles.sample[0])]
        own = trial.roles.training.get("target")
        if own is not None:
            seen.append(features_of(trial.network, own))
        moved = match_moments(source, torch.cat(seen)).numpy()[:, -trial.network.model.feature_dim :]
        labels = trial.roles.training["source"].labels
        assert labels is not None
        everything, known, weights = moved, labels.numpy(), np.full(len(moved), 1 / len(moved))
        if own is not None:
            last = seen[1].numpy()[:, -trial.network.model.feature_dim :]
            assert own.labels is not None
            everything, known = np.concatenate([last, moved]), np.concatenate([own.labels.numpy(), known])
            weights = np.concatenate([np.full(len(last), 1 / len(last)), weights])
        seed = trial_seed(space, trial.job)
        probe = fit_logistic(
            everything, known, len(CLASSES),
            sample_weight=weights, seed=seed, max_folds=3, strengths=OF_MANY, tolerance=CLOSE,
        )  # fmt: skip
        layer = train(space, strategy, fold).model.head.parts[-1]
        apart = np.linalg.norm(layer.weight.detach().numpy() - probe.weight)
        assert apart <= 0.05 * np.linalg.norm(probe.weight)

    def test_models_from_before_there_were_shares_are_read(self, space: Workspace, tmp_path: Path) -> None:
        model = train(space, self.STRATEGY, fold=None).model
        model.head.shares.fill_(1 / len(model.head.parts))
        state = {name: tensor for name, tensor in model.state_dict().items() if name != "head.shares"}
        blank = sources.load(MODEL, channels=model.preprocessing.channels, image_size=SIDE)
        fit(blank, state, "old")
        images = torch.randn(3, model.preprocessing.channels, SIDE, SIDE)
        with torch.inference_mode():
            torch.testing.assert_close(blank.eval()(images), model.eval()(images))

    @pytest.mark.parametrize("other", [{"head": "logistic"}, {"target_labels": False}])
    def test_unlabelled_images_teach_no_other_head_and_that_is_no_secret(
        self, space: Workspace, other: dict[str, object]
    ) -> None:
        taught = Strategy(PRETRAINED, cut=STAGES, head="stages", adaptation="propagation")
        with pytest.raises(UserError, match="'propagation' goes with head 'stages', and with the target's labels or"):
            train(space, replace(taught, **other))

    def test_without_target_labels_it_learns_what_is_believed_of_the_unlabelled_images(
        self, space: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def believed(unlabelled: torch.Tensor, said: np.ndarray, *, widths: Sequence[int]) -> Believed:
            asked.append((unlabelled, believe_a_domain(unlabelled, said, widths=widths)))
            return asked[-1][1]

        monkeypatch.setattr("raytl.training.convex.believe_a_domain", believed)
        taught = Strategy(
            PRETRAINED, source_domain="bright", target_labels=False, cut=STAGES, head="stages", adaptation="propagation"
        )
        model = train(space, taught).model.eval()
        ((means, found),) = asked
        assert space.data.unlabelled is not None and len(means) == len(space.data.unlabelled)
        of_means = zip(model.head.widths, model.head.peaks, model.head.places, strict=True)
        assert means.shape[1] == sum(width for width, peak, places in of_means if not peak and places == 1)
        with torch.inference_mode():
            images = space.data.unlabelled.tensor(model.preprocessing)
            said = model(model.preprocessing.normalise(images)).softmax(dim=1).numpy()
        assert (said.argmax(axis=1) == found.labels).mean() > 0.9
        assert said.max(axis=1).mean() == pytest.approx(found.confidence, abs=0.02)

    @pytest.mark.parametrize("domain", [None, "bright"])
    def test_where_neighbours_are_not_heard_it_is_what_the_labels_make_of_it(
        self, space: Workspace, domain: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("raytl.training.taught.AGREED", 1.1)
        job = TrialJob(Strategy(PRETRAINED, domain, cut=STAGES, head="stages", adaptation="propagation"), 0)
        unheard, untaught = prepare(space, job), prepare(space, job)
        given = {"balanced": False, "seed": trial_seed(space, job), "matched": domain is not None}
        found = solve_head(unheard.network, unheard.roles, **given)
        solve_head(untaught.network, replace(untaught.roles, taught=None), **given)
        assert found.believed is None
        mine, theirs = (trial.network.model.head.state_dict() for trial in (unheard, untaught))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def test_a_network_that_trains_has_no_use_for_moments(self, space: Workspace) -> None:
        with pytest.raises(UserError, match="'moments' goes with a head that is solved for; set head to"):
            train(space, Strategy(PRETRAINED, source_domain="bright", adaptation="moments"))

    def test_needs_all_stages_frozen(self, space: Workspace) -> None:
        with pytest.raises(UserError, match="'stages' stands on frozen stages only"):
            train(space, replace(self.STRATEGY, cut=1))


@pytest.mark.parametrize("head", NEAR)
class TestNear:
    """Heads that go by what an image is near to."""

    def test_is_part_of_the_model_that_is_kept(self, head: str, space: Workspace, tmp_path: Path) -> None:
        result = train(space, replace(HEAD, head=head), fold=None)
        write_checkpoint(tmp_path / "m", result.model, {})
        read = sources.load(f"file:{tmp_path / 'm'}", channels=result.model.preprocessing.channels, image_size=SIDE)
        images = torch.randn(5, result.model.preprocessing.channels, SIDE, SIDE)
        with torch.inference_mode():
            assert torch.allclose(read(images), result.model.eval()(images), atol=1e-4)

    def test_is_solved_for_on_the_folds_features(self, head: str, space: Workspace, target: LabelledImages) -> None:
        strategy = replace(HEAD, head=head)
        result, (training, validation) = train(space, strategy), space.folds[0]
        seen = torch.from_numpy(features(space, PRETRAINED, target))
        weights, seed = np.full(len(training), 1 / len(training)), trial_seed(space, TrialJob(strategy, 0))
        solve = solve_nearest_mean if head == "nearest-mean" else solve_neighbours
        found = solve(
            seen[training], target.labels[training], len(CLASSES), weights, None, balanced=False, seed=seed
        )  # fmt: skip
        expected = found.head(seen[validation]).softmax(dim=1)
        np.testing.assert_allclose(result.validation_probabilities, expected, atol=1e-4)

    def test_joined_with_a_domain_it_learns_from_both(self, head: str, space: Workspace) -> None:
        alone, joined = (
            train(space, replace(HEAD, head=head, source_domain=domain)).model.head for domain in (None, "bright")
        )
        assert not torch.equal(alone.centre, joined.centre)

    def test_stands_on_frozen_stages_only(self, head: str, space: Workspace) -> None:
        with pytest.raises(UserError, match=f"'{head}' stands on frozen stages"):
            train(space, replace(HEAD, head=head, cut=2))


class TestDomainsTogether:
    BOTH = Strategy(MODEL, source_domain="bright + dim", cut=STAGES, head="stages")

    @pytest.fixture(scope="class")
    def held(self) -> TrainingData:
        one = data(8)
        return replace(one, source_domains={**one.source_domains, "dim": shapes(20, 7, name="dim", light=30.0)})

    @pytest.fixture
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("raytl.training.roles.most_source", lambda classes: 15)

    def test_each_gives_as_many_images_as_alone(
        self, tmp_path: Path, held: TrainingData, few: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = workspace(tmp_path, held)
        alone = [replace(self.BOTH, source_domain=name) for name in ("bright", "dim")]
        pools = [prepare(space, TrialJob(each, 0)).roles.training["source"] for each in (*alone, self.BOTH)]
        assert [len(pool) for pool in pools] == [15, 15, 30]
        assert torch.equal(torch.cat([pool.inputs for pool in pools[:2]]), pools[2].inputs)
        learned = []
        monkeypatch.setattr(
            "raytl.training.convex.solve_parts",
            lambda features, *args, **named: (
                learned.append((~named["target"]).sum()) or solve_parts(features, *args, **named)
            ),
        )
        train(space, self.BOTH)
        assert learned == [30]

    def test_none_of_their_images_pass_the_network_again(
        self, tmp_path: Path, held: TrainingData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = workspace(tmp_path, held)
        for name in ("bright", "dim"):
            train(space, replace(self.BOTH, source_domain=name))
        monkeypatch.setattr(PoolMaker, "_run", lambda *args: pytest.fail("images pass the network again"))
        train(space, self.BOTH)

    def test_what_is_kept_of_them_counts_as_one_role(self, tmp_path: Path, held: TrainingData, few: None) -> None:
        space = workspace(tmp_path, held)
        model = run_trial(space, TrialJob(self.BOTH, None, final=True), lambda metrics: None).model
        kept = gather_features(space, self.BOTH, model)
        assert kept is not None and (~kept.target).sum() == 30
        assert kept.weights[~kept.target].sum() == pytest.approx(kept.weights[kept.target].sum()) == pytest.approx(1)

    def test_with_target_labels_what_is_kept_of_them_has_the_moments_of_all_together(
        self, tmp_path: Path, held: TrainingData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = workspace(tmp_path, held)
        strategy = replace(self.BOTH, adaptation="moments")
        learned = []
        monkeypatch.setattr(
            "raytl.training.convex.solve_parts",
            lambda features, *args, **named: learned.append(features.numpy()) or solve_parts(features, *args, **named),
        )
        model = run_trial(space, TrialJob(strategy, None, final=True), lambda metrics: None).model
        kept = gather_features(space, strategy, model)
        assert kept is not None and len(learned) == 1
        np.testing.assert_allclose(kept.features, learned[0], atol=1e-4)

    def test_augmented_views_are_of_their_images_domain(
        self, tmp_path: Path, held: TrainingData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = workspace(tmp_path, replace(held, target=None), folds=(0, 0))
        told = []
        monkeypatch.setattr(
            "raytl.training.convex.solve_parts",
            lambda *args, **named: told.append((args[1], named)) or solve_parts(*args, **named),
        )
        strategy = replace(self.BOTH, target_labels=False, augmentation="flip", cached_views=2)
        train(space, strategy, fold=None)
        ((labels, named),) = told
        domains, views = named["domains"], named["views"]
        as_they_are = domains[~views]
        assert (np.diff(as_they_are) >= 0).all() and np.bincount(as_they_are).min() > 0
        assert np.array_equal(domains, np.tile(as_they_are, 3)) and np.array_equal(labels, np.tile(labels[~views], 3))

    def test_without_target_labels_each_has_its_own_layers(self, tmp_path: Path, held: TrainingData) -> None:
        space = workspace(tmp_path, replace(held, target=None), folds=(0, 0))
        strategy = replace(self.BOTH, adaptation="moments", target_labels=False)
        heads, features = {}, {}
        for name in ("bright", "dim", "bright + dim"):
            job = TrialJob(replace(strategy, source_domain=name), None, final=True)
            result = run_trial(space, job, lambda metrics: None)
            heads[name] = result.model.head
            kept = gather_features(space, job.strategy, result.model)
            assert kept is not None and not kept.target.any()
            features[name] = kept.features
        np.testing.assert_allclose(features["bright + dim"], np.concatenate([features["bright"], features["dim"]]))
        both = heads["bright + dim"]
        assert isinstance(both, StagesHead)
        assert both.members == 2 and torch.equal(*both.shares.chunk(2))
        peaks = torch.tensor(both.peaks)
        assert float(both.shares.chunk(2)[0][peaks].sum()) == pytest.approx(KINDS[1] / sum(KINDS) / 2)
        for number, (name, other) in enumerate((("bright", "dim"), ("dim", "bright"))):
            layers = both.parts[number * len(both.widths) :], heads[name].parts, heads[other].parts
            seen = torch.as_tensor(features[other]).split(both.widths, dim=1)
            for mine, *others, x, peak, places in zip(*layers, seen, both.peaks, both.places, strict=False):
                if places > 1:  # these have more than one optimum, and are of some strength all the same
                    assert 0 < float(mine.weight.detach().norm()) < 10 * float(others[0].weight.detach().norm())
                    continue
                if not peak:
                    apart = (mine.weight - others[0].weight).detach().norm()
                    assert apart <= 0.05 * others[0].weight.detach().norm()
                said = [float((mine(x) - each(x)).detach().abs().mean()) for each in others]
                assert said[0] < (1.0 if peak else 0.2) * said[1]  # the penalty on peaks is told by less

    def test_their_names_are_the_tasks(self, space: Workspace) -> None:
        with pytest.raises(UserError, match=r"no source domain 'bright \+ nobody'"):
            train(space, replace(self.BOTH, source_domain="bright + nobody"))
