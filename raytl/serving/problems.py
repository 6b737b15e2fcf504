"""What endpoints answer: JSON, and every error as a problem document (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import pydantic_core
from starlette.responses import Response

_RETRY = {"Retry-After": "1"}
_FOR_NOW = frozenset({503, 504})


class RequestError(Exception):
    """A request that gets ``status`` and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def to_json(value: Any) -> bytes:
    """JSON without spaces."""
    try:
        return pydantic_core.to_json(value)
    except ValueError:  # half a character, which strings of a request may hold
        return json.dumps(value, separators=(",", ":")).encode()


def answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(to_json(value), status, headers, media_type="application/json")


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a problem document."""
    told = {**retry(status), **(headers or {})}
    return Response(to_json(document(status, sentence)), status, told, media_type="application/problem+json")


def document(status: int, sentence: str) -> dict[str, Any]:
    """Of an error; ``error`` is the sentence, as ``detail`` is."""
    known = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return {**known, "detail": sentence, "error": sentence}


def retry(status: int) -> Mapping[str, str]:
    """The header that says when to come back, where that is of use."""
    return _RETRY if status in _FOR_NOW else {}


_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string", "description": "The same as detail."},
    },
}
PROBLEM: Mapping[str, Any] = {"content": {"application/problem+json": {"schema": _SCHEMA}}}
"""How the OpenAPI document describes such an answer."""
GATED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The endpoint asks for its bearer token.", **PROBLEM},
    403: {"description": "A page of another server asks, and there is no token.", **PROBLEM},
    421: {"description": "Asked for by a name that is not the endpoint's, and there is no token.", **PROBLEM},
}
"""How it describes what ``gate.py`` answers, on any route but those that are open to all."""
