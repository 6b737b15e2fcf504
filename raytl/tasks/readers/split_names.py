"""Names of splits: which folder or file is for training, which for validation, which for the test."""

from __future__ import annotations

import re
from collections.abc import Iterable

from raytl.core.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
NONE = "none"  # what --split says where names of splits are names of classes


class SplitsOrClassesError(UserError):
    """Names may be those of splits or of classes, which ``--split none`` answers."""


_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "validierung"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}
_FILLERS = frozenset({"set", "data", "dataset", "images", "image", "imgs", "img", "split", "labels", "folder"})
_GLUED = re.compile(r"^(train|training|val|valid|validation|test|testing)(set|data|images|imgs)$")


def split_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that a name speaks of, and the words around it: ``seg_train`` is ("train", ("seg",)).

    None where it speaks of none or of several. Numbers such as those of shards do not count as words.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+", name)]
    found, rest = [], []
    for word in words:
        glued = _GLUED.match(word)
        word = glued[1] if glued else word
        if word in _WORDS:
            found.append(_WORDS[word])
        elif word not in _FILLERS:
            rest.append(word)
    return (found[0], tuple(rest)) if len(found) == 1 else None


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """The splits of those among sibling names that speak of one in the same way.

    ``seg_train`` beside ``seg_test`` are splits; ``train station`` beside ``test tube``, or either alone, are not.
    """
    spoken = {name: found for name in names if (found := split_of(name)) is not None}
    plain = {name: split for name, (split, rest) in spoken.items() if not rest}
    if plain:  # Kaggle calls them train and test1
        return {name: split for name, (split, rest) in spoken.items() if all(word.isdecimal() for word in rest)}
    rests = {rest for _, rest in spoken.values()}
    return {name: split for name, (split, _) in spoken.items()} if len(rests) == 1 and len(spoken) > 1 else {}


def class_and_split(name: str) -> tuple[str, str] | None:
    """``("cat", "train")`` for ``train_cat`` and ``cat-train``, None where a name is not made so."""
    first, *others = re.split(r"[ _.-]+", name)
    if not others:
        return None
    for word, rest in ((first, name[len(first) :]), (others[-1], name[: -len(others[-1])])):
        label = rest.strip(" _.-")
        if word.lower() in _WORDS and label and split_of(label) is None:
            return label, _WORDS[word.lower()]
    return None


def shard_split(name: str) -> str | None:
    """The split that the name of a data file speaks of: ``train-00000-of-00002.parquet``, ``my_test.csv``."""
    found = split_of(re.sub(r"\d+|\bof\b", " ", name.rsplit(".", 1)[0]))
    return found[0] if found else None
