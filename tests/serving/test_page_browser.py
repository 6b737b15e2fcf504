"""The pages in a browser, as a person uses them: files, paste, keyboard, a token. What is on them comes from here."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

import pytest
from chromium import CHROMIUM, Browser
from listening import listening
from PIL import Image

from raytl.api.models import copy_bundle
from raytl.bundles import Bundle
from raytl.serving import tokens
from raytl.serving.http import create_http
from raytl.serving.named import entry
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings
from raytl.sources.checkpoint import write_metrics
from raytl.sources.manifest import read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; test_page.py has what needs none"),
]


@pytest.fixture(scope="module")
def url(bundles) -> Iterator[str]:
    service = Service()
    settings = ServingSettings(bundle=str(bundles["first"]), token_sha256=tokens.hashed("secret"))
    asyncio.run(service.apply(settings))
    with listening(create_http(service)) as (host, port):
        yield f"http://{host}:{port}/"


def test_a_person_tries_the_model(url, bundles, png, tmp_path):
    picture, broken, shot = tmp_path / "flower.png", tmp_path / "half.png", tmp_path / "page.png"
    picture.write_bytes(png(1))
    broken.write_bytes(png(1)[:60])
    expected, second = Bundle.load(bundles["first"]).predict([png(1), png(2)])

    async def person() -> None:
        async with Browser(tmp_path / "profile") as browser:
            await browser.open(url)
            await browser.until("document.activeElement.id === 'secret'")  # the token is asked for, focus is there
            await browser.tell("Input.insertText", text="wrong")
            await browser.press("Enter")
            await browser.until("document.querySelector('#token').innerText.includes('not the endpoint')")
            await browser.choose("#files", picture)
            await browser.until("document.querySelector('.result')?.innerText.includes('Waiting for the token')")
            await browser.tell("Input.insertText", text="secret")
            await browser.press("Enter")
            await browser.until("document.querySelector('dl.facts')")
            assert "90.0 % (95 % interval: 80.0 % to 100.0 %)" in await browser.ask("card_ = document.body.innerText")
            assert await browser.ask("document.cookie + localStorage.length") == "0"
            await browser.until("document.querySelector('.counted canvas')")
            said = await browser.ask("document.querySelector('.result').innerText")
            assert said.startswith(expected.label) and f"{100 * expected.confidence:.1f} %" in said
            assert await browser.ask("document.querySelectorAll('.result progress').length") == 4
            words = await browser.ask("document.querySelector('.counted canvas').getAttribute('aria-label')")
            assert expected.label in words and "counted" in words
            painted = (
                "canvas = document.querySelector('canvas'), [...canvas.getContext('2d').getImageData(0, 0, 260, 260)"
            )
            assert len(await browser.ask(f"{painted}.data.slice(0, 400)]")) == 400

            await browser.choose("#files", broken)
            await browser.until("document.querySelector('.result .bad')")
            assert "half.png" in await browser.ask("document.getElementById('said').innerText")

            arrive = (
                "data = new DataTransfer(), bytes = Uint8Array.from(atob('%s'), (one) => one.charCodeAt(0)),"
                " data.items.add(new File([bytes], '%s.png', { type: 'image/png' })), document.dispatchEvent("
                "'%s' === 'paste' ? new ClipboardEvent('paste', { clipboardData: data })"
                " : new DragEvent('drop', { dataTransfer: data }))"
            )
            encoded = base64.b64encode(png(2)).decode()
            for number, kind in enumerate(("paste", "drop"), 3):
                await browser.ask(arrive % (encoded, kind, kind))
                await browser.until(f"document.querySelectorAll('.result').length === {number}")
                await browser.until("!document.querySelector('[aria-busy]')")
                said = await browser.ask("document.querySelector('.result').innerText")
                assert said.startswith(second.label) and f"{kind}.png" in said

            (tmp_path / "folder").mkdir()
            await browser.choose("#files", tmp_path / "folder")
            await browser.until("document.querySelector('.result .bad')?.innerText.startsWith('This is a folder')")

            await browser.choose("#files", *[picture] * 25)
            await browser.until("document.querySelectorAll('.result').length === 29")
            await browser.until("!document.querySelector('[aria-busy]')")
            assert "The first 24 of 25 images" in await browser.ask("document.getElementById('left').innerText")
            await browser.ask("button = document.querySelector('.result button'), button.focus(), button.click()")
            await browser.until("document.activeElement.className === 'counted'")
            words = await browser.ask("document.activeElement.querySelector('canvas').getAttribute('aria-label')")
            assert await browser.ask("document.getElementById('said').innerText") == words

            unnamed = "[...document.querySelectorAll('input, button, canvas, img, progress')].filter((node) =>"
            unnamed += " !(node.labels?.length || node.ariaLabel || node.alt || node.innerText)).length"
            assert await browser.ask(unnamed) == 0
            for width, scheme in ((1100, "light"), (1100, "dark"), (360, "light")):
                await browser.look(shot, width, scheme)
                assert await browser.ask("document.documentElement.scrollWidth") <= width
                colours = Image.open(shot).convert("RGB").getcolors(1 << 24) or []
                most = max(colours)[1]
                assert len(colours) > 50 and (sum(most) > 600) == (scheme == "light")

            await browser.open(f"{url}docs")
            await browser.until("document.querySelectorAll('details').length > 10")  # the token is still there
            await browser.ask("document.querySelectorAll('details')[1].open = true")
            await browser.ask("document.querySelectorAll('details')[1].querySelector('button').click()")
            await browser.until("document.querySelectorAll('details')[1].innerText.includes('\"tulip\"')")
            known = ("401", "422", "FILE_NOT_FOUND")  # no token, a broken image, a folder
            refused = [line for line in browser.logged if not any(why in line for why in known)]
            assert not refused, refused  # nothing was blocked by the page's own policy, no script failed

    asyncio.run(person())


def test_what_is_to_be_read_with_the_figures_stands_before_them(bundles, tmp_path):
    folder = copy_bundle(bundles["first"], tmp_path / "m")
    told = "For 92.2 % of the unlabelled images its answer is '<b>Exterior</b>'."
    write_metrics(folder, {**read_manifest(folder).metrics, "cautions": [told]})
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(folder))))

    async def person(address: str) -> None:
        async with Browser(tmp_path / "profile") as browser:
            await browser.open(address)
            await browser.until("document.querySelector('dl.facts')")
            said = await browser.ask("document.getElementById('card').innerText")
            assert said.startswith(told) and "90.0 %" in said

    with listening(create_http(service)) as (host, port):
        asyncio.run(person(f"http://{host}:{port}/"))


def test_a_model_that_sees_pieces_is_not_said_to_squash_the_image(bundles, tmp_path):
    folder = copy_bundle(bundles["first"], tmp_path / "m", images=False)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["preprocessing"]["tiles"] = 2
    (folder / "model.json").write_text(json.dumps(manifest))
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(folder))))

    async def person(address: str) -> None:
        async with Browser(tmp_path / "profile") as browser:
            await browser.open(address)
            await browser.until("document.querySelector('dl.facts')")
            said = await browser.ask("document.getElementById('card').innerText")
            assert "32 x 32, grey, 2 x 2 pieces of the image" in said

    with listening(create_http(service)) as (host, port):
        asyncio.run(person(f"http://{host}:{port}/"))


def test_models_beside_one_another_are_listed_and_led_to(bundles, png, tmp_path):
    async def directory():
        return [
            entry("cells", "/", {"model": "first"}, "RUNNING"),
            entry("letters", "/v1/models/letters", {}, "RUNNING"),
        ]

    async def person(address: str) -> None:
        async with Browser(tmp_path / "profile") as browser:
            await browser.open(address)
            await browser.until("document.querySelectorAll('#models a').length === 2")
            assert await browser.ask("document.querySelector('#models [aria-current=page]').innerText") == "cells"
            links = "[...document.querySelectorAll('#models a')].map((one) => one.getAttribute('href')).join(' ')"
            assert await browser.ask(links) == "/ /v1/models/letters/"

            # A server before the endpoint that has no words for what it says, and side questions that nobody answers.
            await browser.ask(
                "fetched = window.fetch, statuses = { 'v1/model/health': 502, 'v1/models': 418, 'v1/predict': 413 },"
                " window.fetch = async (url, given) => { const status = statuses[new URL(url).pathname.slice(1)];"
                " return status ? new Response('<html></html>', { status }) : fetched(url, given); }, begin()"
            )
            await browser.until("!document.querySelector('#models a')")
            card = await browser.ask("document.getElementById('card').innerText")
            assert "tulip" in card and "cannot be told now: A server before the endpoint cannot reach it" in card
            picture = tmp_path / "flower.png"
            picture.write_bytes(png(1))
            for status, words in ((413, "That is more than"), (418, "HTTP 418")):
                await browser.ask(f"statuses['v1/predict'] = {status}")
                await browser.choose("#files", picture)
                await browser.until(f"document.querySelector('.result .bad')?.innerText.startsWith('{words}')")

    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]))))
    with listening(create_http(service, "cells", directory)) as (host, port):
        asyncio.run(person(f"http://{host}:{port}/"))
