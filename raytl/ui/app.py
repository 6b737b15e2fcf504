"""The page and what it asks for, over HTTP.

Everybody on the way who is not the page is kept out: off loopback a token is asked for; on loopback only the machine's
own names are answered to (a foreign page that points its name at this machine is not), and what changes something needs
a header that no other page can send.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field

from raytl import web
from raytl.api import Run
from raytl.core.errors import UserError
from raytl.runs import RunStore, wording
from raytl.runs.comparing import compare
from raytl.runs.labels import note_of, tag, write_note
from raytl.runs.requests import ask_to_stop
from raytl.search.space.files import parse_assignment
from raytl.ui.children import Children
from raytl.ui.going_on import check_can_be_tried, words_to_go_on
from raytl.ui.views import Views
from raytl.web.visitors import refusal

HEADER = "x-raytl"
COOKIE = "raytl-token"
# Whoever may write to the storage may have written the report: it gets a place of its own, with no say in the page's.
# Within it the report may do what its own policy says, which one of another origin need not have.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = {**web.SHARED, "page.js": "raytl.ui", "page.css": "raytl.ui"}


class NotThereError(UserError):
    """No such run."""


class More(BaseModel):
    """By how much a search is to go on; one of the two."""

    trials: int | None = Field(None, ge=1, le=100_000)
    minutes: float | None = Field(None, gt=0, le=100_000)


class Strategy(BaseModel):
    """A strategy by hand: what is said of it, ``key=value``, and the trial that it is like otherwise."""

    settings: list[str] = Field(min_length=1, max_length=100)
    like: int | None = Field(None, ge=0)


class Labels(BaseModel):
    """Tags to put on a run and to take off it."""

    add: list[str] = []
    remove: list[str] = []


class Note(BaseModel):
    """A note in place of the one that is there."""

    text: str = Field("", max_length=10_000)


class Deployment(BaseModel):
    """Where an endpoint is to answer."""

    port: int = Field(8000, ge=1, le=65535)
    name: str = Field("raytl", pattern=r"^\w[\w.-]{0,49}$")


class _Plain(JSONResponse):
    """JSON of ASCII letters: names of files may hold bytes that are no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def make_app(
    storage: str, *, token: str | None = None, price: float | None = None, names: Sequence[str] = ()
) -> FastAPI:
    """The control room over a storage. token: asked of everybody; None where only this machine reaches it.

    price: of an hour of the machines that search, in any currency. names: to answer to without a token, beside
    addresses and those of loopback.
    """
    app = FastAPI(
        title="raytl", docs_url=None, redoc_url=None, openapi_url=None, default_response_class=_Plain
    )  # fmt: skip
    store, children, views = RunStore(storage), Children(storage), Views(price)

    def opened(name: str) -> Run:
        """A run of this storage, and of no other place."""
        found = next((place for place in store.places() if place.name == name), None)
        if found is None:
            raise NotThereError(f"no run '{name}' in {store.shown}")
        return Run(found)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        asked = request.url.path.startswith(("/api/", "/runs/"))
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.cookies.get(COOKIE, "")
        if asked and token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"error": "open the page with its token: …/#token=TOKEN"}, 401)
        if token is None:
            told = request.headers
            origin, site = told.get("origin"), told.get("sec-fetch-site")
            refused = refusal(request.method, told.get("host", ""), origin, site, tuple(names))
            if refused is not None:
                return JSONResponse({"error": refused[1]}, refused[0])
        if request.method != "GET" and HEADER not in request.headers:
            return JSONResponse({"error": f"what changes something needs the header {HEADER}"}, 403)
        response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Cache-Control"] = "no-store"
        if token is not None and asked:
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response

    @app.exception_handler(UserError)
    def mistake(request: Request, error: UserError) -> JSONResponse:
        return _Plain({"error": str(error)}, 404 if isinstance(error, NotThereError) else 409)

    @app.get("/")
    def page() -> Response:
        return web.respond("raytl.ui", "page.html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _FILES:
            raise NotThereError(f"no file '{name}'")
        return web.respond(_FILES[name], name)

    @app.get("/api/runs")
    def runs() -> dict[str, Any]:
        return {"storage": store.shown, "runs": [run.to_json() for run in store.list(views.known)]}

    @app.get("/api/runs/{name}")
    def one(name: str) -> dict[str, Any]:
        return views.show(opened(name)) | {"command": children.of(name)}

    @app.get("/api/compare")
    def compared(a: str, b: str) -> dict[str, Any]:
        found = compare(opened(a), opened(b)).to_json()
        strategies = found["results"]["strategy"]
        found["results"]["strategy"] = {at: values and wording.strategy(values) for at, values in strategies.items()}
        return found

    @app.get("/runs/{name}/report")
    def report(name: str) -> HTMLResponse:
        run = opened(name)
        if not run.place.has(run.report_path.name):
            raise NotThereError(f"run '{name}' has no report yet")
        text = run.place.file(run.report_path.name).read_text("utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _REPORT_POLICY, "Referrer-Policy": "no-referrer"})

    @app.post("/api/runs/{name}/stop")
    def stop(name: str) -> dict[str, Any]:
        ask_to_stop(opened(name))
        return {"asked": True}

    @app.post("/api/runs/{name}/trials/{trial}/stop")
    def stop_trial(name: str, trial: int) -> dict[str, Any]:
        ask_to_stop(opened(name), trial)
        return {"asked": True}

    @app.post("/api/runs/{name}/go-on")
    def go_on(name: str, more: More) -> dict[str, Any]:
        run = opened(name)
        if (more.trials is None) == (more.minutes is None):
            raise UserError("say by how many trials, or by how many minutes")
        if run.status == "running":
            raise UserError(f"run '{name}' is running; it can be gone on with once it has ended")
        wanted = ["--trials", f"+{more.trials}"] if more.trials else ["--time-budget", f"+{more.minutes:g}m"]
        children.start(name, *words_to_go_on(name, run.settings, storage, wanted))
        return {"started": True}

    @app.post("/api/runs/{name}/try")
    def try_strategy(name: str, strategy: Strategy) -> dict[str, Any]:
        run = opened(name)
        check_can_be_tried(name, run.settings)
        for setting in strategy.settings:
            parse_assignment(setting)  # the rest is told by the command, which reads the data
        wanted = [word for setting in strategy.settings for word in ("--set", setting)]
        like = [] if strategy.like is None else ["--like", str(strategy.like)]
        children.start(name, "runs", "try", name, *wanted, *like)
        return {"started": True}

    @app.post("/api/runs/{name}/deploy")
    def deploy(name: str, where: Deployment) -> dict[str, Any]:
        if not opened(name).has_model:
            raise UserError(f"run '{name}' has no model yet")
        children.start(name, "deploy", name, "--port", str(where.port), "--name", where.name)
        return {"started": True}

    @app.post("/api/runs/{name}/tags")
    def tags(name: str, labels: Labels) -> dict[str, Any]:
        return {"tags": tag(opened(name).place, labels.add, labels.remove)}

    @app.post("/api/runs/{name}/note")
    def note(name: str, text: Note) -> dict[str, Any]:
        place = opened(name).place
        write_note(place, text.text)
        return {"note": note_of(place)}

    return app
