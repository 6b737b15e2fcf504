"""A local Ray head that outlives the command that started it: loopback only, remembered in a state file.

It has a temporary directory of its own, so that ``ray.init()`` elsewhere on the machine neither finds nor joins it, and
it is stopped by its own process id, never by a machine-wide ``ray stop``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ray._private import ray_constants

from raytl.core.errors import UserError
from raytl.core.locks import lock
from raytl.core.machine import ray_token, short_temp_dir
from raytl.core.paths import home
from raytl.serving.ingress import environment

_START_S = 90.0
_STOP_S = 20.0
_OBJECT_STORE_BYTES = 128 * 1024 * 1024  # requests go through gRPC; the store holds next to nothing

# "ray start" always starts a server for Ray Client where grpc is installed. Nobody connects through it; it
# takes 100 MB; and where it is not up within 30 s, on a busy machine, the head ends, with all that is served.
_RAY_START = """
from ray.scripts import scripts
scripts.get_ray_client_dependency_error  # an error where there is no such thing any more
scripts.get_ray_client_dependency_error = lambda: "not wanted"
from raytl.machines.few_processes import few_processes
with few_processes():
    scripts.cli(["start", *__import__("sys").argv[1:]])
"""

# Ray turns 127.0.0.1 into the machine's address, and then listens on all interfaces, unless it believes that clusters
# of several machines are not supported here: the switch is named after the systems where that is the default.
_LOOPBACK = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}


@dataclass(frozen=True)
class LocalHead:
    """The head that this user's ``raytl deploy`` started.

    pid: of the ``ray start`` process, which leads the process group of the head. temp_dir: Ray's directory, with the
    head's address and a lock file that the process holds while it lives, so that a reused pid is never taken for it.
    """

    pid: int
    temp_dir: str

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        try:
            with _lock_file(self.temp_dir).open("rb") as file:
                return not lock(file, wait=False) and self._has_process()
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False

    def _has_process(self) -> bool:
        """Whether there is a process of that number; all that is known where the file system has no locks."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def stop(self) -> None:
        """End the head and all of its processes, and remove its directory and the state file."""
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)  # Ray stops its own children in order
            deadline = time.monotonic() + _STOP_S
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # what is left of its group
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        _state_file().unlink(missing_ok=True)


def find_head() -> LocalHead | None:
    """The running head that an earlier deployment started, or None."""
    try:
        head = LocalHead(**json.loads(_state_file().read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not head.alive:
        head.stop()  # clears up after one that was killed
        return None
    return head


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep two commands from starting a head each: the second waits, and finds the first one's."""
    path = _state_file().with_name("lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        lock(file)
        yield


def start_head() -> LocalHead:
    """Start a detached head with this machine's cores. Raises UserError with its last words if it does not come up."""
    ray_token()
    temp_dir = tempfile.mkdtemp(prefix="raytl-", dir=short_temp_dir())
    command = [sys.executable, "-c", _RAY_START, "--head", "--block", "--port=0"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    # A fixed default port would collide with every other Ray on the machine.
    command += ["--dashboard-agent-listen-port=0"]
    command += [f"--object-store-memory={_OBJECT_STORE_BYTES}", f"--temp-dir={temp_dir}"]
    log_path = Path(temp_dir) / "head.log"
    with log_path.open("wb") as log, _lock_file(temp_dir).open("wb") as held:
        lock(held)  # inherited: released when the child is gone
        process = subprocess.Popen(
            command,
            # The user's own settings win: whoever sets one has a reason.
            env={**environment(Path(temp_dir) / "h"), **os.environ, **_LOOPBACK},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[held.fileno()],
            start_new_session=True,
        )
    head = LocalHead(process.pid, temp_dir)
    try:
        _remember(head)  # before it is up, so that a command that is killed leaves nothing that undeploy cannot find
        deadline = time.monotonic() + _START_S
        address = Path(temp_dir) / "ray_current_cluster"  # written last, when the head is up
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log_path.read_text(errors="replace").strip()[-500:]
                raise UserError(f"a local Ray head could not be started; its last words were: {tail}")
            time.sleep(0.1)
    except BaseException:  # Ctrl-C too
        head.stop()
        raise
    return head


def _remember(head: LocalHead) -> None:
    path = _state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(head)))
    temporary.replace(path)


def _state_file() -> Path:
    return home() / "serving" / "head.json"


def _lock_file(temp_dir: str) -> Path:
    return Path(temp_dir) / "raytl.lock"
