"""The dashboard of a cluster's head: who is let in, Ray's client for jobs behind it, the files that it hands out."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import ray
import requests
from ray.dashboard.modules.job.sdk import JobSubmissionClient
from ray.exceptions import AuthenticationError

from raytl.core.errors import UserError
from raytl.core.http import http_client
from raytl.machines.token import find_token

DEFAULT = "http://127.0.0.1:8265"
_CONNECT_S = 5.0
_ANSWER_S = 60.0
_FILE_S = 3600
_NOISY = ("job.sdk", "dashboard_sdk")
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class Dashboard(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client for jobs, with sentences for errors and an end to waiting.

    address: ``http://HEAD:8265``; None for what RAY_API_SERVER_ADDRESS or RAY_ADDRESS say, else this machine.
    Raises UserError where nobody answers there in time, it is not Ray or another release of it, the token is wrong or
    missing, or the head asks for none and lies beyond loopback: whoever reaches it could read and change the search.
    """

    def __init__(self, address: str | None = None) -> None:
        self.url = _url(address)
        self._loopback = is_loopback(str(urlsplit(self.url).hostname))
        token = self._examine()
        for name in _NOISY:
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        with _without(_VARIABLES):  # which would overrule the address
            super().__init__(self.url, headers={"Authorization": f"Bearer {token}"} if token else {})

    def files(self, node: str, folder: str) -> list[str]:
        """Paths of the files below a folder of the node's log directory, which may be a link to elsewhere."""
        query = {"node_id": node, "glob": f"{folder}/**/*"}
        answer = self._do_request("GET", f"/api/v0/logs?{urlencode(query)}")
        if answer.status_code != 200:
            self._raise_error(answer)
        document = answer.json()
        if not document.get("result"):
            raise UserError(f"{self.url}: the run cannot be read ({_last_line(document.get('msg', ''))})")
        groups = document["data"]["result"].values()
        return sorted({name for group in groups for name in group if not name.endswith("/")})

    def download(self, node: str, name: str, path: Path) -> None:
        """Write a file of the node's log directory to ``path``."""
        query = {"node_id": node, "filename": name, "lines": -1, "timeout": _FILE_S}
        answer = self._do_request("GET", f"/api/v0/logs/file?{urlencode(query)}", stream=True)
        if answer.status_code != 200:
            self._raise_error(answer)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)
        except requests.RequestException as error:
            raise UserError(f"{self.url}: the connection broke off while {name} was fetched; try again") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None

    def _examine(self) -> str | None:
        """Who is there; returns the token that is asked for."""
        try:
            with http_client(self.url, base_url=self.url, trust_env=not self._loopback, timeout=_CONNECT_S) as client:
                mode = _json(client.get("/api/authentication_mode"), "authentication_mode")
                refuse_open(self.url, mode, loopback=self._loopback)
                found = find_token() if mode == "token" else None
                if mode == "token" and found is None:
                    raise UserError(
                        f"the head at {self.url} asks for a token and there is none here: copy the cluster's "
                        "~/.ray/auth_token to the same place on this machine, with mode 600"
                    )
                token = None if found is None else found[0]
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                answer = client.get("/api/version", headers=headers)
                if answer.status_code in (401, 403):
                    raise UserError(_wrong_token(self.url))
                version = _json(answer, "ray_version")
        except (httpx.TransportError, httpx.InvalidURL):
            raise UserError(_nobody(self.url)) from None
        if version is None:
            raise UserError(f"{self.url}: what answers there is not the dashboard of a Ray cluster; check the address")
        if version.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise UserError(
                f"the cluster at {self.url} runs Ray {version}, and this raytl works with {ray.__version__}: install "
                f"ray=={ray.__version__} there, or a raytl for Ray {version} here"
            )
        return token

    def _check_connection_and_version(self, *arguments: Any, **options: Any) -> None:
        """Done already, with sentences and a bound on the time."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        if self._loopback:  # which no proxy knows the way to
            options["proxies"] = dict.fromkeys(("http", "https", "all"), "")
        try:
            answer: requests.Response = super()._do_request(
                method, endpoint, timeout=(_CONNECT_S, _ANSWER_S), **options
            )
        except AuthenticationError:
            raise UserError(_wrong_token(self.url)) from None
        except requests.RequestException:
            raise UserError(_nobody(self.url)) from None
        return answer

    def _raise_error(self, answer: requests.Response) -> None:
        raise UserError(f"{self.url}: {_last_line(answer.text) or f'answered {answer.status_code}'}")


def refuse_open(url: str, mode: str | None, *, loopback: bool) -> None:
    """Raise UserError for a head beyond loopback that asks for no token."""
    if mode == "disabled" and not loopback:
        raise UserError(
            f"the head at {url} asks for no token, so that whoever reaches it runs code there; nothing was sent: start "
            "it with RAY_AUTH_MODE=token and a token in its ~/.ray/auth_token"
        )


def is_loopback(host: str) -> bool:
    """Whether a host's name or number means this machine and nothing else.

    Names are looked up, as whoever connects does. (A server that is to listen somewhere believes no name but localhost:
    :func:`raytl.serving.tokens.is_loopback`.)
    """
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(number.partition("%")[0]).is_loopback for number in found)


def _url(address: str | None) -> str:
    if address is None:
        named = (os.environ.get(name, "") for name in _VARIABLES)
        address = next((value for value in named if value.startswith(("http://", "https://"))), DEFAULT)
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an end, a port that is no number
        known = False
    if not known:
        raise UserError(f"--address {address}: give the dashboard of the cluster's head, such as http://HEAD:8265")
    return url.rstrip("/")


def _json(answer: httpx.Response, key: str) -> str | None:
    """A value of an answer, None where it has none or is no JSON."""
    try:
        document = answer.json() if answer.status_code == 200 else {}
        return None if document.get(key) is None else str(document[key])
    except (ValueError, AttributeError):
        return None


def _wrong_token(url: str) -> str:
    return f"the head at {url} does not take this machine's token: copy the cluster's ~/.ray/auth_token here anew"


def _nobody(url: str) -> str:
    return (
        f"nobody answers at {url}: check --address, whether the head runs, and the way to it (`ray dashboard "
        "cluster.yaml` and `kubectl port-forward` open one)"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
