"""The route that says what counted for an answer, at a bounded price."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

import numpy as np
from fastapi import APIRouter
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from raytl.serving.asking import Answering, Model, in_time, left_s
from raytl.serving.occlusion import occlusion
from raytl.serving.problems import GATED, PROBLEM, RequestError, answer, problem
from raytl.serving.requests import Images, read_images

WAITING = 4
"""Requests that may wait for their turn: one is explained at a time, for the price of up to 82 predictions."""
_SHARE = 0.5  # of the time that a request has left


def explain_routes(service: Answering[Model]) -> APIRouter:
    """``/v1/explain`` for a service."""
    router = APIRouter()
    turn = asyncio.Lock()
    asked_for = 0

    async def explained(live: Model, asked: Images, label: str | None) -> dict[str, Any]:
        nonlocal asked_for
        if len(asked.images) > 1:
            raise RequestError(413, f"the request holds {len(asked.images)} images; send one at a time")
        if asked_for > WAITING:
            raise RequestError(503, "too many images are waiting to be explained; try again later")
        asked_for += 1
        try:
            async with turn:
                return await _explain(service, live, asked, label)
        finally:
            asked_for -= 1

    @router.post("/v1/explain", openapi_extra=_BODY, responses=_RESPONSES, summary="What counted in an image?")
    async def explain(request: Request) -> Response:
        """By how much covering each part of an image lowers the probability of a label (occlusion sensitivity)."""
        live = service.live
        try:
            label = request.query_params.get("label")
            if label is not None and label not in live.labels:
                raise RequestError(400, f"there is no label '{label}'; give one of those in /v1/model")
            reading = read_images(request, live.settings)
            _, found = await in_time(request, live.settings, reading, lambda asked: explained(live, asked, label))
        except RequestError as refused:
            return problem(refused.status, refused.sentence)
        return answer(200, found)

    return router


async def _explain(service: Answering[Model], live: Model, asked: Images, label: str | None) -> dict[str, Any]:
    (image,) = await service.prepare(live, asked.images)
    if label is None:
        (number,) = live.decide(await service.compute(live, image[None]))
    else:
        number = live.labels.index(label)
    patience_s = _SHARE * left_s(live.settings)
    whole, drops = await occlusion(image, int(number), lambda arrays: service.compute(live, arrays), patience_s)
    return {
        "model": live.name,
        "label": live.labels[number],
        "probability": whole,
        "drops": drops.tolist(),
        "seen": await asyncio.to_thread(_as_data_url, image),
    }


def _as_data_url(image: np.ndarray) -> str:
    """PNG of uint8 (channels, s, s)."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "parameters": [
        {
            "name": "label",
            "in": "query",
            "required": False,
            "description": "Whose probability is looked at; the predicted one's unless given.",
            "schema": {"type": "string"},
        }
    ],
    "requestBody": {
        "required": True,
        "description": "One image, in any of the forms of /v1/predict.",
        "content": {"image/*": _IMAGE, "application/octet-stream": _IMAGE},
    },
}
_EXPLANATION = {
    "type": "object",
    "required": ["model", "label", "probability", "drops", "seen"],
    "properties": {
        "model": {"type": "string"},
        "label": {"type": "string"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "drops": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "number", "minimum": -1, "maximum": 1}},
            "description": "By how much covering each square of what the model sees lowers the probability, top row "
            "first; below 0 where it raises it.",
        },
        "seen": {"type": "string", "description": "What the model sees, as a data URL of a PNG."},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = GATED | {
    200: {"description": "What counted.", "content": {"application/json": {"schema": _EXPLANATION}}},
    400: {"description": "The request cannot be read.", **PROBLEM},
    408: {"description": "The request did not arrive in time.", **PROBLEM},
    413: {"description": "More than one image, or too large.", **PROBLEM},
    415: {"description": "A content type that is not understood.", **PROBLEM},
    422: {"description": "An image that cannot be decoded.", **PROBLEM},
    503: {"description": "Too many are waiting; try again after Retry-After seconds.", **PROBLEM},
    504: {"description": "No answer in time.", **PROBLEM},
}
