"""``raytl extend``: what it did, in words."""

from __future__ import annotations

import shlex
from pathlib import Path

from raytl import api
from raytl.bundles.extending import Added, Extension
from raytl.bundles.solving import Moved
from raytl.cli.output import Output
from raytl.core.errors import UserError
from raytl.core.names import so_many
from raytl.evaluation.intervals import Interval


def show_extension(
    output: Output,
    model: str,
    classes: list[str],
    folders: list[str],
    out: Path | None,
    storage: str | None,
    *,
    even_if_worse: bool,
) -> None:
    """Extend a model and say what came of it. Raises UserError."""
    if len(classes) != len(folders):
        raise UserError(
            f"--class is given {len(classes)} times for {len(folders)} folders; name one folder for each class: "
            "--class NAME DIR"
        )
    twice = next((name for name in classes if classes.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--class {twice} is given twice; put its images into one folder")
    with output.progress_console.status("looking at the new images"):
        done = api.extend(
            model, dict(zip(classes, folders, strict=True)), out, even_if_worse=even_if_worse, storage=storage
        )
    for one in done.added:
        output.say(_added(one))
    output.say(_old(done))
    if done.moved is not None and done.moved.images:
        output.say(_moved(done.moved))
    for note in done.notes:
        output.say(note)
    known = any(one.new for one in done.added)
    option = " --new-labels" if known else ""
    output.say(f"wrote {done.path}; serve it with: raytl deploy {shlex.quote(str(done.path))}{option}")
    output.document(done.to_json())


def _added(one: Added) -> str:
    images = so_many(one.images, "image", "images")
    what = f"new class '{one.name}', {images}" if one.new else f"'{one.name}', which it knew, {images} more"
    if one.left_out:
        what += f" ({one.left_out} it had already)"
    if one.found is None:
        return f"{what}: none could be left out to see whether it is told from others"
    others = "no image of another class is" if not one.taken else f"{one.taken} of other classes are"
    return f"{what}: {_figure(one.found)} named right by heads that did not know them; {others} taken for it"


def _old(done: Extension) -> str:
    if done.old is None:
        return "the old classes could not be tested: there are too few images of them"
    old, verdict = done.old, "not worse beyond chance"
    if old.worse:
        whom = ", ".join(f"'{done.labels[number]}'" for number in old.suffered)
        verdict = f"worse beyond doubt{f' ({whom})' if whom else ''}, as was accepted"
    change = f"{100 * old.change.value:+.1f} points, {100 * old.change.low:+.1f} to {100 * old.change.high:+.1f}"
    return (
        f"the old classes, on {old.images} images left out in turn: {_figure(old.before)} right before, "
        f"{_figure(old.after)} after ({change}): {verdict}"
    )


def _moved(found: Moved) -> str:
    images = so_many(found.images, "image", "images")
    return (
        f"of {images} without labels that it held for other classes, {found.moved or 'none'} "
        f"{'is' if found.moved in (0, 1) else 'are'} given a name of these now"
    )


def _figure(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
