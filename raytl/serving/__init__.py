"""A bundle behind an autoscaling HTTP endpoint: ``deploy``, ``undeploy`` and ``status`` on Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytl.serving.changing import look, promote, rollback, rotate_token, try_out
    from raytl.serving.endpoint import Endpoint, deploy, served, status, undeploy, update

_CHANGING = ("look", "promote", "rollback", "rotate_token", "try_out")
__all__ = [
    "Endpoint",
    "deploy",
    "look",
    "promote",
    "rollback",
    "rotate_token",
    "served",
    "status",
    "try_out",
    "undeploy",
    "update",
]


def __getattr__(name: str) -> Any:
    # On first use: ``raytl-haproxy`` lies in this package, runs at every change of the replicas and needs no Ray.
    if name not in __all__:
        raise AttributeError(f"module 'raytl.serving' has no attribute '{name}'")
    from raytl.serving import changing, endpoint

    return getattr(changing if name in _CHANGING else endpoint, name)
