"""What can be told of a source model by its URI alone: how it wishes to see images, and whether it learned anything."""

from __future__ import annotations

import re

_SIZED = re.compile(r"(?P<uri>.+)@(?:(?P<tiles>\d+)x(?P<piece>\d+)px|(?P<side>\d+)px(?P<squash>-squash)?)")


def split_size(uri: str) -> tuple[str, int | None]:
    """A URI without its size, and the side of the input in pixels that it wishes for; None where it wishes for none."""
    found = _SIZED.fullmatch(uri)
    if found is None:
        return uri, None
    return found["uri"], int(found["side"] or int(found["tiles"]) * int(found["piece"]))


def tiles_of(uri: str) -> int:
    """How many pieces a side a source model sees of an image, as they are (``@3x128px``); 1 where it sees it whole."""
    found = _SIZED.fullmatch(uri)
    return 1 if found is None else int(found["tiles"] or 1)


def is_squashed(uri: str) -> bool:
    """Whether a source model sees images squashed into its input (``@96px-squash``), none of which is cut off."""
    found = _SIZED.fullmatch(uri)
    return found is not None and found["squash"] is not None


def is_published(uri: str) -> bool:
    """Whether a source model is, or holds, a network whose weights were there before the search."""
    return any(not part.startswith(("plain:", "pretrain:")) and not is_untrained(part) for part in joined_parts(uri))


def at_size(uri: str, side: int, tiles: int = 1, *, squash: bool = False) -> str:
    """URI of the same source model at an input of so many pixels, whatever size is wished for elsewhere.

    tiles: pieces of the image a side that lie in it, as in :class:`~raytl.tasks.preprocessing.Preprocessing`. squash:
    whether images are squashed into it; pieces are of the whole image anyway.
    """
    seen = f"{tiles}x{side // tiles}px" if tiles > 1 else f"{side}px-squash" if squash else f"{side}px"
    return f"{split_size(uri)[0]}@{seen}"


def joined_parts(uri: str) -> tuple[str, ...]:
    """The source models whose features one has that is joined of others (``joined:<URI>+<URI>``); else itself."""
    bare = split_size(uri)[0]
    if not bare.startswith("joined:"):
        return (uri,)
    return tuple(part for part in bare.removeprefix("joined:").split("+") if part)


def is_untrained(uri: str) -> bool:
    """Whether a URI names a network with random weights, which has learned nothing worth freezing.

    One that is trained on a source domain, or whose weights lie in a file, has, whatever their architecture is called.
    ``plain:`` features are none: nothing in them is ever learned; nor are joined ones, of which each has learned.
    """
    kind, _, name = split_size(uri)[0].partition(":")
    if kind in ("file", "pretrain", "joined"):
        return False
    shape = kind == "hf" and "?" in name
    return kind == "scratch" or shape or name.lower().endswith("@none")
