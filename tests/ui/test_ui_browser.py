"""The page in a browser: what it draws is there. Over HTTP everything else is tested; this needs a Chromium."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image

from raytl.runs import RunWriter
from raytl.ui import make_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=4000"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; tests/ui/test_ui.py has what needs none"),
]


@pytest.fixture
def url(storage: Path, live: RunWriter) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(str(storage)), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


def browse(url: str, folder: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'chromium'}", *flags, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_run_is_drawn_as_it_goes_on(url: str, tmp_path: Path) -> None:
    drawn = browse(f"{url}#/run/live", tmp_path, "--dump-dom")
    assert len(re.findall(r'<polyline class="curve running"', drawn)) == 2
    assert len(re.findall(r'data-key="stop \d+"', drawn)) == 2 and 'data-key="stop"' in drawn
    assert re.search(r'<rect class="bar', drawn) and "Leaderboard" in drawn
    browse(f"{url}#/run/live", tmp_path, "--window-size=1280,1600", f"--screenshot={tmp_path / 'live.png'}")
    with Image.open(tmp_path / "live.png") as picture:
        assert picture.size == (1280, 1600)
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50  # curves, bars and words, not an empty page


def test_runs_and_two_beside_each_other(url: str, tmp_path: Path) -> None:
    drawn = browse(url, tmp_path, "--dump-dom")
    assert all(f'href="#/run/{name}"' in drawn for name in ("live", "digits", "digits-2"))
    drawn = browse(f"{url}#/compare/digits/digits-2", tmp_path, "--dump-dom")
    assert "digits-2 over digits on the same test images" in drawn
