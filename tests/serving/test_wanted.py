"""What is wanted of an endpoint, and what stays as it is because nobody said otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from raytl.core.errors import UserError
from raytl.serving.endpoint import _resourced, _scaled


@pytest.mark.parametrize(
    ("before", "given", "becomes"),
    [
        ({}, (None, None), (1, 2)),
        ({}, (3, None), (3, 3)),
        ({}, (None, 5), (1, 5)),
        ({"min_replicas": 2, "max_replicas": 5}, (None, None), (2, 5)),
        ({"min_replicas": 2, "max_replicas": 5}, (None, 1), (1, 1)),
        ({"min_replicas": 2, "max_replicas": 5}, (0, None), (0, 5)),
        ({"min_replicas": 2, "max_replicas": 5}, (6, None), (6, 6)),
        ({"min_replicas": 5}, (None, None), (5, 5)),
        ({"max_replicas": 0}, (None, None), (0, 0)),
    ],
)
def test_a_bound_that_is_left_out_stays_or_follows_the_other(
    before: dict[str, Any], given: tuple[int | None, int | None], becomes: tuple[int, int]
) -> None:
    scale = _scaled({"autoscaling_config": before} if before else {}, *given)["autoscaling_config"]
    assert (scale["min_replicas"], scale["max_replicas"]) == becomes


def test_more_replicas_than_there_may_be_are_refused() -> None:
    with pytest.raises(UserError, match="--min-replicas 3 is more than --max-replicas 2"):
        _scaled({}, 3, 2)


def test_whatever_else_a_file_for_serve_says_stays() -> None:
    """As in serve/gpu-autoscaling.yaml: other delays, queues, and resources of its own."""
    scale = {"min_replicas": 1, "max_replicas": 8, "initial_replicas": 1, "upscale_delay_s": 3}
    deployment = {"name": "Classifier", "max_ongoing_requests": 256, "autoscaling_config": scale}
    deployment |= {"ray_actor_options": {"num_gpus": 0.25, "runtime_env": {}}}
    same = _resourced(_scaled(deployment, None, None), num_cpus=None, num_gpus=None)
    assert same["autoscaling_config"].items() >= scale.items() and same["max_ongoing_requests"] == 256
    assert same["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.25, "runtime_env": {}}
    more = _scaled(deployment, 2, None)["autoscaling_config"]
    assert more["min_replicas"] == 2 and "initial_replicas" not in more
    fixed = {"name": "Classifier", "num_replicas": 3}
    assert _scaled(fixed, None, None) == fixed
    assert "num_replicas" not in _scaled(fixed, None, 2)
