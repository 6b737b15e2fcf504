"""Searches as jobs of a Ray cluster elsewhere: sent through Ray Jobs, followed, stopped, brought home.

All goes through the head's dashboard (``http://HEAD:8265``), with the cluster's token. :mod:`raytl.jobs.launch` is the
part that runs over there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytl.jobs.handle import Job, JobHandle, find_job, list_jobs
    from raytl.jobs.packing import Parcel
    from raytl.jobs.submission import Submission, submit

__all__ = ["Job", "JobHandle", "Parcel", "Submission", "find_job", "list_jobs", "submit"]


def __getattr__(name: str) -> Any:
    # On first use: what is launched on the cluster lies in this package and needs no Ray.
    if name not in __all__:
        raise AttributeError(f"module 'raytl.jobs' has no attribute '{name}'")
    from raytl.jobs import handle, packing, submission

    for module in (handle, packing, submission):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)
