"""A Ray of this machine alone, without the processes that nobody asks there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private.node import Node


@contextmanager
def few_processes() -> Iterator[None]:
    """While it lasts, a Ray starts without autoscaler, log monitor and dashboard.

    One machine does not grow; what lanes and replicas print stays in files; and a dashboard that is switched off is a
    process all the same, which Ray waits for before it goes on. The three take a third of the work of a start, 180 MB
    for as long as Ray runs, and a second at its end. There is no setting for the last two, and for the first only on
    the command line.
    """
    before = {name: getattr(Node, name) for name in _WITHOUT}
    for name, instead in _WITHOUT.items():
        setattr(Node, name, instead)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


def _start_none(node: Node) -> None: ...


def _start_no_api_server(node: Node, **options: Any) -> None:
    node._webui_url = ""  # as Ray notes it where there is no dashboard


_WITHOUT = {
    "start_monitor": _start_none,
    "start_log_monitor": _start_none,
    "start_api_server": _start_no_api_server,
}
