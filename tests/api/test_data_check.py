"""``raytl.check``: likely wrong labels among the findings, and the page of these."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytl.api.data_check import check, likely_wrong
from raytl.core.errors import UserError
from raytl.tasks import LabelledImages, Severity
from raytl.tasks.items import PixelsItem
from tests.evaluation.test_wrong_labels import digits
from tests.tasks.pictures import make_folder


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
