"""The endpoint's port, open for as long as the endpoint lives, whatever becomes of the HAProxy that answers there.

A socket that listens lasts as long as one process has it. HAProxy inherits it, its guard keeps it, and the next HAProxy
is handed it by that guard: who connects while there is no HAProxy waits in the socket's queue instead of being refused.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

VARIABLE = "RAYTL_HAPROXY_PORT"
"""The environment variable by which HAProxy is told the inherited socket's number."""
Address = tuple[str, int]

# As many as HAProxy has wait by itself; the system may allow fewer.
_QUEUE = 4096
ASK_S = 10.0
"""How long one that is there may take to answer: on a busy machine, seconds. Two are asked, one after the other, and
Serve gives a new HAProxy 30 s in all."""


def opened(address: Address) -> socket.socket | None:
    """A socket that listens there, or None where that cannot be: HAProxy itself then says why."""
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        return None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(resolved)
        listener.listen(_QUEUE)
        listener.setblocking(False)
    except OSError:
        listener.close()
        return None
    return listener


def taken_over(path: Path, address: Address | None) -> socket.socket | None:
    """The socket that an earlier HAProxy's guard holds, or None where there is none for this address, or for any.

    path: of the guard's own socket.
    """
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as guard:
        guard.settimeout(ASK_S)
        guard.connect(str(path))
        _, numbers, _, _ = socket.recv_fds(guard, 1, 1)
        if numbers:
            listener = socket.socket(fileno=numbers[0])
            listener.setblocking(False)
            if address is None or listener.getsockname()[1] == address[1]:
                return listener
            listener.close()
    return None


def hand_over(path: Path, listener: socket.socket) -> None:
    """Give the socket to every process of this user that asks for it from now on, in a thread of its own.

    path: where to ask, in the place of whoever gave it before.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(str(temporary))
        temporary.chmod(0o600)
        door.listen()
        temporary.replace(path)
    except OSError:  # the path is too long for a socket: HAProxy is then found again by its own
        door.close()
        return
    threading.Thread(target=_hand_over, args=(door, listener), daemon=True).start()


def passed_on(listener: socket.socket) -> dict[str, str]:
    """Let a program that is started from here have the socket; returns the environment that tells it so."""
    listener.set_inheritable(True)
    return {VARIABLE: str(listener.fileno())}


def _hand_over(door: socket.socket, listener: socket.socket) -> None:
    while True:
        asking, _ = door.accept()
        with asking, contextlib.suppress(OSError):
            socket.send_fds(asking, [b"\0"], [listener.fileno()])
