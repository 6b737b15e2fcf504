"""Errors that are the user's to mend, and the spelling help that goes with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_WHY = re.compile(  # Google's, Azure's, Amazon's
    r"google::cloud::Status\((.+?)(?: error_info=|$)"
    r"|Azure Error: \[\w*\] (?:\d+ )?(?:Fail to get a new connection for: \S+ )?(.+?)(?:(?<=\.) |$)"
    r"|N5Azure\w+: (.+?)(?:(?<=\.) |$)"
    r"| operation: (.+)"
)
_LONGEST = 120  # characters of what an exception says


class UserError(Exception):
    """One clear sentence for a person: what was wrong, where, and what to do.

    Raised at the place that knows. The CLI prints it without a traceback and exits with code 2.
    """


class NotWrittenError(UserError):
    """A disk did not take what was to be kept. The sentence ends with what to do about the disk."""


class StorageWarning(UserWarning):
    """One clear sentence: what a storage did not take, and where it is instead."""


def cause(error: BaseException) -> str:
    """What an exception of a storage says in a few words: without all that was being done when it came."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    found = _WHY.search(" ".join(str(error).split()))
    if found is not None:
        text = next(filter(None, found.groups())).rpartition("message was: ")[2]
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}…"


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint ``; did you mean 'x'?`` for a misspelt word, or a list of what is known.

    Returns an empty string where nothing is known at all.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    if not names:
        return ""
    return f"; known are {', '.join(names)}"
