"""Copies of the bundles that are being served, so that a run may be moved, deleted or exported anew meanwhile.

They lie in the Ray session's directory: one cluster never touches another's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import ray

from raytl.bundles.features import FEATURES_FILE
from raytl.core.errors import UserError
from raytl.serving.room import Need, nodes_come_later
from raytl.sources.learned import LEARNED_FILE


def snapshot(bundle: Path, version: str, need: Need) -> Path:
    """Where the replicas shall read the bundle: a copy of it, or the bundle itself on a cluster of several nodes.

    There the path must be on storage that all nodes share, and a copy on one node would not be. So it is where the
    replicas' nodes are still to come. need: of each replica.
    """
    if len([node for node in ray.nodes() if node["Alive"]]) > 1 or nodes_come_later(need):
        return bundle
    target = _folder() / version
    try:
        if target.is_dir():
            os.utime(target)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent))
        # No replica reads what is of the training images, and what does not travel cannot get lost.
        unread = shutil.ignore_patterns(FEATURES_FILE, LEARNED_FILE)
        shutil.copytree(bundle, temporary, dirs_exist_ok=True, ignore=unread)
        os.utime(temporary)  # copied with the rest
        _put(temporary, target)
    except OSError as error:
        raise UserError(
            f"{bundle}: the bundle cannot be copied to {target} ({error}); make room or give access"
        ) from None
    return target


def _put(temporary: Path, target: Path) -> None:
    """Rename a finished copy, unless another command's is there by now, which is the same."""
    try:
        temporary.replace(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        os.utime(target)


def drop_snapshots(keep: Collection[str], *, unused_s: float = 0.0) -> None:
    """Remove the copies of all versions but ``keep``.

    unused_s: seconds since a command last asked for one. A younger one stays: a command may be about to serve it.
    """
    if not _folder().is_dir():
        return
    for path in _folder().iterdir():
        with suppress(FileNotFoundError):  # another command was faster
            if path.name not in keep and time.time() - path.stat().st_mtime >= unused_s:
                shutil.rmtree(path, ignore_errors=True)


def _folder() -> Path:
    return Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "raytl-bundles"
