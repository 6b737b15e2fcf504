"""What is sent along: raytl, small data under names that stay, and nothing that would not be found there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from raytl.api.submitting import pack, to_arguments
from raytl.core.errors import UserError
from raytl.jobs.packing import DATA, Parcel, _below
from raytl.search.space.files import parse_assignment


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (200, 10, 10)).save(path)
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/2.png", "b/1.png", ".git/objects.png"):
        picture(tmp_path / "photos" / name)
    return tmp_path / "photos"


def contents(parcel: Parcel, tmp_path: Path) -> list[str]:
    parcel.write(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        return [name for name in file.namelist() if name.startswith(f"{DATA}/")]


def test_a_folder_is_taken_without_hidden_files_and_keeps_its_name(photos, tmp_path):
    parcel = Parcel()
    assert parcel.add(Path("photos"), "--target") == "photos"
    assert contents(parcel, tmp_path) == [f"raytl-data/photos/{name}" for name in ("a/1.png", "a/2.png", "b/1.png")]


def test_two_folders_of_one_name_stay_apart_and_one_folder_is_taken_once(photos, tmp_path):
    picture(tmp_path / "more" / "photos" / "c" / "1.png")
    parcel = Parcel()
    assert [parcel.add(Path(place), "--target") for place in ("photos", "more/photos", "photos")] == [
        "photos", "photos-2", "photos",
    ]  # fmt: skip
    assert "raytl-data/photos-2/c/1.png" in contents(parcel, tmp_path)
    assert len(contents(parcel, tmp_path)) == 4


@pytest.mark.skipif(sys.platform == "darwin", reason="file systems there take no other names than UTF-8")
def test_a_name_that_is_not_utf8_is_said(photos, tmp_path):
    (photos / "a" / os.fsdecode(b"caf\xe9.png")).write_bytes((photos / "a" / "1.png").read_bytes())
    parcel = Parcel()
    parcel.add(Path("photos"), "--target")
    with pytest.raises(UserError, match=r"caf.*\.png: this name is not UTF-8, and cannot be sent") as error:
        parcel.write(tmp_path / "out.zip")
    str(error.value).encode()


def test_links_are_followed(photos, tmp_path):
    (tmp_path / "linked").symlink_to(photos, target_is_directory=True)
    parcel = Parcel()
    parcel.add(tmp_path / "linked", "--target")
    assert len(contents(parcel, tmp_path)) == 3


def test_links_in_a_circle_lead_nowhere(photos, monkeypatch):
    before = len(list(_below(photos)))
    (photos / "again").symlink_to(photos)
    (photos / "a" / "up").symlink_to("..")
    (photos / "b" / "all").symlink_to("/")
    assert len(list(_below(photos))) == before > 0
    (photos / "a" / "other").symlink_to("../b")  # each leads to the other, which is a folder like any
    (photos / "b" / "other").symlink_to("../a")
    assert before < len(list(_below(photos))) <= 3 * before
    monkeypatch.chdir(photos)
    assert len(list(_below(Path()))) == len(list(_below(photos)))


def test_too_much_is_refused_with_what_to_do(photos):
    with pytest.raises(UserError, match=r"--target photos: at most 0 MiB .* \(s3://bucket/photos\).*--on-cluster"):
        Parcel(limit_bytes=100).add(Path("photos"), "--target")


def test_the_same_contents_make_the_same_bytes(photos, tmp_path):
    archives = []
    for name in ("one.zip", "two.zip"):
        parcel = Parcel()
        parcel.add(Path("photos"), "--target")
        parcel.write(tmp_path / name)
        archives.append((tmp_path / name).read_bytes())
        (photos / "a" / "1.png").touch()
    assert archives[0] == archives[1]


def test_raytl_comes_along_whole_with_its_spaces(tmp_path):
    parcel = Parcel()
    parcel.write(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        file.extractall(tmp_path / "there")
    code = "from raytl.search.space.files import shipped_spaces as s; import raytl; print(raytl.__file__, *s())"
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, 'there'); {code}"],
                          cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
    assert "/there/raytl/" in done.stdout and "vision-small" in done.stdout


class TestOptions:
    def test_paths_become_places_and_uris_stay(self, photos):
        packed = pack(
            {"target": "photos", "source_domain": ["s3://bucket/catalogue"], "unlabelled": photos / "a", "trials": 3},
            Parcel(),
        )
        assert (packed["target"], packed["source_domain"], packed["trials"]) == ("photos", ["s3://bucket/catalogue"], 3)
        assert packed["unlabelled"] == "a"

    def test_what_is_not_there_is_said(self, photos):
        with pytest.raises(UserError, match=r"--unlabelled nowhere: no such file or folder.*--on-cluster"):
            pack({"unlabelled": "nowhere"}, Parcel())

    def test_a_table_takes_the_images_that_it_names_along_and_no_others(self, photos, tmp_path):
        Path("photos/labels.csv").write_text("file,label\na/1.png,x\nb/1.png,y\n")
        parcel = Parcel()
        assert pack({"target": "photos/labels.csv"}, parcel)["target"] == "photos/labels.csv"
        assert contents(parcel, tmp_path) == [
            f"raytl-data/photos/{name}" for name in ("a/1.png", "b/1.png", "labels.csv")
        ]

    def test_a_table_is_read_by_the_columns_that_are_named(self, photos, tmp_path):
        Path("photos/pairs.csv").write_text("front,back,kind,colour\na/1.png,a/2.png,x,red\nb/1.png,a/1.png,,blue\n")
        Path("photos/others.csv").write_text("file,label\nb/1.png,y\n")
        parcel = Parcel()
        columns = {"image_column": "front", "label": "kind"}
        places = {"target": "photos/pairs.csv", "source_domain": ["photos/others.csv"]}
        packed = pack({**places, "unlabelled": "photos/others.csv", **columns}, parcel)
        assert {name: packed[name] for name in columns} == columns and packed["target"] == "photos/pairs.csv"
        assert contents(parcel, tmp_path) == [
            f"raytl-data/photos/{name}" for name in ("a/1.png", "b/1.png", "others.csv", "pairs.csv")
        ]
        alone = Parcel()
        pack({"target": "photos/pairs.csv", **columns}, alone)
        assert contents(alone, tmp_path) == [f"raytl-data/photos/{name}" for name in ("a/1.png", "pairs.csv")]
        with pytest.raises(UserError, match="no column 'kind'"):
            pack({**places, "test": "photos/others.csv", "label": "kind", "image_column": "front"}, Parcel())

    def test_what_belongs_together_is_read_from_the_folder_on(self, photos, tmp_path):
        Path("photos/who.csv").write_text("file,label,by\na/1.png,x,ann\na/2.png,x,bo\nb/1.png,y,ann\n")
        packed = pack({"target": "photos/who.csv", "unlabelled": "photos", "group_by": "by"}, Parcel())
        told = to_arguments(packed)
        assert told[told.index("--group-by") + 1] == "by"
        with pytest.raises(UserError, match="no column 'bye' among"):
            pack({"target": "photos/who.csv", "group_by": "bye"}, Parcel())
        with pytest.raises(UserError, match="not a regular expression"):
            pack({"target": "photos", "group_by": "(by"}, Parcel(), on_cluster=True)

    def test_a_table_with_an_images_folder(self, photos, tmp_path):
        Path("tables").mkdir()
        Path("tables/labels.csv").write_text("file,label\na/1.png,x\nb/1.png,y\n")
        parcel = Parcel()
        packed = pack({"target": "tables/labels.csv", "images": "photos"}, parcel)
        assert (packed["target"], packed["images"]) == ("tables/labels.csv", "photos")
        assert {"raytl-data/tables/labels.csv", "raytl-data/photos/b/1.png"} <= set(contents(parcel, tmp_path))

    def test_a_table_that_names_files_elsewhere_cannot_be_sent(self, photos, tmp_path):
        Path("tables").mkdir()
        Path("tables/labels.csv").write_text(f"file,label\n{photos}/a/1.png,x\n{photos}/b/1.png,y\n")
        with pytest.raises(
            UserError, match=r"--target tables/labels.csv names .*/a/1.png, which lies outside of tables/"
        ):
            pack({"target": "tables/labels.csv"}, Parcel())

    def test_a_space_and_the_models_that_it_names(self, photos, tmp_path):
        Path("my-model").mkdir()
        Path("my-model/model.json").write_text("{}")
        Path("mine.yaml").write_text("space:\n  source_model: [file:my-model, torchvision:resnet18]\n")
        parcel = Parcel()
        packed = pack({"space": "mine.yaml", "set_": ["source_model=file:my-model", "cut=0"]}, parcel)
        assert packed["space"] == "mine.yaml" and packed["set_"] == ["source_model=file:raytl-data/my-model", "cut=0"]
        assert {"raytl-data/mine.yaml", "raytl-data/my-model/model.json"} <= set(contents(parcel, tmp_path))

    @pytest.mark.parametrize(
        ("uri", "sent"),
        [
            (
                "file:my models/w, 2.pth?arch=torchvision:resnet18@none",
                "file:{0}my-models/w, 2.pth?arch=torchvision:resnet18@none",
            ),
            ("file:my models/w@2 [b].pth?arch=timm:x@160px", "file:{0}my-models/w@2 [b].pth?arch=timm:x@160px"),
            ("hf:tower", "hf:{0}tower"),
            ("hf:tower@none@64px", "hf:{0}tower@none@64px"),
            ("file:my models/w@2 [b].pth?arch=timm:x@3x96px", "file:{0}my-models/w@2 [b].pth?arch=timm:x@3x96px"),
            ("hf:tower@64px-squash", "hf:{0}tower@64px-squash"),
            ("pretrain:catalogue/hf:tower", "pretrain:catalogue/hf:{0}tower"),
            ("hf:facebook/dinov2-small", "hf:facebook/dinov2-small"),
            ("file:/on/the/cluster", "file:/on/the/cluster"),
        ],
    )
    def test_source_models_are_sent_whatever_they_are_called(self, photos, uri, sent):
        for place in ("my models/w, 2.pth", "my models/w@2 [b].pth", "tower/config.json"):
            Path(place).parent.mkdir(exist_ok=True)
            Path(place).write_text("{}")
        Path("mine.yaml").write_text(
            f"space: {{source_model: scratch:cnn-small}}\nfirst: [{{source_model: '{uri}'}}]\n"
        )
        parcel, expected = Parcel(), sent.format("raytl-data/")
        packed = pack({"space": "mine.yaml", "set_": [f"source_model=['{uri}', scratch:cnn-small]"]}, parcel)
        assert parse_assignment(packed["set_"][0]) == (("source_model",), [expected, "scratch:cnn-small"])
        text = parcel._files["mine.yaml"].decode()
        assert yaml.safe_load(text)["first"] == [{"source_model": expected}]

    def test_a_source_model_that_is_not_there_is_not_sent(self, photos):
        with pytest.raises(UserError, match="--set file:gone/model: no such file or folder"):
            pack({"set_": ["source_model=file:gone/model"]}, Parcel())

    def test_a_shipped_space_is_not_sent(self, photos, tmp_path):
        parcel = Parcel()
        assert pack({"space": "vision-small"}, parcel)["space"] == "vision-small"
        assert contents(parcel, tmp_path) == []

    def test_paths_of_the_cluster_stay_and_a_space_goes_along(self, photos, tmp_path):
        Path("mine.yaml").write_text("space:\n  source_model: [scratch:cnn-small]\n")
        parcel = Parcel()
        given = {"target": "/mnt/photos", "unlabelled": "s3://bucket/more", "space": "mine.yaml"}
        assert pack(given, parcel, on_cluster=True) == given | {"set_": []}
        assert contents(parcel, tmp_path) == ["raytl-data/mine.yaml"]
        with pytest.raises(UserError, match="--target photos: with --on-cluster give the full path"):
            pack({"target": "photos"}, parcel, on_cluster=True)

    def test_arguments(self):
        given = {"target": "photos", "source_domain": ["a", "b"], "set_": ["cut=0"], "warm_start": False,
                 "cost_aware": True, "verbose": False, "gpus_per_trial": 0.5, "test": None,
                 "log": ["mlflow", "tensorboard"]}  # fmt: skip
        assert to_arguments(given) == [
            *("search", "--target", "photos", "--source-domain", "a", "--source-domain", "b", "--set", "cut=0"),
            *("--no-warm-start", "--cost-aware", "--gpus-per-trial", "0.5", "--log", "mlflow", "--log", "tensorboard"),
        ]
