"""Searches on a cluster elsewhere: send one, find it again, bring its run home."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from raytl import jobs
from raytl.api.models import Run
from raytl.core.errors import UserError
from raytl.core.exchange import exchange
from raytl.core.paths import default_storage, storage_of
from raytl.core.places import expanded, is_file, is_folder, is_there
from raytl.jobs.dashboard import Dashboard
from raytl.jobs.packing import DATA, Parcel
from raytl.jobs.submission import Submission, fresh_name, submit_link
from raytl.runs.files import writing
from raytl.runs.labels import NOTE, TAGS
from raytl.runs.storage import DOCUMENT, JOURNAL, DiskPlace, is_uri, open_storage
from raytl.search.space.files import assignment_text, parse_assignment, read_yaml
from raytl.sources.uris import at_size, is_squashed, split_size, tiles_of
from raytl.tasks import Task
from raytl.tasks.given import DEMO
from raytl.tasks.items import FileItem
from raytl.tasks.readers import list_path
from raytl.tasks.readers.group_by import read_group_by

LABELLED = ("target", "source_domain", "test")
PLACES = (*LABELLED, "unlabelled", "images")
"""Options of a search that name data."""
_OPTIONS = {"set_": "--set"}
_OWN_FILES = (
    re.compile(r"(?P<kind>(?:pretrain:[^/]+/)?file:)(?P<path>[^?]+)(?P<rest>(?:\?.*)?)"),
    re.compile(r"(?P<kind>(?:pretrain:[^/]+/)?hf:)(?P<path>[^?]+?)(?P<rest>(?:@none)?)"),
)
"""URIs of source models whose weights may lie on this machine, without a size."""


class JobHandle(jobs.JobHandle):
    """A search on a cluster: ``status()``, ``follow()``, ``logs()``, ``stop()``, and its run with :meth:`fetch`."""

    def fetch(self, storage: str | os.PathLike[str] | None = None) -> Run:
        """Bring the run home into ``storage``: report, model, tables. One that still goes on, as far as it is.

        storage: a folder. What was fetched earlier is replaced; tags and a note that it was given here stay.
        Raises UserError where there is nothing yet, another run of that name is here, or the run was gone on with here.
        """
        _check_name(self.run)  # which came from the cluster, and becomes a folder here
        to = os.fspath(storage) if storage is not None else default_storage()
        if is_uri(to):
            raise UserError(f"{to}: a run is brought home into a folder; name one with --storage")
        folder = expanded(to)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
            got = Path(temporary) / self.run
            if self.job.storage is not None and is_uri(self.job.storage):
                _copy_from(self.job.storage, self.run, got)
            else:
                self.download(got)
            _replace(got, folder / self.run, Path(temporary) / "before")
        return Run(folder / self.run)


def submit(
    task: Task | Mapping[str, Any] | None,
    space: str = "vision-small",
    *,
    address: str | None = None,
    on_cluster: bool = False,
    assignments: Sequence[str] = (),
    time_budget_s: float | None = None,
    **options: Any,
) -> JobHandle:
    """Send a search to the cluster whose dashboard is at ``address`` (``http://HEAD:8265``), and return at once.

    task: made of paths; or the arguments of one as a mapping, for data that this machine cannot read. Small local data
        is sent along, URIs are read by the cluster. on_cluster: paths are the cluster's, and nothing is sent.
    options: the others of ``raytl search``, as in :func:`search`; ``storage`` is a URI or a folder of the cluster.
    Raises UserError where the head cannot be used (:class:`raytl.jobs.dashboard.Dashboard`), data is too large or
    was given in memory.
    """
    given = dict(_given(task) if isinstance(task, Task) else task or {})
    given |= {"space": space, "set_": list(assignments), **options}
    if time_budget_s is not None:
        given["time_budget"] = f"{time_budget_s:g}s"
    return submit_options(given, address=address, on_cluster=on_cluster)


def submit_options(
    options: Mapping[str, Any], *, address: str | None = None, on_cluster: bool = False, width: int = 100
) -> JobHandle:
    """As :func:`submit`, with the options of ``raytl search`` by the names of their parameters; None for not given.

    width: columns of the lines that the search writes.
    """
    given = {name: value for name, value in options.items() if value not in (None, (), [])}
    storage = given.pop("storage", None)
    if "resume" not in given:
        given.setdefault("name", fresh_name())
    run = str(given.get("resume") or given["name"])
    dashboard = Dashboard(address)
    parcel = Parcel()
    given = pack(given, parcel, on_cluster=on_cluster)
    sent = Submission(to_arguments(given), run, None if storage is None else str(storage), parcel, width)
    return JobHandle(dashboard, jobs.submit(dashboard, sent).job)


def find_job(run: str, *, address: str | None = None) -> JobHandle:
    """The last job of a run on a cluster, or the job of that id. Raises UserError that names the nearest run."""
    dashboard = Dashboard(address)
    return JobHandle(dashboard, jobs.find_job(dashboard, run).job)


def find_run(run: str, *, address: str | None = None, storage: str | None = None) -> JobHandle:
    """A run on a cluster's head, with a job that is known or without: one from before the head was started anew.

    run: its name, or its folder there. storage: folder of runs there, where it is not the head's own.
    Raises UserError where there is no such run.
    """
    if storage is None and "/" in run.rstrip("/"):
        storage, run = storage_of(run)
    _check_name(run)
    dashboard = Dashboard(address)
    if storage is None and any(run in (job.run, job.id) for job in jobs.list_jobs(dashboard)):
        return JobHandle(dashboard, jobs.find_job(dashboard, run).job)
    return JobHandle(dashboard, submit_link(dashboard, run, storage).job)


def pack(options: Mapping[str, Any], parcel: Parcel, *, on_cluster: bool = False) -> dict[str, Any]:
    """The options with local paths by their places in the parcel, which takes the files along; URIs stay.

    on_cluster: paths of data are the cluster's and stay too; a search space of one's own is sent all the same.
    Raises UserError for data that is not there, too large, or names files that cannot be sent along, and for what
    ``--group-by`` cannot mean.
    """
    packed = dict(options)
    read_group_by(options.get("group_by"))  # which says what is wrong with it before anything is sent
    tables = {name: options.get(name) for name in ("images", "image_column", "group_by")}
    for name in PLACES:
        value = options.get(name)
        places = [value] if isinstance(value, str | os.PathLike) else list(value or ())
        option = f"--{name.replace('_', '-')}"
        if on_cluster:
            for place in places:
                _refuse_relative(os.fspath(place), option)
        elif places:
            columns = tables | ({"label": options.get("label")} if name in LABELLED else {})
            sent = [_packed(place, option, parcel, name, columns) for place in places]
            packed[name] = sent if isinstance(value, list | tuple) else sent[0]
    packed["set_"] = [_assigned(text, parcel) for text in options.get("set_") or ()]
    space = str(options.get("space") or "")
    if Path(space).suffix in (".yaml", ".yml") and not (on_cluster and Path(space).is_absolute()):
        packed["space"] = parcel.add_text(Path(space).name, _space_text(Path(space), parcel))
    return packed


def to_arguments(options: Mapping[str, Any]) -> list[str]:
    """The command line of ``raytl search`` with these options."""
    arguments = ["search"]
    for name, value in options.items():
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        if isinstance(value, bool):
            arguments += [option] if value else [option.replace("--", "--no-", 1)] if name == "warm_start" else []
        elif isinstance(value, list | tuple):
            arguments += [word for each in value for word in (option, str(each))]
        elif value is not None:
            arguments += [option, str(value)]
    return arguments


def _packed(
    place: str | os.PathLike[str], option: str, parcel: Parcel, role: str, tables: Mapping[str, str | None]
) -> str:
    """tables: what was said of them, as of :func:`raytl.tasks.readers.read_labelled`, which reads them so there."""
    text = os.fspath(place)
    if "://" in text:
        return text
    path = expanded(text)
    if not is_file(path):
        return parcel.add(path, option)
    if path.stat().st_size > parcel.limit_bytes:
        return parcel.add(path, option, [])  # which says so, before it is read
    must, lone = role in {"target", "test"}, role == "target"  # as there
    listing = list_path(path, **tables, labels=role in LABELLED, must=must, lone=lone)
    items = [entry.item for entry in listing.entries]
    files = [Path(item.path) for item in items if isinstance(item, FileItem) and item.filesystem is None]
    # Under --images the pictures are sent with that folder.
    return parcel.add(path, option, files if tables["images"] is None else [])


def _refuse_relative(place: str, option: str) -> None:
    if "://" not in place and not Path(place).is_absolute():
        raise UserError(f"{option} {place}: with --on-cluster give the full path that the data has there")


def _assigned(text: str, parcel: Parcel) -> str:
    """An assignment with local source models by their places in the parcel."""
    keys, value = parse_assignment(text)
    sent = _sent(value, "--set", parcel)
    return text if sent == value else assignment_text(keys, sent)


def _space_text(path: Path, parcel: Parcel) -> str:
    """The text of a search space of one's own, with local source models by their places in the parcel."""
    values, _ = read_yaml(path)
    sent = _sent(values, f"--space {path}", parcel)
    # As it was written wherever nothing changes, for its comments and for the lines that errors name.
    return path.read_text(encoding="utf-8") if sent == values else yaml.safe_dump(sent, sort_keys=False)


def _sent(value: Any, option: str, parcel: Parcel) -> Any:
    """A value of a space with local source models (``file:my-model``, ``hf:my-tower``) by their places in the parcel.

    Lanes read them too, on any node: from the folder of the job, below which :data:`DATA` lies on all of them. Full
    paths where nothing is here may be the cluster's, and stay. Raises UserError for others.
    """
    if isinstance(value, dict):
        return {key: _sent(inner, option, parcel) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sent(inner, option, parcel) for inner in value]
    bare, side = split_size(value) if isinstance(value, str) else ("", None)
    found = next((match for pattern in _OWN_FILES if (match := pattern.fullmatch(bare))), None)
    if found is None:
        return value
    path = expanded(found["path"])
    if found["kind"].endswith("hf:") and not is_folder(path):
        return value  # of a hub, or a bare shape
    if not is_there(path):
        if path.is_absolute():
            return value
        raise UserError(
            f"{option} {value}: no such file or folder; check the path, or give the full one on the cluster"
        )
    sent = f"{found['kind']}{DATA}/{parcel.add(path, option)}{found['rest']}"
    return sent if side is None else at_size(sent, side, tiles_of(value), squash=is_squashed(value))


def _given(task: Task) -> dict[str, Any]:
    if task.given is None or DEMO in task.given:
        raise UserError("this task was not made of paths, so that it cannot be sent to a cluster; make it of folders")
    given = dict(task.given)
    given["source_domain"] = list(given.get("source_domain", {}).values())
    given.pop("name", None)  # of the task; a run's is given otherwise
    return given


def _check_name(run: str) -> None:
    if "/" in run.strip("/"):  # of a job that went on with a run that was named so
        raise UserError(f"'{run}' is the folder of a run there; bring it home with: raytl fetch {shlex.quote(run)}")
    if "/" in run or run in ("", ".", ".."):
        raise UserError(f"'{run}' is no name of a run; 'raytl jobs list' shows those that were submitted")


def _copy_from(storage: str, run: str, folder: Path) -> None:
    """A run's folder from a URI of runs."""
    place = open_storage(storage).place(run)
    if not place.has(DOCUMENT):
        raise UserError(f"{place.shown}: there is no run yet; what its job says: raytl jobs logs {run}")
    place.copy(folder)


def _replace(got: Path, place: Path, before: Path) -> None:
    """Put a fetched run in its place, also over what was fetched of it earlier; tags and note from here stay on it.

    Raises UserError where something else is there, or the run was gone on with here.
    """
    if not os.path.lexists(place):
        with writing(place):
            got.rename(place)
        return
    if not (place / DOCUMENT).exists() or Run(place).started != Run(got).started:
        raise UserError(f"{place} is there already and another one; give another --storage, or move it away")
    held = DiskPlace(place).write()  # says so where it is being searched here
    try:
        if not _whole_lines(got).startswith(_whole_lines(place)):
            raise UserError(
                f"{place} was gone on with here, and what was tried here is not in the run on the cluster; give "
                "another --storage, or move it away"
            )
        with writing(place):
            _keep_labels(place, got)
            if exchange(got, place):
                got.rename(before)
                return
            place.rename(before)
            try:
                got.rename(place)
            except BaseException:
                before.rename(place)
                raise
    finally:
        held.release()


def _whole_lines(folder: Path) -> bytes:
    """A run's journal; half a line was written by a process that died, and is taken back by the next."""
    journal = folder / JOURNAL
    lines = journal.read_bytes() if journal.exists() else b""
    return lines[: lines.rfind(b"\n") + 1]


def _keep_labels(here: Path, got: Path) -> None:
    """Put the tags and the note that a run has here on what was fetched of it; its own tags stay."""
    if (here / TAGS).is_dir():
        shutil.copytree(here / TAGS, got / TAGS, dirs_exist_ok=True)
    if (here / NOTE).is_file():
        shutil.copy2(here / NOTE, got / NOTE)
