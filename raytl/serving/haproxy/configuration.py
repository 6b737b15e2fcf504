"""The configuration that Ray Serve writes for HAProxy, and what is mended in it.

- Serve binds HAProxy's statistics and Prometheus pages to all interfaces, and lets every user of the machine command
  HAProxy through its socket. Both become this machine's and this user's own.
- Serve has HAProxy log every request, with its path, to whoever listens for system logs on the network; unless
  ``RAY_SERVE_HAPROXY_LOG_TARGET`` asks for it, nothing is logged.
- A client gets half a minute to send its request, as far as the buffer holds it. HAProxy waits for that: where a
  replica dies with a request, only one that was there as a whole before it was passed on can be given to another.
- Where no replica can answer, Serve has HAProxy say ``500 Internal Server Error``; it becomes a 503 with a time to come
  back.
- What Serve answers in a word of plain text becomes such a sentence too: that a replica has no room for a request, or
  that there is no model below a path. Where that is the root, ``/healthz`` tells whether any model answers: a load
  balancer would give up a machine whose default model alone was taken down.
- Serve tells everybody the names of all models at ``/-/routes``; the endpoint's own ``/v1/models`` asks for the token.
  A replica decodes the path before it looks whether it is that one, so it is decoded here too.
- HAProxy opens the endpoint's port itself and takes whoever waits there with it when it is killed. It inherits the open
  port instead, which the guard holds as well.
- Where the endpoint is to be elsewhere than at loopback, Serve listens there nevertheless, with replicas that nobody
  reaches past HAProxy; the address that HAProxy opens in its place stands in a file of its folder.
- A replica would watch every request's connection and time, which costs a fifth of a small answer; for what the
  endpoint itself watches (``serving/leaving.py``, ``serving/asking.py``) HAProxy tells it not to.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from raytl.serving.haproxy.port import VARIABLE, Address

FOLDER = "RAYTL_HAPROXY_FOLDER"
"""The environment variable that names HAProxy's folder, where it has one."""
HOST_FILE = "host"
"""In that folder: the endpoint's host, where it is not the one that Serve was told."""
ENDING_FILE = "ending"
"""In that folder too, once Serve was told to end."""

# How long an actor may not know what is deployed, once it has started HAProxy for the first time: it hears of replicas
# and of applications separately. On a busy machine the actor itself takes longer than that to come up.
_NEW_ACTOR_S = 20.0
_HEADERS_S = 30
_BUSY = "too many requests are waiting; try again later"
_SENTENCE = "no replica of the model can answer now; try again in a moment"
_LATE = f"the request did not arrive within {_HEADERS_S} s; send fewer or smaller images"
_NOWHERE = "there is no model here; ask one by its name, at /v1/models/NAME/predict"
_HEALTH = "{ path /healthz /readyz /v2/health/live /v2/health/ready }"


def _document(status: int, title: str, sentence: str) -> str:
    known = {"type": "about:blank", "title": title, "status": status, "detail": sentence, "error": sentence}
    return json.dumps(known)


def _problem(status: int, title: str, sentence: str, headers: str = "") -> str:
    """An answer as HAProxy keeps it in a file."""
    told = f"Content-Type: application/problem+json\r\n{headers}Connection: close"
    return f"HTTP/1.1 {status} {title}\r\n{told}\r\n\r\n{_document(status, title, sentence)}"


def _return(status: int, title: str, sentence: str, headers: str = "") -> str:
    """An answer as a rule of HAProxy's gives it."""
    return (
        f"return status {status} content-type application/problem+json {headers}"
        f"string '{_document(status, title, sentence)}'"
    )


_UNAVAILABLE = _problem(503, "Service Unavailable", _SENTENCE, "Retry-After: 1\r\n")
_TOO_LATE = _problem(408, "Request Timeout", _LATE)
_RETURN_UNAVAILABLE = _return(503, "Service Unavailable", _SENTENCE, "hdr Retry-After 1 ")
_PLAIN = "{ res.hdr(content-type) -m beg text/plain }"
_DROPPED = f"{{ status 503 }} {_PLAIN} {{ res.hdr(retry-after) -m found }}"
# For a moment after a model was taken down Serve's spare proxy is asked for it.
_UNKNOWN = f"{{ status 404 }} {_PLAIN} {{ srv_name -m beg SERVE_PROXY_ACTOR }}"
_OURS = (
    "    option http-buffer-request",
    f"    http-request {_return(404, 'Not Found', _NOWHERE)} if {{ path,url_dec -m str -i /-/routes }}",
    "    http-request set-header x-request-disconnect-disabled ?1 if METH_POST",
    "    http-request set-header x-request-timeout-seconds 0 if METH_POST",
    f"    http-response {_return(503, 'Service Unavailable', _BUSY, 'hdr Retry-After 1 ')} if {_DROPPED}",
    f"    http-response {_return(404, 'Not Found', _NOWHERE)} if {_UNKNOWN}",
)


def _elsewhere(replicas: Sequence[str]) -> list[str]:
    """What a path gets below which there is no model. replicas: of the models that there are, as BACKEND/SERVER."""
    healthy = 'http-request return status 200 content-type application/json string \'{"status":"ok"}\''
    return [
        *(f"    {healthy} if {_HEALTH} {{ srv_is_up({replica}) }}" for replica in replicas),
        f"    http-request {_RETURN_UNAVAILABLE} if {_HEALTH}",
        f"    http-request {_return(404, 'Not Found', _NOWHERE)}",
    ]


class Files:
    """HAProxy's configuration and what lies beside it. Raises ValueError where Ray Serve did not write it."""

    def __init__(self, config: Path) -> None:
        self.config = config
        found = re.search(r"^\s*stats socket (\S+)", config.read_text(), re.MULTILINE)
        if found is None:
            raise ValueError(f"{config}: no 'stats socket'; this is not a configuration that Ray Serve wrote")
        self.admin = Path(found[1])
        """The socket by which HAProxy takes commands."""
        self.port = self.admin.with_name(f"{self.admin.name}.port")
        """The socket by which the guard hands over the endpoint's port."""
        self._with_routes = config.with_name("routes.cfg")
        self._manager = config.with_name("manager")
        self._owner = config.with_name("owner")

    def address(self) -> Address | None:
        """Where the endpoint is to listen; None where the configuration was mended already, or does not say."""
        found = re.search(r"^frontend http_frontend\s+bind (\S+):(\d+)\s*$", self.config.read_text(), re.MULTILINE)
        if found is None:
            return None
        host = "0.0.0.0" if found[1] == "*" else found[1]
        with contextlib.suppress(FileNotFoundError):
            host = Path(os.environ[FOLDER], HOST_FILE).read_text() if FOLDER in os.environ else host
        return host, int(found[2])

    def mend(self, *, inherited: bool) -> None:
        """Close what the configuration opens to everybody; see above. Doing it twice changes nothing more.

        inherited: whether HAProxy is given the endpoint's port, under the number that an environment variable tells.
        """
        answer = self.config.with_name("503.http")
        answer.write_text(_UNAVAILABLE)
        late = self.config.with_name("408.http")
        late.write_text(_TOO_LATE)
        address, text = self.address(), self.config.read_text()
        replicas = _replicas(text)
        lines, section = [], ""
        for line in text.splitlines():
            words = line.split()
            if words and not line[0].isspace():
                section = " ".join(words[:2])
            if section == "backend default_backend":
                if words[:1] == ["backend"]:
                    lines += [line, *_elsewhere(replicas)]
                elif words[:2] != ["http-request", "return"]:
                    lines.append(line)
                continue
            if section in ("frontend prometheus", "listen stats") and words[:1] == ["bind"]:
                line = re.sub(r"bind\s+\S*:(\d+)", r"bind 127.0.0.1:\1", line)
            elif section == "frontend http_frontend" and words[:1] == ["bind"]:
                if inherited:
                    line = f'    bind "fd@${{{VARIABLE}}}"'
                elif address is not None:
                    line = f"    bind {address[0]}:{address[1]}"
                lines.append(line)
                lines += _OURS
                continue
            elif line in _OURS or words[:2] == ["errorfile", "408"]:
                continue
            elif section == "global" and words[:2] == ["stats", "socket"]:
                line = line.replace("mode 666", "mode 600")
            elif section == "global" and words[:1] == ["log"] and "RAY_SERVE_HAPROXY_LOG_TARGET" not in os.environ:
                continue
            elif section == "defaults" and words == ["mode", "http"]:
                lines += [f"    timeout http-request {_HEADERS_S}s", f"    errorfile 408 {late}"]
            elif section == "defaults" and words[:2] == ["timeout", "http-request"]:
                continue
            elif words[:1] == ["errorfile"]:
                line = f"    errorfile {words[1]} {answer}"
            lines.append(line)
        temporary = self.config.with_name(f"{self.config.name}.{os.getpid()}")
        temporary.write_text("\n".join(lines) + "\n")
        if _has_routes(temporary):
            shutil.copyfile(temporary, self._with_routes)
        temporary.replace(self.config)

    def keep_routes(self, manager: int) -> None:
        """Leave the routes as they were, where a new actor has not heard of any application yet.

        manager: process id of the actor.
        """
        if not self._knew(manager):
            self._manager.write_text(_process(manager))
        new = time.time() - self._manager.stat().st_mtime < _NEW_ACTOR_S
        if new and not _has_routes(self.config):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self._with_routes, self.config)

    def _knew(self, manager: int) -> bool:
        """Whether the same actor has started an HAProxy before."""
        return self._manager.exists() and self._manager.read_text() == _process(manager)

    def note_owner(self, pid: int) -> None:
        """Write down which HAProxy is the one in charge: older ones finish their connections and must not come back."""
        temporary = self._owner.with_name(f"owner.{os.getpid()}")
        temporary.write_text(str(pid))
        temporary.replace(self._owner)

    def owner(self) -> int:
        """Process id of the HAProxy in charge, 0 where there is none."""
        try:
            return int(self._owner.read_text())
        except (FileNotFoundError, ValueError):
            return 0


def ending() -> bool:
    """Whether Serve was told to end: whoever kills HAProxy then means it."""
    return FOLDER in os.environ and Path(os.environ[FOLDER], ENDING_FILE).exists()


def forget_the_end() -> None:
    """That was of an earlier Serve."""
    if FOLDER in os.environ:
        Path(os.environ[FOLDER], ENDING_FILE).unlink(missing_ok=True)


def _replicas(text: str) -> list[str]:
    """Of a configuration, in its order, what it leads requests to, as BACKEND/SERVER.

    Without Serve's spare proxy, the ``backup`` of every backend: it is there whether any model is or not.
    """
    led_to = set(re.findall(r"^\s*use_backend (\S+)", text, re.MULTILINE))
    found, backend = [], ""
    for line in text.splitlines():
        words = line.split()
        if words and not line[0].isspace():
            backend = words[1] if words[0] == "backend" else ""
        elif words[:1] == ["server"] and backend in led_to and "backup" not in words:
            found.append(f"{backend}/{words[1]}")
    return found


def _has_routes(config: Path) -> bool:
    return re.search(r"^\s*use_backend ", config.read_text(), re.MULTILINE) is not None  # Serve's comments say it too


def _process(pid: int) -> str:
    """What tells a process from a later one of the same id: when it started, after that."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
