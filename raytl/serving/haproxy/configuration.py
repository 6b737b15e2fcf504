"""The configuration that Ray Serve writes for HAProxy, and what is mended in it.

- Serve binds HAProxy's statistics and Prometheus pages to all interfaces, and lets every user of the machine command
  HAProxy through its socket. Both become this machine's and this user's own.
- Serve has HAProxy log every request, with its path, to whoever listens for system logs on the network; unless
  ``RAY_SERVE_HAPROXY_LOG_TARGET`` asks for it, nothing is logged. A client gets half a minute to send its headers.
- Where no replica can answer, Serve has HAProxy say ``500 Internal Server Error``; it becomes a 503 with a time to come
  back.
- HAProxy opens the endpoint's port itself and takes whoever waits there with it when it is killed. It inherits the open
  port instead, which the guard holds as well.
- A replica would watch every request's connection and time, which costs a fifth of a small answer; for what the
  endpoint itself watches (``serving/leaving.py``, ``serving/asking.py``) HAProxy tells it not to.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from raytl.serving.haproxy.port import VARIABLE, Address

# How long after its start an actor may not know what is deployed; it hears of replicas and of applications separately.
_NEW_ACTOR_S = 20.0
_HEADERS_S = 30
_WATCHED = "    http-request set-header x-request-"
_LEFT_TO_US = (f"{_WATCHED}disconnect-disabled ?1 if METH_POST", f"{_WATCHED}timeout-seconds 0 if METH_POST")

_SENTENCE = "no replica of the model can answer now; try again in a moment"
_UNAVAILABLE = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    "Connection: close\r\n\r\n"
    '{"type":"about:blank","title":"Service Unavailable","status":503,'
    f'"detail":"{_SENTENCE}","error":"{_SENTENCE}"}}'
)


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
        self._owner = config.with_name("owner")

    def address(self) -> Address | None:
        """Where the endpoint is to listen; None where the configuration was mended already, or does not say."""
        found = re.search(r"^frontend http_frontend\s+bind (\S+):(\d+)\s*$", self.config.read_text(), re.MULTILINE)
        return None if found is None else ("0.0.0.0" if found[1] == "*" else found[1], int(found[2]))

    def mend(self, *, inherited: bool) -> None:
        """Close what the configuration opens to everybody; see above. Doing it twice changes nothing more.

        inherited: whether HAProxy is given the endpoint's port, under the number that an environment variable tells.
        """
        answer = self.config.with_name("503.http")
        answer.write_text(_UNAVAILABLE)
        lines, section = [], ""
        for line in self.config.read_text().splitlines():
            words = line.split()
            if words and not line[0].isspace():
                section = " ".join(words[:2])
            if section in ("frontend prometheus", "listen stats") and words[:1] == ["bind"]:
                line = re.sub(r"bind\s+\S*:(\d+)", r"bind 127.0.0.1:\1", line)
            elif section == "frontend http_frontend" and words[:1] == ["bind"]:
                if inherited:
                    line = f'    bind "fd@${{{VARIABLE}}}"'
                lines.append(line)
                lines += _LEFT_TO_US
                continue
            elif line.startswith(_WATCHED):
                continue
            elif section == "global" and words[:2] == ["stats", "socket"]:
                line = line.replace("mode 666", "mode 600")
            elif section == "global" and words[:1] == ["log"] and "RAY_SERVE_HAPROXY_LOG_TARGET" not in os.environ:
                continue
            elif section == "defaults" and words == ["mode", "http"]:
                lines.append(f"    timeout http-request {_HEADERS_S}s")
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
        if not _has_routes(self.config) and _age_s(manager) < _NEW_ACTOR_S:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self._with_routes, self.config)

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


def _has_routes(config: Path) -> bool:
    return re.search(r"^\s*use_backend ", config.read_text(), re.MULTILINE) is not None  # Serve's comments say it too


def _age_s(pid: int) -> float:
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return up_s - started / os.sysconf("SC_CLK_TCK")
