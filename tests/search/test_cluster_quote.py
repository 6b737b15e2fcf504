"""Hours and money on a cluster: reckoned by hand from a quote for this machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from raytl.core.errors import UserError
from raytl.evaluation.intervals import Interval
from raytl.search.cluster_quote import BOOT_S, NodeType, read_cluster, reckon
from raytl.search.quote import Quote
from raytl.search.rehearsal import START_S

ROOT = Path(__file__).parents[2]
HOUR = 3600.0


def quote(search_s: float, trials: int | None = 40, lanes: int = 2, budget_s: float | None = None) -> Quote:
    """In a time budget, the longest and the middle of the rehearsals are no longer than it."""
    times = Interval(search_s, search_s / 2 + START_S / 2, min(2 * search_s - START_S, budget_s or math.inf))
    one = Interval(1, 1, 1)
    return Quote(one, times, one, 0.0, 0, 0, None, "accuracy", trials, lanes, budget_s, [], 0.0)


def head(**more) -> NodeType:
    return NodeType("head", 0, 0, 1, is_head=True, **more)


def gpus(count: int, **more) -> NodeType:
    return NodeType("gpu", 4, 1, count, is_head=False, **more)


def test_the_work_of_two_lanes_here_is_spread_over_four_nodes_there():
    types = [head(price=0.1), gpus(4, price=0.5)]
    told = reckon(quote(2 * HOUR + START_S), types, lanes=4, gpus_per_trial=1)
    expected = (BOOT_S + START_S + 4 * HOUR / 4) / HOUR
    assert (told.lanes, told.nodes) == (4, {"head": 1, "gpu": 4})
    assert told.hours.value == pytest.approx(expected)
    assert told.money.value == pytest.approx(expected * (0.1 + 4 * 0.5))
    assert told.hours.low < told.hours.value < told.hours.high
    assert told.money.high == pytest.approx(told.hours.high * 2.1)


def test_what_was_made_here_is_made_there_again():
    """Features and pretrained models are in this machine's cache."""
    told = quote(2 * HOUR + START_S)
    types = [head(), gpus(4)]
    at_hand = reckon(told, types, lanes=4, gpus_per_trial=1, lane_speed=2)
    anew = reckon(replace(told, kept_s=0.5 * HOUR), types, lanes=4, gpus_per_trial=1, lane_speed=2)
    assert anew.hours.value == pytest.approx(at_hand.hours.value + 0.5 / 4 / 2)


def test_faster_lanes_and_shared_gpus():
    slow = reckon(quote(2 * HOUR + START_S), [head(), gpus(1)], gpus_per_trial=1)
    fast = reckon(quote(2 * HOUR + START_S), [head(), gpus(1)], gpus_per_trial=1, lane_speed=4)
    shared = reckon(quote(2 * HOUR + START_S), [head(), gpus(1)], gpus_per_trial=0.25)
    idle_s = BOOT_S + START_S
    assert slow.hours.value * HOUR - idle_s == pytest.approx(4 * (fast.hours.value * HOUR - idle_s))
    assert (slow.lanes, shared.lanes) == (1, 4) and shared.hours.value == pytest.approx(fast.hours.value)


@pytest.mark.parametrize(("here", "there", "speed"), [(1, 8, 1.0), (4, 1, 1.0), (2, 2, 0.5)])
def test_a_time_budget_lasts_as_long_on_any_number_of_lanes(here, there, speed):
    types = [head(price=0.1), gpus(there, price=1.0, least=there)]
    told = reckon(quote(2 * HOUR, None, here, 2 * HOUR), types, lanes=there, gpus_per_trial=1, lane_speed=speed)
    assert (told.hours.value, told.hours.high) == (2.0, 2.0) and told.hours.low <= 2.0
    assert told.money.value == pytest.approx(2 * (0.1 + there))


def test_a_time_budget_runs_while_nodes_are_awaited():
    """That one trains nothing sooner than it is there does not make the search end later."""
    assert reckon(quote(2 * HOUR, None, 1, 2 * HOUR), [head(), gpus(8)], lanes=8, gpus_per_trial=1).hours.value == 2.0


def test_trials_within_a_time_budget_end_with_it_at_the_latest():
    types = [head(), gpus(8, least=8)]
    few = reckon(quote(HOUR + START_S, 40, 8, 2 * HOUR), types, lanes=1, gpus_per_trial=1)
    assert few.hours.value == few.hours.high == 2.0  # one lane would take eight hours
    soon = reckon(quote(HOUR + START_S, 40, 1, 4 * HOUR), types, lanes=8, gpus_per_trial=1)
    assert soon.hours.value == pytest.approx((START_S + HOUR / 8) / HOUR)
    # Of a thousand there are some left when it ends here: more lanes try more of them in the time.
    many = reckon(quote(2 * HOUR, 1000, 1, 2 * HOUR), types, lanes=8, gpus_per_trial=1)
    assert many.hours.value == many.hours.high == 2.0 and many.hours.low < 0.25


def test_no_more_nodes_than_trials_and_no_money_without_prices():
    told = reckon(quote(HOUR, trials=2), [head(), gpus(50)], lanes=50, gpus_per_trial=1)
    assert told.nodes == {"head": 1, "gpu": 2} and told.money is None


def test_where_nothing_is_trained_one_lane_does_the_probes():
    told = reckon(quote(HOUR, trials=0), [head(), gpus(5)], lanes=3)
    assert (told.lanes, told.nodes) == (1, {"head": 1, "gpu": 1})


@pytest.mark.parametrize(
    ("least", "options", "lanes", "nodes"),
    [
        # As the search does: without --lanes it asks for the one node that it cannot begin without.
        (0, {"gpus_per_trial": 1}, 1, 1),
        (0, {"gpus_per_trial": 0.25}, 4, 1),
        (0, {}, 4, 1),  # lanes of a CPU each, for nobody spoke of the GPU
        (2, {}, 2, 2),
        (2, {"gpus_per_trial": 1}, 2, 2),
        (2, {"lanes": 3}, 3, 3),
        (2, {"lanes": 1}, 1, 2),  # both are paid for
        (0, {"lanes": 9, "gpus_per_trial": 1}, 4, 4),
    ],
)
def test_no_more_nodes_than_the_search_would_ask_for(least, options, lanes, nodes):
    types = [head(price=0.1), gpus(4, price=0.5, least=least)]
    told = reckon(quote(HOUR + START_S, lanes=1), types, **options)
    assert (told.lanes, told.nodes["gpu"]) == (lanes, nodes)
    boot_s = BOOT_S if nodes > least else 0
    assert told.hours.value == pytest.approx((boot_s + START_S + HOUR / lanes) / HOUR)
    assert told.money.value == pytest.approx(told.hours.value * (0.1 + 0.5 * nodes))


def test_gpu_nodes_are_not_added_for_lanes_of_cpus_where_there_are_others():
    types = [head(), gpus(4), NodeType("cpu", 8, 0, 4, is_head=False)]
    assert reckon(quote(HOUR), types).nodes == {"head": 1, "cpu": 1}


def test_a_lane_that_no_node_type_holds_is_refused():
    with pytest.raises(UserError, match="no lane of 1 CPUs and 1 GPUs fits a node of this cluster"):
        reckon(quote(HOUR), [head(), NodeType("cpu", 8, 0, 4, is_head=False)], gpus_per_trial=1)


def test_nodes_that_are_always_there_are_read(tmp_path):
    (tmp_path / "cluster.yaml").write_text(
        (ROOT / "cluster.yaml").read_text().replace("min_workers: 0", "min_workers: 2")
    )
    assert read_cluster(tmp_path / "cluster.yaml")[1].at_first == 2
    text = (ROOT / "serve" / "kuberay-raycluster.yaml").read_text().replace("minReplicas: 0", "minReplicas: 3")
    (tmp_path / "kuberay.yaml").write_text(text)
    assert read_cluster(tmp_path / "kuberay.yaml")[1].at_first == 3


@pytest.mark.parametrize(("grows", "least", "most"), [("true", 1, 4), ("false", 2, 2)])
def test_a_raycluster_without_an_autoscaler_has_as_many_nodes_as_are_asked_for(tmp_path, grows, least, most):
    limits = "template: {spec: {containers: [{resources: {limits: {cpu: 4}}}]}}"
    (tmp_path / "ray.yaml").write_text(
        f"""kind: RayCluster
spec:
  enableInTreeAutoscaling: {grows}
  headGroupSpec: {{{limits}}}
  workerGroupSpecs:
  - {{groupName: work, replicas: 2, minReplicas: 1, maxReplicas: 4, {limits}}}
"""
    )
    _, work = read_cluster(tmp_path / "ray.yaml")
    assert (work.least, work.count) == (least, most)


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
    assert read_cluster(ROOT / "serve" / "kuberay-rayjob.yaml", ["head=0.1", "gpu=1"]) == [
        NodeType("head", 0.0, 0.0, 1, is_head=True, price=0.1),
        NodeType("gpu", 4.0, 1.0, 4, is_head=False, price=1.0),
    ]


def test_machines_of_ones_own_are_there_and_have_what_is_said():
    types = read_cluster(ROOT / "cluster-onpremise.yaml", ["head=0.1", "worker=0.5"], ["head=8", "worker=16:2"])
    assert types == [
        NodeType("head", 8.0, 0.0, 1, is_head=True, price=0.1),
        NodeType("worker", 16.0, 2.0, 2, is_head=False, price=0.5, least=2),
    ]
    told = reckon(quote(HOUR + START_S), types, gpus_per_trial=1)
    assert (told.lanes, told.nodes) == (4, {"head": 1, "worker": 2})


def test_a_job_on_a_cluster_that_is_there_says_nothing_of_nodes(tmp_path):
    (tmp_path / "job.yaml").write_text("kind: RayJob\nspec: {clusterSelector: {ray.io/cluster: raytl}}\n")
    with pytest.raises(UserError, match="uses a cluster that is there; give the RayCluster of that"):
        read_cluster(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("file", "nodes", "sentence"),
    [
        ("cluster-onpremise.yaml", [], "does not say what machines of one's own have; add --node head=CPUS"),
        ("cluster-onpremise.yaml", ["head=8"], "add --node worker=CPUS, or worker=CPUS:GPUS"),
        ("cluster-onpremise.yaml", ["head=8", "gpu=8"], "--node gpu: cluster-onpremise.yaml has no such nodes"),
        ("cluster-onpremise.yaml", ["head=many"], "--node head=many: write TYPE=CPUS"),
        ("cluster.yaml", ["head=8"], "--node head=8: cluster.yaml says itself what its nodes have"),
    ],
)
def test_mistakes_in_what_nodes_have(file, nodes, sentence):
    with pytest.raises(UserError) as refused:
        read_cluster(ROOT / file, (), nodes)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("file", "prices", "sentence"),
    [
        ("cluster.yaml", ["gpu=0.5"], "--price gpu: cluster.yaml has no such node type; known are gpu-spot, head"),
        ("cluster.yaml", ["head=0.5"], "no price for the nodes 'gpu-spot' of cluster.yaml"),
        ("cluster.yaml", ["head=cheap"], "--price head=cheap: write TYPE=PRICE"),
        ("search_spaces/vision-small.yaml", [], "vision-small.yaml: has no available_node_types"),
        ("nowhere.yaml", [], "nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes(file, prices, sentence):
    with pytest.raises(UserError) as refused:
        read_cluster(ROOT / file, prices)
    assert sentence in str(refused.value)
