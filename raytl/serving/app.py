"""The Ray Serve application: ``import_path: raytl.serving.app:build_app`` in a Serve config file.

One deployment holds both the HTTP routes and the model. A separate ingress would add a hop between processes to every
request, and the images would be serialised once more, for nothing: decoding and the network scale together.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import constants, replica
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from raytl.serving.settings import AUTOSCALING, CPUS, DEPLOYMENT, ServingSettings
from raytl.serving.share import keep_memory, limit_threads
from raytl.serving.straight import shorten
from raytl.serving.writing import join_writes

if TYPE_CHECKING:
    from fastapi import FastAPI


class Classifier:
    """A replica. Its user_config is :class:`ServingSettings` as plain values; a new one swaps the model in place."""

    def __init__(self) -> None:
        limit_threads(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
        keep_memory()
        # Not at the top: Serve builds the application in a process of its own, which need not wait for torch.
        from raytl.serving import trial_judge
        from raytl.serving.health_board import RayBoard
        from raytl.serving.live import load
        from raytl.serving.service import Service

        close_replica_port()
        shorten()
        join_writes()
        context = serve.get_replica_context()
        board = RayBoard(context.app_name, context.replica_tag)
        self._name = context.app_name
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._service = Service(partial(load, device=device), trial_judge.tell, board)

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Serve looks for
        from raytl.serving.controller import directory
        from raytl.serving.http import create_http
        from raytl.serving.named import remembered
        from raytl.serving.ray_metrics import ray_metrics

        metrics = partial(asyncio.to_thread, ray_metrics)
        return create_http(self._service, self._name, remembered(directory), metrics=metrics)

    async def reconfigure(self, user_config: dict[str, object]) -> None:
        """Serve under these settings; Serve calls it before the first request, so a ready replica has a warm model."""
        await self._service.apply(ServingSettings.parse(user_config))

    def __del__(self) -> None:
        """Serve calls it where it ends a replica: what is captured and not written yet is."""
        service = getattr(self, "_service", None)
        if service is not None:
            service.close()

    def check_health(self) -> None:
        """Serve asks this every few seconds: without a model, or one that can compute, the replica is replaced."""
        _ = self._service.live
        if self._service.broken:
            raise RuntimeError(self._service.broken)


def close_replica_port() -> None:
    """Bind the port that Serve opens in every replica for calls between deployments to loopback.

    Serve binds it to all interfaces and unpickles what arrives there without asking for Ray's token: whoever reaches it
    runs code in the replica. There is one deployment here, so nobody calls it, unless Serve was told to reach replicas
    by gRPC; then it must be the node's address.
    """
    by_grpc = constants.RAY_SERVE_USE_GRPC_BY_DEFAULT or constants.RAY_SERVE_PROXY_USE_GRPC
    host = ray.util.get_node_ip_address() if by_grpc else "127.0.0.1"
    replica.add_port_to_grpc_server = lambda server, _: add_port_to_grpc_server(server, f"{host}:0")


def build_app(args: dict[str, object]) -> serve.Application:
    """Build the application.

    args: :class:`ServingSettings` as plain values. They may also stand in the config file as the ``user_config`` of
        deployment ``Classifier``: there a change reaches the replicas without a restart.
    """
    deployment = serve.deployment(
        serve.ingress()(Classifier),
        name=DEPLOYMENT,
        user_config=ServingSettings.parse(args).to_json() if args else None,
        autoscaling_config=AutoscalingConfig(**AUTOSCALING),
        # Above what a replica computes at once, so that a batch can form behind the one under way.
        max_ongoing_requests=32,
        max_queued_requests=256,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        # A changed configuration starts the new replica before it stops the old one.
        max_surge_percent=100,
        # A bundle that does not load now will not load at the twentieth attempt.
        max_constructor_retry_count=3,
        graceful_shutdown_wait_loop_s=0.5,
        # A dead replica is found and replaced this much sooner.
        health_check_period_s=1,
        health_check_timeout_s=30,
        ray_actor_options={"num_cpus": CPUS},
        logging_config={"enable_access_log": False},
    )
    return deployment.bind()
