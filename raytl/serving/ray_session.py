"""The Ray session that Serve is reached through: this process's own, a cluster's, or that of the local head."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from raytl.core.errors import UserError
from raytl.machines.entrypoint import entrypoint_as_text
from raytl.machines.reaching import address_of, loopback, reach
from raytl.serving.head import LocalHead, find_head, one_at_a_time, start_head

NAMESPACE = "raytl"
_QUIET = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}


class OtherVersionsError(UserError):
    """The local head was started with another Ray or Python, and can only be stopped from here. head: which."""

    def __init__(self, sentence: str, head: LocalHead) -> None:
        super().__init__(sentence)
        self.head = head


@dataclass(frozen=True)
class RaySession:
    """A connection to Ray.

    detached: whether the cluster outlives this process. head: the local head, where it is ours.
    """

    detached: bool
    head: LocalHead | None


@contextmanager
def session(*, start: bool) -> Iterator[RaySession | None]:
    """Use this process's Ray session, or connect for the while: to ``RAY_ADDRESS``, else to our local head.

    start: start a local head where there is none; otherwise the result is None then.
    """
    if ray.is_initialized():
        yield RaySession(detached=False, head=None)
        return
    head = None
    address = address_of(None)
    if address is not None:
        found = reach(address)
        with found.joining(), entrypoint_as_text():
            ray.init(address=found.address, **_QUIET)
    else:
        with one_at_a_time():
            head = find_head()
            if head is None and start:
                head = _started()
        if head is None:
            yield None
            return
        if not ray.is_initialized():
            _connect(head)
    try:
        yield RaySession(detached=True, head=head)
    finally:
        ray.shutdown()


def head_is_wanted() -> bool:
    """Whether :func:`session` would have to start a local head."""
    if ray.is_initialized() or address_of(None) is not None:
        return False
    with one_at_a_time():
        return find_head() is None


def _started() -> LocalHead:
    """A new local head that this process is connected to. Of one that it cannot be connected to nothing is left."""
    head = start_head()
    try:
        _connect(head)
    except BaseException:  # Ctrl-C too
        head.stop()
        raise
    return head


def _connect(head: LocalHead) -> None:
    """Raises UserError where it cannot be reached."""
    try:
        with loopback(), entrypoint_as_text():
            # "auto" with the head's own directory finds its address there, and turns its token on.
            ray.init(address="auto", _temp_dir=head.temp_dir, **_QUIET)
    except BaseException as error:  # Ctrl-C too
        ray.shutdown()  # of what was connected so far
        if isinstance(error, ConnectionError | RuntimeError | RayError):
            raise _out_of_reach(head, error) from None
        raise


def _out_of_reach(head: LocalHead, error: Exception) -> UserError:
    """Why the local head cannot be connected to. One that lives is left alone: its models answer all the while."""
    if not head.alive:
        head.stop()  # what is left of it
        return UserError("the local Ray head has just ended, with all that it served: deploy again")
    said = f"{error} {error.__cause__ or ''}"
    if "Version mismatch" in said:
        theirs, ours = re.findall(r"Ray: (\S+)\s+Python: (\S+)", said)[:2]
        return OtherVersionsError(
            f"the endpoint's local Ray head runs on Ray {theirs[0]} and Python {theirs[1]}, and this is Ray {ours[0]} "
            f"and Python {ours[1]}: change it from where it was deployed, or take it down with all its models by "
            "'raytl undeploy', and deploy again",
            head,
        )
    return UserError(
        f"the endpoint's local Ray head (process {head.pid}) does not answer right now "
        f"({' '.join(str(error).split()).rstrip('.')}): try again in a moment"
    )
