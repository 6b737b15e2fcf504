"""What people ask of a search while it runs: files beside its results, which its driver looks for between epochs.

A file is all that is needed, so that whoever can write to the storage can ask, on any machine and through an object
store as well. A driver clears what earlier ones were asked before it begins.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from raytl.core.errors import UserError
from raytl.runs.files import read_json, write_json
from raytl.runs.run import Run
from raytl.runs.storage import Place, is_uri
from raytl.search.records import Asked
from raytl.training.strategy import Strategy

FOLDER = "requests"
_STOP = "stop"
_TRIAL = "stop-trial-"
_TRY = "try-"
PERIOD_S, PERIOD_URI_S = 1.0, 10.0
"""How often a driver looks: a store elsewhere answers slowly and may ask for money."""


def ask_to_stop(run: Run, trial: int | None = None) -> None:
    """Ask a running search to end, or to stop one of its trials, after the epoch that it is in.

    Raises UserError where nobody is searching, or the trial does not run.
    """
    if run.status != "running":
        raise UserError(f"run '{run.name}' is {run.status}: nothing of it can be stopped")
    if trial is not None:
        record = next((record for record in run.records() if record.number == trial), None)
        if record is None or record.status != "running":
            raise UserError(f"run '{run.name}': trial {trial} does not run; nothing was stopped")
    name = f"{FOLDER}/{_STOP if trial is None else f'{_TRIAL}{trial}'}"
    path = run.place.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    run.place.save(name)


def ask_to_try(run: Run, strategy: Mapping[str, Any]) -> None:
    """Ask a running search to try a strategy next, by its flat values. Raises UserError where nobody is searching."""
    if run.status != "running":
        raise UserError(f"run '{run.name}' is {run.status}: nobody tries anything of it now")
    name = f"{FOLDER}/{_TRY}{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    path = run.place.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(strategy))
    run.place.save(name)


def asked_of(place: Place) -> Asked:
    """What was asked of the search in a place, by now."""
    place.look_again()
    names = place.names(FOLDER)
    trials = [name.removeprefix(_TRIAL) for name in names if name.startswith(_TRIAL)]
    wanted = sorted(name for name in names if name.startswith(_TRY) and name.endswith(".json"))
    strategies = {name: read_json(place.file(f"{FOLDER}/{name}")) for name in wanted}
    return Asked(_STOP in names, frozenset(int(number) for number in trials if number.isdigit()), strategies)


def clear(place: Place, tried: Collection[str] = ()) -> None:
    """Forget what was asked, except for the strategies that were not tried. tried: keys of those that were."""
    left = untried(place, tried)
    for name in place.names(FOLDER):
        if name not in left:
            place.remove(f"{FOLDER}/{name}")


def untried(place: Place, tried: Collection[str]) -> dict[str, Strategy]:
    """The strategies that were asked for and are not among those tried, by the names of the requests."""
    found = {}
    for name, values in asked_of(place).strategies.items():
        with suppress(UserError):  # what is no strategy will not become one
            strategy = Strategy.from_dict(values)
            if strategy.key not in tried:
                found[name] = strategy
    return found


def listening(place: Place, clock: Callable[[], float] = time.monotonic) -> Callable[[], Asked]:
    """A function that tells what is asked by now, and looks no more often than is good for the storage.

    A storage elsewhere may take minutes to say that it does not answer: there it looks beside the search.
    """
    elsewhere = is_uri(place.shown)
    period = PERIOD_URI_S if elsewhere else PERIOD_S
    known, looked = Asked(), -math.inf
    looking: threading.Thread | None = None

    def look() -> None:
        nonlocal known
        with suppress(UserError):  # a storage that does not answer now is asked again; the search goes on
            known = asked_of(place)

    def asked() -> Asked:
        nonlocal looked, looking
        if clock() - looked >= period and (looking is None or not looking.is_alive()):
            looked = clock()
            if elsewhere:
                looking = threading.Thread(target=look, name="what is asked of the search", daemon=True)
                looking.start()
            else:
                look()
        return known

    return asked
