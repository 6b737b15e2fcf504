"""The page in a browser: what it draws is there. Over HTTP everything else is tested; this needs a Chromium."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import uvicorn
from PIL import Image

from raytl.runs import RunWriter
from raytl.ui import make_app
from raytl.ui.children import Children

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


FILL = """
(async () => {
  const until = Date.now() + 60000;
  const pause = () => new Promise((go) => setTimeout(go, 100));
  const wait = async (what) => { while (!what() && Date.now() < until) await pause(); };
  await wait(() => document.querySelector('[data-key="try"]'));
  const set = (key, value) => { document.querySelector(`[data-key="${key}"]`).value = value; };
  set("dial cut", "0");
  set("dial adaptation", "mcc");
  set("more", "adaptation.mcc.weight: 0.5");
  set("like", "5");
  document.querySelector('[data-key="try"]').click();
  await wait(() => document.getElementById("said").textContent);
  return document.getElementById("said").textContent;
})()
"""


async def evaluate(page: str, script: str, folder: Path) -> str:
    """What a script comes to on a page, in a browser that stays open for it."""
    assert CHROMIUM is not None
    flags = [flag for flag in FLAGS if not flag.startswith("--virtual-time")]
    profile = folder / "driven"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", page,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession() as session:
            while not (told := profile / "DevToolsActivePort").exists() or not told.read_text().count("\n"):
                await asyncio.sleep(0.1)
            port = told.read_text().splitlines()[0]
            socket_url = ""
            while not socket_url:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    tabs = [tab for tab in await answer.json() if tab["url"].startswith(page.partition("#")[0])]
                socket_url = tabs[0]["webSocketDebuggerUrl"] if tabs else ""
                await asyncio.sleep(0.1)
            async with session.ws_connect(socket_url) as tab:
                wanted = {"expression": script, "awaitPromise": True, "returnByValue": True}
                while True:
                    await tab.send_json({"id": 1, "method": "Runtime.evaluate", "params": wanted})
                    answer = await tab.receive_json()
                    if "result" in answer:
                        return str(answer["result"]["result"]["value"])
                    await asyncio.sleep(0.2)  # the page was still being loaded, and what ran in the last one is gone
    finally:
        process.kill()
        await process.wait()


def test_a_strategy_is_put_together_in_the_form(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(Children, "start", lambda self, run, *words: started.append(words))
    said = asyncio.run(evaluate(f"{url}#/run/live", FILL, tmp_path))
    assert said == "The strategy is being looked at."
    settings = ["--set", "cut=0", "--set", "adaptation=mcc", "--set", "adaptation.mcc.weight=0.5"]
    (words,) = started
    assert (
        words[:3] == ("runs", "try", "live")
        and sorted(words[3:-2]) == sorted(settings)
        and words[-2:] == ("--like", "5")
    )
