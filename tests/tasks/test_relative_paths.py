from __future__ import annotations

import csv

from pictures import make_folder

from raytl.tasks.readers import read_labelled


def test_images_named_by_a_relative_path_are_found_from_another_working_directory(tmp_path, monkeypatch):
    make_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        rows = [("path", "label"), *((f"photos/{name}/{i}.png", name) for name in ("cat", "dog") for i in range(2))]
        csv.writer(file).writerows(rows)
    monkeypatch.chdir(tmp_path)
    found = [read_labelled("photos").images, read_labelled("./photos/").images, read_labelled("photos.csv").images]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [images.items[0].open().size for images in found] == [(40, 30)] * 3
    assert found[0].items[0].name == "photos/cat/0.png"
