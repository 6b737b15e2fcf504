"""A class more for a model that learned the old ones elsewhere: what new images look like is not their class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny

from raytl.bundles import Bundle, export_bundle
from raytl.bundles.extending import extend_bundle
from raytl.bundles.features import FEATURES_FILE, read_features
from raytl.bundles.solving import Moved, Pool, few_of_the_domain, moved
from raytl.core.errors import UserError
from raytl.judging.kept_features import KeptFeatures
from raytl.tasks import LabelledImages
from raytl.training.kept_features import gather_features
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob

OLD = ("bar", "cross")
STRONG, MILD = {"contrast": 0.35, "light": 90}, {"contrast": 0.7, "light": 40}
MCC = {"cut": 0, "head": "linear", "adaptation": "mcc"}
SOLVED = {"cut": tiny.STAGES, "head": "logistic"}
STAGES = {"cut": tiny.STAGES, "head": "stages"}
NEAR = {"cut": tiny.STAGES, "head": "k-nn"}


def some(count: int, seed: int, kinds: tuple[str, ...], look: dict[str, float]) -> LabelledImages:
    """So many images of each of these shapes, the old ones first among the classes."""
    every = tiny.shapes(count, seed, name=f"{seed}", **look)
    numbers = [tiny.CLASSES.index(kind) for kind in kinds]
    return every.subset(np.flatnonzero(np.isin(every.labels, numbers)))


def bundle(
    root: Path,
    strategy: dict[str, object],
    look: dict[str, float],
    *,
    target: int = 0,
    in_the_pool: tuple[str, ...] = OLD,
    pool: int = 60,
    labelled: dict[str, float] | None = None,
) -> Path:
    """A model that has learned the old classes from bright images, and has seen others without labels.

    labelled: the look of its labelled images where that is another one.
    """
    data = replace(
        tiny.data(None, None, domains=False),
        classes=OLD,
        target=replace(some(target, 1, OLD, look if labelled is None else labelled), classes=OLD) if target else None,
        unlabelled=tiny.pool(some(pool, 2, in_the_pool, look)),
        source_domains={
            "bright": replace(some(60, 3, OLD, {}), classes=OLD),
            "dim": replace(some(60, 4, OLD, MILD), classes=OLD),
        },
    )
    space = tiny.workspace(root / "w", data, epochs=6, steps=15)
    read = Strategy.from_dict({"source_model": tiny.MODEL, "source_domain": "bright", **strategy})
    model = run_trial(space, TrialJob(read, None, final=True), lambda report: None).model
    features = gather_features(space, read, model)
    return export_bundle(root / "b", model, metrics={}, provenance={"strategy": read.to_dict()}, features=features)


def right(path: Path, look: dict[str, float], kinds: tuple[str, ...] = OLD) -> float:
    test = some(60, 99, kinds, look)
    said = Bundle.load(path).predict([item.open() for item in test.items])
    return float(np.mean([one.label == tiny.CLASSES[label] for one, label in zip(said, test.labels, strict=True)]))


def without_pool(path: Path) -> Path:
    """As a raytl wrote it that kept no images without labels."""
    file = path / FEATURES_FILE
    arrays = safetensors.numpy.load_file(file)
    with safetensors.safe_open(file, "numpy") as opened:
        told = opened.metadata()
    del arrays["unlabelled"]
    safetensors.numpy.save_file(arrays, file, told)
    return path


@pytest.mark.parametrize("look", [STRONG, MILD], ids=["strong", "mild"])
def test_a_network_that_was_adapted_keeps_its_old_classes(look: dict[str, float], tmp_path: Path) -> None:
    path = bundle(tmp_path, MCC, look)
    assert right(path, look) > 0.95
    done = extend_bundle(path, {"disc": some(6, 7, ("disc",), look)}, tmp_path / "out")
    assert right(done.path, look) > 0.9
    assert done.moved is not None and done.moved.images > 100 and done.moved.moved < 10
    assert "learned what the old model answered for images without labels" in " ".join(done.notes)
    again = extend_bundle(done.path, {"disc": some(6, 8, ("disc",), look)}, tmp_path / "again")
    assert right(again.path, look) > 0.9 and again.moved is not None


@pytest.mark.parametrize("strategy", [SOLVED, STAGES, NEAR], ids=["logistic", "stages", "k-nn"])
def test_a_head_on_frozen_stages_does_not_take_the_domain_for_the_class(
    strategy: dict[str, object], tmp_path: Path
) -> None:
    path = bundle(tmp_path, strategy, MILD)
    before = right(path, MILD)
    done = extend_bundle(path, {"disc": some(6, 7, ("disc",), MILD)}, tmp_path / "out")
    assert right(done.path, MILD) > before - 0.1


def test_of_several_domains_it_is_said_that_none_has_layers_of_its_own_any_more(tmp_path: Path) -> None:
    told = "in the old head each source domain had layers of its own"
    taught = STAGES | {"source_domain": "bright + dim", "adaptation": "propagation"}  # on all images, then and now
    for name, strategy in (("one", STAGES), ("both", STAGES | {"source_domain": "bright + dim"}), ("taught", taught)):
        path = bundle(tmp_path / name, strategy, MILD)
        before = right(path, MILD)
        done = extend_bundle(path, {"disc": some(6, 7, ("disc",), MILD)}, tmp_path / name / "out")
        assert (told in " ".join(done.notes)) == (name == "both")
        assert right(done.path, MILD) > before - 0.1


def test_a_domain_is_heard_as_before_where_the_images_to_come_are_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As images that the bundle has kept without labels say again."""
    monkeypatch.setattr("raytl.evaluation.other_kind.FAVOURED", 0.97)
    path = bundle(tmp_path, STAGES, MILD, target=12, labelled={})
    done = extend_bundle(path, {"disc": some(12, 7, ("disc",), {})}, tmp_path / "out")
    for each in (path, done.path):
        head = Bundle.load(each).model.head
        assert head.shares[len(head.widths) :].sum() == pytest.approx(0.97)


def test_few_labels_are_no_witness_for_a_trained_network(tmp_path: Path) -> None:
    path = bundle(tmp_path, MCC, STRONG, target=6)
    done = extend_bundle(path, {"disc": some(6, 7, ("disc",), STRONG)}, tmp_path / "out")
    assert right(done.path, STRONG) > right(path, STRONG) - 0.05


def test_that_many_of_them_show_the_new_class_is_seen_and_costs_the_old_ones_nothing(tmp_path: Path) -> None:
    path = bundle(tmp_path, MCC, STRONG, in_the_pool=(*OLD, "disc"))
    done = extend_bundle(path, {"disc": some(6, 7, ("disc",), STRONG)}, tmp_path / "out")
    assert right(done.path, STRONG) > 0.9
    found = done.added[0].found
    assert found is not None and found.value < 0.5 and "give them as its images too" in " ".join(done.notes)
    more = some(60, 2, ("disc",), STRONG)  # those of them, with labels
    again = extend_bundle(path, {"disc": more}, tmp_path / "again")
    assert right(again.path, STRONG) > 0.8 and right(again.path, STRONG, ("disc",)) > 0.5


class TestWithoutSuchImages:
    def test_it_is_not_done_in_the_dark(self, tmp_path: Path) -> None:
        path = without_pool(bundle(tmp_path, MCC, STRONG))
        given = {"disc": some(6, 7, ("disc",), STRONG)}
        with pytest.raises(UserError, match=r"has kept hardly any images of its own, .*--even-if-worse$") as refused:
            extend_bundle(path, given, tmp_path / "out")
        assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()
        assert extend_bundle(path, given, tmp_path / "out", even_if_worse=True).moved is None

    def test_few_labels_of_the_domain_are_not_enough(self, tmp_path: Path) -> None:
        path = without_pool(bundle(tmp_path, MCC, STRONG, target=6))
        with pytest.raises(UserError, match="hardly any images of its own"):
            extend_bundle(path, {"disc": some(6, 7, ("disc",), STRONG)}, tmp_path / "out")

    def test_images_of_the_old_classes_from_there_help_as_is_said(self, tmp_path: Path) -> None:
        path = without_pool(bundle(tmp_path, MCC, STRONG))
        given = {kind: some(10, 7, (kind,), STRONG) for kind in (*OLD, "disc")}
        done = extend_bundle(path, given, tmp_path / "out")
        assert right(done.path, STRONG) > 0.7  # with those of the new class alone: 0


def test_images_that_have_labels_now_are_not_kept_as_without(tmp_path: Path) -> None:
    path = bundle(tmp_path, MCC, STRONG, in_the_pool=(*OLD, "disc"), pool=20)
    kept = read_features(path, Bundle.load(path).manifest.weights.sha256, 2)
    assert kept is not None and kept.unlabelled.shape == (60, kept.features.shape[1])
    labelled = some(20, 2, ("disc",), STRONG)  # of the same images
    done = extend_bundle(path, {"disc": labelled.subset(np.arange(6))}, tmp_path / "out", even_if_worse=True)
    after = read_features(done.path, Bundle.load(done.path).manifest.weights.sha256, 3)
    assert after is not None and len(after.unlabelled) == 54


def test_more_answers_than_a_class_may_have_are_too_many() -> None:
    answers = np.repeat([[0.9, 0.1, 0.0]], 100, axis=0)[:, :2]
    pool, said = Pool(np.zeros((100, 2), dtype=np.float32), answers), np.repeat([[0.0, 0.1, 0.9]], 100, axis=0)
    assert moved(pool, said, [2]) == Moved(100, 100, 0.5) and moved(pool, said, [2]).too_many
    said[40:] = [0.9, 0.1, 0.0]
    assert moved(pool, said, [2]) == Moved(100, 40, 0.5) and not moved(pool, said, [2]).too_many
    assert moved(pool, said, [0, 1, 2]).images == 0 and not moved(pool, said, [0, 1, 2]).too_many


@pytest.mark.parametrize(
    ("per_class", "frozen", "few"),
    [((0, 0), True, True), ((9, 9), True, True), ((10, 10), True, False), ((9, 9), False, True), ((99, 0), False, True),
     ((10, 10), False, False)],
)  # fmt: skip
def test_how_few_are_too_few(per_class: tuple[int, int], frozen: bool, few: bool) -> None:
    labels = np.repeat([0, 1, 0, 1], [*per_class, 50, 50])
    n, none = len(labels), np.zeros((len(labels), 1), dtype=np.float32)
    kept = KeptFeatures(
        none, labels, np.ones(n), np.arange(n) < sum(per_class), np.arange(n), none, none, none, frozen, False, none[:0]
    )
    assert few_of_the_domain(kept, 2) is few
