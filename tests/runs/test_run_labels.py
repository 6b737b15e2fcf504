"""Tags, notes, deleting and pruning, and two runs side by side; in a folder and on an object store."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from example import CLASSES, SETTINGS, outcome_of, play, test_images, write_example

from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.evaluation.intervals import paired_metric_interval
from raytl.runs import RunStore
from raytl.runs.comparing import compare
from raytl.runs.labels import note_of, tag, tags_of, write_note
from raytl.runs.pruning import prunable
from raytl.runs.store import RunSummary
from raytl.tasks import LabelledImages
from raytl.tasks.items import PixelsItem

test_images.__test__ = False  # a helper of the example, not a test
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["folder", "objects"])
def storage(request, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    return tmp_path / "runs" if request.param == "folder" else f"memory://labels/{tmp_path.name}"


def test_tags_and_notes_are_kept_and_told(storage):
    run = write_example(storage, trials=2)
    other = RunStore(storage)
    assert tag(other.find("digits"), ["production", "v1.2"]) == ["production", "v1.2"]
    assert tag(other.find("digits"), ["café"], remove=["v1.2", "never"]) == ["café", "production"]
    write_note(other.find("digits"), "  the first with\nthe new camera  ")
    summary = other.open("digits").summary()
    assert (summary["tags"], summary["note"]) == (["café", "production"], "the first with\nthe new camera")
    assert [run.tags for run in other.list()] == [["café", "production"]]
    write_note(other.find("digits"), "")
    assert note_of(other.find("digits")) is None
    json.dumps([one.to_json() for one in other.list()])
    assert run.name == "digits"


def test_labels_outlive_a_search_that_goes_on(storage):
    write_example(storage, trials=2)
    tag(RunStore(storage).find("digits"), ["production"])
    with RunStore(storage).create("digits", SETTINGS, resume=True):
        tag(RunStore(storage).find("digits"), ["meanwhile"])
    assert tags_of(RunStore(storage).find("digits")) == ["meanwhile", "production"]


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "x" * 51])
def test_what_cannot_be_a_tag(storage, name):
    write_example(storage, trials=1)
    with pytest.raises(UserError, match="cannot be a tag"):
        tag(RunStore(storage).find("digits"), [name])


def test_a_deleted_run_is_gone_and_its_name_is_free(storage):
    store = RunStore(storage)
    write_example(storage, trials=2)
    store.delete("digits")
    assert store.list() == []
    with pytest.raises(UserError, match="no run 'digits'"):
        store.open("digits")
    write_example(storage, trials=1)
    assert [run.name for run in store.list()] == ["digits"]


def test_a_run_that_is_being_written_is_not_deleted(storage):
    store = RunStore(storage)
    with store.create("live", SETTINGS) as writer:
        writer.on_phase("search", "")
        if "memory" in str(storage):  # until it is there
            while not store.list():
                pass
        with pytest.raises(UserError, match="run 'live' is being written by another process"):
            store.delete("live")
    assert store.open("live").status == "interrupted"


def summaries() -> list[RunSummary]:
    """Ten runs, a day apart, newest first."""
    return [RunSummary(f"run-{day}", "", "finished", NOW - timedelta(days=day)) for day in range(10)]


def names(found: list[RunSummary]) -> list[int]:
    return [int(run.name.removeprefix("run-")) for run in found]


def test_pruning_takes_what_every_rule_lets_go():
    runs = summaries()
    runs[8] = replace(runs[8], tags=("production",))
    runs[9] = replace(runs[9], status="running")
    runs[6] = replace(runs[6], status="interrupted")
    assert prunable(runs) == []
    assert names(prunable(runs, keep=4)) == [4, 5, 6, 7]
    assert names(prunable(runs, keep=0)) == list(range(8))
    assert names(prunable(runs, older_than_s=5.5 * 86400, now=NOW)) == [6, 7]
    assert names(prunable(runs, keep=7, older_than_s=5.5 * 86400, now=NOW)) == [7]
    assert names(prunable(runs, statuses=["interrupted"])) == [6]


class TestCompare:
    def test_what_differed_and_what_it_changed(self, tmp_path):
        settings = SETTINGS | {"seed": 1, "search": {"lanes": 2}, "space_values": {"cut": [0, 1]}}
        a = write_example(tmp_path, "a", trials=8, settings=SETTINGS | {"test_fingerprint": "t"})
        b = write_example(tmp_path, "b", trials=12, helped=False, settings=settings | {"test_fingerprint": "t"})
        found = compare(a, b)
        assert found.differs["settings"] == {"seed": (0, 1), "lanes": (None, 2)}
        assert found.differs["space"] == {"cut": (None, [0, 1])}
        assert found.differs["data"] == {} and found.differs["versions"] == {}
        assert found.results["trials"] == (len(a.records()), len(b.records()))
        assert found.results["test"] == (a.summary()["best"]["test_metric"], b.summary()["best"]["test_metric"])
        assert found.gain["high"] < 0  # b's winner is worse, on the same images, beyond doubt
        first = found.leaderboard[0]
        assert 1 in (first.rank_a, first.rank_b) and first.strategy["source_model"]
        document = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert document["differs"]["settings"]["seed"] == {"a": 0, "b": 1}

    def test_images_of_one_patient_count_as_one(self, tmp_path):
        """The intervals are those of the search's own comparisons: with the groups that the test images have."""

        def tested(name: str, groups: np.ndarray | None, *, helped: bool):
            with RunStore(tmp_path).create(name, SETTINGS | {"test_fingerprint": "t"}) as writer:
                outcome = outcome_of(play(writer, 2), helped=helped)
                items = [PixelsItem(str(n), np.asarray(image)) for n, image in enumerate(test_images())]
                outcome.test_images = LabelledImages("test", items, groups, CLASSES, outcome.test_labels)
                said[name] = outcome.best.test_probabilities
                return writer.finish(outcome), outcome.test_labels

        said: dict[str, np.ndarray] = {}
        patients = np.arange(600) // 60
        (a, labels), (b, _) = tested("a", patients, helped=True), tested("b", patients, helped=False)
        assert a.predictions()["group"].tolist() == patients.tolist()
        found = compare(a, b).gain
        expected = paired_metric_interval(metrics.get("accuracy"), said["b"], said["a"], labels, patients)
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)
        (older, _) = tested("older", None, helped=True)
        assert "group" not in older.predictions()
        assert compare(older, b).gain == found  # one of the two knows them
        (oldest, _) = tested("oldest", None, helped=False)
        alone = compare(older, oldest).gain
        assert alone["value"] == found["value"] and alone["low"] != found["low"]

    def test_a_run_beside_itself(self, tmp_path):
        run = write_example(tmp_path, trials=8, settings=SETTINGS | {"test_fingerprint": "t"})
        found = compare(run, run)
        assert not any(found.differs.values()) and found.gain["value"] == 0
        assert all(one.rank_a == one.rank_b and one.validation_a == one.validation_b for one in found.leaderboard)

    def test_on_other_test_images_no_gain_is_told(self, tmp_path):
        a = write_example(tmp_path, "a", trials=2, settings=SETTINGS | {"test_fingerprint": "t"})
        b = write_example(tmp_path, "b", trials=2, settings=SETTINGS | {"test_fingerprint": "u"})
        found = compare(a, b)
        assert found.gain is None and set(found.differs["data"]) == {"test_fingerprint"}

    def test_of_one_test_two_runs_may_have_opened_different_images(self, tmp_path):
        """Each leaves out those that its own source models had learned from; runs of before opened all."""

        def of(name: str, **opened: str | None):
            return write_example(tmp_path, name, trials=2, settings=SETTINGS | {"test_fingerprint": "t"} | opened)

        a, b, all_of_it = (of(name, opened_fingerprint=name) for name in ("a", "b", "t"))
        again, older, none = of("again", opened_fingerprint="a"), of("older"), of("none", opened_fingerprint=None)
        for other in (b, all_of_it, older, none):
            assert compare(a, other).gain is None and set(compare(a, other).differs["data"]) == {"test_fingerprint"}
        assert compare(none, none).gain is None
        for one, other in ((a, again), (all_of_it, older)):
            assert compare(one, other).gain is not None and not compare(one, other).differs["data"]

    def test_with_a_run_that_has_nothing_yet(self, tmp_path):
        a = write_example(tmp_path, "a", trials=2)
        b = RunStore(tmp_path).create("b", SETTINGS).interrupt()
        found = compare(a, b)
        assert found.results["strategy"][1] is None and found.gain is None
        assert all(one.rank_b is None for one in found.leaderboard)
        json.dumps(found.to_json(), allow_nan=False)
