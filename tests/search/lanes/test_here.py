"""How a search begins in its own process, before there are lanes."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import MODEL, PRETRAINED, SIDE, STAGES, data, shapes, workspace
from torch import Tensor

from raytl import adaptation
from raytl.adaptation.base import AdaptationConfig, AdaptationEntry, AdaptationLoss, Views
from raytl.core.hashing import hash_tensors
from raytl.evaluation import metrics
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes import cluster, here, work
from raytl.search.lanes.cluster import lanes_here
from raytl.search.lanes.here import Beginning, refit_on_all
from raytl.search.lanes.sizing import Lanes
from raytl.search.lanes.work import do_job, keep_files
from raytl.search.plan.schedule import FIRST_MODEL, SearchPlan
from raytl.search.planning import SearchSettings, make_plan, make_workspace_settings
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.sources.architectures import base as architectures
from raytl.sources.checkpoint import load_checkpoint
from raytl.sources.staging import Stages
from raytl.training import Strategy, arrays, pools
from raytl.training.distributed import Group
from raytl.training.workspace import Workspace

LANES = Lanes(2, 1.0, 0.0)


class Heard:
    def __init__(self) -> None:
        self.phases: list[str] = []

    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        self.phases.append(phase)


@pytest.fixture
def begun(tmp_path: Path) -> tuple[SearchPlan, Workspace, Heard]:
    file = tmp_path / "space.yaml"
    file.write_text(
        f"image_size: {SIDE}\nepochs: 2\nspace:\n  source_model: ['pretrain:*/{MODEL}', '{MODEL}', 'plain:gradients']\n"
    )
    bound = BoundSpace(load_space(str(file)), data(8))
    settings = SearchSettings()
    workspace = Workspace(bound.data, make_workspace_settings(bound.data, bound.space, settings, LANES), tmp_path)
    heard = Heard()
    plan = make_plan(bound, settings, workspace, LANES, tmp_path, heard, test_images=0, started=0.0)
    return plan, workspace, heard


class TestBeginning:
    def test_ends_with_a_model_and_leaves_to_the_lanes_what_has_to_be_trained(
        self, begun: tuple[SearchPlan, Workspace, Heard]
    ) -> None:
        plan, workspace, heard = begun
        with Beginning(plan, workspace) as beginning:
            beginning._thread.join()  # the cluster takes its time
            beginning.finish()
        assert FIRST_MODEL in heard.phases
        assert {record.kind for record in plan.records} == {JobKind.PROBE}
        assert {record.strategy["source_model"] for record in plan.records} == {"plain:pixels", "plain:gradients"}
        assert {record.lane for record in plan.records} == {"driver"}
        *_, kept = plan.refits.done.values()  # where probes take seconds there is one before the best
        assert load_checkpoint(Path(kept))[1].labels == workspace.data.classes
        job = plan.next_job()
        assert getattr(job, "kind", None) == JobKind.PRETRAIN

    def test_with_the_cluster_there_at_once_it_begins_nothing_but_the_survey(
        self, begun: tuple[SearchPlan, Workspace, Heard]
    ) -> None:
        plan, workspace, _ = begun
        beginning = Beginning(plan, workspace)
        beginning._ready.set()
        with beginning:
            beginning.finish()
        assert plan.survey is not None
        assert plan.records == []

    def test_what_goes_wrong_in_it_is_raised_where_it_is_waited_for(
        self, begun: tuple[SearchPlan, Workspace, Heard], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan, workspace, _ = begun

        def broken(*arguments: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(here, "do_job", broken)
        with Beginning(plan, workspace) as beginning, pytest.raises(OSError, match="no space left"):
            beginning.finish()

    @pytest.mark.parametrize("error", [torch.AcceleratorError, RuntimeError])
    def test_a_job_in_which_the_gpu_fails_is_left_to_the_lanes(
        self,
        error: type[RuntimeError],
        begun: tuple[SearchPlan, Workspace, Heard],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plan, workspace, _ = begun

        def broken(*arguments: object) -> None:
            raise error("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")

        monkeypatch.setattr(here, "do_job", broken)
        with Beginning(plan, workspace) as beginning:
            beginning.finish()
        assert beginning.fault == "CUDA error: an illegal memory access was encountered"
        assert beginning.left is not None and beginning.left.kind == JobKind.SURVEY
        assert plan.records == [] and not plan.finished()

    def test_an_error_elsewhere_ends_it_after_its_job(self, begun: tuple[SearchPlan, Workspace, Heard]) -> None:
        plan, workspace, _ = begun
        with pytest.raises(KeyboardInterrupt), Beginning(plan, workspace):
            raise KeyboardInterrupt
        assert not [thread for thread in threading.enumerate() if thread.name == "raytl-beginning"]


class Falls(AdaptationLoss):
    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        raise KeyError("no such layer")


class TestWhatSomebodysOwnComponentRaises:
    """Costs the job, as in a lane, and not the search."""

    def test_a_metric(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def falls(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
            raise ValueError("y_true has one class")

        monkeypatch.setitem(metrics.base.registry._entries, "mine", metrics.Metric("mine", "mine", falls))
        monkeypatch.setitem(metrics.base.registry._origins, "mine", "kit")
        file = tmp_path / "space.yaml"
        file.write_text(f"image_size: {SIDE}\nspace:\n  source_model: ['{MODEL}', 'plain:gradients']\n")
        bound, settings = BoundSpace(load_space(str(file)), data(8)), SearchSettings(metric="mine")
        own = Workspace(bound.data, make_workspace_settings(bound.data, bound.space, settings, LANES), tmp_path)
        plan = make_plan(bound, settings, own, LANES, tmp_path, Heard(), test_images=0, started=0.0)
        with Beginning(plan, own) as beginning:
            beginning._thread.join()
            beginning.finish()
        assert {record.status for record in plan.records} == {TrialStatus.FAILED}
        assert "metric 'mine' of module 'kit' raised ValueError" in (plan.records[0].reason or "")

    def test_a_loss(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = AdaptationEntry("falls", Falls, AdaptationConfig, frozenset())
        monkeypatch.setitem(adaptation.base.registry._entries, "falls", entry)
        own = workspace(tmp_path, data())
        job = LaneJob(0, JobKind.SEARCH, Strategy(MODEL, adaptation="falls").to_dict(), 0)
        assert do_job(own, job, lambda message: None).reason == "KeyError: 'no such layer'"
        on_all = refit_on_all(own, Strategy(MODEL, adaptation="falls").to_dict(), shapes(2, 5), tmp_path / "on-all")
        assert on_all == "KeyError: 'no such layer'"

    @pytest.mark.parametrize("group", [Group(), Group(0, 2)])
    @pytest.mark.parametrize("error", [ValueError("too deep"), RuntimeError("connection closed by peer")])
    def test_an_architecture_where_it_says_nothing_of_other_workers(
        self, group: Group, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def body(channels: int) -> tuple[Stages, int]:
            raise error

        monkeypatch.setitem(architectures.registry._entries, "falls", architectures.Architecture(body, SIDE, SIDE))
        job = LaneJob(0, JobKind.PRETRAIN, {}, None, source_model="scratch:falls")
        own = workspace(tmp_path, data())
        if group.size > 1 and isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError, match="closed"):
                do_job(own, job, lambda message: None, group)
        else:
            reason = do_job(own, job, lambda message: None, group).reason
            assert reason == f"{type(error).__name__}: {error}"


class TestStopped:
    """Ctrl-C, or a request to end the search, while thousands of images pass a network."""

    def test_what_runs_is_given_up_and_leaves_nothing_behind(
        self, begun: tuple[SearchPlan, Workspace, Heard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        plan, workspace, _ = begun
        passing, passed = threading.Event(), []

        def crawl(maker: pools.PoolMaker, inputs: Iterable[Tensor], start: int, stop: int) -> Iterator[np.ndarray]:
            every = [image for chunk in inputs for image in chunk.split(1)]
            for image in every:
                yield image.flatten(1).float().numpy()
                if len(every) > 1:  # else it is looked how large they are
                    passed.append(len(every))
                    passing.set()
                    time.sleep(0.2)

        monkeypatch.setattr(pools.PoolMaker, "_run", crawl)
        with Beginning(plan, workspace) as beginning:
            assert passing.wait(60)
            partial = list(tmp_path.rglob("*.part"))
            beginning.stop()
        assert partial and not list(tmp_path.rglob("*.part"))
        assert len(passed) < passed[0]
        for lock in tmp_path.rglob("*.lock"):
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody holds it
        assert not plan.finished()
        plan.interrupt()
        assert [record.status for record in plan.records] == [TrialStatus.INTERRUPTED]
        beginning.finish()  # nothing went wrong


class TestLanesHere:
    def test_are_those_of_a_ray_that_is_started_for_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr(cluster, "cores", lambda: 4)
        monkeypatch.setattr(cluster, "usable_gpus", lambda: ())
        assert lanes_here(None, 0.0, 1, None) == Lanes(4, 1.0, 0.0, 1, wanted=False)
        assert lanes_here(2, 0.0, 1, None) == Lanes(2, 2.0, 0.0)
        assert lanes_here(8, 0.0, 1, None) == Lanes(8, 1.0, 0.0)

    def test_are_unknown_where_ray_is_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert lanes_here(None, 0.0, 1, "ray://head:10001") is None
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert lanes_here(None, 0.0, 1, None) is None


class TestAJob:
    def test_says_what_of_its_time_one_on_the_next_fold_will_not_take(self, tmp_path: Path) -> None:
        own = workspace(tmp_path, data(6))
        head = Strategy(MODEL, cut=STAGES, head="stages", adaptation="propagation")
        jobs = [LaneJob(fold, JobKind.PROBE, head.to_dict(), fold) for fold in (0, 1)]
        first, second = (do_job(own, job, lambda message: None) for job in jobs)
        assert 0 < first.made_s < first.seconds
        assert second.made_s == 0 < second.seconds

    def test_is_given_up_where_images_would_take_longer_to_pass_than_there_is_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrays, "LOOKED_S", 0.0)
        monkeypatch.setattr(pools, "at_once", lambda side, device: 2)
        own = workspace(tmp_path, data(6, None))
        job = LaneJob(0, JobKind.PROBE, Strategy(MODEL, cut=STAGES, head="stages").to_dict(), 0, within_s=0.0)
        result = do_job(own, job, lambda message: None)
        assert result.reason is not None
        assert result.reason.startswith(f"{MODEL}: 18 images would take it about ")
        assert result.reason.endswith("0 s of the time budget are left")
        assert result.needs_s > 0 < sum(result.forward_s)
        monkeypatch.setattr(pools, "TIMED_FROM", 1)
        monkeypatch.setattr(pools.PoolMaker, "_image_seconds", lambda maker: 1.0)
        other = do_job(workspace(tmp_path / "b", data(6, None)), job, lambda message: None)
        assert other.needs_s == 18.0  # as many seconds as images, and none of them was decoded
        # What is made afterwards has all the time, and what was begun was not kept.
        assert do_job(own, replace(job, within_s=None), lambda message: None).reason is None

    def test_is_given_up_where_its_head_is_not_solved_for_in_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of hundreds of classes and thousands of images that may take minutes on features that are there."""
        own = workspace(tmp_path, data(6))
        job = LaneJob(0, JobKind.PROBE, Strategy(MODEL, cut=STAGES, head="stages").to_dict(), 0, within_s=0.0)
        monkeypatch.setattr(work, "OVERTIME_S", 600.0)
        in_time = do_job(own, job, lambda message: None)
        assert in_time.reason is None  # a moment is not worth giving up for
        monkeypatch.setattr(work, "OVERTIME_S", 0.0)
        result = do_job(own, replace(job, fold=1), lambda message: None)
        assert result.reason is not None and result.reason.endswith("and the time budget is used up")
        assert result.needs_s > 0 < sum(result.forward_s)
        assert do_job(own, replace(job, kind=JobKind.REFIT, fold=None, within_s=None), lambda message: None).model_files


class TestRefitOnAll:
    def test_learns_from_the_test_as_well_in_place_of_the_tested_model(self, tmp_path: Path) -> None:
        own = workspace(tmp_path, data(4))
        more = shapes(6, 9, name="test")
        strategy = Strategy(PRETRAINED, cut=STAGES, head="logistic")
        job = LaneJob(0, JobKind.REFIT, strategy.to_dict(), directory=str(tmp_path / "m"))
        kept = do_job(own, job, lambda message: None).model_files
        assert keep_files(tmp_path / "m", kept) is None
        before = hash_tensors(load_checkpoint(tmp_path / "m")[1].state_dict())
        assert refit_on_all(own, strategy.to_dict(), more, tmp_path / "m") is None
        after = load_checkpoint(tmp_path / "m")[1]
        assert hash_tensors(after.state_dict()) != before
        assert own.data.target is not None and len(own.data.target) == len(data(4).target or ())

    def test_is_left_to_the_machine_that_has_the_gpu(self, tmp_path: Path) -> None:
        own = workspace(tmp_path, data(4), device="auto")
        if own.device.type != "cpu":
            own.device = torch.device("cpu")
        reason = refit_on_all(own, Strategy(MODEL).to_dict(), shapes(6, 9), tmp_path / "m")
        assert reason is not None and "may not have the GPU" in reason
        head = Strategy(PRETRAINED, cut=STAGES, head="logistic")
        assert refit_on_all(own, head.to_dict(), shapes(6, 9), tmp_path / "m") is None

    def test_is_refused_where_no_target_label_was_used(self, tmp_path: Path) -> None:
        own = workspace(tmp_path, data(target=None))
        reason = refit_on_all(own, Strategy(MODEL).to_dict(), shapes(6, 9), tmp_path / "m")
        assert reason is not None and "no target label" in reason
