"""Is there a Ray cluster at an address, of our version, that lets us in? Asked in milliseconds, before Ray is.

``ray.init`` itself finds out too, after a minute of attempts, in many lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from raytl.core.errors import UserError
from raytl.machines.token import TOKEN_FILE, find_token

PATIENCE_S = 5.0
"""How long a cluster may take for an answer."""

_LOOPBACK = "127.0.0.1"
_CERTIFICATES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


@dataclass(frozen=True)
class Reached:
    """A cluster that answered. address: as Ray takes it. token: where the one that it took is from, None for none.

    nodes: (CPUs, GPUs) of each node that is alive. here: whether one of them is on this machine.
    """

    address: str
    ray_version: str
    python_version: str
    token: str | None
    nodes: tuple[tuple[float, float], ...]
    here: bool

    def joining(self) -> AbstractContextManager[None]:
        """Around ``ray.init``, which else goes elsewhere for an address on 127.0.0.1."""
        return loopback() if self.address.startswith(f"{_LOOPBACK}:") else nullcontext()


@contextmanager
def loopback() -> Iterator[None]:
    """Let this process reach a head on 127.0.0.1, for which Ray reads its switch only when it is imported."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def address_of(given: str | None) -> str | None:
    """The address of the cluster to use: the given one, else RAY_ADDRESS; None for a Ray of this machine's own."""
    address = given or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def reach(address: str) -> Reached:
    """Ask the cluster at ``address`` who it is, and see to it that Ray will show the token that it wants.

    address: ``HOST:PORT`` of its head, or ``auto`` for the one on this machine. Ray is then to join it within
    :meth:`Reached.joining`.
    Raises UserError where none answers, it wants another token, is of another version, or has no node here.
    """
    found = look(address)
    other = mismatch(found)
    if other is not None:
        raise UserError(f"the Ray cluster at '{address}' runs {other}")
    if not found.here:
        raise UserError(f"the Ray cluster at '{address}' has no node on this machine: run raytl on one of its nodes")
    if found.token is not None:
        _show_token()
    return found


def look(address: str) -> Reached:
    """What answers at an address, of whatever version. Raises UserError where none does, or it wants another token."""
    import grpc
    from ray.core.generated import gcs_service_pb2 as messages

    canonical = _reachable(address)
    with _channel(canonical) as channel:
        question = messages.InternalKVGetRequest(key=b"CLUSTER_METADATA", namespace=b"cluster")
        token, source = None, None
        try:
            try:
                answer = _ask(channel, "InternalKV", question, token)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                    raise
                token, source = _token(address)
                answer = _ask(channel, "InternalKV", question, token)
            nodes = _ask(channel, "Node", messages.GetAllNodeInfoRequest(), token).node_info_list
        except grpc.RpcError as error:
            raise UserError(_refusal(address, error, source)) from None
    try:
        metadata = json.loads(answer.value)
        versions = str(metadata["ray_version"]), str(metadata["python_version"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"what answers at '{address}' is not a Ray cluster that raytl knows; check --address") from None
    alive = [node for node in nodes if node.state == 0]
    resources = tuple((node.resources_total.get("CPU", 0.0), node.resources_total.get("GPU", 0.0)) for node in alive)
    return Reached(canonical, *versions, source, resources, _is_here([node.node_id.hex() for node in alive]))


def answers(address: str) -> bool:
    """Whether a cluster's head answers at ``IP:PORT`` within five seconds, be it that it wants a token."""
    import grpc
    from ray.core.generated import gcs_service_pb2 as messages

    with _channel(address) as channel:
        try:
            _ask(channel, "Node", messages.GetAllNodeInfoRequest(), None)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return True


def mismatch(found: Reached) -> str | None:
    """What is of another version there, and what to do; None where Ray will take the two for the same."""
    from ray._private.utils import check_version_info, compute_version_info

    there = {"ray_version": found.ray_version, "python_version": found.python_version}
    try:
        check_version_info(there, "this machine")
    except RuntimeError:
        ray_here, python_here = compute_version_info()[:2]
        return (
            f"Ray {found.ray_version} on Python {found.python_version}, and this is Ray {ray_here} on Python "
            f"{python_here}: start it anew from an environment with raytl of these versions"
        )
    return None


def _reachable(address: str) -> str:
    """The address as Ray takes it, or on 127.0.0.1, where only there a head answers.

    Of an address on loopback Ray makes the machine's own, by which other nodes would find the head. Where a head was
    started so that no other machine reaches it, it is not to be found there.
    """
    found = _canonical(address)
    with loopback():
        here = _canonical(address)
    return here if here != found and answers(here) and not answers(found) else found


def _canonical(address: str) -> str:
    """The address as Ray takes it, ``IP:PORT``."""
    from ray._private import services

    if "://" in address:
        raise UserError(
            f"'{address}' is not the address of a cluster's head: give HOST:PORT (port 6379, usually), on one of its "
            "nodes"
        )
    no_address = UserError(f"'{address}' is not an address: give HOST:PORT, such as 10.0.0.7:6379")
    host, _, port = address.strip().rpartition(":")
    # Of an address without a host Ray itself writes a traceback before it raises.
    if address != "auto" and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise no_address
    try:
        found = services.canonicalize_bootstrap_address(address.strip())
    except ConnectionError:
        found = None  # "auto", and none runs here
    except (ValueError, OSError):
        raise no_address from None
    if found is None:
        raise UserError(f"no Ray cluster runs on this machine, as address '{address}' says: give its HOST:PORT")
    return str(found)


def _channel(address: str) -> Any:
    import grpc
    from ray._common.tls_utils import load_certs_from_env

    options = [("grpc.enable_http_proxy", 0)]
    if not _encrypted():
        return grpc.insecure_channel(address, options)
    try:
        chain, key, root = load_certs_from_env()
    except (RuntimeError, OSError) as error:
        missing = [name for name in _CERTIFICATES if name not in os.environ]
        what = f"{missing[0]} is not" if missing else f"a file of its certificates cannot be read ({error})"
        raise UserError(
            f"RAY_USE_TLS is set, and {what}: let {', '.join(_CERTIFICATES[:2])} and {_CERTIFICATES[2]} name the files "
            "that the cluster's nodes have, or unset RAY_USE_TLS"
        ) from None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, chain), options)


def _encrypted() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _ask(channel: Any, service: str, question: Any, token: str | None) -> Any:
    from ray.core.generated import gcs_service_pb2_grpc as services

    if service == "InternalKV":
        method = services.InternalKVGcsServiceStub(channel).InternalKVGet
    else:
        method = services.NodeInfoGcsServiceStub(channel).GetAllNodeInfo
    shown = () if token is None else (("authorization", f"Bearer {token}"),)
    return method(question, timeout=PATIENCE_S, metadata=shown)


def _token(address: str) -> tuple[str, str]:
    """The token that Ray would show, and where it is from."""
    found = find_token()
    if found is None:
        raise UserError(
            f"the Ray cluster at '{address}' wants a token, and there is none in {TOKEN_FILE}: copy the file from its "
            "head, where 'ray get-auth-token' shows it, or set RAY_AUTH_TOKEN"
        )
    return found


def _show_token() -> None:
    """Let Ray show the token: with an address given it does so only when it is told."""
    from ray._private.authentication import authentication_token_setup as setup

    if os.environ.get(setup.AUTH_MODE_ENV_VAR, "").lower() != "token":
        setup._enable_token_auth()


def _refusal(address: str, error: Any, source: str | None) -> str:
    import grpc

    code, details = error.code(), str(error.details())
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return (
            f"the Ray cluster at '{address}' does not take the token in {source}: copy the one of its head, where "
            "'ray get-auth-token' shows it"
        )
    why = "something else listens there"
    if _encrypted():
        why += ", or not with these certificates, for which RAY_USE_TLS asks"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        why = f"nothing within {PATIENCE_S:.0f} s"
    elif "refused" in details:
        why = "connection refused"
    elif "lookup" in details or "resolving" in details:
        why = "no such host"
    return f"no Ray cluster answers at '{address}' ({why}): check --address or RAY_ADDRESS, and that its head runs"


def _is_here(nodes: Sequence[str]) -> bool:
    """Whether a node's process runs on this machine."""
    from ray._private import services

    return bool(set(nodes) & set(services.find_node_ids()))
