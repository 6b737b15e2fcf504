"""Two workers that train one trial together, as processes of their own with gloo between them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing

from raytl.core.errors import UserError
from raytl.search.lanes.worker_group import _Member
from raytl.training.distributed import Group
from raytl.training.loop import ready, run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Budget, Workspace

PLAIN = Strategy(tiny.MODEL, head_lr=0.05, backbone_ratio=1.0)
TOLERANCE = 1e-5
"""Of weights, relative to the largest of their tensor, after 36 steps."""
STRATEGIES = {
    "plain": PLAIN,
    "cut": replace(PLAIN, cut=2),
    "ema": replace(PLAIN, ema=0.9),
    "dann": replace(PLAIN, source_domain="bright", adaptation="dann"),
    # Whether a pseudo label is sure enough may differ from worker to worker: some have no such loss in a step.
    "pseudo-label": replace(PLAIN, source_domain="bright", adaptation="pseudo-label"),
    "mcc": replace(PLAIN, source_domain="bright", adaptation="mcc"),
    "augmented": replace(PLAIN, augmentation="shift"),
    # Nothing here is reckoned from a whole batch: the batch norm is frozen.
    "frozen": replace(PLAIN, cut=tiny.STAGES),
    "frozen, augmented": replace(PLAIN, cut=tiny.STAGES, augmentation="shift"),
    "frozen, with a source domain": replace(PLAIN, cut=tiny.STAGES, source_domain="bright"),
    "frozen, with views": replace(PLAIN, cut=tiny.STAGES, augmentation="shift", cached_views=2),
    "diverging": replace(PLAIN, head_lr=1e30),
}


def _train(rank: int, size: int, root: str, both_done: Barrier) -> None:
    """One worker: trains every strategy and saves what it ended with."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=size)
    workspace = tiny.workspace(Path(root) / "home", tiny.data(target=12), budget=Budget(3, 12, 8))
    for name, strategy in STRATEGIES.items():
        epochs: list[dict[str, float]] = []
        try:
            result = run_trial(workspace, TrialJob(strategy), epochs.append, Group(rank, size))
            outcome = {"metrics": result.metrics, "epochs": len(epochs)}
            weights = {key: value.contiguous() for key, value in result.model.state_dict().items()}
            save_file(weights, f"{root}/{name}-{rank}.safetensors")
        except TrialError as error:
            outcome = {"error": str(error), "epochs": len(epochs)}
        Path(f"{root}/{name}-{rank}.json").write_text(json.dumps(outcome))
    save_file(_gradients(Group(rank, size)), f"{root}/gradients-{rank}.safetensors")
    Path(f"{root}/agreed-{rank}.json").write_text(json.dumps(_agreed(Group(rank, size), workspace)))
    Path(f"{root}/done-{rank}").touch()
    both_done.wait(600)  # gloo aborts a process whose peer leaves while it still reads
    distributed.destroy_process_group()


def _gradients(group: Group) -> dict[str, torch.Tensor]:
    """What is left of gradients that both workers, one of them or neither has: 2 and 4, none and 6, none and none."""
    parameters = {name: torch.nn.Parameter(torch.zeros(3)) for name in ("both", "one", "neither")}
    parameters["both"].grad = torch.full((3,), 2.0 + 2.0 * group.rank)
    if group.rank == 1:
        parameters["one"].grad = torch.full((3,), 6.0)
    group.average_gradients(parameters.values())
    return {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}


def _agreed(group: Group, workspace: Workspace) -> list[str | None]:
    """Of hashes that differ from rank to rank the one that goes, and why a source model is not to be had."""

    class Lacking(Workspace):
        def hold(self, uri: str) -> None:
            if group.rank == 1:
                raise UserError(f"{uri}: is not on this node")

    meeting = distributed.new_group(backend="gloo", timeout=timedelta(seconds=300))
    member = _Member(None, 0, group, distributed.group.WORLD, meeting)
    lacking = Lacking(workspace.data, workspace.settings)
    return [
        group.agreed(64 * str(group.rank + 5), torch.device("cpu")),
        member.missing(lacking, tiny.MODEL),
        member.missing(workspace, tiny.MODEL),
        member.missing(lacking, None),
        str(member.failed_alike("one job")),
        str(member.failed_alike(f"job {group.rank}")),
        str(_alone(group)),
    ]


def _alone(group: Group) -> bool:
    """Of a job that failed in the second worker, while the first one waits for it somewhere else."""
    within = timedelta(seconds=5)  # in which the two must have found each other, too
    meeting = distributed.new_group(backend="gloo", timeout=within)
    alike = group.rank == 1 and _Member(None, 0, group, None, meeting).failed_alike("one job")
    distributed.barrier()
    return alike


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("two-workers")
    both_done = multiprocessing.get_context("spawn").Barrier(2)
    try:
        multiprocessing.spawn(_train, (2, str(root), both_done), nprocs=2)
    except multiprocessing.ProcessExitedException as error:
        # Of two that leave at the same moment one may still be aborted; by then both must have done all their work.
        if error.signal_name != "SIGABRT" or not all((root / f"done-{rank}").exists() for rank in (0, 1)):
            raise
    return root


@pytest.fixture(scope="module")
def outcomes(root):
    return {name: [json.loads((root / f"{name}-{rank}.json").read_text()) for rank in (0, 1)] for name in STRATEGIES}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_gradient_counts_as_zero_unless_nobody_has_one(root, rank):
    left = load_file(root / f"gradients-{rank}.safetensors")
    assert {name: value.tolist() for name, value in left.items()} == {"both": [3.0] * 3, "one": [3.0] * 3}


@pytest.mark.parametrize("rank", [0, 1])
def test_all_go_by_what_one_of_them_knows(root, rank):
    told = json.loads((root / f"agreed-{rank}.json").read_text())
    assert told[:4] == [64 * "5", f"{tiny.MODEL}: is not on this node", None, None]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_that_failed_in_one_worker_alone_is_known_from_one_that_failed_in_all(root, rank):
    told = json.loads((root / f"agreed-{rank}.json").read_text())
    assert told[4:] == ["True", "False", "False"]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "diverging"])
class TestTwoWorkers:
    def test_end_with_the_same_weights_and_statistics(self, root, name):
        first, second = (load_file(root / f"{name}-{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(value, second[key]) for key, value in first.items())

    def test_only_the_first_evaluates(self, outcomes, name):
        first, second = outcomes[name]
        assert "score" in first["metrics"]
        assert set(second["metrics"]) == {"train_loss", "epoch", "seconds"}
        assert first["metrics"]["train_loss"] == second["metrics"]["train_loss"]

    def test_report_every_epoch(self, outcomes, name):
        assert [outcome["epochs"] for outcome in outcomes[name]] == [3, 3]


class TestAgainstOneWorker:
    """At the same batch: 8 images by one worker, 4 by each of two."""

    @pytest.fixture(scope="class")
    def alone(self, tmp_path_factory):
        return tiny.workspace(tmp_path_factory.mktemp("alone"), tiny.data(target=12), budget=Budget(3, 12, 8))

    def off_by(self, root, name, result) -> float:
        """By how much any weight differs at most, relative to the largest of its tensor."""
        together = load_file(root / f"{name}-0.safetensors")
        learned = [(key, value.detach()) for key, value in result.model.named_parameters()]
        return max(float((together[key] - value).abs().max() / value.abs().max()) for key, value in learned)

    @pytest.mark.parametrize("name", [name for name in STRATEGIES if name.startswith("frozen")])
    def test_is_the_same_where_nothing_is_reckoned_from_a_whole_batch(self, root, outcomes, alone, name):
        result = run_trial(alone, TrialJob(STRATEGIES[name]), lambda epoch: None)
        assert self.off_by(root, name, result) < TOLERANCE
        together = outcomes[name][0]["metrics"]
        for figure in ("train_loss", "score", "target-accuracy"):
            assert together[figure] == pytest.approx(result.metrics[figure], rel=TOLERANCE)

    @pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "diverging"])
    def test_is_that_of_one_whose_batches_go_through_in_two_parts(self, root, alone, name):
        """Batch norm and the losses that look at a whole batch see the half of it, here and there."""
        result = ready(alone, TrialJob(STRATEGIES[name]), None, 2).run(lambda epoch: None)
        assert self.off_by(root, name, result) < TOLERANCE

    def test_learns_as_well(self, outcomes, alone):
        result = run_trial(alone, TrialJob(PLAIN), lambda epoch: None)
        together = outcomes["plain"][0]["metrics"]
        assert result.metrics["target-accuracy"] > 0.6
        assert together["target-accuracy"] > 0.6
        assert math.isclose(result.metrics["train_loss"], together["train_loss"], abs_tol=0.3)


class TestDivergence:
    def test_fails_on_all_workers_in_the_same_epoch_with_the_same_reason(self, outcomes):
        first, second = outcomes["diverging"]
        assert first["error"] == second["error"]
        assert "stopped being finite" in first["error"]
        assert first["epochs"] == second["epochs"]
