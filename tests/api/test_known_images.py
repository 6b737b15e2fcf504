"""Source models that have learned from images of the task before: none of these is a test image, and it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from photos import COLOURS, SPACE, folder

import raytl
from raytl.api.models import copy_bundle
from raytl.api.planning import bind
from raytl.api.searching import _run_settings
from raytl.runs.sentences import cautions, sentences
from raytl.search.planning import SearchSettings
from raytl.sources import learned_by
from raytl.sources.learned import LEARNED_FILE
from raytl.sources.manifest import read_manifest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """One that was pretrained on the first twelve pictures of each class, of which some were held out."""
    return raytl.pretrain(folder(tmp_path / "old", 12), "scratch:cnn-small", tmp_path / "model", steps=2)[0]


def space(tmp_path: Path, *models: object) -> str:
    listed = ", ".join(f"'{one}'" for one in models)
    path = tmp_path / "own.yaml"
    path.write_text(SPACE.replace("[scratch:cnn-small]", f"[{listed}]"))
    return str(path)


def said(bound: object, word: str) -> list[str]:
    return [str(problem) for problem in bound.problems if word in str(problem)]  # type: ignore[attr-defined]


def test_what_a_source_model_knows_is_counted_and_leaves_the_test(model: Path, tmp_path: Path) -> None:
    task = raytl.Task(target=folder(tmp_path / "new", 20), holdout=0.25)
    bound = bind(task, space(tmp_path, f"file:{model}", "scratch:cnn-small"))
    learned = learned_by(f"file:{model}")
    assert task.test is not None and task.data.target is not None and learned is not None
    assert len(learned.hashes) == read_manifest(model).provenance["images"]
    own = [item.digest for item in task.data.target.items]
    known = int(learned.among(own).sum())
    in_test = int(learned.among(task.test.digests).sum())
    assert known + in_test == len(learned.hashes) and in_test
    assert bound.known.validated == {f"file:{model}": known}
    assert (
        f"has learned from {known} of the {len(own)} images that models are compared by" in said(bound, "by heart")[0]
    )
    left = len(task.test) - in_test
    assert (
        f"{in_test} of the {len(task.test)} test images; left out of the test, which has {left}"
        in said(bound, "test im")[0]
    )
    fresh = bound.known.unseen(task.test)
    assert fresh is not None and len(fresh) == left and not learned.among(fresh.digests).any()
    settings = _run_settings(task, bound, SearchSettings())
    assert settings["opened_fingerprint"] == fresh.fingerprint != task.test.fingerprint
    assert settings["test_fingerprint"] == task.test.fingerprint  # by which the data is known again
    fresh.open()
    with pytest.raises(RuntimeError, match="opened before"):
        task.test.open()


def test_a_test_of_known_images_alone_is_none(model: Path, tmp_path: Path) -> None:
    learned = learned_by(f"file:{model}")
    assert learned is not None
    everything = raytl.Task(target=tmp_path / "old", holdout=0).data.target
    assert everything is not None
    for item in everything.items:  # what pretraining held out
        if not learned.among([item.digest]).any():
            Path(item.path).unlink()  # type: ignore[attr-defined]
    task = raytl.Task(target=folder(tmp_path / "new", 8, first=50), test=tmp_path / "old")
    bound = bind(task, space(tmp_path, f"file:{model}"))
    assert bound.known.unseen(task.test) is None
    assert _run_settings(task, bound, SearchSettings())["opened_fingerprint"] is None
    assert "no test is left" in said(bound, "test images")[0] and "--test" in said(bound, "test images")[0]


def test_models_that_know_no_image_change_nothing(model: Path, tmp_path: Path) -> None:
    task = raytl.Task(target=folder(tmp_path / "new", 20, first=100), holdout=0.25)
    bound = bind(task, space(tmp_path, f"file:{model}"))
    assert bound.known.unseen(task.test) is task.test and not bound.known.validated
    settings = _run_settings(task, bound, SearchSettings())
    assert settings["opened_fingerprint"] == settings["test_fingerprint"]
    assert not said(bound, "learned from")


def test_unlabelled_images_that_a_model_knows_are_told_and_stay(model: Path, tmp_path: Path) -> None:
    pool = folder(tmp_path / "pool", 12, flat=True)
    task = raytl.Task(target=folder(tmp_path / "new", 8, first=50), unlabelled=pool)
    bound = bind(task, space(tmp_path, f"file:{model}"))
    assert task.data.unlabelled is not None and len(task.data.unlabelled) == 12 * len(COLOURS)
    assert f"of the {12 * len(COLOURS)} unlabelled images, with labels" in said(bound, "unlabelled")[0]
    assert not bound.known.validated


def test_without_a_target_the_domains_images_are_those_that_are_compared_by(model: Path, tmp_path: Path) -> None:
    task = raytl.Task(None, folder(tmp_path / "domain", 14), folder(tmp_path / "pool", 9, first=60, flat=True))
    bound = bind(task, space(tmp_path, f"file:{model}"))
    assert f"of the {14 * len(COLOURS)} images that models are compared by" in said(bound, "by heart")[0]


def test_a_model_of_before_is_told_by_where_it_was_trained(model: Path, tmp_path: Path) -> None:
    (model / LEARNED_FILE).unlink()
    same = bind(raytl.Task(target=tmp_path / "old"), space(tmp_path, f"file:{model}"))
    assert "keeps no list of its images" in said(same, "this very path")[0]
    other = bind(raytl.Task(target=folder(tmp_path / "new", 8)), space(tmp_path, f"file:{model}"))
    assert not said(other, "this very path")


def test_what_began_with_a_model_knows_what_that_knew(model: Path, tmp_path: Path) -> None:
    told: list[str] = []
    second, _ = raytl.pretrain(
        folder(tmp_path / "new", 12, first=6), f"file:{model}", tmp_path / "second", steps=2,
        noticed=lambda problems: told.extend(map(str, problems)),
    )  # fmt: skip
    first, both = learned_by(f"file:{model}"), learned_by(f"file:{second}")
    assert first is not None and both is not None and set(first.hashes) < set(both.hashes)
    assert "images that are held out; the accuracy is of the others" in told[-1]


def test_the_list_goes_with_the_model_but_not_without_its_images(model: Path, tmp_path: Path) -> None:
    assert (copy_bundle(model, tmp_path / "b", features=False) / LEARNED_FILE).is_file()
    assert not (copy_bundle(model, tmp_path / "c", images=False) / LEARNED_FILE).exists()


def test_a_search_says_it_first_and_its_winner_knows_all(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    task = raytl.Task(target=folder(tmp_path / "new", 14), holdout=0)
    run = raytl.search(task, space(tmp_path, f"file:{model}"), trials=1, lanes=1, storage=tmp_path / "runs")
    assert task.data.target is not None
    found = learned_by(f"file:{run.best.bundle_path}")
    digests = [item.digest for item in task.data.target.items]
    assert found is not None and found.among(digests).all()
    summary = run.summary()
    known = summary["learned_before"]["by"][f"file:{model}"]
    summary["best"]["strategy"]["source_model"] = f"file:{model}@32px"  # whichever head won
    text = f"had learned from {known} of the {len(digests)} images"
    assert any(text in one.text and "nothing here tells" in one.text for one in cautions(summary))
    summary["best"]["test_metric"] = summary["best"]["validation_metric"]
    assert any(text in one.text and "The test has none of them" in one.text for one in sentences(summary, 9))
    assert not any(text in one.text for one in cautions(summary))
    summary["best"]["strategy"]["source_model"] = "scratch:cnn-small"
    assert not any("had learned from" in one.text for one in sentences(summary, 9))
