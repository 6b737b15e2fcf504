"""What the benchmarks of endpoints count, and what they hold it against: small servers stand in for the endpoints."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isnan, nan
from pathlib import Path

import pytest
from common import exit_status
from endpoints import make_bundle, peer, picture
from http_load import Load as ClosedLoad
from http_load import OpenLoad
from serving import FASTAPI, INT8, LITSERVE, MANY, RAYTL, RUNTIME, Cell, Floors, ratio, report
from serving import judged as judged_speed
from serving_faults import CHANGED_S, Fault, Load, judged, trial_is_over

from raytl.bundles import Bundle

Answer = Callable[[BaseHTTPRequestHandler, int], None]


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"{}", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server on loopback; its address. answer: gives the request of that number, from 0, what it shall have."""
    numbers = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the name that http.server looks for
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            answer(self, next(numbers))

        do_GET = do_POST  # noqa: N815 - likewise

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{made.server_address[1]}"
        finally:
            made.shutdown()


class TestLoad:
    """By the clock: what is to come in time has seconds for it, as a busy machine is at a standstill for a while."""

    def test_an_open_loop_asks_as_often_as_it_was_told_and_counts_waits_behind_others(self) -> None:
        """One connection, and a first answer after 0.6 s: what became due meanwhile has waited for it."""

        def slow_at_first(handler: BaseHTTPRequestHandler, number: int) -> None:
            time.sleep(0.0 if number else 0.6)
            send(handler, 200)

        with server(slow_at_first) as url:
            load = OpenLoad(f"{url}/v1/predict", b"x", "image/png")
            asyncio.run(load.run_at(100, 1, most=1))
        assert load.errors == 0
        assert len(load.latencies) == len(load.late) == load.answers
        assert 60 < load.answers < 140  # a Poisson process of 100
        assert sum(latency > 0.3 for latency in load.latencies) > 10

    def test_what_a_closed_loop_has_no_answer_to_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of eight connections one is answered late, and three are not."""
        monkeypatch.setattr("http_load.DRAIN_S", 4.0)
        over = threading.Event()

        def never(handler: BaseHTTPRequestHandler, number: int) -> None:
            if number < 4:
                over.wait(3.0 if number == 0 else 60)
            send(handler, 200)

        with server(never) as url:
            load = ClosedLoad(f"{url}/v1/predict", b"x", "image/png")
            asyncio.run(load.run(8, 2.5))
            over.set()
        assert load.errors == 3
        assert load.answers > len(load.latencies) > 0

    def test_a_closed_loop_that_is_answered_does_not_wait_after_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("http_load.DRAIN_S", 600.0)
        with server(lambda handler, _: send(handler, 200)) as url:
            load = ClosedLoad(f"{url}/v1/predict", b"x", "image/png")
            asyncio.run(asyncio.wait_for(load.run(8, 0.1), 300))
        assert load.errors == 0

    def test_a_closed_loop_does_not(self) -> None:
        def slow_at_first(handler: BaseHTTPRequestHandler, number: int) -> None:
            time.sleep(0.0 if number else 0.6)
            send(handler, 200)

        with server(slow_at_first) as url:
            load = ClosedLoad(f"{url}/v1/predict", b"x", "image/png")
            asyncio.run(load.run(1, 4))
        assert load.errors == 0
        assert max(load.latencies) >= 0.6

    def test_what_an_open_loop_has_no_answer_to_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("http_load.DRAIN_S", 0.1)
        over = threading.Event()

        def never(handler: BaseHTTPRequestHandler, number: int) -> None:
            if number % 2:
                over.wait(20)
            send(handler, 200)

        with server(never) as url:
            load = OpenLoad(f"{url}/v1/predict", b"x", "image/png")
            asyncio.run(load.run_at(50, 0.5))
            over.set()
        assert len(load.latencies) + load.errors == len(load.late)
        assert load.errors >= len(load.late) // 2

    def test_neither_tells_of_its_lead(self) -> None:
        with server(lambda handler, _: send(handler, 200)) as url:
            where = f"{url}/v1/predict", b"x", "image/png"
            closed, opened = ClosedLoad(*where), OpenLoad(*where)
            asyncio.run(closed.run(1, 3, 3))
            asyncio.run(opened.run_at(100, 0.2, 0.3))
        for load in (closed, opened):
            assert 0 < len(load.latencies) < load.answers

    def test_an_answer_in_chunks_is_one_when_its_last_is_there(self) -> None:
        def in_chunks(handler: BaseHTTPRequestHandler, number: int) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
            time.sleep(0.05)
            handler.wfile.write(b"0\r\n\r\n")

        with server(in_chunks) as url:
            load = ClosedLoad(f"{url}/v1/predict", b"x", "image/png")
            asyncio.run(load.run(1, 4))
        assert load.errors == 0
        assert load.latencies and min(load.latencies) >= 0.05

    @pytest.mark.parametrize("status", [503, 200])
    def test_an_answer_that_closes_the_connection_is_one_and_the_next_goes_over_another(self, status: int) -> None:
        with server(lambda handler, _: send(handler, status, Connection="close")) as url:
            where = f"{url}/v1/predict", b"x", "image/png"
            closed, opened = ClosedLoad(*where), OpenLoad(*where)
            asyncio.run(closed.run(1, 3))
            asyncio.run(opened.run_at(50, 0.3))
        for load in (closed, opened):
            fine, failed = len(load.latencies), load.errors
            assert (fine == 0 and failed > 1) if status == 503 else (failed == 0 and fine > 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "first", "scratch:cnn-small", 1, 32)


class TestFaultsLoad:
    def told(
        self, bundle: Path, answer: Answer, act: Callable[[], object] = lambda: None, seconds: float = 0.5
    ) -> dict[str, object]:
        with server(answer) as url:
            return Load({"first": bundle}, lead_s=0.1, after_s=0.2).run(url, seconds, act)

    def document(self, bundle: Path, off: float = 0.0) -> bytes:
        said = Bundle.load(bundle).predict([picture(1, 32)])[0]
        probabilities = {label: p + off for label, p in said.probabilities.items()}
        one = {"label": said.label, "confidence": said.confidence, "probabilities": probabilities}
        return json.dumps({"model": "first", "predictions": [one]}).encode()

    def test_answers_are_held_against_the_bundle_offline(self, bundle: Path) -> None:
        right, wrong = self.document(bundle), self.document(bundle, 0.01)
        found = self.told(bundle, lambda handler, number: send(handler, 200, right if number else wrong))
        assert found["requests"] >= 10  # more where the fault, which is none, takes its time on a busy machine
        assert (found["failed"], found["busy"], found["wrong"]) == (0, 0, 1)
        assert (found["answered_by"], found["at_the_end_by"]) == ({"first": found["requests"]}, ["first"])

    def test_only_the_documented_503_is_no_failure(self, bundle: Path) -> None:
        right = self.document(bundle)

        def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
            if number == 0:
                send(handler, 503, Retry_After="1")
            elif number == 1:
                send(handler, 503)
            elif number == 2:
                handler.connection.shutdown(socket.SHUT_RDWR)
                handler.close_connection = True
            else:
                send(handler, 200, right)

        found = self.told(bundle, answer)
        assert found["requests"] >= 10
        assert (found["busy"], found["failed"], found["cut_off"]) == (1, 2, 1)
        assert len(found["why"]) == 2

    def test_there_is_a_fault_however_short_the_load(self, bundle: Path) -> None:
        right, acted = self.document(bundle), threading.Event()
        found = self.told(bundle, lambda handler, _: send(handler, 200, right), acted.set, seconds=0.05)
        assert acted.is_set() and found["done"] is True
        assert found["requests"] >= 6  # the lead, and what follows the fault

    def test_requests_go_on_until_the_fault_is_done_and_a_silence_is_a_stall(self, bundle: Path) -> None:
        right, back = self.document(bundle), threading.Event()

        def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
            if number > 5:
                back.wait(20)
            send(handler, 200, right)

        found = self.told(bundle, answer, lambda: (time.sleep(1), back.set()))
        assert found["failed"] == 0
        assert found["requests"] > 20
        assert found["stall_s"] >= 0.7


class TestTrial:
    def test_it_is_over_once_ten_answers_in_a_row_tell_of_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A replica that has not heard of the end, or one that is too busy, is asked again."""
        monkeypatch.setattr("serving_faults.time.sleep", lambda _: None)
        asked: list[int] = []

        def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
            asked.append(number)
            if number == 5:
                send(handler, 503, b"<busy>")
            else:
                send(handler, 200, b'{"candidate": {}}' if number == 3 else b"{}")

        with server(answer) as url:
            trial_is_over(url)
        assert len(asked) == 6 + 10

    def test_one_that_does_not_end_is_not_waited_for_without_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("serving_faults._PATIENCE_S", 0.5)
        going_on = server(lambda handler, _: send(handler, 200, b'{"candidate": {}}'))
        with going_on as url, pytest.raises(TimeoutError, match="an end of the trial"):
            trial_is_over(url)


class TestPeers:
    """Of a script that tells of each start of its own in a file."""

    def starts(self, folder: Path, monkeypatch: pytest.MonkeyPatch, then: str, patience_s: float) -> int:
        monkeypatch.setattr("endpoints.PEERS", folder)
        monkeypatch.setattr("endpoints._PATIENCE_S", patience_s)
        (folder / "starts").touch()
        (folder / "peer.py").write_text(f"import time\nopen({str(folder / 'starts')!r}, 'a').write('x')\n{then}\n")
        with pytest.raises(RuntimeError, match="the peer did not start"), peer("the peer", "peer.py", folder):
            pass
        return len((folder / "starts").read_text())

    def test_one_that_ends_is_started_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.starts(tmp_path, monkeypatch, "", 60) == 3

    def test_one_that_does_not_answer_is_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.starts(tmp_path, monkeypatch, "time.sleep(60)", 0.5) <= 1  # the first may not have come so far


GOOD = {
    "done": True,
    "failed": 0,
    "wrong": 0,
    "stall_s": 0.1,
    "answered_by": {"first": 200},
    "at_the_end_by": ["first"],
}


class TestFloors:
    @pytest.mark.parametrize(
        ("name", "worse"),
        [
            ("done", {"done": False}),
            ("failed", {"failed": 1}),
            ("wrong", {"wrong": 1}),
            ("stall", {"stall_s": 0.51}),
            ("at the end", {"at_the_end_by": ["first", "second"]}),
            ("at the end", {"at_the_end_by": []}),
        ],
    )
    def test_of_faults(self, name: str, worse: dict[str, object]) -> None:
        faults = {"deployed": Fault(lambda: None, CHANGED_S)}
        assert exit_status(judged(faults, {"deployed": GOOD})) == 0
        kept = judged(faults, {"deployed": {**GOOD, **worse}})
        assert [key for key, held in kept.items() if not held] == [f"deployed: {name}"]
        assert exit_status(kept) == 1

    @pytest.mark.parametrize("by", [{"first": 200}, {"second": 200}, {"first": 1, "second": 1, "alike": 1}, {}])
    def test_a_change_that_answers_did_not_tell_of_was_none(self, by: dict[str, int]) -> None:
        """A worse canary that got no request is not one that was taken back."""
        faults = {"canary": Fault(lambda: None, CHANGED_S, answers=("first", "second"))}
        assert exit_status(judged(faults, {"canary": {**GOOD, "answered_by": {"first": 90, "second": 10}}})) == 0
        kept = judged(faults, {"canary": {**GOOD, "answered_by": by}})
        assert [key for key, held in kept.items() if not held] == ["canary: answers"]

    def test_a_fault_without_a_limit_misses_none(self) -> None:
        kept = judged({"nothing": Fault(lambda: None, None)}, {"nothing": {**GOOD, "stall_s": 9.0}})
        assert kept["nothing: stall"] is None and exit_status(kept) == 0

    @pytest.mark.parametrize("floors", [{}, {"ratio": None}, {"ratio": None, "overrun": None}])
    def test_nothing_measured_is_no_success(self, floors: dict[str, bool | None]) -> None:
        assert exit_status(floors) == 1
        assert exit_status({**floors, "errors": True}) == 0

    def rounds(self, *, litserve: float = 1000, p99_ms: float = 30, errors: float = 0, runtime_ms: float = 0.5) -> dict:
        def one(per_s: float, cpu_ms: float, p50: float = 14.0, p99: float = 30.0, errors: float = 0) -> list:
            found = {"requests_per_s": per_s, "p50_ms": p50, "p99_ms": p99, "errors": errors}
            return [found | {"cpu_ms_per_request": cpu_ms}] * 3

        many = Cell(32)
        return {
            ("raw", Cell()): [{"images_per_s": 2300.0}] * 3,
            (RAYTL, many): one(2100, 0.9, p99=p99_ms),
            (LITSERVE, many): one(litserve, 1.5),
            (FASTAPI, many): one(700, 1.4, errors=7),
            (RUNTIME, many): one(3400, runtime_ms),
            (RAYTL, Cell(1)): one(700, 1.0, p50=1.0, errors=errors),
            (LITSERVE, Cell(1)): one(300, 2.0, p50=3.0),
        }

    @pytest.mark.parametrize(
        ("worse", "missed"),
        [
            ({}, []),
            ({"litserve": 1100}, ["raytl over LitServe"]),
            ({"p99_ms": 43}, ["p99 over p50"]),
            ({"errors": 1}, ["errors"]),
            ({"runtime_ms": 0.8}, ["FastAPI's CPU over raytl-serve's"]),
        ],
    )
    def test_of_speed(self, worse: dict[str, float], missed: list[str]) -> None:
        _, kept = judged_speed("tiny", self.rounds(**worse), Floors())
        assert [name for name, held in kept.items() if not held] == missed

    @pytest.mark.parametrize("name", [RAYTL, RUNTIME, INT8])
    def test_a_round_without_answers_is_missed(self, name: str) -> None:
        """In a closed loop or an open one, and however good the other rounds are."""
        none = {"requests_per_s": 0.0, "errors": 0} | dict.fromkeys(("p50_ms", "p99_ms", "cpu_ms_per_request"), nan)
        good = self.rounds()
        for cell in (Cell(MANY), Cell(share=0.8)):
            of = list(good.get((name, cell)) or good[RAYTL, Cell(MANY)])
            one, all_of_them = [of[0], none, of[2]], [none] * 3
            _, kept = judged_speed("tiny", {**good, (name, cell): one}, Floors())
            assert [key for key, held in kept.items() if not held] == ["fewest answers a second"]
            _, kept = judged_speed("tiny", {**good, (name, cell): all_of_them}, Floors())
            assert kept["fewest answers a second"] is False

    def test_a_round_without_a_figure_is_no_part_of_a_ratio(self) -> None:
        above = [{"p50_ms": value} for value in (nan, 4.0, 6.0, 8.0, 9.0)]
        below = [{"p50_ms": value} for value in (1.0, 2.0, nan, 2.0)]
        assert ratio(above, below, "p50_ms") == 3
        assert isnan(ratio(above[:1], below, "p50_ms"))

    def test_an_interrupted_round_is_told_with_what_it_has(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The third round of raytl alone, and a network of which there is nothing yet."""
        rounds = {key: of if key[0] in (RAYTL, "raw") else of[:2] for key, of in self.rounds().items()}
        kept = report({"tiny": rounds, "resnet": {}}, Namespace(quick=False, seconds=2, rounds=3))
        told = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
        assert all(held for name, held in kept.items() if name.startswith("tiny"))
        assert told["networks"]["tiny"]["ratios"][f"raytl over {LITSERVE}"] == 2.1
        assert set(told["networks"]["resnet"]["ratios"].values()) == {None}

    def test_of_speed_beside_the_network_alone(self) -> None:
        ratios, kept = judged_speed("resnet", self.rounds(), Floors())
        assert ratios["raytl over the network alone"] == pytest.approx(2100 / 2300)
        assert all(kept.values())

    def test_the_last_line_has_the_figures_and_floors_of_each_network(self, capsys: pytest.CaptureFixture[str]) -> None:
        given = Namespace(quick=True, seconds=2, rounds=3)
        kept = report({"tiny": self.rounds(errors=1), "resnet": self.rounds()}, given)
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["floors"] == kept
        assert [name for name, held in kept.items() if not held] == ["tiny: errors"]
        figure = told["networks"]["tiny"]["servers"][f"{RAYTL}, 1 connection"]
        assert (figure["errors"], figure["requests_per_s"]) == (3, 700)
        assert told["networks"]["resnet"]["servers"][f"{FASTAPI}, 32 connections"]["raytl_is_times_as_fast"] == 3

    def test_without_litserve_its_floors_are_neither_kept_nor_missed(self) -> None:
        without = {key: of for key, of in self.rounds().items() if key[0] != LITSERVE}
        _, kept = judged_speed("tiny", without, Floors())
        assert [name for name, held in kept.items() if held is None] == [
            "raytl over LitServe",
            "p50 over LitServe's at 1",
        ]
