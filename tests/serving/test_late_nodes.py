"""A cluster whose head has no CPUs and whose nodes come later, as those of cluster.yaml and of KubeRay do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray.cluster_utils import Cluster

from raytl.core.errors import UserError
from raytl.machines.few_processes import few_processes
from raytl.serving import deploy, look, undeploy, update
from raytl.serving.controller import Serve, head_environment
from raytl.serving.ingress import PROXY_CHECKS
from raytl.serving.ports import free_port
from raytl.serving.room import Need
from raytl.serving.settings import bundle_version

pytestmark = pytest.mark.slow  # a Ray of two nodes, with Serve
STORE = 100 * 2**20
PATIENCE_S = 240.0
# Only on Linux all of 127.0.0.0/8 is this machine: what listens on 127.0.0.1 does not there, as on another machine.
ELSEWHERE = {"node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with few_processes():
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE},
        )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", namespace="raytl")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def wait_for(what: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_where_none_comes_that_is_a_sentence_and_nothing_is_left(cluster: Cluster, bundles: dict[str, Path]) -> None:
    told: list[str] = []
    with pytest.raises(UserError) as said:
        deploy(bundles["first"], port=free_port(), room_s=3, notice=told.append)
    waits = "'raytl' waits for a node with 1 free CPU, for 3 s at most: the cluster has no CPUs"
    assert told == [f"{waits}, and no autoscaler adds nodes"]
    assert str(said.value).startswith(
        "'raytl' found no node with 1 free CPU within 3 s: the cluster has no CPUs, and no autoscaler adds nodes: add"
    )
    assert Serve.running() is None


def test_one_that_comes_is_waited_for_wherever_it_is_and_later_replicas_hold_up_nothing(
    cluster: Cluster, bundles: dict[str, Path], png: Callable[[int], bytes]
) -> None:
    told: list[str] = []
    assert head_environment("127.0.0.1", Need()) == PROXY_CHECKS  # HAProxy would look for the replicas on the head
    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(
            deploy, bundles["first"], port=free_port(), num_cpus=0.3, max_replicas=1, room_s=PATIENCE_S,
            notice=told.append,
        )  # fmt: skip
        wait_for(lambda: told or deploying.done())
        assert told and not deploying.done(), deploying.result()
        cluster.add_node(num_cpus=1, object_store_memory=STORE, **ELSEWHERE)
        endpoint = deploying.result()
    answer = httpx.post(f"{endpoint.url}/v1/predict", content=png(0), trust_env=False, timeout=60)
    assert answer.json()["model"] == "first"
    known, serve = look(), Serve.running()
    assert (known["replicas"], known["waiting"], known["waits_for"]) == (1, 0, "") and serve is not None
    config = serve.configs()["raytl"]
    (deployment,) = config["deployments"]
    assert deployment["user_config"]["bundle"] == str(bundles["first"])  # a copy on the head is on no other machine

    # As under load: two replicas are wanted of what one is kept of, and there is room for one.
    scale = deployment["autoscaling_config"] | {"max_replicas": 2, "initial_replicas": 2, "downscale_delay_s": 3600}
    beside = {**deployment, "autoscaling_config": scale, "ray_actor_options": {"num_cpus": 0.4, "num_gpus": 0.0}}
    letters = {**config, "name": "letters", "route_prefix": "/letters", "deployments": [beside]}
    serve.change(lambda present: {**present, "letters": letters})
    wait_for(lambda: (look("letters")["replicas"], look("letters")["waiting"]) == (1, 1))
    assert look("letters")["waits_for"] == "a node with 0.4 free CPUs: 0.3 of the cluster's 1 CPUs are free"
    updated = update(bundles["second"], name="letters", wait_s=PATIENCE_S)
    assert updated is not None and updated.version == bundle_version(bundles["second"])
    assert look("letters")["waiting"] == 1
    assert undeploy("letters") and undeploy() and Serve.running() is None
