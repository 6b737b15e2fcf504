"""Locks on files, as far as the file system has them: a process that dies lets go of its own."""

from __future__ import annotations

import errno
import fcntl
from typing import IO

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system says that has none: Lustre mounted without ``flock``, NFS with ``nolock``."""


def lock(file: int | IO[bytes] | IO[str], *, wait: bool = True) -> bool:
    """Take the exclusive lock of an open file; False where its file system has no locks.

    Raises BlockingIOError where another process holds it and nobody is to ``wait``.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True
