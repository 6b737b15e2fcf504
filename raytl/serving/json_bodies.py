"""JSON from strangers: how deep it is and how much it would take in memory is known before it is parsed."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from raytl.serving.problems import RequestError

MOST_DEEP = 32
MOST_CONTAINERS = 1_000_000
"""Objects and arrays together. Each takes some 80 bytes, whatever little is in it."""

# Possessive, lest a string of escapes is gone through twice. One without an end goes to the body's: else it would be
# looked for anew from each of its escaped quotes.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


def parse_json(body: bytes, form: str) -> Any:
    """The value of a body. form: what was expected, for messages. Raises RequestError: 400, 413."""
    opened = body.count(b"[") + body.count(b"{")
    if opened > MOST_DEEP:  # base64 and numbers have none, so a plain body is not looked through a second time
        steps = _STEP[np.frombuffer(_STRING.sub(b"", body), dtype=np.uint8)]
        steps = steps[steps != 0]
        if steps.size and int(np.cumsum(steps, dtype=np.int64).max()) > MOST_DEEP:
            raise RequestError(400, f"the JSON is nested more than {MOST_DEEP} deep; send {form}")
        if int((steps > 0).sum()) > MOST_CONTAINERS:
            raise RequestError(413, f"the JSON has more than {MOST_CONTAINERS} lists and objects; send {form}")
    try:
        return json.loads(body.decode("utf-8-sig"))  # else it would take UTF-16 too, whose bytes say nothing above
    except (ValueError, RecursionError):
        raise RequestError(400, f"the body is not JSON; send {form}") from None
