"""The same model on LitServe with its batching, as its documentation shows it: JSON in, one worker.

python benchmarks/peers/litserve_server.py BUNDLE PORT
"""

import base64
import sys
from typing import Any

import litserve
import numpy as np
import torch

from raytl.bundles import Bundle


class Api(litserve.LitAPI):
    """Decoding, batching and answering."""

    def setup(self, device: str) -> None:
        """In the worker."""
        torch.set_num_threads(1)
        self.bundle = Bundle.load(sys.argv[1])

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """``{"image": base64}`` to uint8 (channels, size, size)."""
        return self.bundle.prepare(base64.b64decode(request["image"]))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """One array of all."""
        return np.stack(inputs)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, a row per image."""
        return self.bundle.probabilities(torch.from_numpy(images))

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """The rows."""
        return list(output)

    def encode_response(self, row: np.ndarray) -> dict[str, Any]:
        """What raytl's endpoint answers to one image."""
        prediction = self.bundle.prediction(row)
        answer = {
            "label": prediction.label,
            "confidence": prediction.confidence,
            "probabilities": prediction.probabilities,
        }
        return {"predictions": [answer]}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.001, api_path="/v1/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
