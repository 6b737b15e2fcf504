"""A search that came to its end goes on: its test split stays shut, and its figures are those of the choice before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytl.core.errors import UserError

BEFORE = "outcome.before.json"
"""The outcome with which the test split was opened; it stays whatever is found afterwards."""
_OF_THE_WINNER = ("controls", "gains", "transfer_gain", "adaptation_gain")


@dataclass(frozen=True)
class More:
    """What to go on for. trials: further strategies. seconds: of further time."""

    trials: int | None = None
    seconds: float | None = None

    def __bool__(self) -> bool:
        return self.trials is not None or self.seconds is not None


def merged(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a search that was gone on with, as ``outcome.json`` has it.

    now: what it came to since, without the test split. before: the outcome that opened it, and ``trials_then``,
    how many there were. Test figures stay with the baselines that they were measured of. Where the winner is the same,
    all that was said of it on the test images stays as well; another one has none there, were it a baseline before:
    its model was not the one that was to be judged.
    """
    tested = {entry["strategy_key"]: entry["test"] for entry in [before["best"], *before["baselines"]]}
    for entry in now["baselines"]:
        entry["test"] = tested.get(entry["strategy_key"])
    same = now["best"]["strategy_key"] == before["best"]["strategy_key"]
    now["best"]["test"] = before["best"]["test"] if same else None
    kept = {name: before[name] for name in _OF_THE_WINNER} if same else {}
    told = {
        "strategy": before["best"]["strategy"],
        "validation_metric": before["best"]["validation"],
        "test_metric": before["best"]["test"],
        "trials": before["trials_then"],
        "same": same,
    }
    # Where no label of the target was learned from, it was the test's that said which class is to be found.
    found = now.get("positive") or before.get("positive")
    undefined = before.get("test_undefined") if same else None
    return now | kept | {"positive": found, "test_undefined": undefined, "chosen_before": told}


def refuse_finished(name: str) -> UserError:
    """What is said where nobody asked for more."""
    return UserError(f"run '{name}' is finished; to go on with it, ask for more: --trials +50 or --time-budget +30m")
