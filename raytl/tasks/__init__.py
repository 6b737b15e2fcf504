"""Tasks: what is to be learned and from which images; readers, splits, data checks and the built-in demo task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytl.core.lazy import lazily

if TYPE_CHECKING:
    from raytl.tasks.build import Task
    from raytl.tasks.check_report import CheckReport
    from raytl.tasks.checks import check
    from raytl.tasks.demo import demo_task
    from raytl.tasks.images import ImageItem, Images, LabelledImages
    from raytl.tasks.preprocessing import Preprocessing
    from raytl.tasks.problems import Problem, Severity
    from raytl.tasks.readers import ReadResult, read_labelled, read_unlabelled
    from raytl.tasks.remaking import make_task
    from raytl.tasks.task import Role, SealedTest, Setting, TrainingData

__all__ = [
    "CheckReport",
    "ImageItem",
    "Images",
    "LabelledImages",
    "Preprocessing",
    "Problem",
    "ReadResult",
    "Role",
    "SealedTest",
    "Setting",
    "Severity",
    "Task",
    "TrainingData",
    "check",
    "demo_task",
    "make_task",
    "read_labelled",
    "read_unlabelled",
]

__getattr__ = lazily(
    __name__,
    {
        "raytl.tasks.build": "Task",
        "raytl.tasks.check_report": "CheckReport",
        "raytl.tasks.checks": "check",
        "raytl.tasks.demo": "demo_task",
        "raytl.tasks.images": "ImageItem Images LabelledImages",
        "raytl.tasks.preprocessing": "Preprocessing",
        "raytl.tasks.problems": "Problem Severity",
        "raytl.tasks.readers": "ReadResult read_labelled read_unlabelled",
        "raytl.tasks.remaking": "make_task",
        "raytl.tasks.task": "Role SealedTest Setting TrainingData",
    },
)
