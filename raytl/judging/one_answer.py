"""Whether a model says the same of nearly all images, and nothing that is known says that it should."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ONE_ANSWER, _EXPECTED = 0.9, 0.75
"""From which share of the images on an answer is one for all, and to which share that is not expected."""
_FEW = 0.2
"""Of the classes that images are expected to be of, as many as answers are few."""
_SEEN = 20.0
"""Classes that are expected at most: answers may be those to twenty images, which cannot be of more."""


def one_for_all(answers: Sequence[float] | np.ndarray, frequencies: Sequence[float] = ()) -> int | None:
    """The class that is the answer for nine in ten images or more, unless it is known to be so frequent; None of none.

    answers: (k,), the share of images that each class was the answer for. frequencies: (k,), of the classes, empty
    where nothing is known of them.
    """
    if not len(answers):
        return None
    most = int(np.argmax(answers))
    expected = frequencies[most] if len(frequencies) == len(answers) else 0.0
    return most if answers[most] >= _ONE_ANSWER and expected < _EXPECTED else None


def few_for_all(answers: Sequence[float] | np.ndarray, frequencies: Sequence[float] = ()) -> tuple[int, ...]:
    """The classes that are the answers for nine in ten images, most first, where these are few of many; else empty.

    Few: answers that are spread as evenly as a fifth of the classes would be (by their entropy), or less. Arguments as
    of :func:`one_for_all`.
    """
    said = np.asarray(answers, dtype=np.float64)
    known = np.asarray(frequencies, dtype=np.float64)
    expected = _spread(known) if len(known) == len(said) else float(len(said))
    if not said.any() or _spread(said) > _FEW * min(expected, _SEEN):
        return ()
    order = np.argsort(-said, kind="stable")
    return tuple(int(which) for which in order[: int(np.searchsorted(np.cumsum(said[order]), _ONE_ANSWER)) + 1])


def _spread(shares: np.ndarray) -> float:
    """How many equally frequent classes have the entropy of these shares."""
    some = shares[shares > 0] / shares.sum()
    return float(np.exp(-(some * np.log(some)).sum()))
