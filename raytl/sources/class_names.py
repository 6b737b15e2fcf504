"""Class names as words of a sentence, and whether they say what is seen at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a cropped photo of a {}.",
    "a blurry photo of a {}.",
    "a bright photo of a {}.",
    "a picture of {}.",
)
"""Sentences whose embeddings are averaged: a name alone is not what text towers were taught with (Radford et al.)."""
_NUMBERING = re.compile(r"^(?:n\d{6,}|\d+)[\s._\-:)]+(?=.*[^\W\d_])")
_CAMEL = re.compile(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NUMBERED = re.compile(r"n\d{6,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[a-f]*\d)[0-9a-f]{8,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}|[^\W\d_a-z]")
_EMPTY = {
    "class", "category", "label", "type", "group", "cluster", "kind", "item", "id", "idx", "index", "nr", "num",
    "number", "target", "folder", "set",
}  # fmt: skip
"""Words that say that there is a class, and not which."""
_VERDICTS = {
    "positive", "negative", "pos", "neg", "yes", "no", "not", "true", "false", "ok", "okay", "nok", "ng", "good",
    "bad", "fine", "normal", "abnormal", "pass", "passed", "fail", "failed", "defect", "defective", "defects",
    "faulty", "fault", "anomaly", "anomalous", "other", "others", "unknown", "none", "rest", "misc",
}  # fmt: skip
"""Words that judge what is seen without naming it."""


def spoken(name: str) -> str:
    """A class name as it would be said: ``01_RedRose`` is ``red rose``. Numbers in front and separators go."""
    words = _NUMBERING.sub("", name.strip())
    words = _CAMEL.sub(" ", words)
    return " ".join(re.sub(r"[_\-+/.,;:|]+", " ", words).split()).lower()


def why_unnamed(classes: Sequence[str]) -> str:
    """Why these names make no classifier, as the rest of a sentence; empty where they do.

    Numbers, identifiers and numbered classes name nothing; names that only judge (``ok``, ``defect``) do not say what
    is judged; and two that are the same words cannot be told apart.
    """
    silent = [name for name in classes if _says_nothing(name)]
    if silent:
        return f"class names such as {_quoted(silent)} do not say what is seen"
    said = [spoken(name) for name in classes]
    if all(set(words.split()) <= _VERDICTS for words in said):
        return f"the class names {_quoted(classes)} judge what is seen and do not name it"
    same = [name for name, words in zip(classes, said, strict=True) if said.count(words) > 1]
    return f"the class names {_quoted(same)} are the same in words" if same else ""


def _says_nothing(name: str) -> bool:
    if _NUMBERED.fullmatch(name.strip()):
        return True
    words = _WORD.findall(" ".join(word for word in spoken(name).split() if not _NUMBERED.fullmatch(word)))
    return not set(words) - _EMPTY


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names[:2])
