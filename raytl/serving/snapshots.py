"""Copies of the bundles that are being served, so that a run may be moved, deleted or exported anew meanwhile.

They lie in the Ray session's directory: one cluster never touches another's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

import ray

from raytl.bundles.features import FEATURES_FILE
from raytl.core.errors import UserError


def snapshot(bundle: Path, version: str) -> Path:
    """Where the replicas shall read the bundle: a copy of it, or the bundle itself on a cluster of several nodes.

    There the path must be on storage that all nodes share, and a copy on one node would not be.
    """
    if len([node for node in ray.nodes() if node["Alive"]]) > 1:
        return bundle
    target = _folder() / version
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent))
        # No replica reads the features, and what does not travel cannot get lost.
        shutil.copytree(bundle, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FEATURES_FILE))
        temporary.replace(target)
    except OSError as error:
        raise UserError(
            f"{bundle}: the bundle cannot be copied to {target} ({error}); make room or give access"
        ) from None
    return target


def drop_snapshots(keep: Collection[str]) -> None:
    """Remove the copies of all versions but ``keep``."""
    if _folder().is_dir():
        for path in _folder().iterdir():
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def _folder() -> Path:
    return Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "raytl-bundles"
