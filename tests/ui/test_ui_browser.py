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

from raytl.runs import RunStore, RunWriter
from raytl.runs.report import write_report
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
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=True).stdout


def test_a_run_is_drawn_as_it_goes_on(url: str, tmp_path: Path) -> None:
    drawn = browse(f"{url}#/run/live", tmp_path, "--dump-dom")
    assert len(re.findall(r'<polyline class="curve running"', drawn)) == 2
    assert len(re.findall(r'data-key="stop \d+"', drawn)) == 2 and 'data-key="stop"' in drawn
    assert re.search(r'<rect class="bar', drawn) and "Leaderboard" in drawn
    browse(f"{url}#/run/live", tmp_path, "--window-size=1280,1600", f"--screenshot={tmp_path / 'live.png'}")
    with Image.open(tmp_path / "live.png") as picture:
        assert picture.size == (1280, 1600)
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50  # curves, bars and words, not an empty page


def test_a_report_is_drawn_in_a_place_of_its_own(url: str, storage: Path, tmp_path: Path) -> None:
    write_report(RunStore(storage).open("digits"))
    report = storage / "digits" / "report.html"
    outcome = "<pre id=probe></pre><script>fetch('/api/runs').then(() => 'read', () => 'kept out').then((told) => {"
    outcome += " document.getElementById('probe').textContent = `${origin} ${told}`; });</script></body>"
    report.write_text(report.read_text("utf-8").replace("</body>", outcome), "utf-8")
    drawn = browse(f"{url}runs/digits/report", tmp_path, "--dump-dom")
    assert len(re.findall('class="main-svg"', drawn)) > 5 and "<canvas" in drawn  # also what is drawn by WebGL
    assert '<pre id="probe">null kept out</pre>' in drawn


def test_runs_and_two_beside_each_other(url: str, tmp_path: Path) -> None:
    drawn = browse(url, tmp_path, "--dump-dom")
    assert all(f'href="#/run/{name}"' in drawn for name in ("live", "digits", "digits-2"))
    drawn = browse(f"{url}#/compare/digits/digits-2", tmp_path, "--dump-dom")
    assert "digits-2 over digits on the same test images" in drawn


TOOLS = """
  const until = Date.now() + 180000;
  const pause = () => new Promise((go) => setTimeout(go, 100));
  const wait = async (what) => { while (!what() && Date.now() < until) await pause(); };
  const by = (key) => document.querySelector(`[data-key="${key}"]`);
  await wait(() => document.readyState === "complete");
  const main_ = document.getElementById("main"), offline_ = document.getElementById("offline");
"""
FILL = f"""
(async () => {{{TOOLS}
  await wait(() => document.querySelector('[data-key="try"]'));
  const set = (key, value) => {{ document.querySelector(`[data-key="${{key}}"]`).value = value; }};
  set("dial cut", "0");
  set("dial adaptation", "mcc");
  set("more", "adaptation.mcc.weight: 0.5");
  set("like", "5");
  document.querySelector('[data-key="try"]').click();
  await wait(() => document.getElementById("said").textContent);
  return document.getElementById("said").textContent;
}})()
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
        async with asyncio.timeout(400), aiohttp.ClientSession() as session:
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
                        assert "exceptionDetails" not in answer["result"], answer
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


# What a person does while the page looks again and again, and what the server answers in between: the page's own fetch,
# or an answer in its place. Each line that comes back is something that went wrong.
STAYS = f"""
(async () => {{{TOOLS}
  const wrong = [], check = (what, holds) => {{ if (!holds) wrong.push(what); }};
  const fetched = window.fetch;
  let between = null;
  window.fetch = async (path, options) => {{
    const answer = between && (await between(String(path), options));
    return answer || fetched(path, options);
  }};
  const again = () => document.dispatchEvent(new Event("visibilitychange")); // at which the page looks at once
  await wait(() => by("try"));

  // Somebody types, has a list in hand and has scrolled, while a trial goes on and a tag is new.
  const note = by("note"), like = by("like"), first = by("part board").querySelector("td");
  note.value = "half a sentence"; note.focus(); note.setSelectionRange(2, 6);
  like.value = "5";
  const table = by("part board").querySelector(".scroll");
  document.styleSheets[1].insertRule(".scroll {{ max-width: 200px; }}"); // as on a small screen
  table.scrollLeft = 40;
  let epoch = 3;
  between = async (path) => {{
    if (path !== "/api/runs/live") return null;
    const run = await (await fetched(path, {{ headers: {{ "X-Raytl": "page" }} }})).json();
    epoch += 1;
    for (const trial of run.trials.filter((one) => one.status === "running")) {{
      trial.curve.push([epoch, 0.4]);
      trial.score = epoch / 100;
    }}
    run.tags = ["new"];
    return new Response(JSON.stringify(run));
  }};
  const before = main_.innerHTML;
  await wait(() => by("untag new"));
  const then = epoch;
  await wait(() => epoch > then + 1); // also when it looks by itself
  await pause();
  check("the drawing is new", main_.innerHTML !== before && main_.querySelector("polyline.running"));
  check("the note is the same field", by("note") === note && note.value === "half a sentence");
  check("the focus stays", document.activeElement === note);
  check("the table stays where it was scrolled to", table.scrollLeft === 40);
  check("the caret stays", note.selectionStart === 2 && note.selectionEnd === 6);
  check("the choice stays", by("like") === like && like.value === "5");
  check("the rows stay", by("part board").querySelector("td") === first);

  // One look that fails leaves nothing behind; one of a server that is gone for a moment leaves the picture.
  between = () => new Response("<html>Bad Gateway</html>", {{ status: 502 }});
  again();
  await wait(() => !offline_.hidden);
  check("what it was", offline_.textContent === "The server answers HTTP 502; trying again.");
  check("it is read out", offline_.getAttribute("role") === "alert");
  check("the picture stays while the server is gone", by("note") === note && note.value === "half a sentence");
  between = () => new Response("nothing", {{ status: 404 }});
  again();
  await wait(() => main_.innerText === "HTTP 404");
  check("a look that is refused is told", main_.innerText === "HTTP 404");
  between = null;
  again();
  await wait(() => by("note"));
  check("the picture comes back", by("note") && offline_.hidden);

  // A form that is refused keeps what was typed, and the field is named.
  by("dial cut").value = "0";
  const refused = {{ detail: [{{ loc: ["body", "settings"], msg: "Input should be shorter" }}] }};
  between = (path) => path.endsWith("/try") && new Response(JSON.stringify(refused), {{ status: 422 }});
  by("try").click();
  await wait(() => document.getElementById("said").textContent);
  check("the field is named", document.getElementById("said").textContent === "settings: Input should be shorter");
  check("what was typed stays", by("dial cut").value === "0");
  between = (path) => path.endsWith("/try") && new Response("{{}}");
  by("try").click();
  await wait(() => by("dial cut").value === "");
  check("what was taken is cleared", by("dial cut").value === "");

  // An answer that comes after that of a later look is not drawn.
  let late = null;
  between = async (path) => {{
    if (path !== "/api/runs/live" || late) return null;
    late = "on its way";
    const run = await (await fetched(path, {{ headers: {{ "X-Raytl": "page" }} }})).json();
    await wait(() => late === "now");
    run.note = "of old";
    late = "there";
    return new Response(JSON.stringify(run));
  }};
  again();
  await wait(() => late);
  again();
  await pause();
  late = "now";
  await wait(() => late === "there");
  await pause();
  check("an older answer is not drawn", !main_.innerText.includes("of old"));

  // The way past the header stays on the page.
  document.querySelector(".skip").click();
  await pause();
  check("the way past the header", location.hash === "#/run/live" && document.activeElement === main_);

  // Long curves that differ by little are drawn, between levels that can be told apart.
  between = async (path) => {{
    if (path !== "/api/runs/live") return null;
    const run = await (await fetched(path, {{ headers: {{ "X-Raytl": "page" }} }})).json();
    for (const trial of run.trials) trial.curve = [];
    run.trials[0].curve = Array.from({{ length: 150000 }}, (_, at) => [at, 0.9312 + 0.001 * (at % 2)]);
    return new Response(JSON.stringify(run));
  }};
  again();
  const levels = () => [...by("part curves").querySelectorAll("text")].map((one) => one.textContent).slice(0, 3);
  await wait(() => !by("part curves") || levels()[0] === "0.9312");
  check("the levels", by("part curves") && levels().join() === "0.9312,0.9317,0.9322");

  // Another run has its own text.
  by("note").value = "of the live one";
  location.hash = "#/run/digits";
  await wait(() => main_.querySelector("h2").innerText.startsWith("digits"));
  check("text of one run is not kept for another", by("note").value === "");

  // Runs that are gone are not compared.
  location.hash = "#/";
  await wait(() => by("tick digits"));
  between = null;
  by("tick digits").click();
  by("tick live").click();
  await wait(() => !by("compare").disabled);
  between = async (path) => {{
    if (path !== "/api/runs") return null;
    const found = await (await fetched(path, {{ headers: {{ "X-Raytl": "page" }} }})).json();
    found.runs = found.runs.filter((run) => run.name !== "live");
    return new Response(JSON.stringify(found));
  }};
  again();
  await wait(() => !by("tick live"));
  by("run digits").focus();
  by("tick digits-2").click();
  await wait(() => !by("compare").disabled);
  check("two that are there are compared", !by("compare").disabled && by("tick digits").checked);
  check("the focus stays on a link", document.activeElement === by("run digits"));
  return wrong.join("; ");
}})()
"""


def test_what_somebody_does_outlives_new_answers_and_failed_ones(url: str, tmp_path: Path) -> None:
    assert asyncio.run(evaluate(f"{url}#/run/live", STAYS, tmp_path)) == ""
