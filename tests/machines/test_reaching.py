"""What is said of a Ray cluster before Ray is asked to join it, and how soon."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from ray._private import ray_constants
from ray._private import services as ray_services
from ray._private.utils import compute_version_info
from ray.core.generated import gcs_service_pb2 as messages
from ray.core.generated import gcs_service_pb2_grpc as services

from raytl.core.errors import UserError
from raytl.machines import reaching
from raytl.machines.reaching import address_of, answers, look, reach
from raytl.serving.ports import free_ports

TOKEN = "0123456789abcdef" * 4
OURS = dict(zip(("ray_version", "python_version"), compute_version_info(), strict=False))
CERTIFICATES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a token, whose Ray takes 127.0.0.1 for what it is."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """The machine's own address, which Ray takes for 127.0.0.1 unless its switch says otherwise."""
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    own = lambda: "127.0.0.2" if ray_constants.ENABLE_RAY_CLUSTER else "127.0.0.1"  # noqa: E731
    monkeypatch.setattr(ray_services, "get_node_ip_address", own)
    return own()


def said_of(address: str) -> str:
    with pytest.raises(UserError) as refused:
        reach(address)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@dataclass
class Peer:
    """A server that speaks as the head of a cluster does."""

    metadata: bytes = json.dumps(OURS).encode()
    node: bytes = b"\x01" * 28

    def InternalKVGet(self, request, context):  # noqa: N802
        assert (request.key, request.namespace) == (b"CLUSTER_METADATA", b"cluster")
        return messages.InternalKVGetReply(value=self.metadata)

    def GetAllNodeInfo(self, request, context):  # noqa: N802
        reply = messages.GetAllNodeInfoReply()
        reply.node_info_list.add(node_id=self.node, state=0).resources_total.update({"CPU": 8.0, "GPU": 2.0})
        reply.node_info_list.add(node_id=b"\x02" * 28, state=1).resources_total.update({"CPU": 8.0})
        return reply


@contextmanager
def served(peer: Peer, also_at: str | None = None) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    for service, method in (("InternalKVGcsService", "InternalKVGet"), ("NodeInfoGcsService", "GetAllNodeInfo")):
        name = f"{method}Request"
        handler = grpc.unary_unary_rpc_method_handler(
            getattr(peer, method),
            request_deserializer=getattr(messages, name).FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )
        generic = grpc.method_handlers_generic_handler(f"ray.rpc.{service}", {method: handler})
        server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    if also_at is not None:
        server.add_insecure_port(f"{also_at}:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for an answer that comes for as long as it takes on a busy machine."""
    monkeypatch.setattr(reaching, "PATIENCE_S", 120.0)


@pytest.mark.usefixtures("patient")
class TestWhoAnswers:
    @pytest.mark.parametrize(
        ("changed", "versions"),
        [
            ({"ray_version": "2.49.1"}, f"Ray 2.49.1 on Python {OURS['python_version']}"),
            ({"python_version": "3.9.18"}, f"Ray {OURS['ray_version']} on Python 3.9.18"),
        ],
    )
    def test_another_version_is_named_beside_ours(self, changed, versions):
        with served(Peer(json.dumps(OURS | changed).encode())) as address:
            said = said_of(address)
        assert said.startswith(
            f"the Ray cluster at '{address}' runs {versions}, and this is Ray {OURS['ray_version']} on"
        )
        assert "start it anew" in said

    def test_a_cluster_without_a_node_here_is_told_at_once(self):
        with served(Peer()) as address:
            assert look(address).nodes == ((8.0, 2.0),) and answers(address)
            assert "has no node on this machine: run raytl on one of its nodes" in said_of(address)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_a_head_that_listens_on_loopback_only_is_found_there(self, host, elsewhere):
        with served(Peer()) as address:
            found = look(f"{host}:{address.rpartition(':')[2]}")
            assert found.address == address
            with found.joining():
                assert ray_services.canonicalize_bootstrap_address(found.address) == address
        assert ray_constants.ENABLE_RAY_CLUSTER

    def test_one_that_other_machines_reach_is_joined_as_they_do(self, elsewhere):
        with served(Peer(), elsewhere) as address:
            port = address.rpartition(":")[2]
            found = look(address)
            assert found.address == f"{elsewhere}:{port}"
            with found.joining():
                assert ray_services.canonicalize_bootstrap_address(address) == found.address

    @pytest.mark.parametrize("metadata", [b"", b"{}", b"not JSON"])
    def test_something_that_is_no_cluster(self, metadata):
        with served(Peer(metadata)) as address:
            assert "is not a Ray cluster that raytl knows" in said_of(address)


class TestWhoDoesNot:
    def test_nobody_listens(self):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{bound.getsockname()[1]}"
            assert f"no Ray cluster answers at '{address}' (connection refused): check --address" in said_of(address)
            assert not answers(address)

    def test_somebody_listens_and_says_nothing(self, monkeypatch):
        monkeypatch.setattr(reaching, "PATIENCE_S", 0.5)
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen()
            assert "(nothing within 0 s)" in said_of(f"127.0.0.1:{deaf.getsockname()[1]}")

    @pytest.mark.parametrize(
        ("address", "why"),
        [
            ("127.0.0.1", "'127.0.0.1' is not an address: give HOST:PORT"),
            (":6379", "':6379' is not an address: give HOST:PORT"),
            ("head:", "'head:' is not an address: give HOST:PORT"),
            ("head:web", "'head:web' is not an address: give HOST:PORT"),
            ("head:99999", "'head:99999' is not an address: give HOST:PORT"),
            ("ray://127.0.0.1:10001", "is not the address of a cluster's head: give HOST:PORT"),
        ],
    )
    def test_what_is_no_address(self, address, why, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)
        assert why in said_of(address)
        assert caplog.records == []  # nor has Ray said it in its own way before

    def test_certificates_that_are_not_there(self, monkeypatch, tmp_path):
        monkeypatch.setenv("RAY_USE_TLS", "1")
        for name in CERTIFICATES:
            monkeypatch.delenv(name, raising=False)
        said = said_of("127.0.0.1:6379")
        assert said.startswith("RAY_USE_TLS is set, and RAY_TLS_SERVER_CERT is not: let RAY_TLS_SERVER_CERT,")
        for name in CERTIFICATES:
            monkeypatch.setenv(name, str(tmp_path / "none.pem"))
        said = said_of("127.0.0.1:6379")
        assert (
            said.startswith("RAY_USE_TLS is set, and a file of its certificates cannot be read (")
            and "none.pem" in said
        )

    def test_certificates_that_do_not_fit(self, monkeypatch, tmp_path):
        monkeypatch.setenv("RAY_USE_TLS", "1")
        (tmp_path / "no.pem").write_text("no certificate")
        for name in CERTIFICATES:
            monkeypatch.setenv(name, str(tmp_path / "no.pem"))
        with served(Peer()) as address:
            assert "or not with these certificates, for which RAY_USE_TLS asks" in said_of(address)

    def test_local_means_no_cluster(self, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", "local")
        assert address_of(None) is None
        assert address_of("10.0.0.7:6379") == "10.0.0.7:6379"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A real head that wants a token; its address."""
    port, client = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="rt", dir="/tmp"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", "--no-monitor"]
    command += [f"--ray-client-server-port={client}", "--dashboard-agent-listen-port=0", f"--temp-dir={folder}"]
    command += ["--num-cpus=1", "--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0"]
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while not (folder / "ray_current_cluster").exists():
            assert head.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


JOIN = """
import sys, ray
from raytl.search.lanes.cluster import cluster
with cluster(None, 0.0, address=sys.argv[1]) as lanes:
    print(lanes.count, ray.get(ray.remote(lambda: 6 * 7).remote()))
"""


def put(address: str, metadata: dict[str, str]) -> None:
    """Record in the head's store that it is of these versions."""
    question = messages.InternalKVPutRequest(
        key=b"CLUSTER_METADATA", namespace=b"cluster", value=json.dumps(metadata).encode(), overwrite=True
    )
    with grpc.insecure_channel(address) as channel:
        method = services.InternalKVGcsServiceStub(channel).InternalKVPut
        method(question, timeout=120, metadata=(("authorization", f"Bearer {TOKEN}"),))


@pytest.mark.usefixtures("patient")
class TestAHeadThatWantsAToken:
    def test_without_one(self, guarded):
        assert answers(guarded)
        said = said_of(guarded)
        assert said.startswith(
            f"the Ray cluster at '{guarded}' wants a token, and there is none in ~/.ray/auth_token: "
        )

    def test_with_a_wrong_one(self, guarded, monkeypatch, tmp_path):
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("another")
        (tmp_path / ".ray" / "auth_token").chmod(0o600)
        assert "does not take the token in ~/.ray/auth_token: copy the one of its head" in said_of(guarded)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "a third")
        assert "does not take the token in RAY_AUTH_TOKEN" in said_of(guarded)

    def test_with_one_that_others_can_read(self, guarded, monkeypatch, tmp_path):
        (tmp_path / "token").write_text(TOKEN)
        (tmp_path / "token").chmod(0o644)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        assert f"can be read by others, and whoever has it runs code in the cluster: chmod 600 {tmp_path}" in said_of(
            guarded
        )

    @pytest.mark.parametrize("alone", ["0", "1"])
    def test_with_the_right_one_a_search_joins_it(self, guarded, tmp_path, alone):
        """Without RAY_AUTH_MODE, which Ray would want to be set as well; and alone: without Ray's switch for heads on
        loopback, without which it looks for them at the machine's own address."""
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        (tmp_path / "token").chmod(0o600)
        own = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"), ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: alone}
        done = subprocess.run(
            [sys.executable, "-c", JOIN, guarded],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stdout.split() == ["1", "42"], done.stderr

    def test_of_another_version(self, guarded, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        put(guarded, {**OURS, "ray_version": "2.9.3"})
        try:
            assert f"'{guarded}' runs Ray 2.9.3 on Python" in said_of(guarded)
        finally:
            put(guarded, OURS)
