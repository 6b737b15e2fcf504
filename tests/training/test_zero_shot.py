"""Class names as a head: what transformers computes, good without a label, and deployable without the text tower."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_towers import NAMES, SIDE, normalised, pictures, random_siglip, save, taught_clip, tokens

from raytl import sources
from raytl.bundles import Bundle, export_bundle
from raytl.bundles.onnx import export_onnx
from raytl.bundles.onnx_model import OnnxModel
from raytl.core.errors import UserError
from raytl.search.jobs import Survey
from raytl.search.propose.recipes import Recipes
from raytl.search.propose.survey import survey
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.sources.class_names import spoken, why_unnamed
from raytl.tasks import LabelledImages, TrainingData
from raytl.training import Strategy
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob, TrialResult
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Any]]]:
    folder = tmp_path_factory.mktemp("towers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small that threads would only wait for one another
    made = {"clip": taught_clip(), "siglip": random_siglip()}
    yield {kind: (save(model, folder / kind), model) for kind, model in made.items()}
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(models: dict[str, tuple[Path, Any]]) -> str:
    return f"hf:{models['clip'][0]}"


def task(target: LabelledImages | None, names: tuple[str, ...] = NAMES) -> TrainingData:
    """With unlabelled images, and a source domain that looks otherwise."""
    domain = pictures(4, 2, names, ground=160)
    return TrainingData(
        "pictures", names, target, pictures(6, 3, names).without_labels(), {"bright": domain}, channels=3
    )


def workspace(root: Path, held: TrainingData) -> Workspace:
    settings = WorkspaceSettings(budget=Budget(1, 2, 16), image_size=SIDE, folds=(2, 1), device="cpu", threads=1)
    return Workspace(held, settings, root)


def tried(clip: str, root: Path, target: LabelledImages | None, fold: int | None) -> TrialResult:
    space = workspace(root, task(target))
    return run_trial(space, TrialJob(strategy(clip), fold), lambda metrics: None)


def strategy(uri: str) -> Strategy:
    return Strategy(uri, cut=len(sources.info(uri).stages), head="zero-shot")


def arrays(images: LabelledImages) -> np.ndarray:
    return np.stack([np.asarray(item.open()) for item in images.items])


class TestHead:
    @pytest.mark.parametrize("kind", ["clip", "siglip"])
    def test_gives_the_logits_of_transformers(self, models: dict[str, tuple[Path, Any]], kind: str) -> None:
        folder, theirs = models[kind]
        source = sources.load(f"hf:{folder}").eval()
        source.head = sources.zero_shot_head(f"hf:{folder}", NAMES, ("a photo of a {}.",))
        images = normalised(arrays(pictures(3, 5)))
        # SigLIP was taught with sentences without punctuation.
        said = [f"a photo of a {name}" + ("." if kind == "clip" else "") for name in NAMES]
        with torch.inference_mode():
            expected = theirs(input_ids=tokens(said), pixel_values=images).logits_per_image
            found = source(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def test_averages_what_several_sentences_say(self, models: dict[str, tuple[Path, Any]], clip: str) -> None:
        templates = ("a photo of a {}.", "a picture of {}.")
        head = sources.zero_shot_head(clip, NAMES, templates)
        with torch.inference_mode():
            each = [
                models["clip"][1].get_text_features(tokens([text.format(name) for name in NAMES])).pooler_output
                for text in templates
            ]
        mean = sum(rows / rows.norm(dim=1, keepdim=True) for rows in each)
        torch.testing.assert_close(head.names, mean / mean.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)

    def test_a_model_without_a_text_tower_has_none(self, clip: str) -> None:
        for uri in ("scratch:cnn-small", f"{clip}@none"):
            assert not sources.info(uri).text_tower
            with pytest.raises(UserError, match="has no text tower"):
                sources.zero_shot_head(uri, NAMES)

    def test_without_transformers_it_says_what_to_install(self, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
        found = importlib.util.find_spec
        monkeypatch.setattr(
            "raytl.sources.text_towers.find_spec", lambda name: None if name == "transformers" else found(name)
        )
        with pytest.raises(UserError, match=r"pip install 'raytl\[hf\]'"):
            sources.zero_shot_head(clip, NAMES)
        assert sources.load(clip).pretrained

    def test_a_damaged_folder_is_named(self, models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
        folder = save(models["clip"][1], tmp_path / "copy")
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
            sources.zero_shot_head(f"hf:{folder}", NAMES)


class TestTrial:
    def test_without_any_label_it_recognises_what_the_names_say(self, clip: str, tmp_path: Path) -> None:
        model = tried(clip, tmp_path, None, None).model
        pics = pictures(15, 9)
        with torch.inference_mode():
            said = model.eval()(normalised(arrays(pics))).argmax(1).numpy()
        assert (said == pics.labels).mean() > 0.75  # chance is one in six

    def test_target_labels_tell_how_good_it_is_and_change_nothing(self, clip: str, tmp_path: Path) -> None:
        result = tried(clip, tmp_path, pictures(4, 1), 0)
        assert result.metrics["target-accuracy"] > 0.7
        alone = tried(clip, tmp_path, None, None).model
        assert torch.equal(alone.head.names, result.model.head.names)

    def test_the_bundle_answers_the_same_without_the_text_tower(self, clip: str, tmp_path: Path) -> None:
        model = tried(clip, tmp_path, None, None).model.eval()
        images = torch.from_numpy(arrays(pictures(2, 9))).permute(0, 3, 1, 2)
        with torch.inference_mode():
            expected = model(model.preprocessing.normalise(images)).softmax(1).numpy()
        path = export_bundle(tmp_path / "bundle", model, metrics={}, provenance={})
        bundle = Bundle.load(path)
        assert (bundle.manifest.format_version, bundle.labels) == (5, NAMES)
        assert not any("text" in name for name in bundle.model.state_dict())
        np.testing.assert_allclose(bundle.probabilities(images), expected, atol=1e-6)
        assert export_onnx(path) < 1e-3
        np.testing.assert_allclose(OnnxModel.load(path).compute(images.numpy()), expected, atol=1e-3)


class TestSearch:
    def recipes(self, clip: str, folder: Path, held: TrainingData) -> list[Strategy]:
        file = folder / "space.yaml"
        file.write_text(f"space:\n  source_model: ['{clip}']\n  cut: all\nimage_size: {SIDE}\n")
        return Recipes(BoundSpace(load_space(str(file)), held)).probes(Survey(("bright",)))[clip]

    def test_offers_it_with_and_without_target_labels(self, clip: str, tmp_path: Path) -> None:
        for target in (None, pictures(4, 1)):
            assert strategy(clip) in self.recipes(clip, tmp_path, task(target))
            assert not survey(workspace(tmp_path, task(target)), [clip]).notes

    def test_names_that_mean_nothing_make_none_and_that_is_said(self, clip: str, tmp_path: Path) -> None:
        names = tuple(f"class_{number}" for number in range(len(NAMES)))
        held = task(None, names)
        assert "zero-shot" not in {probe.head for probe in self.recipes(clip, tmp_path, held)}
        notes = survey(workspace(tmp_path, held), [clip]).notes
        assert f"{clip}: no zero-shot head, for class names such as 'class_0' and 'class_1' do not say" in notes[0]


class TestNames:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("01_rose", "rose"), ("n01440764 tench", "tench"), ("RedRose", "red rose"), ("hot-dog", "hot dog"),
            ("LEDLamp", "led lamp"), ("12. oak_tree ", "oak tree"), ("3d printer", "3d printer"), ("ok", "ok"),
        ],
    )  # fmt: skip
    def test_are_said_as_words(self, name: str, words: str) -> None:
        assert spoken(name) == words

    @pytest.mark.parametrize(
        "name",
        ["7", "class_3", "n01440764", "A", "x1", "0b5e7a3c-99aa-4bcd-8e1f-001122334455", "a3f8c2d19e", "group 2", ""],
    )
    def test_that_say_nothing_are_told_apart(self, name: str) -> None:
        assert "do not say what is seen" in why_unnamed(["rose", name])

    @pytest.mark.parametrize(
        ("names", "why"),
        [
            (("ok", "defect"), "judge what is seen"), (("positive", "negative"), "judge what is seen"),
            (("01_rose", "02_rose"), "the same in words"), (("cracked cell", "ok"), ""), (("猫", "犬"), ""),
        ],
    )  # fmt: skip
    def test_that_judge_or_agree_make_no_classifier(self, names: tuple[str, ...], why: str) -> None:
        found = why_unnamed(names)
        assert why in found and bool(found) == bool(why)
