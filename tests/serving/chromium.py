"""A headless Chromium that is told what to do as a person would: choose files, press keys, look."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0"),
)
_PATIENCE_S = 180


class Browser:
    """One tab. folder: for its profile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self.logged: list[str] = []

    async def __aenter__(self) -> Self:
        assert CHROMIUM is not None
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        known, deadline = self._folder / "DevToolsActivePort", time.monotonic() + _PATIENCE_S
        while not known.exists() or len(known.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline and self._process.poll() is None, "Chromium does not start"
            await asyncio.sleep(0.05)
        port = known.read_text().splitlines()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tab = next(tab for tab in await answer.json() if tab["type"] == "page")
        self._socket = await self._session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await self.tell(f"{domain}.enable")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()
        await self._session.close()
        self._process.terminate()
        self._process.wait(timeout=30)

    async def tell(self, method: str, **values: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": values})
        while True:
            message = json.loads((await self._socket.receive(_PATIENCE_S)).data)
            if message.get("method") == "Log.entryAdded":
                self.logged.append(message["params"]["entry"]["text"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.logged.append(str(message["params"]["exceptionDetails"]))
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    async def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression holds."""
        deadline = time.monotonic() + _PATIENCE_S
        while not await self.ask(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"never: {script}\n{await self.ask('document.body.innerText')}"
            await asyncio.sleep(0.1)

    async def open(self, url: str) -> None:
        await self.tell("Page.navigate", url=url)
        await self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    async def choose(self, selector: str, *paths: Path) -> None:
        found = await self.tell("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        files = [str(path) for path in paths]
        await self.tell("DOM.setFileInputFiles", files=files, objectId=found["result"]["objectId"])

    async def press(self, key: str) -> None:
        texts = {"Enter": "\r", "Tab": ""}
        codes = {"Enter": 13, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            text = {"text": texts[key]} if kind == "keyDown" and texts[key] else {}
            await self.tell(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text
            )

    async def look(self, path: Path, width: int, scheme: str = "light", height: int = 900) -> None:
        """A screenshot of the whole page."""
        await self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.tell("Emulation.setDeviceMetricsOverride", **size)
        found = await self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
