"""The same model on FastAPI and uvicorn, computed in a thread: what most people write first.

python benchmarks/peers/fastapi_server.py BUNDLE PORT
"""

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from raytl.bundles import Bundle

app = FastAPI()
torch.set_num_threads(1)
bundle = Bundle.load(sys.argv[1])


def classify(data: bytes) -> dict[str, Any]:
    """What raytl's endpoint answers to one image."""
    image = bundle.prepare(data)
    prediction = bundle.prediction(bundle.probabilities(torch.from_numpy(image[None]))[0])
    return {
        "label": prediction.label,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
    }


@app.post("/v1/predict")
async def predict(request: Request) -> dict[str, Any]:
    """One image's bytes."""
    return {"predictions": [await run_in_threadpool(classify, await request.body())]}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
