"""The same model on Ray Serve with its defaults, as its documentation shows it: one deployment, no batching.

python benchmarks/peers/ray_serve_server.py BUNDLE PORT
"""

import sys
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from starlette.requests import Request

from raytl.bundles import Bundle
from raytl.serving.app import close_replica_port


@serve.deployment
class Classifier:
    """A replica."""

    def __init__(self, folder: str) -> None:
        close_replica_port()  # it would be open to the network
        torch.set_num_threads(1)
        self.bundle = Bundle.load(folder)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """What raytl's endpoint answers to one image's bytes."""
        image = self.bundle.prepare(await request.body())
        prediction = self.bundle.prediction(self.bundle.probabilities(torch.from_numpy(image[None]))[0])
        answer = {
            "label": prediction.label,
            "confidence": prediction.confidence,
            "probabilities": prediction.probabilities,
        }
        return {"predictions": [answer]}


if __name__ == "__main__":
    # A Ray of its own on loopback, below the bundle's folder, and without a dashboard, which raytl's has not either.
    below = str(Path(sys.argv[1]).parent / "ray")
    ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=below)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Classifier.bind(sys.argv[1]), route_prefix="/v1/predict", blocking=True)
