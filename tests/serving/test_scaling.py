"""Replicas come under load and go without: through Ray Serve, on loopback, with delays of seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest
from own_ray import own_ray

from raytl.bundles import Bundle
from raytl.serving import deploy, status, undeploy
from raytl.serving.ports import free_port
from raytl.serving.settings import AUTOSCALING

pytestmark = pytest.mark.slow  # a Ray session, Serve, and replicas that start three times
LONG_S = 240
# How often a replica tells what it has to do, and over what time that is averaged, too: by default 10 and 30 s.
DELAYS = {"upscale_delay_s": 1, "downscale_delay_s": 3, "metrics_interval_s": 1, "look_back_period_s": 3}


@pytest.fixture(scope="module")
def port():
    with own_ray(3):
        yield free_port()


def replicas() -> int:
    (one,) = status()
    return int(one["replicas"])


def comes(happens: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONG_S
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.3)
    return happens()


def test_from_nothing_to_one_to_two_and_back_to_nothing(port, bundles, png, monkeypatch):
    for name, seconds in DELAYS.items():
        monkeypatch.setitem(AUTOSCALING, name, seconds)
    endpoint = deploy(bundles["first"], port=port, min_replicas=0, max_replicas=2)
    expected = Bundle.load(bundles["first"]).predict([png(1)])[0].label
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask(client: httpx.Client) -> None:
        answer = client.post(f"{endpoint.url}/v1/predict", content=png(1))
        answers.append((answer.status_code, answer.json()["predictions"][0]["label"]))

    def hammer() -> None:
        with httpx.Client(trust_env=False, timeout=LONG_S) as client:  # making one takes longer than an answer
            while not stop.is_set():
                ask(client)

    try:
        assert comes(lambda: replicas() == 0)
        with httpx.Client(trust_env=False, timeout=LONG_S) as client:
            ask(client)  # waits for the replica that it starts
        assert answers == [(200, expected)]
        threads = [threading.Thread(target=hammer) for _ in range(24)]
        for thread in threads:
            thread.start()
        went_up = comes(lambda: replicas() == 2)
        stop.set()
        for thread in threads:
            thread.join()
        assert went_up
        assert set(answers) == {(200, expected)}  # nobody was refused while replicas came
        assert comes(lambda: replicas() == 0)
    finally:
        stop.set()
        undeploy()
