"""What an endpoint says of itself, from what came in; the way through Serve is in test_deploy.py."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tiny import shapes

from raytl.bundles import Bundle
from raytl.bundles.yardstick import NO_YARDSTICK, why_none
from raytl.evaluation.second_opinions import OPINIONS
from raytl.judging.health import Health
from raytl.serving import health
from raytl.serving.health import MOST_PER_S, WINDOW, Monitor, Window, merged
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings
from raytl.tasks import LabelledImages


def service_of(bundle: Path, **settings: object) -> Service:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle), **settings)))
    return service


def png(images: LabelledImages, number: int) -> bytes:
    file = io.BytesIO()
    images.items[number].open().save(file, "PNG")
    return file.getvalue()


def ask(client: TestClient, images: LabelledImages) -> None:
    files = [("files", (f"{i}.png", png(images, i), "image/png")) for i in range(len(images))]
    assert client.post("/v1/predict", files=files).status_code == 200


def test_says_how_often_it_is_right_and_notices_another_light(known: Path) -> None:
    service = service_of(known)
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        told = client.get("/v1/model/health").json()
        assert told["health"] is None and "no image" in told["why_not"]
        ask(client, shapes(16, 50))
        service.monitor.settle()
        usual = client.get("/v1/model/health").json()
        assert usual["health"]["images"] == 48 and usual["replicas"] == 1
        assert not usual["health"]["drift"]["alarm"]
        assert set(usual["health"]["shares"]) == {"bar", "cross", "disc"}
    other = service_of(known)
    with TestClient(create_http(other), "http://127.0.0.1") as client:
        ask(client, shapes(16, 51, contrast=-0.8, light=230))
        other.monitor.settle()
        shifted = client.get("/v1/model/health").json()["health"]
    assert shifted["drift"]["alarm"]
    assert shifted["accuracy"]["value"] < usual["health"]["accuracy"]["value"] - 0.1
    assert shifted["accuracy"]["low"] <= shifted["accuracy"]["value"] <= shifted["accuracy"]["high"]


def test_an_older_bundle_says_that_it_cannot_tell(bundles: dict[str, Path]) -> None:
    with TestClient(create_http(service_of(bundles["first"])), "http://127.0.0.1") as client:
        client.post("/v1/predict", content=png(shapes(1, 1), 0))
        told = client.get("/v1/model/health").json()
    assert told["health"] is None and "without reference statistics" in told["why_not"]


def test_says_why_a_bundle_cannot_tell() -> None:
    assert why_none({"run": "r"}) == "the model was exported without reference statistics"
    assert why_none({NO_YARDSTICK: "12 images"}) == "the model was exported without reference statistics: 12 images"


def window(count: int, start: float, chosen: int) -> Window:
    return Window(
        np.zeros((count, OPINIONS), np.float32),
        np.full(count, chosen),
        np.zeros((count, 33), np.float32),
        start + np.arange(count, dtype=np.float64),
    )


def test_windows_of_replicas_become_one_with_the_last_images_of_all() -> None:
    sent = Window.from_bytes(window(400, 1000.5, 1).to_bytes())
    both = merged([window(400, 1000.0, 0), sent])
    assert len(both.times) == WINDOW and (np.diff(both.times) > 0).all()
    assert np.bincount(both.chosen).tolist() == [250, 250]


class Others:
    """A board with the window of one other replica."""

    def __init__(self, other: Window) -> None:
        self.other, self.mine, self.told, self.images = other, b"", 0, 0

    def put(self, version: str, window: bytes) -> None:
        self.mine = window

    def others(self, version: str) -> list[bytes]:
        return [self.other.to_bytes()] if version == "v1" else []

    def tell(self, version: str, health: Health, labels: object) -> None:
        self.told, self.images = self.told + 1, health.images


def test_a_replica_leaves_what_it_keeps_and_counts_the_others_but_not_those_long_gone(known: Path) -> None:
    bundle = Bundle.load(known)
    images = shapes(4, 52)
    pixels = images.tensor(bundle.manifest.preprocessing).numpy()
    board = Others(window(30, time.time() - 60, 0))
    monitor = Monitor(board)
    monitor.note("v1", bundle, pixels, np.full((12, 3), 1 / 3, np.float32))
    monitor.settle()
    assert len(Window.from_bytes(board.mine).times) == 12 and board.told
    assert monitor.judge("v1", bundle)["health"]["images"] == 42
    assert monitor.judge("v2", bundle)["health"] is None, "another version begins anew"
    board.other = window(30, time.time() - 100_000, 0)
    assert monitor.judge("v1", bundle)["health"]["images"] == 12


def test_the_last_images_of_a_burst_reach_the_others_though_nothing_comes_after_them(known, monkeypatch):
    monkeypatch.setattr(health, "SHARE_EVERY_S", 0.5)
    bundle = Bundle.load(known)
    pixels = shapes(4, 52).tensor(bundle.manifest.preprocessing).numpy()
    board = Others(window(30, time.time() - 60, 0))
    monitor = Monitor(board)
    for _ in range(2):
        monitor.note("v1", bundle, pixels, np.full((12, 3), 1 / 3, np.float32))
        monitor.settle()
    deadline = time.monotonic() + 120
    while len(Window.from_bytes(board.mine).times) < 24 or board.told < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    monitor.close()


def test_what_is_published_is_so_again_while_nothing_comes_until_another_version_is_served(known, monkeypatch):
    """Ray drops figures that it is not told again."""
    monkeypatch.setattr(health, "TELL_EVERY_S", 0.05)
    bundle = Bundle.load(known)
    pixels = shapes(4, 52).tensor(bundle.manifest.preprocessing).numpy()
    board = Others(window(30, time.time() - 60, 0))
    monitor = Monitor(board)
    monitor.serves("v1")
    monitor.note("v1", bundle, pixels, np.full((12, 3), 1 / 3, np.float32))
    monitor.settle()
    deadline = time.monotonic() + 60
    while board.told < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert board.images == 42
    monkeypatch.setattr(health, "JUDGE_EVERY_S", 0.0)
    board.other = window(50, time.time() - 60, 0)
    while board.images != 62:  # what others have seen meanwhile
        assert time.monotonic() < deadline
        time.sleep(0.05)
    monitor.serves("v2")
    monitor.judge("v1", bundle)  # of a request that was answered before
    monitor.settle()
    told = board.told
    monitor._tell_again()
    assert board.told == told
    monitor.close()


def test_a_model_that_was_replaced_is_let_go(known: Path) -> None:
    bundle = Bundle.load(known)
    pixels = shapes(4, 52).tensor(bundle.manifest.preprocessing).numpy()
    monitor = Monitor(Others(window(30, time.time() - 60, 0)))
    monitor.serves("v1")
    monitor.note("v1", bundle, pixels, np.full((12, 3), 1 / 3, np.float32))
    monitor.settle()
    assert monitor._told is not None
    monitor.serves("v2")
    assert monitor._told is None
    assert monitor.judge("v1", bundle)["health"] is not None  # of a request that was answered before
    assert monitor._told is None
    monitor.close()


def test_a_flood_is_looked_at_in_part(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    bundle = Bundle.load(known)
    pixels = np.zeros((20, 1, bundle.manifest.image_size, bundle.manifest.image_size), np.uint8)
    monitor = Monitor()
    for _ in range(50):
        monitor.note("v1", bundle, pixels, np.full((20, 3), 1 / 3, np.float32))
    monitor.settle()
    kept = monitor.window("v1")
    assert monitor.seen == 1000
    assert kept is not None and len(kept.times) == MOST_PER_S
    now = 0.5
    for _ in range(50):
        monitor.note("v1", bundle, pixels, np.full((20, 3), 1 / 3, np.float32))
    monitor.settle()
    kept = monitor.window("v1")
    assert kept is not None and len(kept.times) == 1.5 * MOST_PER_S


def test_pictures_are_what_a_request_brings(known: Path) -> None:
    """What is kept is of the image as the network sees it, however large it was sent."""
    service = service_of(known)
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        file = io.BytesIO()
        Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(file, "PNG")
        client.post("/v1/predict", content=file.getvalue())
        service.monitor.settle()
        kept = service.monitor.window(service.live.version)
    assert kept is not None and kept.statistics[0, 0] == pytest.approx(200 / 255, abs=0.01)
