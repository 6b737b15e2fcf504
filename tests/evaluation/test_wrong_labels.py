"""Labels that are likely wrong are found, and right ones are left alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raytl.core.errors import UserError
from raytl.evaluation.data_check import check, likely_wrong
from raytl.evaluation.wrong_labels import suspects
from raytl.tasks import LabelledImages, Severity
from raytl.tasks.items import PixelsItem
from tests.tasks.pictures import make_folder


def digits(n: int, wrong: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels, and which labels were changed."""
    rng = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    chosen = rng.permutation(len(labels))[:n]
    changed = rng.random(n) < wrong
    given = np.where(changed, (labels[chosen] + rng.integers(1, 10, n)) % 10, labels[chosen])
    return pixels[chosen], given, changed


class TestSuspects:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_finds_most_changed_labels_and_hardly_others(self, seed: int) -> None:
        pixels, given, changed = digits(600, 0.05, seed)
        found = [suspect.index for suspect in suspects(pixels, given, 10)]
        right = sum(changed[index] for index in found)
        assert right >= 0.4 * changed.sum()
        assert len(found) - right <= 1

    def test_says_what_fits_better(self) -> None:
        pixels, given, changed = digits(600, 0.05)
        true = digits(600, 0.0)[1]
        found = [suspect for suspect in suspects(pixels, given, 10) if changed[suspect.index]]
        assert [suspect.label for suspect in found] == [true[suspect.index] for suspect in found]
        assert all(suspect.probability >= 100 * suspect.given for suspect in found)

    def test_leaves_right_labels_alone(self) -> None:
        pixels, given, _ = digits(600, 0.0)
        assert suspects(pixels, given, 10) == []

    @pytest.mark.parametrize("apart", [0.5, 1.0, 2.0])
    def test_leaves_hard_data_alone(self, apart: float) -> None:
        rng = np.random.default_rng(3)
        labels = rng.integers(0, 3, 300)
        features = apart * rng.normal(size=(3, 10))[labels] + rng.normal(size=(300, 10))
        assert len(suspects(features, labels, 3)) <= 1

    def test_has_nothing_to_say_of_noise_or_of_few_images(self) -> None:
        rng = np.random.default_rng(0)
        assert suspects(rng.normal(size=(200, 20)), rng.integers(0, 4, 200), 4) == []
        pixels, given, _ = digits(40, 0.2)
        assert suspects(pixels, given, 10) == []

    @pytest.mark.filterwarnings("error")
    def test_a_class_of_one_image_is_no_cause_for_a_warning(self) -> None:
        """Nothing learned without its image knows the class."""
        pixels, labels = load_digits(return_X_y=True)
        chosen = np.concatenate([np.flatnonzero(labels < 2)[:60], np.flatnonzero(labels == 2)[:1]])
        assert suspects(pixels[chosen], labels[chosen], 3) == []

    def test_copies_do_not_vouch_for_each_other(self) -> None:
        pixels, given, changed = digits(600, 0.05)
        wrong = [suspect.index for suspect in suspects(pixels, given, 10) if changed[suspect.index]][:3]
        copied = np.concatenate([pixels, np.repeat(pixels[wrong], 6, axis=0)])
        labels = np.concatenate([given, np.repeat(given[wrong], 6)])
        groups = np.concatenate([np.arange(600), np.repeat(wrong, 6)])
        assert not set(wrong) & {suspect.index for suspect in suspects(copied, labels, 10)}
        assert set(wrong) <= {suspect.index for suspect in suspects(copied, labels, 10, groups)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits, of which about 15 lie in the wrong folder; a copy under two labels; damaged files; odd names."""
    root = tmp_path_factory.mktemp("check") / "digits"
    pixels, given, changed = digits(300, 0.05)
    for n, (row, label) in enumerate(zip(pixels, given, strict=True)):
        place = root / (f"{label}<b>" if label == 3 else str(label))
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((row.reshape(8, 8) * 15.9).astype(np.uint8))
        image.resize((32, 32)).save(place / f"{n}{'-wrong' if changed[n] else ''}.png")
    shutil.copy(next((root / "1").glob("*.png")), root / "2" / "copy.png")
    (root / "0" / "broken.jpg").write_bytes(b"")
    return root


class TestCheck:
    def test_names_likely_wrong_labels_with_a_count_and_three_examples(self, folder: Path) -> None:
        report = check(folder)
        assert report.suspects
        assert report.ok
        named = {Path(suspect.name).stem for suspect in report.suspects}
        assert sum("wrong" in name or name == "copy" for name in named) >= 0.9 * len(named)
        told = [problem for problem in report.problems if "likely wrong" in problem.message]
        assert [problem.severity for problem in told] == [Severity.WARNING]
        assert told[0].message.startswith(f"{len(named)} labels are likely wrong (")
        assert told[0].message.count("more like") == 3
        assert json.loads(json.dumps(report.to_json()))["suspects"][0].keys() == {
            "name",
            "label",
            "fits",
            "probability",
        }

    def test_draws_its_findings_on_one_page_that_needs_nothing_else(self, folder: Path, tmp_path: Path) -> None:
        report = check(folder, html=tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert set(re.findall(r'(?:src|href)="([^:"]*:)', page)) == {"data:"}
        assert page.count("src=") == page.count('src="data:image/')
        assert "3<b>" not in page
        assert "3&lt;b&gt;" in page
        pictures = re.findall(r"<img ([^>]*)>", page)
        assert len(pictures) >= 10 * 6 + len(report.suspects or [])
        assert all(re.search(r'alt="[^"]+"', picture) and "base64," in picture for picture in pictures)
        for title in ("likely wrong", "One picture, two labels", "Files that cannot be read", "Classes"):
            assert title in page
        assert "0/broken.jpg" in page
        assert "prefers-color-scheme: dark" in page

    def test_a_page_that_cannot_be_written_is_one_sentence(self, tmp_path: Path) -> None:
        root = make_folder(tmp_path, {"cat": 2, "dog": 2})
        with pytest.raises(UserError, match=r"nowhere/page.html: cannot be written .*; give another file"):
            check(root, html=tmp_path / "nowhere" / "page.html")

    def test_pictures_without_labels_and_strips_have_a_page(self, tmp_path: Path) -> None:
        root = make_folder(tmp_path / "flat", {".": 3})
        Image.new("RGB", (1, 4000)).save(root / "strip.png")
        assert check(root, html=tmp_path / "page.html").suspects is None
        assert (tmp_path / "page.html").read_text().count("<img ") == 4


def test_of_many_images_a_share_of_each_class_is_looked_at() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 60, (2500, 8, 8), dtype=np.uint8)
    labels = np.arange(2500) % 2
    values[labels == 1, :, :4] += 150
    labels[:5] = 1 - labels[:5]
    items = [PixelsItem(str(n), value) for n, value in enumerate(values)]
    found = likely_wrong(LabelledImages("many", items, None, ("a", "b"), labels))
    assert found
    assert {int(suspect.name) for suspect in found} <= set(range(5))
