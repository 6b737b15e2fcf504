"""What a machine may lack: cores of its own, a home folder that can be written to, a short name for temporary files.

And a C library that keeps what is freed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import tempfile
from functools import lru_cache
from pathlib import Path

from raytl.core.errors import UserError

# Ray's sockets lie up to 68 bytes below its folder, and a socket's whole path must stay under 108.
_LONGEST_TEMP_DIR = 32
_MALLOC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def cores(root: Path = Path("/")) -> int:
    """CPU cores that this process may use, 1 at least: by its affinity, and by the quota of a container.

    A batch job or a container often has a few of many; a lane for each of the machine's would only be in each other's
    way. root: where /sys is.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    group = root / "sys/fs/cgroup"
    try:
        limit = (group / "cpu.max").read_text().split()
    except OSError:
        try:
            limit = [(group / "cpu" / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period")]
        except OSError:
            return count
    try:
        quota, period = map(int, limit)
    except ValueError:  # "max": none
        return count
    return max(1, min(count, quota // period)) if quota > 0 and period > 0 else count


def keep_freed(block_bytes: int, kept_bytes: int, *, together: bool = False) -> None:
    """Have the C library keep blocks of memory that are freed for the next ones, instead of asking the system anew.

    What a network makes of a batch comes and goes with each layer, and as new pages from the system, each set to 0
    first, it takes up to two thirds of the time. block_bytes: the largest block that is kept; kept_bytes: how many in
    all. together: whether all threads share what is kept; else blocks above some 30 MB are kept in the main one alone.

    Nothing where this is not glibc, or its environment variables say otherwise.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is None or any(name in os.environ for name in _MALLOC_VARIABLES):
        return
    set_option(_M_MMAP_THRESHOLD, block_bytes)
    set_option(_M_TRIM_THRESHOLD, kept_bytes)
    if together:
        set_option(_M_ARENA_MAX, 1)


def user_folder() -> Path:
    """The user's home folder; where there is none or it cannot be written to, one of the user's own in its place.

    Containers often run as a user without a home. Raises UserError where no folder can be had at all.
    """
    return _user_folder(os.environ.get("HOME"), tempfile.gettempdir())


@lru_cache
def _user_folder(home: str | None, temporary: str) -> Path:
    try:
        found = Path(home) if home else Path.home()
    except RuntimeError:  # no HOME, and the user is not in the password file
        found = None
    if found is not None and found.is_absolute() and writable(found):
        return found
    try:
        return own_folder(temporary)
    except PermissionError as error:
        raise UserError(
            f"neither the home folder ({home or 'HOME is not set'}) nor {error.filename} can be used; set RAYTL_HOME"
        ) from None


def own_folder(temporary: str) -> Path:
    """A folder of this user's alone among temporary files. Raises PermissionError where there can be none."""
    folder = Path(temporary) / f"raytl-{os.getuid()}"
    if not writable(folder, mode=0o700) or folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "cannot be used, or is somebody else's", str(folder))
    return folder


def writable(folder: Path, *, mode: int = 0o777) -> bool:
    """Whether a folder is there, or can be made, and may be written to."""
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK) and takes_files(folder)


def takes_files(folder: Path) -> bool:
    """Whether a file can be made there, which permissions do not tell: of /proc, or of a mount, for its owner too."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)  # a full disk is told otherwise


def short_temp_dir() -> str | None:
    """A folder for temporary files where sockets fit, None where the usual one will do.

    Batch systems set TMPDIR to long names. Raises UserError where there is no short one either.
    """
    try:
        if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TEMP_DIR:
            return None
    except FileNotFoundError:
        raise UserError("there is no folder for temporary files that can be written to; set TMPDIR to one") from None
    found = next((name for name in ("/tmp", "/var/tmp", "/dev/shm") if os.access(name, os.W_OK | os.X_OK)), None)
    if found is None:
        raise UserError(f"TMPDIR ({tempfile.gettempdir()}) is too long for Ray's sockets; set it to a shorter one")
    return found


def ray_token() -> None:
    """See to it that there is a token for a Ray of this machine: without it, any of its users could run code in there.

    Ray would write the file readable by everybody, and fails where the home folder cannot be written to.
    """
    if any(name in os.environ for name in _TOKEN_VARIABLES):
        return
    folder = user_folder()
    path = folder / ".ray" / "auth_token"
    if str(folder) != os.path.expanduser("~"):  # noqa: PTH111  # where Ray looks, home or not
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        return  # another process was first
