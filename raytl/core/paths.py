"""Where raytl keeps things on disk."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from raytl.core.errors import UserError
from raytl.core.machine import user_folder, writable

RENEWED_S = 3600.0
"""How often a search that goes on says that it still needs what came along with it."""
RUNS = ".runs"
"""Folder of a lot with a mark for each run that it came along with."""


def home() -> Path:
    """The user's cache of computed things (pretrained source models, activations): ``RAYTL_HOME`` or ~/.cache/raytl.

    Raises UserError where it cannot be written to.
    """
    configured = os.environ.get("RAYTL_HOME")
    if not configured:
        return user_folder() / ".cache" / "raytl"
    found = Path(configured).absolute()
    if not writable(found):
        raise UserError(f"RAYTL_HOME is {found}, which cannot be written to; set it to a folder of yours")
    return found


def submitted() -> Path:
    """Where data stays that came along with searches from elsewhere, a folder for each lot."""
    return home() / "submitted"


def lot_of(place: str | os.PathLike[str]) -> Path | None:
    """The folder of the lot that a place on this machine belongs to, None for data that did not come along."""
    kept, path = submitted().resolve(), Path(place).resolve()
    if not path.is_relative_to(kept) or path == kept:
        return None
    return kept / path.relative_to(kept).parts[0]


def renew(path: str | os.PathLike[str]) -> None:
    """Note that data is of use now; what came along and was of none for longest is removed first."""
    lot = lot_of(path)
    if lot is not None:
        with suppress(OSError):  # of another user, or gone
            os.utime(lot)


@contextmanager
def in_use(places: Iterable[str | os.PathLike[str]], every_s: float = RENEWED_S) -> Iterator[None]:
    """Renew what came along, at once and every so often: a search may take longer than unused data is kept."""
    lots = {lot for lot in map(lot_of, places) if lot is not None}
    if not lots:
        yield
        return
    ended = Event()

    def go_on() -> None:
        while True:
            for lot in lots:
                renew(lot)
            if ended.wait(every_s):
                return

    thread = Thread(target=go_on, name="raytl-renewal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def note_run(run: str) -> None:
    """Note in the lot that this process works in, if any, that it came along with a run: it is gone on with from there.

    run: its folder or URI. Another lot that came along with an earlier run of that name is no longer taken for its.
    """
    mark, here = _mark(run), lot_of(Path.cwd())
    for before in submitted().glob(f"*/{mark}"):
        with suppress(OSError):  # of another user, who has a run of that name elsewhere
            before.unlink()
    if here is not None:
        with suppress(OSError):  # as much as it would be without: only source models of one's own are missed
            (here / mark).parent.mkdir(exist_ok=True)
            (here / mark).touch()


def lot_with(run: str) -> Path | None:
    """The lot that came along with a run, as noted by :func:`note_run`; None where nothing did or it is gone."""
    return next((found.parents[1] for found in submitted().glob(f"*/{_mark(run)}")), None)


def _mark(run: str) -> str:
    # How a URI's store is reached is nothing of the run: it is the same one by another way.
    name = run.partition("?")[0] if "://" in run else str(Path(os.path.expanduser(run)).resolve())  # noqa: PTH111  # of nobody's home
    return f"{RUNS}/{hashlib.sha256(os.fsencode(name.rstrip('/'))).hexdigest()[:16]}"


def default_storage() -> str:
    """Where runs go without ``--storage``: ``RAYTL_STORAGE``, a folder or a URI, or ./raytl-runs."""
    return os.environ.get("RAYTL_STORAGE", "raytl-runs")


def below(place: str, name: str) -> str:
    """What is called ``name`` in a folder or at a URI, whose ``?`` and what follows says how its store is reached."""
    base, mark, query = _halves(place)
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def storage_of(where: str) -> tuple[str, str]:
    """The storage that a run is in and the run's name; what :func:`below` put together."""
    base, mark, query = _halves(where)
    above, _, name = base.rstrip("/").rpartition("/")
    return above + mark + query, name


def _halves(where: str) -> tuple[str, str, str]:
    return where.partition("?") if "://" in where else (where, "", "")


def run_argument(where: str) -> str:
    """A run as a command takes it, to be copied from a terminal. where: its folder or URI."""
    storage, name = storage_of(where)
    return shlex.quote(name if Path(storage).absolute() == Path(default_storage()).absolute() else where)
