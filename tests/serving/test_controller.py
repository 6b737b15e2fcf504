"""How the running Serve instance is found."""

from __future__ import annotations

import socket

import pytest
import ray

from raytl.serving.controller import Serve

pytestmark = pytest.mark.slow  # two Ray sessions, one with Serve


def test_serve_of_a_cluster_that_is_gone_is_not_taken_for_that_of_the_next():
    quiet = {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(address="local", **quiet)
    try:
        Serve.start("127.0.0.1", port, {})
        found = Serve.running()
        assert found is not None and found.port == port
        ray.shutdown()  # of the cluster, and of Serve with it
        ray.init(address="local", **quiet)
        assert Serve.running() is None
    finally:
        ray.shutdown()
