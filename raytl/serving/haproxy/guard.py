"""A process that outlives HAProxy: it starts it again, ends it with the Ray head, and holds its port open meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from raytl.serving.haproxy import port
from raytl.serving.haproxy.configuration import FOLDER, Files, ending

# Serve's actor kills HAProxy and is then killed itself: a moment later it is clear which of the two it was. On a busy
# machine it is not: `raytl undeploy` leaves a file first, and the moment is for `serve shutdown`.
_SHUTDOWN_S = 0.5
# How long HAProxy waits for a new actor after its own was killed. Serve needs some seconds to notice and start one.
_ORPHAN_S = 60.0
# How long it may take until it answers, and how many that do not, one after the other, are started again: they cannot
# run, for a mistake in the configuration perhaps.
_STARTUP_S = 10.0
_IN_VAIN = 5
_POLL_S = 0.05
# How often it is looked whether a later HAProxy is in charge.
_LOOK_S = 1.0


def leave_guard(
    files: Files, listener: socket.socket | None, command: Sequence[str], manager: int, raylet: int
) -> None:
    """Start the guard of this process, as nobody's child and in a session of its own: no group's end takes it along.

    listener: the endpoint's port. command: what this process will become. manager, raylet: process ids of the actor
    that started it and of the node's raylet.
    """
    guarded = os.getpid()
    files.note_owner(guarded)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when there is nothing to guard
        with contextlib.suppress(ProcessLookupError):
            Guard(files, listener, command, Process(manager), Process(raylet)).watch(Process(guarded))
    os._exit(0)


def answering(admin: Path, patience_s: float = 2.0) -> int | None:
    """Process id of the HAProxy that answers on its socket, or None. patience_s: for one that has the socket."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(patience_s)
            client.connect(str(admin))
            client.sendall(b"show info\n")
            text = b""
            while chunk := client.recv(65536):
                text += chunk
    except OSError:
        return None
    found = re.search(rb"^Pid: (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def parent(pid: int) -> int:
    """Process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


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
    """Watches one HAProxy until it has ended for good.

    manager: the actor that started it. raylet: of the node. The other arguments are those of :func:`leave_guard`.
    """

    def __init__(
        self, files: Files, listener: socket.socket | None, command: Sequence[str], manager: Process, raylet: Process
    ) -> None:
        self._files = files
        self._listener = listener
        # Started anew there is nobody to take over from.
        command = command[: command.index("-sf")] if "-sf" in command else command
        self._command = [word for word in command if word not in ("-x", str(files.admin))]
        self._manager = manager
        self._raylet = raylet
        self._answered = 0
        self._in_vain = 0
        if listener is not None:
            port.hand_over(files.port, listener)

    def watch(self, haproxy: Process) -> None:
        """Return when there is nothing left to guard."""
        while True:
            self._see_it_answer(haproxy)
            select.select([process.fd for process in (haproxy, self._manager, self._raylet)], [], [], _LOOK_S)
            self._step_aside(haproxy)
            if not self._raylet.alive():
                haproxy.kill()
                if folder := os.environ.get(FOLDER):
                    shutil.rmtree(folder, ignore_errors=True)
                return
            if not haproxy.alive():
                again = self._start_again(haproxy)
                if again is not None:
                    self._await_successor(again)
                return
            if not self._manager.alive():
                self._await_successor(haproxy)
                return

    def _see_it_answer(self, haproxy: Process) -> None:
        """Wait for its first answer, or its end, or until another one is in charge: it then answers no more."""
        deadline = time.monotonic() + _STARTUP_S
        while haproxy.pid != self._answered and time.monotonic() < deadline:
            if answering(self._files.admin) == haproxy.pid:
                self._answered = haproxy.pid
            elif haproxy.alive() and self._raylet.alive() and self._files.owner() == haproxy.pid:
                time.sleep(_POLL_S)
            else:
                break

    def _step_aside(self, haproxy: Process) -> None:
        """Let go of the port once a later HAProxy is in charge, whose guard holds it."""
        if self._listener is not None and self._files.owner() != haproxy.pid:
            self._listener.close()
            self._listener = None

    def _start_again(self, haproxy: Process) -> Process | None:
        """A new HAProxy in the place of one that died, without an actor; or None where it was meant to end."""
        if self._files.owner() != haproxy.pid or not self._raylet.alive() or ending():
            return None
        started = self._start(haproxy)
        deadline = time.monotonic() + _SHUTDOWN_S
        while started is not None:
            over = time.monotonic() >= deadline  # and one more look: its first answer alone may have taken longer
            if not (self._manager.alive() and self._raylet.alive()) or ending():
                started.kill()
                return None
            if over:
                break
            self._see_it_answer(started)
            time.sleep(_POLL_S)
        # The actor would go on telling the dead one of changes. Serve replaces it.
        self._manager.kill()
        return started

    def _start(self, dead: Process) -> Process | None:
        """At once, for requests are waiting; whether it is wanted is seen afterwards. None where it would not help."""
        self._in_vain = 0 if dead.pid == self._answered else self._in_vain + 1
        if self._in_vain > _IN_VAIN:
            return None
        self._files.mend(inherited=self._listener is not None)
        told = {} if self._listener is None else port.passed_on(self._listener)
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **told},
            pass_fds=[] if self._listener is None else [self._listener.fileno()],
        )
        self._files.note_owner(child.pid)
        return Process(child.pid)

    def _await_successor(self, haproxy: Process) -> None:
        """Serve on without an actor until a new one's HAProxy has taken over, but not for ever."""
        deadline = time.monotonic() + _ORPHAN_S
        while self._raylet.alive() and not ending():
            if self._files.owner() != haproxy.pid:
                self._step_aside(haproxy)
                if not haproxy.alive():
                    return  # it has answered whom it had accepted
            elif time.monotonic() > deadline:
                break
            elif not haproxy.alive():
                again = self._start(haproxy)
                if again is None:
                    return
                haproxy = again
            else:
                self._see_it_answer(haproxy)
            time.sleep(_POLL_S)
        haproxy.kill()
