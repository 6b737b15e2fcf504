"""Tables and folders that both say something, paths written in other ways, columns that may be labels or groups."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks import Task, read_labelled, read_unlabelled
from raytl.tasks.decoding import decode
from raytl.tasks.readers import list_path, resolving
from raytl.tasks.readers.resolving import _closest
from tests.tasks.pictures import encoded, make_folder, picture
from tests.tasks.test_layouts import HALF, TWO, Row, in_folders
from tests.tasks.test_silent_misreadings import EIGHT

Make = Callable[[Path], Path]


def table(path: Path, columns: str, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def within(make: Make) -> Make:
    """In a folder of its own, as archives of a folder are unpacked."""

    def made(root: Path) -> Path:
        make(root / "my")
        (root / "README.md").write_text("what it is")
        return root

    return made


def coco(root: Path) -> Path:
    make_folder(root, {"images": 8})
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(8)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"image_id": n, "category_id": n % 2} for n in range(8)],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "all.json").write_text(json.dumps(content))
    return root


def tables_of_splits(root: Path) -> Path:
    make_folder(root, TWO)
    table(root / "train.csv", "path,label", *(f"{label}/{n}.png,{label}" for label in TWO for n in range(3)))
    table(root / "test.csv", "path,label", *(f"{label}/3.png,{label}" for label in TWO))
    return root


def one_hot_in_splits(root: Path) -> Path:
    for split, count in (("train", 8), ("test", 4)):
        make_folder(root, {split: count}, first=len(split))
        table(
            root / split / "_classes.csv", "filename,cat,dog", *(f"{n}.png,{1 - n % 2},{n % 2}" for n in range(count))
        )
    return root


def one_table_of_splits(root: Path) -> Path:
    make_folder(root, {"train": 8, "test": 4})
    rows = [f"{split}/{n}.png,{EIGHT[n]}" for split, count in (("train", 8), ("test", 4)) for n in range(count)]
    table(root / "labels.csv", "path,label", *rows)
    return root


def cvat_of_subsets(root: Path) -> Path:
    make_folder(root, {"images": 12})
    tagged = (
        f'<image name="images/{n}.png" subset="{"Test" if n > 7 else "Train"}"><tag label="{EIGHT[n % 8]}"/></image>'
        for n in range(12)
    )
    (root / "annotations.xml").write_text(f"<annotations>{''.join(tagged)}</annotations>")
    return root


def annotators(truth: bool) -> Make:
    """Two of Label Studio's disagree over the first image."""

    def make(root: Path) -> Path:
        make_folder(root, {".": 8})
        chosen = [[EIGHT[n]] if n else ["dog", "cat"] for n in range(8)]
        tasks = [
            {
                "data": {"image": f"{n}.png"},
                "annotations": [
                    {"ground_truth": truth and not k, "result": [{"value": {"choices": [choice]}}]}
                    for k, choice in enumerate(choices)
                ],
            }
            for n, choices in enumerate(chosen)
        ]
        (root / "project.json").write_text(json.dumps(tasks))
        return root

    return make


def of_two_cases(root: Path) -> Path:
    make_folder(root, {"img": 8})
    for n in range(0, 8, 2):
        (root / "img" / f"{n}.png").rename(root / "img" / f"{n}.PNG")
    table(root / "labels.csv", "path,label", *(f"./img/{n}.png,{EIGHT[n]}" for n in range(8)))
    return root


def in_two_folders(pattern: str) -> Make:
    """The folders have names of cameras, and the table says what is on the images."""

    def make(root: Path) -> Path:
        make_folder(root, {"left": 4, "right": 4})
        rows = [f"{pattern.format(root=root)}{('left', 'right')[n // 4]}/{n % 4}.png,{EIGHT[n]}" for n in range(8)]
        table(root / "labels.csv", "path,label", *rows)
        return root

    return make


READ = {
    "COCO in a folder": Row(within(coco), HALF, 0, ["its images lie in ", "labels are taken from its table all.json"]),
    "tables of splits in a folder": Row(
        within(tables_of_splits), {"cat": 3, "dog": 3}, 2, ["test (2 images) the test"]
    ),
    "a table for each split in a folder": Row(within(one_hot_in_splits), HALF, 4, ["test (4 images) the test"]),
    "a folder within a folder": Row(within(within(coco)), HALF, 0, ["labels are taken from its table all.json"]),
    "one table of files in folders of splits": Row(one_table_of_splits, HALF, 4, ["test (4 images) the test"]),
    "subsets of CVAT": Row(cvat_of_subsets, HALF, 4, ["test (4 images) the test"]),
    "two annotators": Row(
        annotators(False), HALF, 0, ["1 image has annotations that disagree (first: 0.png: 'dog', 'cat'); the last is"]
    ),
    "two annotators, one of whom is right": Row(annotators(True), {"cat": 3, "dog": 5}),
    "files of two cases": Row(of_two_cases, HALF, 0, ["'./img/0.png' in column 'path' is img/0.PNG"]),
}


@pytest.mark.parametrize("name", READ)
def test_what_both_say_is_read(name: str, tmp_path: Path) -> None:
    row = READ[name]
    path = row.make(tmp_path / "set")
    result = read_labelled(path)
    assert result.images.counts() == row.counts
    leading = [problem.message for problem in result.problems if problem.leading]
    for part in row.says:
        assert any(part in message for message in leading), leading
    tested = read_labelled(path, role="test").images if row.test else []
    assert len(tested) == row.test


@pytest.mark.parametrize("pattern", ["", "./", "{root}/", "{root}/left/../"])
def test_a_table_is_heard_however_it_writes_its_paths(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = in_two_folders(pattern)(tmp_path / "set")
    (tmp_path / "link").symlink_to(root)
    for path in (root, tmp_path / "link", "set", "./set/../set"):
        with pytest.raises(UserError, match=r"its folders and its table labels\.csv give the images different labels"):
            read_labelled(path)


def test_a_table_of_other_files_is_named_and_not_used(tmp_path: Path) -> None:
    make_folder(tmp_path / "set", TWO)
    make_folder(tmp_path / "other", {"img": 8})
    table(tmp_path / "set" / "old.csv", "path,label", *(f"../other/img/{n}.png,{EIGHT[n]}" for n in range(8)))
    said = [problem.message for problem in read_labelled(tmp_path / "set").problems if problem.leading]
    (sentence,) = said
    assert sentence.startswith("labels are taken from its folders; its table old.csv is not used: most files that it")


def test_rows_without_labels_are_the_unlabelled_images(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 30})
    rows = [f"img/{n}.png,{EIGHT[n % 8] if n < 10 else ''}" for n in range(30)]
    path = table(tmp_path / "labels.csv", "path,label", *rows)
    assert len(read_unlabelled(path).images) == 30
    task = Task(path, unlabelled=path)
    assert task.data.target is not None and len(task.data.target) == 10
    assert task.data.unlabelled is not None and len(task.data.unlabelled) == 20


def test_boxes_of_several_things_are_no_reason_to_refuse_images_without_labels(tmp_path: Path) -> None:
    root = coco(tmp_path / "set")
    path = root / "annotations" / "all.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 0, "category_id": 1})
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"0\.png has 'cat' and 'dog'"):
        read_labelled(path, images=root / "images")
    assert len(read_unlabelled(path, images=root / "images").images) == 8


@pytest.mark.parametrize("further", ["", "camera"])
def test_a_column_that_may_hold_the_labels_or_the_groups_is_asked_about(further: str, tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 24})
    kinds = ("cat", "dog", "cow", "owl")
    rows = [f"img/{n}.png,{kinds[n % 4]}" + f",c{n % 3}" * bool(further) for n in range(24)]
    path = table(tmp_path / "t.csv", "path,animal" + f",{further}" * bool(further), *rows)
    with pytest.raises(UserError, match="column 'animal' may hold the labels, or say what images belong together; if"):
        Task(path)
    read = read_labelled(path, label="animal").images
    assert read.counts() == dict.fromkeys(sorted(kinds), 6) and read.groups is None


def test_numbers_of_patients_are_groups_without_a_question(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 24})
    rows = [f"img/{n}.png,{n % 4 + 100},{('ill', 'well')[n % 2]}" for n in range(24)]
    read = read_labelled(table(tmp_path / "t.csv", "path,patient,finding", *rows)).images
    assert read.counts() == {"ill": 12, "well": 12} and len(set(read.groups)) == 4


def test_a_place_in_the_image_is_no_label(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 8})
    rows = [f"img/{n}.png,{n},{90 - n},{EIGHT[n]}" for n in range(8)]
    assert read_labelled(table(tmp_path / "t.csv", "path,x,y,species", *rows)).images.counts() == HALF
    rows = [f"img/{n}.png,{EIGHT[n]}" for n in range(8)]
    assert read_labelled(table(tmp_path / "t.csv", "path,y", *rows)).images.counts() == HALF


def test_small_images_in_cells_are_images(tmp_path: Path) -> None:
    cells = [base64.b64encode(encoded(picture(n))).decode() for n in range(8)]
    assert max(map(len, cells)) < 4096  # as long as a path may be
    path = table(tmp_path / "t.csv", "image,label", *(f"{cell},{EIGHT[n]}" for n, cell in enumerate(cells)))
    assert read_labelled(path).images.counts() == HALF


def test_files_that_are_not_there_are_named_shortly(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "image,label", *(f"{'x' * 3000}{n}.png,{EIGHT[n]}" for n in range(8)))
    with pytest.raises(UserError, match="none of the 8 files in column 'image' is there") as said:
        read_labelled(path)
    assert len(str(said.value)) < 600


@pytest.mark.parametrize("content", ['{"images": 500, "labels": 12}', '{"labels": true}', '{"labels": {"a": 1}}'])
def test_figures_beside_the_images_are_no_table(content: str, tmp_path: Path) -> None:
    make_folder(tmp_path, TWO)
    (tmp_path / "stats.json").write_text(content)
    assert read_labelled(tmp_path).images.counts() == HALF


@pytest.mark.parametrize(
    ("low", "high", "becomes"),
    [
        (0.0, 1.0, (0, 255)),
        (-0.01, 1.003, (0, 255)),  # resampled
        (0.1, 1.2, (26, 255)),  # of a surface that shines
        (-0.8, 0.9, (26, 242)),  # an index of vegetation
        (-2.0, 3.0, (64, 223)),  # less the mean, over the deviation
        (-7.0, 9.0, (0, 255)),
        (0.0, 10.5, (0, 167)),  # logarithms of counts
        (0.0, 200.5, (0, 200)),
    ],
)
def test_fractions_of_any_usual_range_are_seen(low: float, high: float, becomes: tuple[int, int]) -> None:
    pixels = np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8)
    seen = np.asarray(decode(encoded(Image.fromarray(pixels), "TIFF"), "float"), dtype=int)
    assert (seen.min(), seen.max()) == pytest.approx(becomes, abs=1)


def test_whole_numbers_in_floating_point_are_as_dark_as_they_are() -> None:
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.asarray(decode(encoded(Image.fromarray(pixels), "TIFF"), "float")).max() == 11


def test_images_of_fractions_are_told(tmp_path: Path) -> None:
    for number, label in enumerate(EIGHT):
        (tmp_path / label).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).random((12, 12), dtype=np.float32)
        Image.fromarray(pixels).save(tmp_path / label / f"{number}.tif")
    said = [problem.message for problem in Task(tmp_path).problems]
    assert sum(message.startswith("8 images hold floating-point values") for message in said) == 1


def test_masks_are_no_images_without_labels_and_no_second_class(tmp_path: Path) -> None:
    path = in_folders({"images": 6, "masks": 6})(tmp_path / "set")
    read = read_unlabelled(path)
    assert len(read.images) == 6
    said = "6 files in masks are named like the images beside them and taken for masks; left out"
    assert [problem.message for problem in read.problems if problem.leading] == [said]
    with pytest.raises(UserError, match="only one class, 'images'"):
        Task(path)


def test_a_table_beside_class_folders_says_groups_and_splits(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    names = [f"{label}/{n}.png" for label in TWO for n in range(8)]
    rows = [f"{name},{name[:3]},{('train', 'test')[n % 8 > 5]},s{n % 8 // 2}{name[0]}" for n, name in enumerate(names)]
    table(tmp_path / "metadata.csv", "path,label,split,subject", *rows)
    read, test = read_labelled(tmp_path), read_labelled(tmp_path, role="test")
    assert read.images.counts() == {"cat": 6, "dog": 6} and len(test.images) == 4
    assert read.images.groups is not None and len(set(read.images.groups)) == 6
    said = [problem.message for problem in read.problems if problem.leading]
    assert "labels are taken from its folders, and groups or splits from its table metadata.csv" in said


def test_a_table_without_labels_beside_class_folders_says_groups(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    rows = [f"{label}/{n}.png,L{n // 2}{label[0]}" for label in TWO for n in range(8)]
    table(tmp_path / "lesions.csv", "path,lesion_id", *rows)
    groups = read_labelled(tmp_path).images.groups
    assert groups is not None and len(set(groups)) == 8


def coco_of_splits(root: Path, both: bool) -> Path:
    for split, count in (("train", 8), ("valid", 4)):
        make_folder(root, {split: count}, first=len(split))
        annotations = [{"image_id": n, "category_id": n % 2} for n in range(count)]
        annotations += [{"image_id": 0, "category_id": 1}] if both and split == "train" else []
        content = {
            "images": [{"id": n, "file_name": f"{n}.png"} for n in range(count)],
            "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
            "annotations": annotations,
        }
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def test_where_the_training_labels_cannot_be_read_nothing_else_is_learned_from(tmp_path: Path) -> None:
    assert read_labelled(coco_of_splits(tmp_path / "well", both=False)).images.counts() == {"cat": 6, "dog": 6}
    with pytest.raises(UserError, match=r"train/_annotations\.coco\.json: .*0\.png has 'cat' and 'dog'"):
        read_labelled(coco_of_splits(tmp_path / "ill", both=True))
    root = make_folder(tmp_path / "tables", {"img": 8})
    table(root / "train.csv", "path,label", *(f"img/{n}.png,{EIGHT[n]}" for n in range(6)), "img/0.png,cat,and,more")
    table(root / "test.csv", "path,label", *(f"img/{n}.png,{EIGHT[n]}" for n in range(6, 8)))
    with pytest.raises(UserError, match=r"train\.csv: .*line 8"):
        read_labelled(root)


def test_a_table_of_all_images_beside_those_of_the_splits_unseals_nothing(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 12})
    rows = [f"img/{n}.png,{EIGHT[n % 8]}" for n in range(12)]
    for name, part in (("labels", rows), ("train", rows[:8]), ("test", rows[8:])):
        table(tmp_path / f"{name}.csv", "path,label", *part)
    assert read_labelled(tmp_path).images.counts() == HALF and len(read_labelled(tmp_path, role="test").images) == 4


def test_slides_of_many_images_each_are_groups(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 220})
    rows = [f"img/{n}.png,{EIGHT[n % 8]},S{n % 4}" for n in range(220)]
    groups = read_labelled(table(tmp_path / "t.csv", "path,label,SlideID", *rows)).images.groups
    assert groups is not None and len(set(groups)) == 4


@pytest.mark.parametrize("column", ["fold", "partition", "subset"])
def test_numbers_of_splits_are_no_labels(column: str, tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 8})
    path = table(tmp_path / "t.csv", f"path,{column}", *(f"img/{n}.png,{n % 3}" for n in range(8)))
    with pytest.raises(UserError, match="no labels for --target"):
        Task(path)


def test_images_in_a_folder_of_each_split_beside_its_table(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("test", 4)):
        make_folder(tmp_path, {f"{split}/images": count}, first=len(split))
        table(tmp_path / split / "labels.csv", "file,label", *(f"images/{n}.png,{EIGHT[n]}" for n in range(count)))
    assert read_labelled(tmp_path).images.counts() == HALF and len(read_labelled(tmp_path, role="test").images) == 4


@pytest.mark.parametrize("folders", [("train", "test1"), ("train/train", "test/test")])
def test_splits_as_competitions_write_them_are_no_classes(folders: tuple[str, str], tmp_path: Path) -> None:
    make_folder(tmp_path, dict(zip(folders, (12, 4), strict=True)))
    for number, path in enumerate(sorted((tmp_path / folders[0]).glob("*.png"))):
        path.rename(path.with_name(f"{('cat', 'dog')[number % 2]}.{number}.png"))
    with pytest.raises(UserError, match=r"begin with 'cat', 'dog'; if these are the labels pass --label filename"):
        Task(tmp_path)
    assert read_labelled(tmp_path, label="filename").images.counts() == {"cat": 6, "dog": 6}


def test_a_stray_image_beside_the_classes_of_a_split_unseals_nothing(tmp_path: Path) -> None:
    make_folder(tmp_path, {f"{split}/{label}": 12 for split in ("train", "test") for label in TWO})
    picture(77).save(tmp_path / "test" / "preview.png")
    assert read_labelled(tmp_path).images.counts() == {"cat": 12, "dog": 12}
    assert len(read_labelled(tmp_path, role="test").images) == 24


def test_a_stray_image_beside_folders_further_down(tmp_path: Path) -> None:
    make_folder(tmp_path, {f"flowers/{label}": 12 for label in TWO})
    picture(77).save(tmp_path / "flowers" / "logo.png")
    assert read_labelled(tmp_path).images.counts() == {"cat": 12, "dog": 12}


def test_lists_of_splits_are_no_labels(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 8})
    names = [f"img/{n}.png" for n in range(8)]
    (tmp_path / "splits.json").write_text(json.dumps({"train": names[:4], "test": names[4:]}))
    with pytest.raises(UserError, match=r"splits\.json: it lists the images of splits, which is not read"):
        Task(tmp_path)


@pytest.mark.parametrize("names", [("clipart_train.txt", "clipart_test.txt"), ("train.csv", "test.csv")])
def test_lists_of_splits_that_are_not_read_are_told_of(names: tuple[str, str], tmp_path: Path) -> None:
    make_folder(tmp_path, TWO)
    for name in names:
        (tmp_path / name).write_text("path\ncat/0.png\n")
    said = [problem.message for problem in read_labelled(tmp_path).problems if problem.leading]
    assert any("may say which images are for training or the test, and are not read" in message for message in said)


def test_paths_that_begin_with_a_folder_which_is_not_here_need_no_search_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of thousands of files of one name, as the views of patients, are not each compared with all others."""
    asked: list[object] = []

    def counted(parts: Sequence[str], candidates: Sequence[str]) -> list[str]:
        asked.append(parts)
        return _closest(parts, candidates)

    monkeypatch.setattr(resolving, "_closest", counted)
    content = encoded(picture(0))
    for n in range(40):
        (tmp_path / f"train/p{n}").mkdir(parents=True)
        (tmp_path / f"train/p{n}/view.png").write_bytes(content)
    rows = [f"CheXpert/train/p{n}/view.png,{EIGHT[n % 8]}" for n in range(40)]
    listing = list_path(table(tmp_path / "train.csv", "Path,label", *rows))
    assert [entry.item.path for entry in listing.entries] == [str(tmp_path / f"train/p{n}/view.png") for n in range(40)]
    assert not asked


def test_three_kinds_of_pictures_are_classes_though_one_is_of_masks(tmp_path: Path) -> None:
    path = in_folders({"photo": 4, "mask": 4, "sketch": 4})(tmp_path / "set")
    assert read_labelled(path).images.counts() == {"mask": 4, "photo": 4, "sketch": 4}
    pair = in_folders({"images": 4, "masks": 4})(tmp_path / "pair")
    assert read_labelled(pair, split="none").images.counts() == {"images": 4, "masks": 4}


def test_a_bare_name_means_the_image_and_not_its_mask(tmp_path: Path) -> None:
    root = in_folders({"images": 8, "masks": 8})(tmp_path / "set")
    path = table(root / "labels.csv", "path,label", *(f"{n}.png,{EIGHT[n]}" for n in range(8)))
    for given in (root, path):
        read = read_labelled(given).images
        assert read.counts() == HALF and all("/images/" in item.name for item in read.items)


def test_a_file_about_each_image_makes_no_folder_of_its_class(tmp_path: Path) -> None:
    make_folder(tmp_path, {"defect": 4})
    for n in range(4):
        (tmp_path / "defect" / f"{n}.json").write_text("{}")
    assert read_labelled(tmp_path, role="test").images.counts() == {"defect": 4}


def test_lists_around_the_folder_of_the_data_are_told_of(tmp_path: Path) -> None:
    coco(tmp_path / "my")
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text("images/0.png\n")
    said = [problem.message for problem in read_labelled(tmp_path).problems if problem.leading]
    assert any(message.startswith("test.txt, train.txt may say which images") for message in said), said


def test_a_file_in_two_splits_takes_none_of_the_splits_away(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 12})
    rows = [f"img/{n}.png,{EIGHT[n % 8]}" for n in range(12)]
    table(tmp_path / "train.csv", "path,label", *rows[:8])
    table(tmp_path / "test.csv", "path,label", *rows[7:])
    assert len(read_labelled(tmp_path, role="test").images) == 5


def test_groups_that_are_the_classes_are_told_and_not_heard(tmp_path: Path) -> None:
    make_folder(tmp_path, {"control": 8, "treated": 8})
    rows = [f"{label}/{n}.png,{label}" for label in ("control", "treated") for n in range(8)]
    table(tmp_path / "meta.csv", "filename,group", *rows)
    read = read_labelled(tmp_path)
    assert read.images.groups is None and read.images.counts() == {"control": 8, "treated": 8}
    assert any("classes would have one group alone" in problem.message for problem in read.problems)


@pytest.mark.parametrize("named", ["test", "train"])
def test_images_that_a_table_of_splits_does_not_name_are_for_training(named: str, tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    rows = [f"{label}/{n}.png,{'test' if n > 5 else 'train'}" for label in TWO for n in range(8)]
    table(tmp_path / "t.csv", "path,split", *(row for row in rows if named == "train" or row.endswith(named)))
    read = read_labelled(tmp_path)
    if named == "train":
        assert read.images.counts() == {"cat": 6, "dog": 6}
    else:  # of whom nobody is for training
        assert read.images.counts() == {"cat": 8, "dog": 8}
        assert any("the splits that its table says are not heard" in problem.message for problem in read.problems)


def test_groups_of_the_table_of_all_images_hold_beside_those_of_the_splits(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 12})
    rows = [f"img/{n}.png,{EIGHT[n % 8]}" for n in range(12)]
    table(tmp_path / "metadata.csv", "path,label,patient_id", *(f"{row},p{n // 2}" for n, row in enumerate(rows)))
    table(tmp_path / "train.csv", "path,label", *rows[:8])
    table(tmp_path / "test.csv", "path,label", *rows[8:])
    read = read_labelled(tmp_path).images
    assert read.counts() == HALF and read.groups is not None and len(set(read.groups)) == 4


def test_codes_of_products_are_asked_about_and_words_of_phases_are_labels(tmp_path: Path) -> None:
    make_folder(tmp_path, {"img": 24})
    path = table(tmp_path / "t.csv", "path,product", *(f"img/{n}.png,P{n % 4}" for n in range(24)))
    with pytest.raises(
        UserError, match="by column 'product', and no other holds labels; if that one does pass --label"
    ):
        Task(path)
    path = table(tmp_path / "u.csv", "path,phase", *(f"img/{n}.png,{('G1', 'S', 'G2')[n % 3]}" for n in range(24)))
    assert read_labelled(path).images.counts() == {"G1": 8, "G2": 8, "S": 8}


def test_tables_that_are_heard_are_not_called_unread(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    rows = [f"{label}/{n}.png,{label},p{n // 2}{label[0]}" for label in TWO for n in range(8)]
    table(tmp_path / "train.csv", "path,label,patient_id", *rows)
    assert not any("not read" in problem.message for problem in read_labelled(tmp_path).problems)
    root = make_folder(tmp_path / "kaggle", {"train": 8, "test": 4})
    table(root / "train.csv", "path,label", *(f"train/{n}.png,{EIGHT[n]}" for n in range(8)))
    table(root / "test.csv", "path", *(f"test/{n}.png" for n in range(4)))
    assert not any("learned from" in problem.message for problem in read_labelled(root).problems)


def test_splits_of_other_names_and_images_without_a_label_are_not_learned_from(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    splits = {6: "holdout", 7: "test"}
    rows = [f"{label}/{n}.png,{label if n < 7 else ''},{splits.get(n, 'train')}" for label in TWO for n in range(8)]
    table(tmp_path / "t.csv", "path,label,split", *rows)
    assert read_labelled(tmp_path).images.counts() == {"cat": 6, "dog": 6}
    assert len(read_labelled(tmp_path, role="test").images) == 2


def test_one_class_of_a_single_patient_leaves_the_others_their_groups(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "cow": 2, "dog": 8})
    rows = [f"{label}/{n}.png,p{n // 2}{label}" for label in ("cat", "dog") for n in range(8)]
    table(tmp_path / "t.csv", "path,patient_id", *rows, "cow/0.png,only", "cow/1.png,only")
    groups = read_labelled(tmp_path).images.groups
    assert groups is not None and len(set(groups)) == 9


@pytest.mark.parametrize(("column", "values"), [("fold", ("fold1", "fold2")), ("dataset", ("ours",))])
def test_folds_and_names_of_data_sets_are_no_labels(column: str, values: tuple[str, ...], tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    rows = [f"{label}/{n}.png,{values[n % len(values)]}" for label in TWO for n in range(8)]
    path = table(tmp_path / "t.csv", f"path,{column}", *rows)
    assert read_labelled(tmp_path).images.counts() == {"cat": 8, "dog": 8}
    with pytest.raises(UserError, match="no labels for --target"):
        Task(path)


def test_of_the_test_any_split_that_its_table_says_is_heard(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 8, "dog": 8})
    rows = [f"{label}/{n}.png,{'test' if n > 3 else 'val'}" for label in TWO for n in range(8)]
    table(tmp_path / "t.csv", "path,split", *rows)
    assert len(read_labelled(tmp_path, role="test").images) == 8
    assert read_labelled(tmp_path, split="test").images.counts() == HALF


def test_a_file_that_is_no_table_takes_no_class_its_folder(tmp_path: Path) -> None:
    make_folder(tmp_path, {"defect": 4})
    for name, content in (("info.json", "{}"), ("camera.csv", "key,value\nexposure,0.003\n")):
        (tmp_path / "defect" / name).write_text(content)
    assert read_labelled(tmp_path, role="test").images.counts() == {"defect": 4}
    with pytest.raises(UserError, match=r"no labels for --target: if defect/info\.json holds them"):
        Task(tmp_path)
