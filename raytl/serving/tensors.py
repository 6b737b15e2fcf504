"""Tensors of the open inference protocol: a request's images out of them, an answer's into them."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytl.serving.json_bodies import parse_json
from raytl.serving.problems import RequestError
from raytl.serving.requests import NamedBytes, from_base64, too_many

HEADER = "Inference-Header-Content-Length"
OUTPUTS = {"label": "BYTES", "probabilities": "FP32"}

_FORM = (
    'one input "image": BYTES of shape [N] (encoded images, in base64 where they are JSON), or UINT8 (0 to 255) or '
    "FP32 (0 to 1) of shape [N, height, width, 3 or 1]"
)
_TYPES: Mapping[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}


@dataclass(frozen=True)
class Inference:
    """What is asked.

    images: encoded, in order. id: to be given back. outputs: names of those wanted, and whether in binary.
    """

    images: list[NamedBytes]
    id: str | None
    outputs: Mapping[str, bool]


def read_inference(body: bytes, head_bytes: str | None, max_images: int) -> Inference:
    """A request from its body.

    head_bytes: length of the JSON at its beginning, as the header says it; None where there is nothing else.
    Raises RequestError: 400, 413.
    """
    head, tail = body, b""
    if head_bytes is not None:
        if not (
            head_bytes.isascii() and head_bytes.isdigit() and len(head_bytes) < 12 and int(head_bytes) <= len(body)
        ):
            raise _bad(f"{HEADER} is '{head_bytes}', but the body has {len(body)} bytes")
        head, tail = body[: int(head_bytes)], body[int(head_bytes) :]
    document = parse_json(head, _FORM)
    if not isinstance(document, dict):
        raise _bad("the JSON is no object")
    identity = document.get("id")
    if not isinstance(identity, str | None):
        raise _bad("'id' is no string")
    inputs = document.get("inputs")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise _bad("'inputs' is not a list of one tensor")
    return Inference(_images(inputs[0], tail, max_images), identity, _wanted(document))


def written(values: Mapping[str, Any], wanted: Mapping[str, bool]) -> tuple[list[dict[str, Any]], bytes]:
    """The tensors of an answer, and their binary data one after another.

    values: by name, strings (n,) for BYTES, else a float32 array. wanted: by name, whether in binary.
    """
    tensors, binary = [], b""
    for name, as_binary in wanted.items():
        value, kind = values[name], OUTPUTS[name]
        shape = [len(value)] if kind == "BYTES" else list(value.shape)
        tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if as_binary:
            data = _lengths_first(value) if kind == "BYTES" else value.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(data)}
            binary += data
        else:
            tensor["data"] = list(value) if kind == "BYTES" else value.ravel().tolist()
        tensors.append(tensor)
    return tensors, binary


def _wanted(document: Mapping[str, Any]) -> dict[str, bool]:
    always = _parameters(document).get("binary_data_output") is True
    asked = document.get("outputs")
    if not asked and isinstance(asked, list | None):
        return dict.fromkeys(OUTPUTS, always)
    if not (isinstance(asked, list) and all(isinstance(one, dict) for one in asked)):
        raise _bad("'outputs' is not a list of tensors")
    wanted = {}
    for one in asked:
        if one.get("name") not in list(OUTPUTS):
            raise RequestError(400, f"there is no output '{one.get('name')}'; ask for {' or '.join(OUTPUTS)}")
        wanted[one["name"]] = bool(_parameters(one).get("binary_data", always))
    return wanted


def _images(tensor: Mapping[str, Any], tail: bytes, max_images: int) -> list[NamedBytes]:
    kind, shape = tensor.get("datatype"), tensor.get("shape")
    if tensor.get("name") != "image":
        raise _bad(f"there is no input '{tensor.get('name')}'")
    if not (isinstance(shape, list) and all(type(side) is int and 0 <= side < 2**31 for side in shape)):
        raise _bad("the input's 'shape' is not a list of whole numbers")
    if shape and shape[0] > max_images:
        raise too_many(shape[0], max_images)
    size = _parameters(tensor).get("binary_data_size")
    if size is not None and size != len(tail):
        raise _bad(f"'binary_data_size' is {size}, but {len(tail)} bytes follow the JSON")
    if size is None and tail:
        raise _bad("the input does not say its 'binary_data_size'")
    data = tensor.get("data") if size is None else tail
    if kind == "BYTES":
        return _encoded(shape, data)
    if kind not in list(_TYPES):
        raise _bad(f"the input's datatype is '{kind}'")
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise _bad(f"the input's shape is {shape}")
    return [(f"image[{i}]", _file(pixels)) for i, pixels in enumerate(_pixels(kind, shape, data))]


def _encoded(shape: Sequence[int], data: object) -> list[NamedBytes]:
    """Encoded images; a batch of one-element rows is taken for what it is."""
    if not shape or shape[0] == 0 or shape[1:] not in ([], [1]):
        raise _bad(f"the input's shape is {shape}")
    if isinstance(data, bytes):
        return [(f"image[{i}]", item) for i, item in enumerate(_by_lengths(data, shape[0]))]
    if not isinstance(data, list):
        raise _bad("the input has no 'data'")
    if len(data) != shape[0]:
        raise _bad(f"the input's shape is {shape}, but its data are {len(data)} images")
    flat = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
    return [(f"image[{i}]", from_base64(f"image[{i}]", item)) for i, item in enumerate(flat)]


def _pixels(kind: str, shape: Sequence[int], data: object) -> np.ndarray:
    """uint8 (n, h, w, c)."""
    if isinstance(data, bytes):
        if len(data) != math.prod(shape) * _TYPES[kind].itemsize:
            raise _bad(f"the input's shape is {shape}, but its data have {len(data)} bytes")
        values = np.frombuffer(data, dtype=_TYPES[kind])
    else:
        try:
            values = np.array(data if isinstance(data, list) else [], dtype=np.float64).ravel()
        except (ValueError, TypeError, OverflowError):
            raise _bad("the input's 'data' are not all numbers, or its rows are not of one length") from None
        if values.size != math.prod(shape):
            raise _bad(f"the input's shape is {shape}, but its data are {values.size} numbers")
    top = 255 if kind == "UINT8" else 1
    if not ((values >= 0) & (values <= top)).all():  # false of what is not a number, too
        raise _bad(f"the input has a value that is not from 0 to {top}")
    if kind == "FP32":
        values = np.rint(values * 255)
    elif not (values == np.rint(values)).all():
        raise _bad("the input has a value that is no whole number")
    pixels: np.ndarray = values.astype(np.uint8).reshape(shape)
    return pixels


def _file(pixels: np.ndarray) -> bytes:
    """An image file, PGM or PPM, of (h, w, c): a line about its size and the pixels as they are."""
    height, width, channels = pixels.shape
    return b"P%d %d %d 255\n" % (6 if channels == 3 else 5, width, height) + pixels.tobytes()


def _by_lengths(data: bytes, count: int) -> list[bytes]:
    items, at = [], 0
    for _ in range(count):
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        if max(begin, at) > len(data):
            raise _bad("the input's data end too early")
        items.append(data[begin:at])
    if at != len(data):
        raise _bad(f"the input's data are more than {count} images")
    return items


def _lengths_first(texts: Sequence[str]) -> bytes:
    return b"".join(struct.pack("<I", len(data)) + data for data in (text.encode() for text in texts))


def _parameters(of: Mapping[str, Any]) -> Mapping[str, Any]:
    found = of.get("parameters")
    return found if isinstance(found, dict) else {}


def _bad(what: str) -> RequestError:
    return RequestError(400, f"{what}; send {_FORM}")
