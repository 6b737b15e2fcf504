"""Bundles: images in, labels out, today and with the bundles of earlier versions."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from emulated_cuda import emulated_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raytl import sources
from raytl.bundles import Bundle, Threshold, export_bundle, predict_files, write_predictions
from raytl.core.errors import UserError
from raytl.sources.checkpoint import write_checkpoint

DATA = Path(__file__).parent / "data"
LABELS = ("ash", "birch", "cedar")


def fixture_images() -> torch.Tensor:
    spec = importlib.util.spec_from_file_location("make_fixture", Path(__file__).parent / "make_fixture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images: Callable[[], torch.Tensor] = module.images
    return images()


def make(seed: int = 0, channels: int = 3) -> sources.SourceModel:
    model = sources.build_architecture("scratch:cnn-small", num_classes=3, channels=channels, image_size=24, seed=seed)
    model.labels = LABELS
    return model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = export_bundle(
        tmp_path_factory.mktemp("b") / "model", make(), metrics={"accuracy": 0.5}, provenance={"run": "r"}
    )
    return Bundle.load(path)


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


class TestPredict:
    def test_is_the_softmax_of_the_model_bit_for_bit(self, tmp_path: Path) -> None:
        model = make(channels=1)
        bundle = Bundle.load(export_bundle(tmp_path / "m", model, metrics={}, provenance={}, temperature=2.5))
        model = model.eval().to(memory_format=torch.channels_last)  # as a bundle computes: sums come in another order
        images = torch.randint(0, 256, (5, 1, 24, 24), dtype=torch.uint8)
        with torch.inference_mode():
            expected = (model(model.preprocessing.normalise(images)) / 2.5).softmax(1)
        rows = bundle.probabilities(images)
        assert rows.dtype == np.float32
        assert rows.tobytes() == expected.numpy().tobytes()

    @settings(max_examples=20)
    @given(n=st.integers(0, 9), batch_size=st.integers(1, 10))
    def test_batches_change_nothing_but_rounding(self, bundle: Bundle, n: int, batch_size: int) -> None:
        images = torch.randint(0, 256, (n, 3, 24, 24), dtype=torch.uint8)
        rows = bundle.probabilities(images, batch_size)
        assert rows.shape == (n, 3)
        np.testing.assert_allclose(rows, bundle.probabilities(images, 100), atol=1e-6)
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)

    def test_says_the_same_on_a_gpu(self, tmp_path: Path) -> None:
        """An emulated one."""
        images = fixture_images()
        path = export_bundle(tmp_path / "model", make(channels=1), metrics={}, provenance={})
        with emulated_cuda():
            there = Bundle.load(path, "cuda:0").probabilities(images)
        np.testing.assert_allclose(there, Bundle.load(path).probabilities(images), atol=1e-6)

    def test_takes_paths_bytes_and_images_alike(self, bundle: Bundle, tmp_path: Path) -> None:
        image = picture(1)
        (tmp_path / "a.png").write_bytes(encoded(image))
        answers = bundle.predict([image, encoded(image), tmp_path / "a.png"], batch_size=2)
        assert answers[0] == answers[1] == answers[2]
        assert answers[0].label in LABELS
        assert answers[0].confidence == max(answers[0].probabilities.values())
        assert tuple(answers[0].probabilities) == LABELS

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA", "I"])
    def test_takes_an_image_of_any_mode(self, bundle: Bundle, mode: str) -> None:
        assert bundle.predict([picture(2, mode)])[0].label in LABELS

    @pytest.mark.parametrize(
        ("mode", "kind"), [("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF"), ("RGBA", "PNG"), ("LA", "PNG")]
    )
    def test_an_image_in_memory_is_what_its_file_is(self, bundle: Bundle, mode: str, kind: str) -> None:
        """More than 8 bits are scaled and not cut off, and what is transparent is on white."""
        values = np.random.default_rng(3).integers(0, 65536, (30, 40))
        if mode in ("RGBA", "LA"):
            image = Image.fromarray(
                np.random.default_rng(3).integers(0, 256, (30, 40, len(mode)), dtype=np.uint8), mode
            )
        else:
            image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
        assert image.mode == mode
        assert np.array_equal(bundle.prepare(image), bundle.prepare(encoded(image, kind)))

    def test_no_images_no_predictions(self, bundle: Bundle) -> None:
        assert bundle.predict([]) == []

    def test_names_the_image_that_is_none(self, bundle: Bundle, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="image 2"):
            bundle.predict([picture(1), b"no image"])
        with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
            bundle.predict([tmp_path / "gone.png"])

    def test_wrong_tensors_are_refused(self, bundle: Bundle) -> None:
        for wrong in (torch.zeros(1, 3, 24, 24), torch.zeros(1, 1, 24, 24, dtype=torch.uint8)):
            with pytest.raises(ValueError, match="uint8 of shape"):
                bundle.probabilities(wrong)


@pytest.fixture(scope="module")
def screening(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Says 'defect' from a probability of 0.2 on."""
    model = sources.build_architecture("scratch:cnn-small", num_classes=2, channels=3, image_size=24, seed=0)
    model.labels = ("defect", "fine")
    point = Threshold(label="defect", value=0.2)
    path = tmp_path_factory.mktemp("screening") / "model"
    return Bundle.load(export_bundle(path, model, metrics={}, provenance={}, threshold=point))


class TestThreshold:
    @pytest.mark.parametrize(("defect", "label"), [(0.9, "defect"), (0.2, "defect"), (0.19, "fine"), (0.0, "fine")])
    def test_decides_instead_of_one_half(self, screening: Bundle, defect: float, label: str) -> None:
        prediction = screening.prediction(np.array([defect, 1 - defect], dtype=np.float32))
        assert prediction.label == label
        assert prediction.confidence == prediction.probabilities[label]

    def test_the_other_label_may_have_it(self, screening: Bundle) -> None:
        strict = screening.manifest.model_copy(update={"threshold": Threshold(label="fine", value=0.75)})
        rows = np.array([[0.2, 0.8], [0.3, 0.7], [0.6, 0.4]], dtype=np.float32)
        assert Bundle(screening.model, strict).decide(rows).tolist() == [1, 0, 0]

    def test_a_table_and_single_predictions_agree(self, screening: Bundle, tmp_path: Path) -> None:
        for seed in range(8):
            picture(seed).save(tmp_path / f"{seed}.png")
        (tmp_path / "9.png").write_bytes(b"")
        frame = predict_files(screening, [tmp_path])
        single = screening.predict([tmp_path / f"{seed}.png" for seed in range(8)])
        assert frame["label"].tolist()[:8] == [prediction.label for prediction in single]
        np.testing.assert_allclose(frame["confidence"][:8], [prediction.confidence for prediction in single], atol=1e-6)
        assert frame["label"].isna().tolist() == [False] * 8 + [True] and np.isnan(frame["confidence"][8])

    def test_is_format_2_and_without_one_it_is_format_1(self, screening: Bundle, bundle: Bundle) -> None:
        """A raytl of before names the version and refuses; a bundle that needs nothing new it can read."""
        assert (screening.manifest.format_version, bundle.manifest.format_version) == (2, 1)
        assert "threshold" not in json.loads(bundle.manifest.to_text())
        assert json.loads(screening.manifest.to_text())["threshold"] == {"label": "defect", "value": 0.2}

    def test_only_for_one_of_two_classes(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"needs a model of two classes.*ash, birch, cedar"):
            point = Threshold(label="ash", value=0.2)
            export_bundle(tmp_path / "m", make(), metrics={}, provenance={}, threshold=point)


class TestExport:
    def test_keeps_labels_metrics_and_provenance(self, bundle: Bundle) -> None:
        assert bundle.labels == bundle.manifest.labels == LABELS
        assert bundle.manifest.metrics == {"accuracy": 0.5}
        assert bundle.manifest.provenance == {"run": "r"}

    def test_refuses_a_model_without_labels(self, tmp_path: Path) -> None:
        model = sources.load("scratch:cnn-small")
        with pytest.raises(UserError, match="without labels"):
            export_bundle(tmp_path / "m", model, metrics={}, provenance={})
        write_checkpoint(tmp_path / "m", model, {})
        with pytest.raises(UserError, match="has no labels"):
            Bundle.load(tmp_path / "m")

    def test_refuses_to_overwrite_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "photo.jpg").write_bytes(encoded(picture(1), "JPEG"))
        with pytest.raises(UserError, match="holds something else"):
            export_bundle(tmp_path, make(), metrics={}, provenance={})
        assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]

    def test_replaces_an_earlier_bundle(self, tmp_path: Path) -> None:
        for run in ("one", "two"):
            export_bundle(tmp_path / "m", make(), metrics={}, provenance={"run": run})
        assert Bundle.load(str(tmp_path / "m")).manifest.provenance == {"run": "two"}


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        root = tmp_path / "photos"
        (root / "sub").mkdir(parents=True)
        (root / "b.png").write_bytes(encoded(picture(1)))
        (root / "a.jpg").write_bytes(encoded(picture(2), "JPEG"))
        (root / "sub" / "c.webp").write_bytes(encoded(picture(3), "WEBP"))
        (root / "broken.png").write_bytes(encoded(picture(4))[:60])
        (root / "notes.txt").write_text("not an image, and not named as one")
        return root

    def test_a_corrupt_file_costs_its_row_only(self, bundle: Bundle, folder: Path) -> None:
        frame = predict_files(bundle, [folder])
        assert list(frame.columns) == ["file", "label", "confidence", "p(ash)", "p(birch)", "p(cedar)", "error"]
        assert [Path(file).name for file in frame["file"]] == ["a.jpg", "b.png", "broken.png", "c.webp"]
        bad = frame["error"].notna()
        assert list(bad) == [False, False, True, False]
        assert "broken.png" in frame.loc[2, "error"]
        assert frame.loc[bad, ["label", "confidence", "p(ash)"]].isna().all(axis=None)
        good = frame[~bad]
        np.testing.assert_allclose(good[["p(ash)", "p(birch)", "p(cedar)"]].sum(axis=1), 1, atol=1e-5)
        assert list(good["confidence"]) == list(good[["p(ash)", "p(birch)", "p(cedar)"]].max(axis=1))
        single = bundle.predict([folder / "b.png"])[0]
        assert frame.loc[1, "label"] == single.label
        assert frame.loc[1, "confidence"] == pytest.approx(single.confidence, abs=1e-6)

    def test_files_keep_their_order(self, bundle: Bundle, folder: Path) -> None:
        files = [folder / "sub" / "c.webp", folder / "a.jpg", folder / "sub" / "c.webp"]
        assert list(predict_files(bundle, files)["file"]) == [str(file) for file in files]

    def test_nothing_but_corrupt_files_is_a_table_too(self, bundle: Bundle, folder: Path) -> None:
        frame = predict_files(bundle, [folder / "broken.png", folder / "notes.txt"])
        assert frame["error"].notna().all()
        assert frame["label"].isna().all()

    def test_missing_or_empty_places_get_one_sentence(self, bundle: Bundle, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere: does not exist"):
            predict_files(bundle, [tmp_path / "nowhere"])
        with pytest.raises(UserError, match="has no image files"):
            predict_files(bundle, [tmp_path])
        with pytest.raises(UserError, match="no image was given"):
            predict_files(bundle, [])

    @pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
    def test_tables_read_back(self, bundle: Bundle, folder: Path, tmp_path: Path, suffix: str) -> None:
        frame = predict_files(bundle, [folder])
        out = write_predictions(frame, tmp_path / "new" / f"out{suffix}")
        back = pd.read_parquet(out) if suffix == ".parquet" else pd.read_csv(out)
        pd.testing.assert_frame_equal(back, frame, check_dtype=False, rtol=1e-6)

    def test_other_endings_are_refused(self, bundle: Bundle, folder: Path, tmp_path: Path) -> None:
        frame = predict_files(bundle, [folder / "a.jpg"])
        with pytest.raises(UserError, match=r"\.csv or \.parquet"):
            write_predictions(frame, tmp_path / "out.xlsx")
        with pytest.raises(UserError, match="cannot be written"):
            write_predictions(frame, folder / "a.jpg" / "out.csv")


def test_bundles_of_format_version_1_keep_loading() -> None:
    """``data/v1`` was written by the first version; see make_fixture.py."""
    bundle = Bundle.load(DATA / "v1")
    assert bundle.labels == ("circle", "square", "Dreieck ▲")
    assert bundle.manifest.temperature == 1.5
    expected = np.array(json.loads((DATA / "v1-expected.json").read_text()))
    np.testing.assert_allclose(bundle.probabilities(fixture_images()), expected, atol=1e-5)
    assert sources.load(f"file:{DATA / 'v1'}").feature_dim == 96
