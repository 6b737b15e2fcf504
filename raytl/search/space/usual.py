"""What a task is judged and trained by where the user does not say."""

from __future__ import annotations

from raytl.evaluation import metrics
from raytl.tasks import TrainingData


def usual_metric(data: TrainingData) -> str:
    """The metric where the user names none, by which it is also trained: balanced accuracy where classes are skewed.

    Without target labels by the source domains that may join the training. How frequent the classes are where the model
    is to be used nobody has said then; balanced accuracy is the same whatever they are.
    """
    labelled = [data.target] if data.target is not None else [data.source_domains[name] for name in data.joinable]
    found = {metrics.usual_metric(list(images.counts().values())) for images in labelled}
    return next((name for name in sorted(found) if name != "accuracy"), "accuracy")
