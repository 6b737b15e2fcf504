"""Saved models: whole or not at all, and nothing but one sentence from a damaged one."""

from __future__ import annotations

import json
import math
import re
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from raytl import sources
from raytl.core.errors import UserError
from raytl.core.hashing import hash_file, hash_tensors
from raytl.sources.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from raytl.sources.heads import HEADS, StagesHead
from raytl.sources.model import SourceModel
from raytl.sources.staging import fit

LABELS = ("cat", "dog", "zebra ß 斑馬")


def model(seed: int = 0) -> SourceModel:
    made = sources.build_architecture("scratch:cnn-small", num_classes=3, channels=1, image_size=20, seed=seed)
    made.labels = LABELS
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, not to be changed."""
    path = tmp_path_factory.mktemp("saved") / "model"
    write_checkpoint(path, model(), {"metrics": {"accuracy": 0.9}, "provenance": {"run": "r"}})
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A saved model to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = path / "model.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text.strip()
    return text


class TestRoundTrip:
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize(
        "uri",
        ["scratch:cnn-small", "scratch:resnet-small", "torchvision:shufflenet_v2_x0_5@none", "timm:resnet10t@none"],
    )
    def test_gives_the_same_outputs_bit_for_bit(self, uri: str, head: str, tmp_path: Path) -> None:
        made = sources.load(uri, channels=3, image_size=32, seed=4)
        made.replace_head(3, LABELS, head)
        images = torch.randn(3, 3, 32, 32)
        for _ in range(2):
            made.train()(images)  # move the batch-norm statistics
        write_checkpoint(tmp_path / "m", made, {})
        manifest, read = load_checkpoint(tmp_path / "m")
        assert hash_tensors(read.state_dict()) == hash_tensors(made.state_dict())
        with torch.inference_mode():
            assert torch.equal(read(images), made.eval()(images))
        assert read.stage_names == made.stage_names
        assert read.preprocessing == made.preprocessing
        assert read.labels == manifest.labels == LABELS
        assert not read.training

    @pytest.mark.parametrize("uri", ["torchvision:squeezenet1_1@none", "torchvision:shufflenet_v2_x0_5@none"])
    def test_keeps_the_head_of_the_source_task(self, uri: str, tmp_path: Path) -> None:
        made = sources.load(uri, image_size=32)
        write_checkpoint(tmp_path / "m", made, {})
        images = torch.randn(1, 3, 32, 32)
        with torch.inference_mode():
            assert torch.equal(load_checkpoint(tmp_path / "m")[1](images), made(images))

    def test_says_which_part_of_a_head_is_missing_or_too_wide(self, tmp_path: Path) -> None:
        made = model()
        made.replace_head(3, LABELS, "mlp")
        state = made.state_dict()
        damaged = {
            "1 missing ('head.output.weight')": {name: state[name] for name in state if name != "head.output.weight"},
            "4 unexpected ('head.hidden.weight'": state
            | {"head.hidden.weight": torch.zeros(256, made.feature_dim + 1)},
            "'head.output.weight' has shape (), not (1, 256)": state
            | {"head.output.weight": torch.tensor(0.0), "head.output.bias": torch.zeros(1)},
        }
        for text, changed in damaged.items():
            with pytest.raises(UserError, match=re.escape(text)):
                fit(model(), changed, str(tmp_path))
        with pytest.raises(ValueError, match="unknown head 'lineal'; known are linear, mlp"):
            made.replace_head(3, LABELS, "lineal")

    def test_is_a_source_model_like_any_other(self, saved: Path) -> None:
        info, read = sources.info(f"file:{saved}", image_size=40), sources.load(f"file:{saved}", image_size=40)
        assert info.image_size == read.preprocessing.size == 40
        assert read.preprocessing.channels == 1  # its own, whatever the task has
        assert info.stages == read.stage_names
        assert info.labels == read.labels == LABELS
        assert info.pretrained
        assert read.pretrained
        assert read.architecture == "scratch:cnn-small"

    def test_trained_vision_transformer_keeps_its_size(self, tmp_path: Path) -> None:
        made = sources.load("timm:test_vit@none")
        made.replace_head(3, LABELS)
        write_checkpoint(tmp_path / "m", made, {})
        uri = f"file:{tmp_path / 'm'}"
        assert sources.load(uri, image_size=48).preprocessing.size == made.preprocessing.size
        assert sources.info(uri, image_size=48).image_size == made.preprocessing.size

    def test_numbers_that_json_lacks_become_null(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "m", model(), {"metrics": {"a": math.nan, "b": [math.inf, 1.5]}})
        assert read_checkpoint(tmp_path / "m")[0].metrics == {"a": None, "b": [None, 1.5]}


class TestWriting:
    def test_replaces_an_earlier_model_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            write_checkpoint(tmp_path / "m", model(seed), {})
        assert hash_tensors(read_checkpoint(tmp_path / "m")[1]) == hash_tensors(model(2).state_dict())
        assert [path.name for path in tmp_path.iterdir()] == ["m"]
        assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]

    def test_fills_an_empty_folder(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, model(), {})
        assert load_checkpoint(tmp_path)[0].labels == LABELS

    def test_writes_through_a_link_and_into_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        for seed in (1, 2):
            write_checkpoint(tmp_path / "link", model(seed), {})
        assert (tmp_path / "link").is_symlink()
        assert load_checkpoint(tmp_path / "real")[0].labels == LABELS
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        write_checkpoint(Path(), model(), {})
        assert load_checkpoint(tmp_path / "here")[0].labels == LABELS

    def test_writers_at_the_same_place_leave_one_whole_model(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(lambda seed: write_checkpoint(tmp_path / "m", model(seed), {}), [1, 2]):
                pass
        found = hash_tensors(read_checkpoint(tmp_path / "m")[1])
        assert found in {hash_tensors(model(seed).state_dict()) for seed in (1, 2)}
        assert [path.name for path in tmp_path.iterdir()] == ["m"]

    def test_does_not_overwrite_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(UserError, match="holds something else"):
            write_checkpoint(tmp_path, model(), {})
        with pytest.raises(UserError, match="is a file"):
            write_checkpoint(tmp_path / "thesis.txt", model(), {})
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_full_disk_leaves_the_earlier_model_and_no_half_one(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "m", model(1), {})
        before = hash_file(tmp_path / "m" / "model.safetensors")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as if the disk took no more than that
        try:
            for name in ("m", "new"):
                with pytest.raises(UserError, match="cannot be written"):
                    write_checkpoint(tmp_path / name, model(2), {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert hash_file(tmp_path / "m" / "model.safetensors") == before
        assert [path.name for path in tmp_path.iterdir()] == ["m"]

    def test_unknown_extra_is_a_programming_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="did you mean 'metrics'"):
            write_checkpoint(tmp_path / "m", model(), {"metric": {}})


def threshold(label: str, value: float = 0.5) -> dict[str, object]:
    return {"label": label, "value": value}


class TestDamage:
    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0, 0.999))
    def test_truncated_weights(self, saved: Path, tmp_path: Path, share: float) -> None:
        copy = Path(shutil.copytree(saved, tmp_path / "c", dirs_exist_ok=True))
        data = (saved / "model.safetensors").read_bytes()
        (copy / "model.safetensors").write_bytes(data[: int(len(data) * share)])
        assert "bytes, not" in refused(copy)

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.floats(0, 0.9999), flip=st.integers(1, 255))
    def test_altered_weights(self, saved: Path, tmp_path: Path, place: float, flip: int) -> None:
        copy = Path(shutil.copytree(saved, tmp_path / "c", dirs_exist_ok=True))
        data = bytearray((saved / "model.safetensors").read_bytes())
        data[int(len(data) * place)] ^= flip
        (copy / "model.safetensors").write_bytes(data)
        assert "was altered" in refused(copy)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0, 0.99))
    def test_truncated_manifest(self, saved: Path, tmp_path: Path, share: float) -> None:
        copy = Path(shutil.copytree(saved, tmp_path / "c", dirs_exist_ok=True))
        data = (saved / "model.json").read_bytes()
        (copy / "model.json").write_bytes(data[: int(len(data) * share)])
        assert "not valid JSON" in refused(copy)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_manifest_with_any_value_swapped_loads_or_says_why(self, saved: Path, tmp_path: Path, data: Any) -> None:
        """Whatever stands in a field: a model, or a UserError, never another exception."""
        junk = st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(10**25), 10**25),
            st.floats(allow_nan=True),
            st.text(max_size=30),
            st.lists(st.integers(0, 5), max_size=3),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        )
        values = json.loads((saved / "model.json").read_text())
        key = data.draw(st.sampled_from(sorted(values)))
        inner = values[key]
        if isinstance(inner, dict) and inner and data.draw(st.booleans()):
            inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(junk)
        elif data.draw(st.booleans()):
            values[key] = data.draw(junk)
        else:
            del values[key]
        copy = Path(shutil.copytree(saved, tmp_path / "c", dirs_exist_ok=True))
        (copy / "model.json").write_text(json.dumps(values))
        try:
            _, read = load_checkpoint(copy)
        except UserError as error:
            assert str(copy) in str(error)
        else:
            assert hash_tensors(read.state_dict()) == hash_tensors(model().state_dict())

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda v: v.update(format_version=9), "format version 9, this raytl reads up to 8; update raytl"),
            (lambda v: v["preprocessing"].update(tiles=3), "preprocessing: size must be a multiple of tiles"),
            (lambda v: v.update(threshold=threshold("a")), "threshold: there is none in format version 1"),
            (
                lambda v: v.update(format_version=2, labels=["a"], threshold=threshold("a")),
                "threshold: only a model of two classes has one",
            ),
            (
                lambda v: v.update(format_version=2, labels=["a", "b"], threshold=threshold("z")),
                "threshold: 'z' is none of the labels",
            ),
            (lambda v: v.update(format_version=2, threshold=threshold("a", 1.5)), "threshold.value"),
            (lambda v: v.update(format="other"), "not the manifest of a raytl model"),
            (lambda v: v.update(colour="red"), "colour: Extra inputs"),
            (lambda v: v.update(feature_dim=10**18), "feature_dim"),
            (lambda v: v.update(feature_dim=95), "does not fit the architecture"),
            (lambda v: v.update(stages=["a", "b"]), "does not fit the architecture"),
            (lambda v: v.update(image_size=10**9), "image_size"),
            (lambda v: v.update(architecture="scratch:resnet-small"), "does not fit the architecture"),
            (lambda v: v.update(architecture="scratch:cnn-tiny"), "cannot be built here: unknown architecture"),
            (lambda v: v.update(architecture="file:/etc/passwd"), "must not be a path"),
            (lambda v: v.update(labels=["a", "b"]), "2 labels for 3 outputs"),
            (lambda v: v.update(labels=["a", "b", "b"]), "a label occurs twice"),
            (lambda v: v.update(temperature=0), "temperature"),
            (lambda v: v["preprocessing"].update(mean=[float("nan")]), "not valid JSON"),
            (lambda v: v["preprocessing"].update(std=[0.0]), "std above 0"),
            (lambda v: v["preprocessing"].update(mean=[0.5] * 3), "one number per channel"),
            (lambda v: v["preprocessing"].update(size=99), "must equal image_size"),
            (lambda v: v["preprocessing"].update(crop_fraction=1e-9), "crop_fraction"),
            (lambda v: v["weights"].update(file="../../secret"), "weights.file"),
            (lambda v: v["weights"].update(size_bytes=10**15), "bytes, not"),
        ],
    )
    def test_hostile_or_odd_manifest(self, change: Callable[[Any], None], sentence: str, copy: Path) -> None:
        edit(copy, change)
        assert sentence in refused(copy)

    def test_deeply_nested_manifest(self, copy: Path) -> None:
        (copy / "model.json").write_text("[" * 100_000)
        assert "not valid JSON" in refused(copy)

    def test_huge_manifest(self, copy: Path) -> None:
        (copy / "model.json").write_bytes(b" " * (17 * 2**20))
        assert "more than a manifest can have" in refused(copy)

    def test_missing_files(self, copy: Path) -> None:
        (copy / "model.safetensors").unlink()
        assert "model.safetensors: cannot be read" in refused(copy)
        (copy / "model.json").unlink()
        assert "has no model.json" in refused(copy)
        assert "does not exist" in refused(copy / "nowhere")
        (copy / "file").write_text("x")
        assert "is a file" in refused(copy / "file")

    @pytest.mark.parametrize("data", [b"", b"\x80\x04\x95pickle", save({"other": torch.zeros(3)})])
    def test_weights_of_something_else_with_the_right_hash(self, data: bytes, copy: Path) -> None:
        data = data.ljust(8, b"\0")
        (copy / "model.safetensors").write_bytes(data)
        sha256 = hash_file(copy / "model.safetensors")
        edit(copy, lambda values: values.update(weights={"sha256": sha256, "size_bytes": len(data)}))
        assert "not a readable safetensors file" in refused(copy) or "do not fit" in refused(copy)

    @pytest.mark.parametrize("name", ["head.weight", "stages.stem.0.weight", "stages.stem.1.num_batches_tracked"])
    def test_tensor_of_another_shape_or_kind(self, name: str, copy: Path) -> None:
        state = model().state_dict()
        state[name] = torch.zeros(2, 2)
        data = save(state)
        (copy / "model.safetensors").write_bytes(data)
        sha256 = hash_file(copy / "model.safetensors")
        edit(copy, lambda values: values.update(weights={"sha256": sha256, "size_bytes": len(data)}))
        assert "matching architecture" in refused(copy)


@pytest.mark.parametrize(("reads", "version"), [("peaks", 7), ("quarters", 4), ("whole", 4)])
@pytest.mark.parametrize("members", [1, 2])
def test_a_head_on_all_stages_reads_what_it_was_solved_for_on(
    tmp_path: Path, reads: str, version: int, members: int
) -> None:
    """Heads of older formats read less of a stage, and go on reading that."""
    torch.manual_seed(0)
    made = model()
    made.head = made.stages_head(3, members, reads=reads)
    write_checkpoint(tmp_path / "m", made, {})
    manifest, state = read_checkpoint(tmp_path / "m")
    assert manifest.format_version == version
    again = model(seed=1)
    fit(again, state, "m")
    assert isinstance(again.head, StagesHead)
    assert (again.head.reads, again.head.members, again.head.peaks) == (reads, members, made.head.peaks)
    assert any(again.head.peaks) == (reads == "peaks")
    images = torch.rand(4, 1, 20, 20)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(images), made.eval()(images))
        assert made(images[:0]).shape == (0, 3)


def test_a_head_on_what_has_no_positions_is_of_the_older_format(tmp_path: Path) -> None:
    plain = sources.build_architecture("plain:pixels", channels=1, image_size=8)
    plain.labels = LABELS
    plain.replace_head(3, LABELS, "stages")
    write_checkpoint(tmp_path / "m", plain, {})
    assert read_checkpoint(tmp_path / "m")[0].format_version == 4
