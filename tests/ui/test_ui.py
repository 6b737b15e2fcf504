"""The control room over HTTP: what it shows of real runs, what it does to them, and whom it keeps out."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from raytl.core.errors import UserError
from raytl.runs import Run, RunStore, RunWriter
from raytl.runs import run as run_module
from raytl.runs.journal import Replay, read_journal
from raytl.runs.report.page import _POLICY as REPORT_POLICY
from raytl.runs.requests import ask_to_stop, ask_to_try, asked_of, clear, listening, untried
from raytl.runs.storage import JOURNAL
from raytl.search.records import Asked
from raytl.training.strategy import Strategy
from raytl.ui import make_app
from raytl.ui.server import serve

ACTING = {"X-Raytl": "test"}


@pytest.fixture
def page(storage: Path) -> TestClient:
    return TestClient(make_app(str(storage), price=2.0), "http://localhost", headers=ACTING)


class TestWhatIsShown:
    def test_all_runs_newest_first(self, page: TestClient, live: RunWriter) -> None:
        found = page.get("/api/runs").json()
        assert {run["name"]: run["status"] for run in found["runs"]} == {
            "live": "running", "digits": "finished", "digits-2": "finished",
        }  # fmt: skip

    def test_names_that_are_no_utf_8_keep_nothing_from_being_shown(self, storage: Path) -> None:
        odd = storage.with_name(os.fsdecode(b"r\xffns"))
        storage.rename(odd)
        page = TestClient(make_app(str(odd)), "http://localhost", headers=ACTING)
        for address in ("/api/runs", "/api/runs/digits", "/api/compare?a=digits&b=digits-2"):
            answer = page.get(address)
            assert answer.status_code == 200 and answer.json(), address

    def test_of_a_run_that_only_time_ends_no_number_is_planned(self, page: TestClient, live: RunWriter) -> None:
        path = live.path / "run.json"
        before = path.read_text()
        document = json.loads(before)
        document["settings"]["search"] = {"trials": None, "time_budget_s": 60.0}
        try:
            path.write_text(json.dumps(document))
            assert page.get("/api/runs/live").json()["planned"] is None
        finally:
            path.write_text(before)

    def test_a_run_that_goes_on(self, page: TestClient, live: RunWriter) -> None:
        run = page.get("/api/runs/live").json()
        running = [trial for trial in run["trials"] if trial["status"] == "running"]
        assert [trial["curve"] for trial in running] == [[[1.0, 0.1], [2.0, 0.2], [3.0, pytest.approx(0.3)]]] * 2
        assert (run["status"], run["planned"], run["epochs"]) == ("running", 10, 12)
        assert run["lane_seconds"] == pytest.approx(sum(trial["seconds"] for trial in run["trials"]))
        assert run["cost"] == pytest.approx(2.0 * run["seconds"] / 3600, abs=1e-4)
        assert not run["can_go_on"] and not run["stopping"]

    def test_a_run_that_ended(self, page: TestClient) -> None:
        run = page.get("/api/runs/digits").json()
        assert run["board"][0]["rank"] == 1 and run["best"]["test"]
        assert any("Transfer helped" in sentence for sentence in run["sentences"])
        assert run["command"] is None

    def test_a_run_by_a_metric_that_is_not_here(self, page: TestClient, storage: Path, example: Any) -> None:
        with RunStore(storage).create("own", example.SETTINGS | {"metric": "own-figure"}) as writer:
            outcome = example.outcome_of(example.play(writer, 4))
            outcome.metric = "own-figure"
            writer.finish(outcome)
        shown = page.get("/api/runs/own").json()
        assert (shown["metric"], shown["status"]) == ("own-figure", "finished")
        assert "own-figure" in " ".join(shown["sentences"])

    def test_a_run_that_ended_is_read_once(
        self, page: TestClient, storage: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[Path] = []

        def counted(folder: Path) -> Replay:
            read.append(folder)
            return read_journal(folder)

        monkeypatch.setattr(run_module, "read_journal", counted)
        first = page.get("/api/runs/digits").json()
        assert len(read) == 1  # the trials, the space's settings, the leaderboard and the phases are of one reading
        assert page.get("/api/runs/digits").json() == first and len(read) == 1
        page.post("/api/runs/digits/tags", json={"add": ["good"]})
        assert page.get("/api/runs/digits").json()["tags"] == ["good"]
        with (storage / "digits" / JOURNAL).open("a") as journal:
            journal.write('{"phase": "more", "detail": "", "at": 1.0}\n')
        assert page.get("/api/runs/digits").json()["phases"][-1]["phase"] == "more"

    def test_the_list_reads_a_run_that_ended_once(
        self, page: TestClient, storage: Path, live: RunWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        summary = Run.summary

        def counted(run: Run) -> dict[str, Any]:
            read.append(run.name)
            return summary(run)

        def listed() -> dict[str, dict[str, Any]]:
            read.clear()
            return {run["name"]: run for run in page.get("/api/runs").json()["runs"]}

        monkeypatch.setattr(Run, "summary", counted)
        first = listed()
        assert {"digits", "digits-2", "live"} == set(read)
        assert listed().keys() == first.keys() and set(read) == {"live"}
        page.post("/api/runs/digits/tags", json={"add": ["good"]})
        assert listed()["digits"]["tags"] == ["good"] and set(read) == {"digits", "live"}
        page.post("/api/runs/digits/tags", json={"add": ["better"], "remove": ["good"]})
        assert listed()["digits"]["tags"] == ["better"]
        page.post("/api/runs/digits/note", json={"text": "a word"})
        assert listed()["digits"]["note"] == "a word"
        RunStore(storage).delete("digits")
        assert set(listed()) == {"digits-2", "live"}

    def test_two_beside_each_other(self, page: TestClient) -> None:
        found = page.get("/api/compare", params={"a": "digits", "b": "digits-2"}).json()
        assert found["gain"]["value"] < 0
        assert "cnn-small" in found["results"]["strategy"]["a"]

    def test_the_page_needs_nothing_from_elsewhere(self, page: TestClient) -> None:
        answer = page.get("/")
        names = ["base.css", "page.css", "dom.js", "page.js"]
        assert all(f"/static/{name}" in answer.text for name in names)
        texts = [answer.text, *(page.get(f"/static/{name}").text for name in names)]
        together = "".join(texts).replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in together and "https:" not in together
        assert "script-src 'self'" in answer.headers["content-security-policy"]

    @pytest.mark.parametrize("scheme", [0, 1])  # light and dark
    def test_curves_and_bars_stand_out(self, page: TestClient, scheme: int) -> None:
        def luminance(name: str, style: str) -> float:
            colour = re.findall(rf"--{name}: #(\w{{6}})", page.get(f"/static/{style}").text)[scheme]
            shares = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
            linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
            return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

        for name in ("other", "run"):
            low, high = sorted([luminance(name, "page.css"), luminance("card", "base.css")])
            assert (high + 0.05) / (low + 0.05) > 3  # WCAG 2.2, 1.4.11
        assert "opacity" not in page.get("/static/page.css").text  # which would take of it

    @pytest.mark.parametrize(
        "path", ["/api/runs/nobody", "/api/runs/..%2F..%2Fetc", "/static/app.py", "/runs/digits/report"]
    )
    def test_what_is_not_there(self, page: TestClient, path: str) -> None:
        assert page.get(path).status_code == 404


class TestWhatIsDone:
    def test_tags_and_notes(self, page: TestClient, storage: Path) -> None:
        assert page.post("/api/runs/digits/tags", json={"add": ["good"]}).json() == {"tags": ["good"]}
        assert page.post("/api/runs/digits/note", json={"text": "the first"}).json() == {"note": "the first"}
        summary = RunStore(storage).open("digits").summary()
        assert (summary["tags"], summary["note"]) == (["good"], "the first")
        refused = page.post("/api/runs/digits/tags", json={"add": ["no/slash"]})
        assert refused.status_code == 409 and "cannot be a tag" in refused.json()["error"]

    def test_a_driver_is_told_what_to_stop(self, page: TestClient, live: RunWriter) -> None:
        now = [0.0]
        asked = listening(live.place, clock=lambda: now[0])
        running = [trial.number for trial in live.trials if trial.status == "running"]
        assert page.post(f"/api/runs/live/trials/{running[0]}/stop").json() == {"asked": True}
        assert asked() == Asked(False, frozenset({running[0]}))
        page.post("/api/runs/live/stop")
        assert not asked().stop  # it does not look all the time
        now[0] += 60
        assert asked() == Asked(True, frozenset({running[0]}))
        run = page.get("/api/runs/live").json()
        assert run["stopping"] and run["stopping_trials"] == [running[0]]
        clear(live.place)
        assert asked_of(live.place) == Asked()

    def test_a_driver_is_asked_to_try_a_strategy(self, live: RunWriter) -> None:
        now = [0.0]
        asked, run = listening(live.place, clock=lambda: now[0]), RunStore(live.path.parent).open("live")
        for rate in (0.1, 0.2):
            ask_to_try(run, {"head_lr": rate})
        now[0] += 60
        assert [values for _, values in sorted(asked().strategies.items())] == [{"head_lr": 0.1}, {"head_lr": 0.2}]
        clear(live.place)
        assert asked_of(live.place) == Asked()  # neither is a strategy
        with pytest.raises(UserError, match="run 'digits' is finished: nobody tries anything of it now"):
            ask_to_try(RunStore(live.path.parent).open("digits"), {})

    def test_a_strategy_that_came_too_late_waits_for_the_next_driver(self, live: RunWriter) -> None:
        run = RunStore(live.path.parent).open("live")
        strategies = [Strategy("scratch:cnn-small", head_lr=rate) for rate in (0.1, 0.2)]
        for strategy in strategies:
            ask_to_try(run, strategy.to_dict())
        ask_to_stop(run)
        clear(live.place, {strategies[0].key})
        assert list(untried(live.place, ()).values()) == strategies[1:]
        assert listening(live.place)() == asked_of(live.place)  # which takes it up at its first look
        assert not asked_of(live.place).stop
        assert untried(live.place, {strategies[1].key}) == {}

    @pytest.mark.parametrize(
        ("path", "body", "why"),
        [
            ("/api/runs/digits/stop", {}, "is finished: nothing of it can be stopped"),
            ("/api/runs/live/trials/0/stop", {}, "trial 0 does not run"),
            ("/api/runs/live/go-on", {"trials": 3}, "is running; it can be gone on with once it has ended"),
            ("/api/runs/digits/go-on", {}, "by how many trials, or by how many minutes"),
            ("/api/runs/digits/deploy", {"port": 8000}, "has no model yet"),
            ("/api/runs/digits/try", {"settings": ["cut=0"]}, "got its data from memory"),
        ],
    )
    def test_is_refused_in_a_sentence(self, page: TestClient, live: RunWriter, path: str, body: dict, why: str) -> None:
        answer = page.post(path, json=body)
        assert answer.status_code == 409 and why in answer.json()["error"]


class TestWhoIsKeptOut:
    def test_another_page_changes_nothing(self, storage: Path) -> None:
        elsewhere = TestClient(make_app(str(storage)), "http://localhost")
        answer = elsewhere.post("/api/runs/digits/note", json={"text": "mine"})
        assert answer.status_code == 403

    def test_another_name_for_this_machine(self, storage: Path) -> None:
        page = TestClient(make_app(str(storage)), base_url="http://rebound.example")
        assert page.get("/api/runs").status_code == 421
        named = TestClient(make_app(str(storage), names=["rebound.example"]), base_url="http://rebound.example")
        assert named.get("/api/runs").status_code == 200
        for own in ("http://localhost:8421", "http://127.0.0.1:8421", "http://[::1]:8421"):
            assert TestClient(make_app(str(storage)), base_url=own).get("/api/runs").status_code == 200

    def test_who_has_no_token(self, storage: Path) -> None:
        app = make_app(str(storage), token="a token of some length")
        assert TestClient(app).get("/").status_code == 200  # there is nothing on the page itself
        assert TestClient(app).get("/api/runs").status_code == 401
        wrong = TestClient(app, headers={"Authorization": "Bearer another"})
        assert wrong.get("/runs/digits/report").status_code == 401
        right = TestClient(
            app, headers={"Authorization": "Bearer a token of some length"}, base_url="http://any.example"
        )
        assert right.get("/api/runs").status_code == 200

    def test_a_stored_report_has_no_say_in_the_page(self, page: TestClient, storage: Path) -> None:
        (storage / "digits" / "report.html").write_text("<script>fetch('/api/runs')</script>")
        policy = page.get("/runs/digits/report").headers["content-security-policy"].split("; ")
        assert "sandbox allow-scripts" in policy and "frame-ancestors 'none'" in policy
        assert set(REPORT_POLICY.split("; ")) <= set(policy)  # what the report asks for itself

    def test_a_token_with_a_percent_sign_is_in_the_address(
        self, storage: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []

        def ready(url: str) -> None:
            told.append(url)
            raise KeyboardInterrupt

        monkeypatch.setenv("RAYTL_UI_TOKEN", "100%41 of a secret/#?")
        with pytest.raises(KeyboardInterrupt):
            serve(str(storage), "0.0.0.0", 0, ready=ready)
        assert told[0].endswith("/#token=100%2541%20of%20a%20secret%2F%23%3F")

    def test_a_token_that_can_be_guessed(self, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAYTL_UI_TOKEN", "1234")
        with pytest.raises(UserError, match="RAYTL_UI_TOKEN has fewer than 16 characters"):
            serve(str(storage), "0.0.0.0", 0)
