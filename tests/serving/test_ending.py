"""How long the end of Serve is waited for: the cluster is a stand-in, and its time the test's."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

from raytl.serving import controller
from raytl.serving.controller import Serve


def test_its_port_is_waited_for_however_long_serve_itself_took_to_end(monkeypatch):
    """Else HAProxy, which ends after it, is taken for another program that has the port."""
    now = 0.0
    looked: list[float] = []

    def lives() -> bool:
        nonlocal now
        now += 10.0
        return now < 50.0

    def taken(host: str, port: int) -> bool:
        looked.append(now)
        return len(looked) < 3

    monkeypatch.setattr(controller, "time", SimpleNamespace(monotonic=lambda: now, sleep=lambda seconds: None))
    for name, stand_in in (("ray", MagicMock()), ("_disconnect", MagicMock()), ("_controller_lives", lives)):
        monkeypatch.setattr(controller, name, stand_in)
    monkeypatch.setattr(controller, "port_taken", taken)
    Serve(MagicMock())._stop("127.0.0.1", 8000, patience_s=5.0)
    assert looked == [50.0] * 3


def told_in_order(monkeypatch, *, fails: bool) -> list[str]:
    """What an end says on the head, and to Serve's controller, in order."""
    order: list[str] = []
    ray, client = MagicMock(), MagicMock()

    def remote(**options):
        def of(function):
            order.append(function.__name__)
            return MagicMock()

        return of

    def shutdown(**options):
        order.append("graceful_shutdown")
        if fails:
            raise KeyboardInterrupt

    ray.remote = remote
    client._controller.graceful_shutdown.remote = shutdown
    for name, stand_in in (("ray", ray), ("_disconnect", MagicMock()), ("_controller_lives", lambda: False)):
        monkeypatch.setattr(controller, name, stand_in)
    monkeypatch.setattr(controller, "port_taken", lambda host, port: False)
    try:
        Serve(client)._stop("127.0.0.1", 8000, patience_s=5.0)
    except KeyboardInterrupt:
        order.append("raised")
    return order


def test_it_is_announced_before_and_called_off_where_it_fails(monkeypatch):
    """Else HAProxy's guard starts it anew, or never again."""
    assert told_in_order(monkeypatch, fails=False) == ["_announce", "graceful_shutdown"]
    assert told_in_order(monkeypatch, fails=True) == ["_announce", "graceful_shutdown", "_call_off", "raised"]
