"""TCP ports of this machine: which are free, and which stay so until somebody listens."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import ExitStack

from raytl.core.errors import UserError

# Above the ports of Ray's workers, and below those that systems hand out by themselves: to any outgoing connection.
_OURS = range(20000, 32000)


def free_port() -> int:
    """A port of the loopback interface on which nobody listens."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """As many in a row.

    Nothing reserves them. They are chosen at random, and from those that the system gives to nobody who does not ask
    for them by number, so that they are still free when somebody listens, seconds later.
    """
    starts = list(range(_OURS.start, _OURS.stop - count + 1, count))
    random.SystemRandom().shuffle(starts)
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
