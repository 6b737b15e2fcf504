"""Hours and money on a cluster: reckoned by hand from a quote for this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytl.core.errors import UserError
from raytl.evaluation.intervals import Interval
from raytl.search.cluster_quote import BOOT_S, NodeType, read_cluster, reckon
from raytl.search.quote import Quote
from raytl.search.rehearsal import START_S

ROOT = Path(__file__).parents[2]
HOUR = 3600.0


def quote(search_s: float, trials: int = 40, lanes: int = 2) -> Quote:
    times = Interval(search_s, search_s / 2 + START_S / 2, 2 * search_s - START_S)
    one = Interval(1, 1, 1)
    return Quote(one, times, one, 0.0, 0, 0, None, "accuracy", trials, lanes, None, [], 0.0)


def head(**more) -> NodeType:
    return NodeType("head", 0, 0, 1, is_head=True, **more)


def gpus(count: int, **more) -> NodeType:
    return NodeType("gpu", 4, 1, count, is_head=False, **more)


def test_the_work_of_two_lanes_here_is_spread_over_four_nodes_there():
    told = reckon(quote(2 * HOUR + START_S), [head(price=0.1), gpus(4, price=0.5)])
    expected = (BOOT_S + START_S + 4 * HOUR / 4) / HOUR
    assert (told.lanes, told.nodes) == (4, {"head": 1, "gpu": 4})
    assert told.hours.value == pytest.approx(expected)
    assert told.money.value == pytest.approx(expected * (0.1 + 4 * 0.5))
    assert told.hours.low < told.hours.value < told.hours.high
    assert told.money.high == pytest.approx(told.hours.high * 2.1)


def test_faster_lanes_and_shared_gpus():
    slow = reckon(quote(2 * HOUR + START_S), [head(), gpus(1)])
    fast = reckon(quote(2 * HOUR + START_S), [head(), gpus(1)], lane_speed=4)
    shared = reckon(quote(2 * HOUR + START_S), [head(), gpus(1)], gpus_per_trial=0.25)
    idle_s = BOOT_S + START_S
    assert slow.hours.value * HOUR - idle_s == pytest.approx(4 * (fast.hours.value * HOUR - idle_s))
    assert (slow.lanes, shared.lanes) == (1, 4) and shared.hours.value == pytest.approx(fast.hours.value)


def test_no_more_nodes_than_trials_and_no_money_without_prices():
    told = reckon(quote(HOUR, trials=2), [head(), gpus(50)])
    assert told.nodes == {"head": 1, "gpu": 2} and told.money is None


def test_a_head_with_cores_works_too_and_is_there_at_once():
    told = reckon(quote(HOUR + START_S, lanes=1), [NodeType("head", 4, 0, 1, is_head=True)])
    assert told.lanes == 4 and told.hours.value == pytest.approx((START_S + HOUR / 4) / HOUR)


def test_the_shipped_clusters_are_read():
    (one, many) = read_cluster(ROOT / "cluster.yaml", ["head=0.1", "gpu-spot=.45"])
    assert one == NodeType("head", 0.0, 0.0, 1, is_head=True, price=0.1)
    assert many == NodeType("gpu-spot", 4.0, 1.0, 4, is_head=False, price=0.45)
    (one, many) = read_cluster(ROOT / "serve" / "kuberay-raycluster.yaml")
    assert one == NodeType("head", 0.0, 0.0, 1, is_head=True)
    assert many == NodeType("gpu", 4.0, 1.0, 4, is_head=False)


@pytest.mark.parametrize(
    ("file", "prices", "sentence"),
    [
        ("cluster.yaml", ["gpu=0.5"], "--price gpu: cluster.yaml has no such node type; known are gpu-spot, head"),
        ("cluster.yaml", ["head=0.5"], "no price for the nodes 'gpu-spot' of cluster.yaml"),
        ("cluster.yaml", ["head=cheap"], "--price head=cheap: write TYPE=PRICE"),
        ("cluster-onpremise.yaml", [], "cluster-onpremise.yaml: has no available_node_types"),
        ("nowhere.yaml", [], "nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes(file, prices, sentence):
    with pytest.raises(UserError) as refused:
        read_cluster(ROOT / file, prices)
    assert sentence in str(refused.value)
