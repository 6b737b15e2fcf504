"""Tasks: what is to be learned and from which images; readers, splits, data checks and the built-in demo task."""

from raytl.tasks.build import Task
from raytl.tasks.check_report import CheckReport
from raytl.tasks.checks import check
from raytl.tasks.demo import demo_task
from raytl.tasks.given import make_task
from raytl.tasks.images import ImageItem, Images, LabelledImages
from raytl.tasks.preprocessing import Preprocessing
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers import ReadResult, read_labelled, read_unlabelled
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
