"""Runs a plan on Ray Tune and concludes from it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
from ray import tune
from ray.air._internal import usage
from ray.tune import RunConfig, TuneConfig, Tuner

from raytl.evaluation import metrics
from raytl.judging.operating import parse_goal
from raytl.search.lanes.answering import listened_to
from raytl.search.lanes.cluster import IdleGpus, cluster, head_nodes, is_this_process_own, lanes_here, room
from raytl.search.lanes.files import shared
from raytl.search.lanes.growing import more_to_ask_for
from raytl.search.lanes.head_lanes import HeadLanes
from raytl.search.lanes.here import Beginning, refit_on_all, with_more
from raytl.search.lanes.lane import lane_for
from raytl.search.lanes.pool import forward
from raytl.search.lanes.resources import lane_resources
from raytl.search.lanes.scheduling import LaneWatch, PlanScheduler, Silent, trial_directory
from raytl.search.lanes.sizing import Lanes, counted
from raytl.search.lanes.tuning import PlanSearcher
from raytl.search.means_of_judging import kept_features
from raytl.search.outcome import KeepModel, conclude, so_far
from raytl.search.plan.schedule import TIME, SearchPlan
from raytl.search.planning import (
    SearchSettings,
    check_goal,
    make_plan,
    make_workspace_settings,
    nothing_trained,
    wished_trials,
)
from raytl.search.records import Asked, SearchListener, SearchOutcome, TrialRecord
from raytl.search.rescoring import rescore
from raytl.search.space.binding import BoundSpace
from raytl.tasks import LabelledImages, SealedTest, TrainingData
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace, WorkspaceSettings

LANES = "lanes"
"""The phase under which the user is told that there could be more of them, or that their cluster is gone."""
MEMORY = "memory"
"""The phase under which the user is told that memory, or room on disk, is short."""
READING_SHARE = 0.25
"""Of a time budget, what may be gone before the search begins without a word of it."""
ON_ALL = "-on-all"
"""Ending of the folder of a model that the test was trained on too; no strategy's key has it."""


def search(
    bound: BoundSpace,
    test: SealedTest | None,
    settings: SearchSettings,
    directory: Path,
    listener: SearchListener,
    *,
    first: Sequence[Strategy] = (),
    earlier: Sequence[TrialRecord] = (),
    keep: KeepModel | None = None,
    refitted: Callable[[Path], None] = lambda directory: None,
    asked: Callable[[], Asked] = Asked,
    begun: float | None = None,
) -> SearchOutcome:
    """Search, choose, refit, keep the winner's model, open the test split once.

    directory: of the run, on the driver's disk; refitted models and Tune's own files go below it.
    keep: what keeps the model (:func:`raytl.search.outcome.conclude`); of the first one, long before the search ends,
    too.
    refitted: told of each refitted model's folder; what is there of an earlier session is not trained again.
    asked: what people want stopped by now; a search that is asked to end is interrupted.
    first: strategies to try before the space's own. earlier: trials of this search from before it was interrupted.
    begun: when the time budget began, by the monotonic clock: before the data was read, say; now by default.
    An interrupt (Ctrl-C) ends the search early; what is known by then is concluded from, without a refit and with the
    test split sealed, so that the search can be resumed.
    Raises UserError where no trial succeeded, NotWrittenError where the disk took no more, KeyboardInterrupt where it
    was interrupted before one had succeeded.
    """
    started = time.monotonic()
    spent_s = 0.0 if begun is None else started - begun
    if settings.time_budget_s is not None and spent_s > READING_SHARE * settings.time_budget_s:
        listener.on_phase(TIME, f"{spent_s:.0f} s of the time budget went into starting and reading the data")
    if settings.verbose:
        logging.getLogger("raytl").setLevel(logging.ERROR)
    if bound.data.target is not None:  # of a run of before that has none it is told at the end
        check_goal(bound.data, settings)  # said now rather than after the search

    def prepared(data: TrainingData, lanes: Lanes) -> tuple[Workspace, SearchPlan]:
        workspace_settings = make_workspace_settings(data, bound.space, settings, lanes)
        workspace = Workspace(data, workspace_settings)
        metric = workspace.metric

        def keep_first(key: str) -> str:
            outcome = so_far(plan, metric, key, time.monotonic() - started)
            return "" if keep is None else keep(outcome, Path(plan.refits.done[key]))

        plan = make_plan(
            bound, settings, workspace, lanes, directory, listener, first,
            test_images=0 if test is None else len(test), started=started, spent_s=spent_s,
            on_first_model=keep_first,
        )  # fmt: skip
        plan.refits.on_done = refitted
        rescore(earlier, workspace)
        plan.restore(earlier)
        if workspace.short_of_disk:
            listener.on_phase(MEMORY, workspace.short_of_disk)
        if settings.metric is None and metric.name != "accuracy":
            where = " of a source domain" if data.target is None else ""
            why = f"one class{where} has at least {metrics.SKEWED} times the images of another"
            listener.on_phase("metric", f"judging by {metric.title}, for {why}")
        if not bound.can_train and (settings.trials or data.can_score):
            listener.on_phase("metric", nothing_trained(data, settings))
        return workspace, plan

    plan: SearchPlan | None = None
    try:
        with ExitStack() as stack:
            data = for_lanes = bound.data
            wanted = (settings.lanes, settings.gpus_per_trial, settings.workers_per_trial)
            lanes = lanes_here(*wanted, settings.address)
            meant = cluster(*wanted, verbose=settings.verbose, address=settings.address)
            beginning = None
            if lanes is not None:
                workspace, plan = prepared(data, lanes)
                beginning = stack.enter_context(Beginning(plan, workspace))
                stack.enter_context(meant)
            else:
                lanes = stack.enter_context(meant)
                # Of how many nodes there are now nothing follows: those that join later do not have the files either.
                own = is_this_process_own()
                if not own:
                    head = ray.get_runtime_context().gcs_address
                    stack.enter_context(listened_to(head, partial(listener.on_phase, LANES)))
                for_lanes = data if own else stack.enter_context(shared(data))
                workspace, plan = prepared(data, lanes)
                if own:
                    beginning = stack.enter_context(Beginning(plan, workspace))
                more = more_to_ask_for(lanes, wished_trials(bound, settings))
                if more is not None:
                    listener.on_phase(LANES, more)
            notice = partial(listener.on_phase, MEMORY)
            if lanes.most is not None:
                notice(f"memory is short, so that {counted(lanes.count)} will train; --lanes N asks for more")
            with lane_trainable(for_lanes, workspace.settings, lanes, directory) as trainable:
                interrupted = not run_plan(
                    plan, trainable, lanes, directory,
                    verbose=settings.verbose, notice=notice, asked=asked, beginning=beginning,
                )  # fmt: skip
    except KeyboardInterrupt:
        if plan is None:
            raise
        plan.interrupt()
        interrupted = True
    if interrupted and plan.winner() is None:
        raise KeyboardInterrupt
    if beginning is not None and beginning.fault is not None:  # no GPU computes in this process any more
        workspace = Workspace(data, replace(workspace.settings, device="cpu"))
    if not interrupted:
        listener.on_phase("choice", "")
    seconds = time.monotonic() - started
    goal = None if settings.at is None else parse_goal(settings.at)

    def concluded(interrupted: bool) -> SearchOutcome:
        return conclude(
            plan, data, None if interrupted else test, workspace, seconds, interrupted=interrupted, at=goal, keep=keep,
            opening=lambda: listener.on_phase("test", ""),
        )  # fmt: skip

    try:
        outcome = concluded(interrupted)
    except KeyboardInterrupt:
        if interrupted:
            raise
        outcome = concluded(interrupted=True)  # the winner is known, and so is its model: they are kept
    if goal is not None and outcome.operating_point is None:
        listener.on_phase("metric", "too few labelled images were validated for the operating point that --at asks for")
    refit = plan.refits.done.get(outcome.best.strategy_key)
    if refit is not None and settings.ship == "all" and outcome.test_images is not None:
        _ship_on_all(outcome, outcome.test_images, workspace, refit, listener, keep)
    return outcome


def _ship_on_all(
    outcome: SearchOutcome,
    test_images: LabelledImages,
    workspace: Workspace,
    tested: str,
    listener: SearchListener,
    keep: KeepModel | None,
) -> None:
    """Train the winner on all labels, those of the test included, and keep that model; where it fails, the tested one.

    tested: folder of the tested model.
    """
    listener.on_phase("refit", "on all labels, those of the test included")
    # Apart from the one that was tested, which a search that is killed now and goes on will test again.
    on_all = Path(f"{tested}{ON_ALL}")
    try:
        reason = refit_on_all(workspace, outcome.best.strategy, test_images, on_all)
    except KeyboardInterrupt:  # what the test said is known by now, and nobody has to open it again
        reason = "the training on all labels was interrupted"
    outcome.trained_on = "target" if reason else "all"
    if reason:
        listener.on_phase("refit", f"the tested model is kept: {reason}")
    elif keep is not None:
        if outcome.features is not None:
            everything = with_more(workspace, test_images)
            outcome.features = kept_features(everything, outcome.best.strategy, on_all)
        keep(outcome, on_all)


@contextmanager
def lane_trainable(
    data: TrainingData, settings: WorkspaceSettings, lanes: Lanes, directory: Path
) -> Iterator[Callable[..., None]]:
    """What does the jobs: a lane in the trial's own process, or a worker group that is kept up in the meantime."""
    if lanes.workers == 1:
        yield lane_for(data, settings)
        return
    from raytl.search.lanes.worker_group import worker_groups  # seconds of import that the usual search does not need

    with worker_groups(lanes, data, settings, directory / "tune") as pool:
        yield tune.with_parameters(forward, pool=pool)


def run_plan(
    plan: SearchPlan,
    trainable: Callable[..., None],
    lanes: Lanes,
    directory: Path,
    *,
    verbose: bool = False,
    notice: Callable[[str], None] = lambda sentence: None,
    asked: Callable[[], Asked] = Asked,
    beginning: Beginning | None = None,
) -> bool:
    """Run a plan's jobs on Tune; whether it came to its end without an interrupt.

    trainable: does ``config["job"]`` and reports as :func:`raytl.search.lanes.lane.lane` does.
    directory: for Tune's files. notice: told what the user should know of the lanes. asked: what people want stopped.
    beginning: what this process does of the plan while the lanes start.
    What the plan raises for the user (UserError) is raised as it is.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # every result is in the run's own journal already
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    most = 2 * lanes.count if lanes.head_cpus else lanes.count  # each of them may be on a node of its own
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most)  # all lanes start at once
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # what the user named by a relative path (file:model/) must be found
    logging.getLogger("ray.tune").setLevel(logging.INFO if verbose else logging.CRITICAL)
    # For its statistics of usage Ray would import every tracker that is installed, which takes seconds for MLflow.
    usage.tag_callbacks = lambda callbacks: False
    idle = IdleGpus(lanes, notice)

    def room_now() -> int:
        idle.look()
        return room(lanes)

    heads = None
    if lanes.head_cpus and plan.head_work.few:
        heads = HeadLanes(plan, partial(head_nodes, lanes), lanes.head_cpus)
    searcher = PlanSearcher(plan, room_now, notice=notice, asked=asked, beginning=beginning, heads=heads)
    tuner = Tuner(
        tune.with_resources(trainable, lane_resources(lanes)),
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=PlanScheduler(searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=trial_directory,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(directory.resolve()),
            callbacks=[LaneWatch(searcher), *([] if verbose else [Silent()])],
            verbose=1 if verbose else 0,
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if searcher.failure is not None:
            raise searcher.failure from None
        raise
    finally:
        if beginning is not None:
            beginning.stop()  # the plan is the thread's until then
    finished = plan.finished()
    if not finished:
        plan.interrupt()
    return finished
