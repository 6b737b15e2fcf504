"""Under which licence published weights are, as their publisher says, and whether it allows commercial use.

Only what the publisher of the weights states is told. The licence of the code that builds a network says nothing about
its weights, and terms of the data that they were trained on may hold beside the licence: most networks have seen
ImageNet, whose images were collected for research.
"""

from __future__ import annotations

UNKNOWN = "unknown"
"""The publisher states none for the weights."""
NO_WEIGHTS = "no weights"
"""Nothing is published, so there is nothing to license."""

# By SPDX identifier, in lower case: those that let anyone use the weights for any purpose.
_COMMERCIAL = frozenset({
    "0bsd", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "isc", "mit", "unlicense",
})  # fmt: skip


def allows_commercial(licence: str) -> bool:
    """Whether a licence, or each of several, surely allows commercial use; an unknown one does not."""
    return all(one == NO_WEIGHTS or one.lower() in _COMMERCIAL for one in licence.split(" and "))
