"""Jobs that others have submitted to the cluster are no hindrance."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.dashboard.modules.job.common import JobStatus
from ray.dashboard.modules.job.pydantic_models import JobDetails, JobType

from raytl.jobs import find_job, list_jobs
from raytl.jobs.submission import entrypoint


def details(name: str, command: str, metadata: dict[str, str] | None = None) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        submission_id=name,
        status=JobStatus.RUNNING,
        entrypoint=command,
        start_time=1_700_000_000_000,
        metadata=metadata,
    )


@pytest.mark.parametrize("foreign", ["python train.py  # don't stop", "echo 'half", "python a.py \\", ""])
def test_a_command_that_is_no_list_of_words_is_shown_as_it_is(foreign: str) -> None:
    own = entrypoint("flowers", None, ["search", "--target", "my photos"])
    jobs = [details("theirs", foreign), details("ours", own, {"raytl_run": "flowers"})]
    dashboard = SimpleNamespace(url="http://127.0.0.1:9", list_jobs=lambda: jobs)
    assert [job.command for job in list_jobs(dashboard)] == ["raytl search --target 'my photos'"]
    assert find_job(dashboard, "flowers").id == "ours"
    assert {job.command for job in list_jobs(dashboard, of_all=True) if job.id == "theirs"} == {foreign}
