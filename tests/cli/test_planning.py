"""What can be asked before a search, and going on with one that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import RAYTL
from documented import undocumented
from photos import SPACE, folder, space

from raytl.runs import RunStore

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"
RATES = "{low: 0.01, high: 0.2, log: true}"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    space(tmp_path)
    return folder(tmp_path / "photos")


class TestRank:
    def test_shows_every_source_model_with_rank_cut_and_cost(self, raytl, photos):
        done = raytl("sources", "rank", "--target", "photos", "--space", "tiny.yaml")
        assert done.code == 0, done.err
        lines = [line.split() for line in done.out.splitlines()]
        assert lines[0][:5] == ["rank", "source", "model", "cut", "probe"]
        assert (lines[1][0], lines[1][2]) == ("1", "all")
        assert lines[1][1] + lines[2][0] == "scratch:cnn-small"  # a long name goes on in the next line
        value, (low, high) = float(lines[1][3]), map(float, lines[1][4].split("-"))
        assert 0 <= low <= value <= high <= 1

    def test_needs_an_image_with_the_tasks_label(self, raytl, tmp_path, photos):
        done = raytl("sources", "rank", "--unlabelled", "photos", "--space", "tiny.yaml")
        assert done.code == 2 and "--source-domain" in done.err

    def test_document(self, raytl, photos):
        done = raytl("sources", "rank", "--target", "photos", "--space", "tiny.yaml", "--json")
        assert undocumented("sources rank", done.document) == set()
        source = done.document["sources"][0]
        assert (source["source_model"], source["rank"]) == ("scratch:cnn-small", 1)
        assert source["value"]["low"] <= source["value"]["value"] <= source["value"]["high"]


class TestQuote:
    def test_tells_time_memory_disk_and_accuracy(self, raytl, photos):
        done = raytl("quote", "--target", "photos", "--space", "tiny.yaml", "--trials", "7", "--lanes", "2")
        assert done.code == 0, done.err
        for row in ("one full training", "7 trials in 2 lanes", "memory", "disk, at most", "accuracy, to begin with"):
            assert row in done.out
        assert "the accuracy is that of the best head" in done.out

    def test_document(self, raytl, photos):
        cluster = ("--cluster", str(CLUSTER), "--price", "head=0.1", "--price", "gpu-spot=0.5")
        cluster += ("--lanes", "4", "--gpus-per-trial", "1")
        document = raytl("quote", "--target", "photos", "--space", "tiny.yaml", *cluster, "--json").document
        assert undocumented("quote", document) == set()
        assert document["cluster"]["nodes"] == {"head": 1, "gpu-spot": 4} and document["cluster"]["lanes"] == 4
        assert document["cluster"]["money"]["value"] == pytest.approx(2.1 * document["cluster"]["hours"]["value"])
        assert document["search_s"]["low"] <= document["search_s"]["value"] <= document["search_s"]["high"]
        assert document["trials"] == 40 and document["memory_bytes"] > 0 and document["disk_bytes"] > 0
        assert {"name", "strategy", "seconds", "epochs"} == set(document["probed"][0])

    def test_prices_are_of_a_cluster(self, raytl, photos):
        done = raytl("quote", "--target", "photos", "--price", "head=1")
        assert done.code == 2 and "say which with --cluster FILE" in done.err


class TestHoldout:
    @pytest.mark.parametrize("command", [("quote",), ("sources", "rank"), ("search",)])
    def test_what_cannot_be_held_out_is_refused(self, raytl, photos, command):
        done = raytl(*command, "--target", "photos", "--space", "tiny.yaml", "--holdout", "20")
        assert done.code == 2
        assert "--holdout 20: give a share, such as 5% or 0.05" in done.err


class TestResumeMistakes:
    def test_a_run_that_is_not_there(self, raytl):
        done = raytl("search", "--resume", "flowers")
        assert done.code == 2 and "no run 'flowers'" in done.err

    def test_data_beside_it(self, raytl):
        done = raytl("search", "--resume", "flowers", "--target", "photos")
        assert done.code == 2 and done.err.strip().endswith("leave out --target")

    def test_moved_data_without_a_run_or_a_place(self, raytl):
        done = raytl("search", "--target", "photos", "--moved", "a=b")
        assert done.code == 2 and "goes with --resume RUN" in done.err
        RunStore(Path("raytl-runs")).create("flowers", {"search": {"trials": 3}}).interrupt()
        done = raytl("search", "--resume", "flowers", "--moved", "elsewhere")
        assert done.code == 2 and "--moved elsewhere: give OLD=NEW, two paths" in done.err


@pytest.mark.slow
class TestKilledSearch:
    def start(self, place) -> Path:
        """Begin a search and kill -9 all of it in the middle; returns the run's folder."""
        (place.folder / "tiny.yaml").write_text(SPACE.replace("epochs: 2", "epochs: 6").replace("[0.03, 0.1]", RATES))
        folder(place.folder / "photos", 24)
        process = subprocess.Popen(
            [RAYTL, "search", "--target", "photos", "--space", "tiny.yaml", "--trials", "300", "--lanes", "2",
             "--holdout", "0.2", "--name", "flowers"],
            cwd=place.folder, env=place.environment, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        run = place.folder / "raytl-runs" / "flowers"
        try:
            deadline = time.monotonic() + 300
            while len(self.ended(run)) < 4:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return run

    def ended(self, run: Path) -> set[int]:
        """Numbers of the trials that the journal says have ended."""
        journal = run / "trials.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
        changes = [json.loads(line) for line in lines if line.endswith(b"\n") and b'"trial"' in line]
        return {
            change["trial"] for change in changes if change["set"].get("status") in ("completed", "pruned", "failed")
        }

    def test_goes_on_where_it_was(self, place, raytl):
        run = self.start(place)
        done_before = self.ended(run)
        shown = raytl("runs", "show", "flowers")
        assert "raytl search --resume flowers" in shown.out
        before = raytl("runs", "show", "flowers", "--json").document
        assert before["status"] == "interrupted" and before["best"]["test_metric"] is None
        photos = (place.folder / "photos").rename(place.folder / "moved").with_name("photos")
        lost = raytl("search", "--resume", "flowers")
        assert lost.code == 2 and f"where it was moved, add --moved {photos}=NEW" in lost.err
        planned = 3 + sum(record["kind"] == "search" for record in self.records(run))
        more = ("--trials", str(planned))
        done = place.run("search", "--resume", "flowers", "--moved", "photos=moved", *more, "--json")
        assert done.code == 0, done.err
        document = done.document
        assert document["status"] == "finished" and document["best"]["test_metric"] is not None
        assert document["best"]["validation_metric"]["low"] is not None
        searched = [
            record for record in self.records(run) if record["kind"] == "search" and record["status"] != "interrupted"
        ]
        assert len(searched) == planned
        tried = [(record["strategy_key"], record["fold"]) for record in self.records(run) if self.was_tried(record)]
        assert len(tried) == len(set(tried))
        assert done_before <= {record["number"] for record in self.records(run) if record["status"] != "interrupted"}
        again = raytl("search", "--resume", "flowers")
        assert again.code == 2 and "is finished" in again.err

    def records(self, run: Path) -> list[dict[str, object]]:
        from raytl.runs import Run

        return [vars(record) for record in Run(run).records()]

    def was_tried(self, record: dict[str, object]) -> bool:
        return record["status"] != "interrupted" and record["kind"] == "search"
