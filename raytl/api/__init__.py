"""The public API: what the command line does, for notebooks and scripts.

task = raytl.Task(target="photos/")
run = raytl.search(task, space="vision-small", trials=40)
print(run.leaderboard())
run.best.export("model/")
endpoint = raytl.deploy("model/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytl.core.lazy import lazily

if TYPE_CHECKING:
    from raytl.api.by_hand import try_strategy
    from raytl.api.data_check import check
    from raytl.api.exporting import export
    from raytl.api.extending import extend
    from raytl.api.models import Best, Run, deploy, find_bundle, open_run, recipe, replay
    from raytl.api.planning import bind, quote, rank_sources, read_cluster, reckon
    from raytl.api.pretraining import pretrain
    from raytl.api.promotion import Condition, deploy_when
    from raytl.api.searching import resume, search
    from raytl.api.submitting import JobHandle, find_job, find_run, submit, submit_options
    from raytl.serving import Endpoint, undeploy
    from raytl.tasks import Task

__all__ = [
    "Best",
    "Condition",
    "Endpoint",
    "JobHandle",
    "Run",
    "Task",
    "bind",
    "check",
    "deploy",
    "deploy_when",
    "export",
    "extend",
    "find_bundle",
    "find_job",
    "find_run",
    "open_run",
    "pretrain",
    "quote",
    "rank_sources",
    "read_cluster",
    "recipe",
    "reckon",
    "replay",
    "resume",
    "search",
    "submit",
    "submit_options",
    "try_strategy",
    "undeploy",
]

__getattr__ = lazily(
    __name__,
    {
        "raytl.api.by_hand": "try_strategy",
        "raytl.api.data_check": "check",
        "raytl.api.exporting": "export",
        "raytl.api.extending": "extend",
        "raytl.api.models": "Best Run deploy find_bundle open_run recipe replay",
        "raytl.api.planning": "bind quote rank_sources read_cluster reckon",
        "raytl.api.pretraining": "pretrain",
        "raytl.api.promotion": "Condition deploy_when",
        "raytl.api.searching": "resume search",
        "raytl.api.submitting": "JobHandle find_job find_run submit submit_options",
        "raytl.serving": "Endpoint undeploy",
        "raytl.tasks": "Task",
    },
)
