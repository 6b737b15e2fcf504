"""``raytl extend``: a class more for a finished model, from a folder of a few images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from raytl.api.models import Run, find_bundle
from raytl.bundles.extending import Extension, extend_bundle
from raytl.core.errors import UserError
from raytl.sources.checkpoint import is_checkpoint
from raytl.tasks.duplicates import exact_groups, find_alike, merge_groups
from raytl.tasks.images import Images
from raytl.tasks.problems import Severity
from raytl.tasks.readers import read_unlabelled
from raytl.training.devices import choose_device


def extend(
    model: str | os.PathLike[str] | Run,
    classes: Mapping[str, str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    even_if_worse: bool = False,
    device: str = "auto",
    storage: str | os.PathLike[str] | None = None,
) -> Extension:
    """Write a bundle that knows some classes more than another one, or knows some better, without a search.

    A new head is solved for on the features that the bundle has kept of its training images and on those of the new
    images, which takes seconds; the network below stays as it is. The old classes are tested before and after.

    model: a bundle, or a run by name, folder or object. classes: folders (or anything that ``--unlabelled`` takes) by
    the name of the class that all their images show; of a class that there is they are further images.
    out: folder of the new bundle; by default one beside the bundle, or here for a run, whose name ends in
    ``-extended``, which must not be there yet.
    even_if_worse: also where the old classes lose accuracy beyond doubt.
    Raises UserError where the bundle holds no features, a name or an image cannot be added, the old classes lose, or
    the place holds something else.
    """
    bundle = find_bundle(model, storage)
    read = {name: _read(path) for name, path in classes.items()}
    given = {name: images for name, (images, _) in read.items()}
    place = Path(out) if out is not None else _place(model, bundle)
    if out is None and place.exists():
        raise UserError(f"{place}: is there already; name another folder, or this one to replace a bundle, with --out")
    done = extend_bundle(bundle, given, place, even_if_worse=even_if_worse, device=choose_device(device))
    return replace(done, notes=(*done.notes, *(note for _, notes in read.values() for note in notes)))


def _place(model: str | os.PathLike[str] | Run, bundle: Path) -> Path:
    if not isinstance(model, Run) and is_checkpoint(Path(model)):
        whole = bundle.resolve()
        return whole.with_name(f"{whole.name}-extended")
    name = model.name if isinstance(model, Run) else str(model).rstrip("/").rpartition("/")[2]
    return Path(f"{name}-extended")


def _read(path: str | os.PathLike[str]) -> tuple[Images, list[str]]:
    """The images of a class, with near-duplicates in one group, and what was left out, in sentences."""
    read = read_unlabelled(path)
    alike = find_alike(read.facts).within[0]
    exact = exact_groups([facts.pixels for facts in read.facts])
    groups = merge_groups(len(alike), alike, exact, read.images.groups)
    told = [str(problem) for problem in read.problems if problem.severity is not Severity.INFO]
    return replace(read.images, groups=groups), told
