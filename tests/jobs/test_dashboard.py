"""Who is let in: heads of other releases, without a token, or none at all, each in a sentence and at once."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from raytl.core.errors import UserError
from raytl.jobs.dashboard import Dashboard, is_loopback, refuse_open

TOKEN = "right"


class Head(BaseHTTPRequestHandler):
    """As Ray's dashboard answers these two requests, of any release and mode."""

    mode: str | None = "token"
    version = ray.__version__
    seen: list[str | None]

    def do_GET(self):
        self.seen.append(self.headers.get("authorization"))
        if self.path == "/api/authentication_mode":
            self.answer(404 if self.mode is None else 200, {"authentication_mode": self.mode})
        elif self.mode == "token" and self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.answer(401 if self.headers.get("authorization") is None else 403, {})
        else:
            self.answer(200, {"ray_version": self.version})

    def answer(self, status, document):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def head(monkeypatch, tmp_path):
    """Starts such a head; returns its address and what it was shown as authorization."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a proxy does not know the way to loopback
    servers = []

    def start(**facts):
        handler = type("OneHead", (Head,), {"seen": [], **facts})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=[0.02], daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", handler.seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_token_goes_along_and_the_environment_does_not_overrule_the_address(head, monkeypatch):
    url, seen = head()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert Dashboard(url).url == url
    assert seen == [None, f"Bearer {TOKEN}"]


def test_without_an_address_that_of_the_environment_counts(head, monkeypatch):
    url, _ = head()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
    assert Dashboard().url == url


def test_a_head_that_asks_for_no_token_is_not_shown_one(head):
    url, seen = head(mode="disabled")
    Dashboard(url)
    assert seen == [None, None]


def test_an_open_head_beyond_loopback_is_refused():
    refuse_open("http://127.0.0.1:8265", "disabled", loopback=True)
    refuse_open("http://10.1.2.3:8265", "token", loopback=False)
    with pytest.raises(UserError, match=r"asks for no token.*nothing was sent"):
        refuse_open("http://10.1.2.3:8265", "disabled", loopback=False)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.8.8.8", True),
        ("10.0.0.5", False),
        ("0.0.0.0", False),
    ],
)
def test_what_loopback_is(host, own):
    assert is_loopback(host) is own


def test_a_wrong_token_and_a_missing_one(head, monkeypatch):
    url, _ = head()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(UserError, match="does not take this machine's token"):
        Dashboard(url)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(UserError, match="asks for a token and there is none here"):
        Dashboard(url)


@pytest.mark.parametrize("facts", [{"version": "2.9.0"}, {"version": "2.9.0", "mode": None}, {"version": "3.1.0"}])
def test_another_release_of_ray(head, facts):
    url, _ = head(**facts)
    with pytest.raises(UserError, match=rf"runs Ray {facts['version']}, and this raytl works with {ray.__version__}"):
        Dashboard(url)


def test_something_that_is_no_head(head):
    url, _ = head(mode=None, version=None)
    with pytest.raises(UserError, match="not the dashboard of a Ray cluster"):
        Dashboard(url)


def test_nobody_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(UserError, match=f"nobody answers at {url}"):
        Dashboard(url)


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "ftp://head", "http://", "http://[bad", "head:web", "head:99999"]
)
def test_an_address_of_another_kind(address):
    with pytest.raises(UserError, match="give the dashboard of the cluster's head"):
        Dashboard(address)
