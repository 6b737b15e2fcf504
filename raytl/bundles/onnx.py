"""A bundle's network as ONNX, for runtimes without torch: prepared images in, calibrated probabilities out."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from raytl.bundles.bundle import Bundle
from raytl.bundles.onnx_model import INPUT, METADATA, ONNX_FILE, OUTPUT, OnnxModel, open_session
from raytl.bundles.reference import Reference
from raytl.core.errors import NotWrittenError, UserError
from raytl.evaluation.changes import CHANGES, changed

TOLERANCE = 1e-3
"""By which a probability may differ from torch's: other kernels add up in another order."""
_CHECKED = 16
_OPSET = 18


def export_onnx(directory: str | Path) -> float:
    """Write :data:`ONNX_FILE` into a bundle's folder, and return the largest difference from torch's probabilities.

    Its input ``images`` is uint8 (n, channels, size, size), resized as the manifest's preprocessing says; normalising,
    temperature and softmax are inside, and its output ``probabilities`` is float32 (n, k). Its metadata hold the
    labels, the preprocessing and the hash of the weights. Nothing is left behind where the answers differ.
    Raises UserError where the extra ``onnx`` is not installed, the network cannot be exported, or it answers otherwise;
    NotWrittenError where the disk does not take it.
    """
    directory = Path(directory)
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs {error.name}; install it with: pip install 'raytl[onnx]'") from None
    bundle = Bundle.load(directory)
    images = _images(bundle)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / ONNX_FILE
        _convert(bundle, images[:2], made, directory)
        converted = OnnxModel(open_session(made, 1), bundle.manifest, str(directory))
        difference = 0.0
        for batch in (images[:1], images):  # one and many: the number of images must be free
            difference = max(difference, float(np.abs(converted.compute(batch) - bundle.compute(batch)).max()))
        if not difference <= TOLERANCE:
            raise UserError(
                f"{directory}: as ONNX the model answers otherwise (a probability differs by {difference:.3g}); "
                "serve the bundle itself"
            )
        reference = Reference.read(directory)
        if reference is not None:
            reference.check(converted, f"{directory} as ONNX")
        model = onnx.load(made)
    manifest = bundle.manifest
    told = {"labels": list(bundle.labels), "preprocessing": manifest.preprocessing.to_json()}
    onnx.helper.set_model_props(model, {METADATA: json.dumps({**told, "weights": manifest.weights.sha256})})
    try:
        staging = directory / f".{ONNX_FILE}"
        staging.write_bytes(model.SerializeToString())
        staging.replace(directory / ONNX_FILE)
    except OSError as error:
        raise NotWrittenError(f"{directory}: cannot be written ({error.strerror}); make room") from error
    return difference


class _Whole(nn.Module):
    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model
        self.temperature = bundle.manifest.temperature
        self.scale, self.shift = bundle.manifest.preprocessing.affine(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.float() * self.scale + self.shift)
        return (logits.float() / self.temperature).softmax(1)


def _convert(bundle: Bundle, example: np.ndarray, made: Path, shown: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):  # it prints its steps
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Whole(bundle).eval(),
                (torch.from_numpy(example),),
                str(made),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{shown}: {bundle.manifest.architecture} cannot be written as ONNX ({why})") from error


def _images(bundle: Bundle) -> np.ndarray:
    """Images with edges, surfaces and noise, always the same; the last two have areas in which nothing changes."""
    side, channels = bundle.manifest.image_size, bundle.manifest.channels
    y, x = np.mgrid[:side, :side] / max(1, side - 1)
    made = []
    for number in range(_CHECKED - 2):
        rng = np.random.default_rng(number)
        waves = [np.sin(rng.uniform(2, 20) * x + rng.uniform(2, 20) * y + rng.uniform(0, 6)) for _ in range(channels)]
        image = (127 + 90 * np.stack(waves)).astype(np.uint8)
        name = sorted(CHANGES)[number % len(CHANGES)]
        made.append(changed(image[None], name, 0.7, rng)[0])
    half = np.where(np.broadcast_to(x < 0.5, (channels, side, side)), 255, 0).astype(np.uint8)
    return np.stack([*made, half, np.zeros_like(half)])
