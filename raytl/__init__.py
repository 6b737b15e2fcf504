"""raytl: joint transfer-learning search on Ray, from a few labelled images to a served model."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytl.api import (
        Best,
        Endpoint,
        JobHandle,
        Run,
        Task,
        check,
        deploy,
        deploy_when,
        extend,
        find_job,
        open_run,
        pretrain,
        quote,
        rank_sources,
        recipe,
        replay,
        resume,
        search,
        submit,
        try_strategy,
        undeploy,
    )
    from raytl.serving.client import Client

__version__ = "0.1.0"
__all__ = [
    "Best",
    "Client",
    "Endpoint",
    "JobHandle",
    "Run",
    "Task",
    "check",
    "deploy",
    "deploy_when",
    "extend",
    "find_job",
    "open_run",
    "pretrain",
    "quote",
    "rank_sources",
    "recipe",
    "replay",
    "resume",
    "search",
    "submit",
    "try_strategy",
    "undeploy",
]


def __getattr__(name: str) -> Any:
    """Load the API at first use: it brings Ray and torch, which ``raytl --help`` need not wait for."""
    if name == "Client":  # for programs that have neither
        from raytl.serving.client import Client

        globals()[name] = Client
        return Client
    if name in __all__:
        from raytl import api

        globals()[name] = getattr(api, name)  # that alone: who searches need not wait for what serves
        return globals()[name]
    raise AttributeError(f"module 'raytl' has no attribute '{name}'")


class _Package(ModuleType):
    """Keeps ``raytl.search`` the function: importing from the package of that name would put a module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
