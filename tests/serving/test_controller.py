"""How the running Serve instance is found."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import own_ray
import pytest
import ray
from ray import serve
from ray.exceptions import ActorDiedError, RayError

from raytl.core.errors import UserError
from raytl.machines.few_processes import few_processes
from raytl.serving.controller import Serve, head_environment
from raytl.serving.ingress import PROXY_CHECKS
from raytl.serving.ports import free_port
from raytl.serving.room import Need

pytestmark = pytest.mark.slow  # Ray sessions, some with Serve


def begin() -> None:
    with few_processes():
        own_ray.begin(num_cpus=1)


@pytest.fixture
def session() -> Iterator[None]:
    """A Ray without Serve, of the test before where that left one."""
    if not ray.is_initialized():
        begin()
    yield
    if ray.is_initialized():
        serve.shutdown()


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    ray.shutdown()


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def test_a_port_that_is_taken_while_serve_starts_is_a_sentence_and_leaves_nothing(session):
    port, environment = free_port(), head_environment("127.0.0.1", Need())
    with taken(port), pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is taken"):
        Serve.start("127.0.0.1", port, environment)
    assert Serve.running() is None
    its_own = environment.get("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT")
    if its_own:  # where there is HAProxy
        with taken(int(its_own)), pytest.raises(UserError, match="a port that Serve needs"):
            Serve.start("127.0.0.1", port, environment)
        assert Serve.running() is None
    Serve.start("127.0.0.1", port, environment)
    found = Serve.running()
    assert found is not None and found.port == port


def test_a_proxy_that_has_ended_before_it_was_asked_why_is_a_sentence_and_leaves_nothing(session, monkeypatch):
    """On a busy machine Serve asks a proxy that could not listen only after its controller has ended it."""
    really_start = serve.start

    def start_and_ask_late(**options):
        with pytest.raises(RayError):
            really_start(**options)
        raise ActorDiedError

    port = free_port()
    monkeypatch.setattr(serve, "start", start_and_ask_late)
    with taken(port), pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is taken"):
        Serve.start("127.0.0.1", port, {})
    assert Serve.running() is None


def test_serve_of_a_cluster_that_is_gone_is_not_taken_for_that_of_the_next(session):
    port = free_port()
    # As commands do: the 5 s that Serve gives a proxy are too short on a busy machine.
    Serve.start("127.0.0.1", port, dict(PROXY_CHECKS))
    found = Serve.running()
    assert found is not None and found.port == port
    ray.shutdown()  # of the cluster, and of Serve with it
    begin()
    assert Serve.running() is None


def test_why_a_change_failed_is_said_where_the_connection_is_gone_and_no_cluster_is_started_for_it(session):
    def lose(_):
        ray.shutdown()
        raise RuntimeError("the connection is gone")

    Serve.start("127.0.0.1", free_port(), dict(PROXY_CHECKS))
    with pytest.raises(RuntimeError, match="the connection is gone"):
        Serve.running().change(lose)
    assert not ray.is_initialized()
