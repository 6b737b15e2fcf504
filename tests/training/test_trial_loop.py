"""The trial loop: what is frozen, what is trained, and what is scored is what comes out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, MODEL, PRETRAINED, STAGES, data, pool, shapes, workspace

from raytl import adaptation, finetuning
from raytl.core.errors import UserError
from raytl.core.hashing import hash_tensors
from raytl.core.stopping import StoppedError, stoppable
from raytl.sources import SourceModel
from raytl.sources.checkpoint import write_checkpoint
from raytl.tasks import TrainingData
from raytl.tasks.task import Role
from raytl.training import Strategy
from raytl.training.loop import run_trial
from raytl.training.network import Network, fit_head
from raytl.training.pools import PoolMaker
from raytl.training.settings import LEAST_STEPS, MOST_STEPS
from raytl.training.trial import TrialError, TrialJob, TrialResult, prepare
from raytl.training.workspace import Budget, Workspace


def train(space: Workspace, fold: int | None = 0, **values: Any) -> TrialResult:
    return run_trial(space, TrialJob(Strategy.from_dict({"source_model": MODEL} | values), fold), lambda metrics: None)


def test_a_training_can_be_stopped_between_two_steps(tmp_path: Path) -> None:
    asked, epochs = threading.Event(), []

    def report(metrics: dict[str, Any]) -> None:
        epochs.append(metrics["epoch"])
        asked.set()

    with stoppable(asked), pytest.raises(StoppedError):
        run_trial(workspace(tmp_path, data(4)), TrialJob(Strategy(MODEL), 0), report)
    assert epochs == [1]


def state(model: SourceModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def probabilities(model: SourceModel, images: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(model.preprocessing.normalise(images.tensor(model.preprocessing))).softmax(1).numpy()


@pytest.fixture(scope="module")
def semi(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Target labels, unlabelled images and source domains: 9 training images, a batch of 16, 27 and 31 to 36 others."""
    return workspace(tmp_path_factory.mktemp("semi"), data())


@pytest.fixture(scope="module")
def inductive(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("inductive"), data(unlabelled=None, domains=False))


@pytest.fixture(scope="module")
def unsupervised(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("unsupervised"), data(target=None), folds=(0, 0))


VARIANTS: dict[str, dict[str, Any]] = {
    "cached": {},
    "augmented": {"augmentation": "shift"},
    "adabn": {"adaptation": "adabn"},
    "adabn augmented": {"adaptation": "adabn", "augmentation": "shift"},
    "strong views": {"adaptation": "pseudo-label"},
    "ema": {"ema": 0.9, "augmentation": "shift"},
    "two domains": {"source_domain": "bright", "batch_norm": "separate", "augmentation": "shift"},
}


EVERYTHING: dict[str, Any] = {
    "source_model": PRETRAINED,
    "source_domain": "bright",
    "adaptation": "dann",
    "augmentation": "shift",
    "ema": 0.9,
}
LOSSES = [name for name in adaptation.names() if adaptation.get(name).trains]
"""The others go with heads that are solved for: tests/training/test_convex.py."""
WITHOUT_SOURCE = [name for name in LOSSES if Role.SOURCE_DOMAIN not in adaptation.get(name).needs]
ALONE = [name for name in WITHOUT_SOURCE if not adaptation.get(name).loss.gradient_free]


class TestFreezing:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("cut", range(STAGES + 1))
    def test_below_the_cut_nothing_changes_and_above_it_everything_does(
        self, semi: Workspace, cut: int, variant: str
    ) -> None:
        before = state(semi.source_model(PRETRAINED)[0])
        after = state(train(semi, source_model=PRETRAINED, cut=cut, head_lr=0.1, **VARIANTS[variant]).model)
        stages = list(dict.fromkeys(name.split(".")[1] for name in before if name.startswith("stages.")))
        assert len(stages) == STAGES
        for index, stage in enumerate(stages):
            mine = [name for name in before if name.startswith(f"stages.{stage}.")]
            assert len(mine) >= 6  # convolution and batch norm, running statistics included
            equal = {name: torch.equal(before[name], after[name]) for name in mine}
            assert all(equal.values()) if index < cut else not any(equal.values()), equal
        assert not torch.equal(before["head.weight"], after["head.weight"])

    def test_a_cut_outside_the_model_is_a_sentence(self, semi: Workspace) -> None:
        with pytest.raises(UserError, match="cut 6 is outside 0 to 5"):
            train(semi, cut=6)


class TestActivationCache:
    @pytest.fixture(scope="class")
    def uncached(self, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
        return workspace(tmp_path_factory.mktemp("uncached"), data(), activation_cache=False)

    @pytest.mark.parametrize("extra", ["none", "mcc", "adabn", "coral"])
    @pytest.mark.parametrize("cut", range(1, STAGES + 1))
    def test_gives_the_numbers_that_the_network_would(
        self, semi: Workspace, uncached: Workspace, cut: int, extra: str
    ) -> None:
        values: dict[str, Any] = {"source_model": PRETRAINED, "cut": cut, "adaptation": extra}
        if extra == "coral":
            values["source_domain"] = "bright"
        one, other = train(semi, **values), train(uncached, **values)
        assert np.allclose(one.validation_probabilities, other.validation_probabilities, atol=1e-4)
        assert one.metrics["score"] == pytest.approx(other.metrics["score"], abs=1e-4)
        for name, tensor in one.model.state_dict().items():
            assert torch.allclose(tensor.float(), other.model.state_dict()[name].float(), atol=1e-3), name
        assert not any(uncached.cache.root.glob("activations-*.npy"))

    def test_a_deeper_cut_starts_from_a_shallower_one_and_gives_the_same_bits(self, tmp_path: Path) -> None:
        fresh = train(workspace(tmp_path / "a", data()), source_model=PRETRAINED, cut=4)
        space = workspace(tmp_path / "b", data())
        train(space, source_model=PRETRAINED, cut=2)
        stepped = train(space, source_model=PRETRAINED, cut=4)
        assert np.array_equal(fresh.validation_probabilities, stepped.validation_probabilities)
        # That it did start there shows where the shallower activations are all the same: then so are the predictions.
        blank = workspace(tmp_path / "c", data())
        train(blank, source_model=PRETRAINED, cut=2)
        for path in blank.cache.root.glob("activations-*.npy"):
            np.save(path, np.zeros_like(np.load(path)))
        predicted = train(blank, source_model=PRETRAINED, cut=4).validation_probabilities
        assert np.allclose(predicted, predicted[:1])

    def test_trials_that_share_a_cut_share_the_activations(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data())
        train(space, source_model=PRETRAINED, cut=3)
        entries = {path.name for path in space.cache.root.glob("*.npy")}
        train(space, source_model=PRETRAINED, cut=3, head_lr=0.05, adaptation="mcc")
        assert {path.name for path in space.cache.root.glob("*.npy")} == entries

    def test_a_search_with_another_seed_reads_what_it_would_compute(self, semi: Workspace, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "model", semi.source_model(PRETRAINED)[0], {})
        moved = []
        for root, seed in [("shared", 1), ("shared", 2), ("alone", 2)]:
            space = workspace(tmp_path / root, data(), seed=seed)
            model, weights = space.source_model(f"file:{tmp_path / 'model'}")  # the same weights for every seed
            network = Network(model, CLASSES, 2, device=space.device)
            assert space.data.unlabelled is not None
            moved.append(PoolMaker(space, network, weights, cached=True).make_moved(space.data.unlabelled).inputs)
        assert torch.equal(moved[1], moved[2])


class TestSameSeed:
    def same(self, one: TrialResult, other: TrialResult) -> None:
        assert np.array_equal(one.validation_probabilities, other.validation_probabilities)
        assert hash_tensors(one.model.state_dict()) == hash_tensors(other.model.state_dict())
        for ours, theirs in zip(one.history, other.history, strict=True):
            assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}

    def test_gives_the_same_bits_whatever_ran_before_in_the_lane(self, tmp_path: Path) -> None:
        cold = train(workspace(tmp_path / "a", data()), **EVERYTHING)  # pretrains first
        space = workspace(tmp_path / "b", data())
        train(space, source_model=PRETRAINED, cut=2, adaptation="mcc")
        torch.rand(7)
        self.same(cold, train(space, **EVERYTHING))

    def test_gives_the_same_bits_where_the_head_is_new(self, tmp_path: Path) -> None:
        values = {"source_model": f"pretrain:other/{MODEL}"}  # its labels are not the task's
        cold = train(workspace(tmp_path, data()), **values)
        warm = workspace(tmp_path, data())
        warm.source_model(values["source_model"])
        self.same(cold, train(warm, **values))

    def test_another_seed_or_fold_gives_another_model(self, tmp_path: Path, semi: Workspace) -> None:
        states = [train(semi), train(semi, fold=1), train(workspace(tmp_path, data(), seed=1))]
        assert len({hash_tensors(result.model.state_dict()) for result in states}) == 3


class TestHead:
    def test_takes_over_the_rows_of_its_labels_by_name(self, semi: Workspace) -> None:
        trained = semi.source_model(PRETRAINED)[0]
        assert trained.labels == CLASSES
        old = {name: trained.head.weight[i].detach().clone() for i, name in enumerate(CLASSES)}
        fit_head(trained, ("disc", "bar"))
        assert torch.equal(trained.head.weight, torch.stack([old["disc"], old["bar"]]))

    def test_is_new_where_one_label_is_unknown(self, semi: Workspace) -> None:
        model = semi.source_model(PRETRAINED)[0]
        old = model.head.weight.detach().clone()
        fit_head(model, ("bar", "cross", "star"))
        assert not any(torch.equal(row, known) for row in model.head.weight for known in old)
        assert model.labels == ("bar", "cross", "star")


class TestFailure:
    def test_a_loss_that_is_not_finite_fails_the_trial_with_its_settings(self, semi: Workspace) -> None:
        with pytest.raises(TrialError, match=r"epoch 1 \(head_lr 1e\+20, sgd, none\): lower the learning rate"):
            train(semi, head_lr=1e20, backbone_ratio=1.0)

    def test_predictions_that_are_not_finite_fail_it_too(self, semi: Workspace, tmp_path: Path) -> None:
        # A single step: its loss is that of the weights before it, and finite.
        space = workspace(tmp_path, data(), epochs=1, steps=1)
        with pytest.raises(TrialError, match="the predictions stopped being finite in epoch 1"):
            train(space, head_lr=1e38, backbone_ratio=1.0, schedule="constant", warmup=0.0)

    def test_the_lane_goes_on_after_it(self, semi: Workspace) -> None:
        with pytest.raises(TrialError):
            train(semi, head_lr=1e20)
        assert np.isfinite(train(semi).metrics["score"])

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"source_domain": "brigth"}, "no source domain 'brigth'; did you mean 'bright'"),
            ({"source_domain": "other"}, "source domain 'other' has labels that the task does not know"),
            ({"adaptation": "coral"}, "'coral' needs a source_domain"),
            ({"source_model": "pretrain:x/scratch:cnn-small"}, "no source domain 'x'"),
        ],
    )
    def test_a_strategy_that_does_not_fit_is_a_sentence(
        self, semi: Workspace, values: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            train(semi, **values)

    def test_so_is_adaptation_without_unlabelled_images(self, inductive: Workspace) -> None:
        with pytest.raises(UserError, match="'mcc' needs unlabelled images"):
            train(inductive, adaptation="mcc")


class TestEveryLoss:
    @pytest.mark.parametrize("name", LOSSES)
    def test_trains_with_all_roles(self, semi: Workspace, name: str) -> None:
        for batch_norm in ("joint", "separate"):
            result = train(semi, adaptation=name, source_domain="bright", batch_norm=batch_norm)
            assert np.isfinite(list(result.metrics.values())).all()
            assert {"target-accuracy", "source-accuracy", "information-maximisation"} <= set(result.metrics)

    @pytest.mark.parametrize("name", WITHOUT_SOURCE)
    def test_trains_without_a_source_domain_where_it_needs_none(self, semi: Workspace, name: str) -> None:
        result = train(semi, adaptation=name)
        assert np.isfinite(list(result.metrics.values())).all()

    @pytest.mark.parametrize("name", LOSSES)
    def test_trains_without_target_labels_and_reports_none_of_their_metrics(
        self, unsupervised: Workspace, name: str
    ) -> None:
        result = train(unsupervised, adaptation=name, source_domain="bright")
        assert np.isfinite(list(result.metrics.values())).all()
        assert not any(key.startswith("target") for key in result.metrics)
        assert result.validation_probabilities.shape == (0, 3)
        assert result.answers.shape == (3,) and result.answers.sum() == pytest.approx(1)

    @pytest.mark.parametrize("name", ALONE)
    def test_moves_the_weights_by_itself(self, semi: Workspace, name: str) -> None:
        before = state(semi.source_model(PRETRAINED)[0])
        # No label of either domain, no decay: whatever moves, the loss has moved.
        result = train(semi, source_model=PRETRAINED, target_labels=False, adaptation=name, weight_decay=0.0)
        moved = [name for name, value in result.model.state_dict().items() if not torch.equal(value, before[name])]
        assert "stages.stem.0.weight" in moved


class TestEveryRegulariser:
    @pytest.mark.parametrize("name", finetuning.regularisers.names())
    @pytest.mark.parametrize("cut", [0, 3, STAGES])
    def test_trains_at_every_cut(self, inductive: Workspace, name: str, cut: int) -> None:
        assert np.isfinite(train(inductive, regulariser=name, cut=cut).metrics["score"])


class TestPools:
    def test_one_image_per_class_trains_beside_a_source_domain(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data(target=1), folds=(0, 0))
        result = train(space, source_domain="bright", adaptation="mcc")
        assert space.folds == []
        assert "source-accuracy" in result.metrics and "target-accuracy" not in result.metrics

    def test_a_source_domain_of_a_few_groups_is_asked_of_as_well(self, tmp_path: Path) -> None:
        """Drawings in three faces: none of them is small enough to be held out whole."""
        held = data(target=1)
        faces = shapes(12, 5, name="faces", classes=CLASSES)
        for count in (3, 12):
            grouped = replace(faces, groups=np.arange(len(faces)) % count)
            space = workspace(tmp_path, replace(held, source_domains={"faces": grouped}), folds=(0, 0))
            train_index, held_index = space.source_split("faces")
            assert 0 < len(held_index) < len(faces) / 3
            assert sorted([*train_index, *held_index]) == list(range(len(faces)))
            apart = not set(grouped.groups[train_index]) & set(grouped.groups[held_index])
            assert apart == (count == 12)
            assert "source-accuracy" in train(space, source_domain="faces").metrics

    @pytest.mark.parametrize("cut", [0, 3, STAGES])
    def test_accuracy_on_source_domains_is_that_on_the_same_images_whether_or_not_one_joins(
        self, tmp_path: Path, cut: int
    ) -> None:
        held = data(target=1)
        more = {**held.source_domains, "dim": shapes(8, 5, name="dim", classes=CLASSES[::-1], light=-20.0)}
        space = workspace(tmp_path, replace(held, source_domains=more), folds=(0, 0))
        seen = space.held_out_source_images()
        assert seen is not None
        of = {name: space.source_split(name)[1] for name in ("bright", "dim")}
        assert len(seen) == sum(map(len, of.values())) and all(map(len, of.values()))
        names = [more[name].classes[more[name].labels[i]] for name, index in of.items() for i in index]
        assert [CLASSES[label] for label in seen.labels] == names
        for domain in (None, "bright", "dim"):
            result = train(space, source_domain=domain, source_model=PRETRAINED, cut=cut)
            assert all("source-accuracy" in epoch for epoch in result.history)
            model = result.model.eval()
            with torch.inference_mode():
                said = model(model.preprocessing.normalise(seen.tensor(model.preprocessing))).argmax(1).numpy()
            assert result.metrics["source-accuracy"] == pytest.approx((said == seen.labels).mean())

    def test_no_domain_that_was_set_aside_is_measured_on(self, tmp_path: Path) -> None:
        held = data(target=1)
        wrong = shapes(24, 5, name="wrong")
        wrong = replace(wrong, labels=(wrong.labels + 1) % len(CLASSES))
        space = workspace(tmp_path, replace(held, source_domains={**held.source_domains, "wrong": wrong}), folds=(0, 0))
        known = space.held_out_source_images(["wrong"])
        assert known is not None and len(known) == len(space.source_split("bright")[1])
        strategy = Strategy.from_dict(
            {"source_model": PRETRAINED, "cut": STAGES, "head": "logistic", "source_domain": "bright"}
        )
        told = [
            run_trial(space, TrialJob(strategy, None, set_aside=aside), lambda metrics: None).metrics["source-accuracy"]
            for aside in ((), ("wrong",))
        ]
        assert told[1] > told[0] + 0.2
        assert space.held_out_source_images(["bright", "wrong"]) is None

    def test_beside_a_validation_fold_source_domains_are_looked_at_last(self, semi: Workspace) -> None:
        for domain in (None, "bright"):
            measured = ["source-accuracy" in epoch for epoch in train(semi, source_domain=domain).history]
            assert measured == [False] * (len(measured) - 1) + [True]

    def test_the_whole_target_trains_without_a_fold(self, inductive: Workspace) -> None:
        assert len(train(inductive, fold=None).validation_index) == 0

    def test_no_image_is_trained_on_and_validated(self, inductive: Workspace) -> None:
        for training, validation in inductive.folds:
            assert not set(training) & set(validation)
        result = train(inductive, fold=1)
        assert np.array_equal(result.validation_index, inductive.folds[1][1])
        assert result.validation_probabilities.shape == (len(result.validation_index), 3)

    def test_the_source_only_baseline_does_not_learn_from_target_labels(self, tmp_path: Path) -> None:
        right = data()
        assert right.target is not None
        wrong = TrainingData(**{**vars(right), "target": shuffled_labels(right.target)})
        values = {"source_domain": "bright", "target_labels": False}
        models = [
            train(workspace(tmp_path / str(i), held), fold=None, **values).model
            for i, held in enumerate([right, wrong])
        ]
        assert hash_tensors(models[0].state_dict()) == hash_tensors(models[1].state_dict())

    def test_with_nothing_to_train_on_the_source_model_is_scored_once(self, semi: Workspace) -> None:
        reports: list[dict[str, Any]] = []
        job = TrialJob(Strategy.from_dict({"source_model": PRETRAINED, "target_labels": False}))
        result = run_trial(semi, job, reports.append)
        assert [report["epoch"] for report in reports] == [1.0] and reports[0]["last"]
        assert torch.equal(result.model.head.weight, semi.source_model(PRETRAINED)[0].head.weight)

    def test_every_epoch_is_reported_and_only_the_last_one_is_the_last(self, semi: Workspace) -> None:
        reports: list[dict[str, Any]] = []
        run_trial(semi, TrialJob(Strategy(MODEL)), reports.append)
        assert [(report["epoch"], report["last"]) for report in reports] == [(1.0, False), (2.0, True)]

    def test_unlabelled_images_are_sampled_from_the_whole_folder(self, tmp_path: Path) -> None:
        """600 images of one class, then 5 of each other one: a look at the first 512 would see a single class."""
        rare = [image for kind in (1, 2) for image in shapes(5, 9).subset(range(5 * kind, 5 * kind + 5)).items]
        items = [*shapes(600, 8, classes=("bar",)).items, *(rare * 20)]
        held = TrainingData(**{**vars(data()), "unlabelled": type(pool(shapes(1)))("many", items)})
        space = workspace(tmp_path, held, epochs=6, steps=10)
        result = train(space, source_model=PRETRAINED, head_lr=0.05, source_domain="bright")
        assert result.metrics["target-accuracy"] > 0.8
        assert result.metrics["information-maximisation"] > 0.4  # at most 0.1 on the first 512


def shuffled_labels(images: Any) -> Any:
    return type(images)(images.name, images.items, None, images.classes, np.roll(images.labels, 3))


class TestScored:
    """What was scored in the last epoch is the network that is returned, whatever was done to it at the end."""

    @pytest.fixture(
        params=[
            {},
            {"ema": 0.9},
            {"adaptation": "adabn"},
            {"adaptation": "adabn", "ema": 0.9},
            {"adaptation": "adabn", "cut": 2},
            {"cut": 3},
            {"cut": STAGES},
            {"source_domain": "bright", "batch_norm": "separate", "adaptation": "coral"},
            {"augmentation": "shift", "cut": 1},
        ],
        ids=lambda values: " ".join(map(str, values.values())) or "plain",
    )
    def values(self, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
        yield request.param

    def test_is_returned(self, semi: Workspace, values: dict[str, Any]) -> None:
        result = train(semi, source_model=PRETRAINED, **values)
        assert semi.data.target is not None
        images = semi.data.target.subset(result.validation_index)
        assert np.allclose(probabilities(result.model, images), result.validation_probabilities, atol=1e-5)
        accuracy = (result.validation_probabilities.argmax(1) == images.labels).mean()
        assert result.metrics["target-accuracy"] == pytest.approx(accuracy)


def test_a_final_job_trains_the_same_network_and_looks_at_it_once(tmp_path: Path) -> None:
    space = workspace(tmp_path, data(), epochs=3)
    strategy = Strategy(MODEL, head_lr=0.05)
    usual = run_trial(space, TrialJob(strategy, None), lambda metrics: None)
    final = run_trial(space, TrialJob(strategy, None, final=True), lambda metrics: None)
    weights = final.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in usual.model.state_dict().items())
    assert ["score" in epoch for epoch in usual.history] == [True, True, True]
    assert [epoch["epoch"] for epoch in final.history] == [3.0]
    assert final.metrics["score"] == usual.metrics["score"]


def test_a_trial_does_not_import_the_compiler() -> None:
    """It takes longer to import than a small trial to train, and torch's optimizer objects bring it in."""
    program = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from tiny import MODEL, data, workspace
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob

with TemporaryDirectory() as root:
    space = workspace(Path(root), data())
    for optimizer in ("sgd", "adamw"):
        strategy = Strategy(MODEL, optimizer=optimizer, adaptation="mcc", ema=0.9)
        run_trial(space, TrialJob(strategy), lambda metrics: None)
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


class TestLooks:
    """Epochs after which nothing is decided are trained and not evaluated."""

    @pytest.mark.parametrize("variant", ["cached", "ema", "adabn", "strong views"])
    def test_change_nothing_but_what_is_seen(self, tmp_path: Path, variant: str) -> None:
        strategy = Strategy.from_dict({"source_model": MODEL} | VARIANTS[variant])
        told: dict[tuple[int, ...], list[float]] = {}
        results = []
        for looks in ((), (2,)):
            space = workspace(tmp_path, data(), budget=Budget(5, 4, 16, looks))
            heard = told.setdefault(looks, [])
            results.append(run_trial(space, TrialJob(strategy), lambda m, heard=heard: heard.append(m["epoch"])))
        assert told == {(): [1.0, 2.0, 3.0, 4.0, 5.0], (2,): [2.0, 5.0]}
        every, few = results
        assert [entry["epoch"] for entry in few.history] == [2.0, 5.0]
        assert {**every.history[1], "seconds": 0} == {**few.history[0], "seconds": 0}
        np.testing.assert_array_equal(every.validation_probabilities, few.validation_probabilities)


class TestBudget:
    def test_an_epoch_is_a_pass_over_the_largest_role_within_bounds(self) -> None:
        budget = Budget(steps_per_epoch=0, batch_size=32)
        assert budget.steps_for(640) == 20
        assert budget.steps_for(641) == 21
        assert budget.steps_for(1) == LEAST_STEPS
        assert budget.steps_for(10**6) == MOST_STEPS
        assert Budget(steps_per_epoch=7, batch_size=32).steps_for(10**6) == 7

    def test_of_a_trial_counts_the_roles_that_its_strategy_trains_on(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data(target=6, unlabelled=400, domains=False), budget=Budget(1, 0, 32))
        assert prepare(space, TrialJob(Strategy(MODEL))).steps_per_epoch == LEAST_STEPS
        adapted = prepare(space, TrialJob(Strategy(MODEL, adaptation="mcc"))).steps_per_epoch
        assert adapted == 38  # 1200 unlabelled images
