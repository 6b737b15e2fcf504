"""Whether weights may be used for what a space wants its source models for, by their licence."""

from __future__ import annotations

from raytl import sources
from raytl.core.errors import UserError


class NotAllowedError(UserError):
    """Weights whose licence is not known to allow what they are wanted for. A search goes on without them."""


def check_licence(uri: str, wanted: str) -> None:
    """Raise NotAllowedError for a source model. wanted: ``any`` licence, or one that allows ``commercial`` use."""
    if wanted == "any":
        return
    licence = sources.licence_of(uri)
    if not sources.allows_commercial(licence):
        raise NotAllowedError(
            f"{uri}: the licence of its weights ({licence}) is not known to allow commercial use, which "
            "licence=commercial asks for"
        )
