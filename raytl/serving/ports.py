"""TCP ports of this machine: which are free, and which stay so until somebody listens."""

from __future__ import annotations

import errno
import random
import socket
import tempfile
from contextlib import ExitStack

from raytl.core.errors import UserError
from raytl.core.locks import lock
from raytl.core.machine import own_folder

# Above the ports of Ray's workers, and below those that systems hand out by themselves: to any outgoing connection.
_OURS = range(20000, 32000)


def free_port() -> int:
    """A port of the loopback interface on which nobody listens."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """As many in a row.

    Nothing reserves them. They are of those that the system gives to nobody who does not ask for them by number, and
    come in turn: whoever asks next, in whichever process of this user, gets others, so that they are still free when
    somebody listens, seconds later.
    """
    try:
        with (own_folder(tempfile.gettempdir()) / "ports").open("a+") as note:
            lock(note)
            note.seek(0)
            found = _behind(note.read(), count)
            note.truncate(0)
            note.write(str(found.stop))
    except OSError:  # no such folder, or a full disk: two who ask at once rarely begin to look at the same place
        return _behind("", count)
    return found


def _behind(last: str, count: int) -> range:
    """The first free ones from there on, all the way round; from anywhere where nothing is known."""
    begin = int(last) if last.isdecimal() and int(last) in _OURS else random.SystemRandom().choice(_OURS)
    most = _OURS.stop - count + 1
    starts = [*range(begin, most, count), *range(_OURS.start, min(begin, most), count)]
    for start in starts:
        ports = range(start, start + count)
        try:
            with ExitStack() as stack:
                for port in ports:
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return ports
    return range(starts[0], starts[0] + count)


def free_port_or_refuse(host: str, port: int) -> None:
    """Raise UserError where something listens on the port or the host is not of this machine."""
    try:
        taken = port_taken(host, port)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror}); give another --host or --port") from None
    if taken:
        raise UserError(f"port {port} on {host} is taken by another program; deploy with another --port")


def port_taken(host: str, port: int) -> bool:
    """Whether the port is in use. Raises OSError where it cannot be had for another reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False
