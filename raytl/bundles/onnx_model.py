"""A bundle's network as ONNX, computed by onnxruntime: for programs that have no torch."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from raytl.bundles.predictor import Predictor
from raytl.bundles.reference import Reference
from raytl.bundles.yardstick import read_yardstick
from raytl.core.errors import UserError
from raytl.sources.manifest import Manifest, read_manifest

# Newer versions of onnxruntime report to their maker what they run, which nobody here has agreed to. It is read when
# onnxruntime is imported, and nothing in raytl does that before this module.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ONNX_FILE = "model.onnx"
INT8_FILE = "model-int8.onnx"
INPUT, OUTPUT = "images", "probabilities"
METADATA = "raytl"
"""Key of the file's metadata: JSON with labels, preprocessing, the hash of the weights and, where these are numbers of
8 bits, what the model answers for the bundle's reference images (``answers``)."""


class OnnxModel(Predictor):
    """A bundle as ``raytl export --onnx`` writes it. Made by :meth:`load`."""

    def __init__(self, session: Any, manifest: Manifest, where: str) -> None:
        super().__init__(manifest, where)
        self._session = session
        self._answers: list[list[float]] | None = None

    @classmethod
    def load(cls, folder: str | Path, file: str = ONNX_FILE, threads: int = 1) -> OnnxModel:
        """Read the ONNX file of a bundle's folder; the weights beside it are not needed. Nothing in it is executed.

        threads: that compute a batch. Raises UserError where a file is missing or damaged, where they do not belong
        together, or where the bundle has no labels.
        """
        path = Path(folder) / file
        manifest = read_manifest(Path(folder))
        model = cls(open_session(path, threads), manifest, str(folder))
        told = model._told()
        if (told.get("weights"), told.get("labels")) != (manifest.weights.sha256, list(model.labels)):
            raise UserError(f"{path}: is of another model than {folder} describes; export the run again")
        if file == INT8_FILE:
            # Integers are exact on all processors, but what is between them may be rounded the other way.
            model.tolerance, model.precision = 0.1, "int8"
            model._answers = told.get("answers")
        model.yardstick = read_yardstick(Path(folder), manifest.weights.sha256, len(model.labels))
        return model

    def compute(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """As the base class."""
        parts = [self._run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def reference(self, folder: Path) -> Reference | None:
        """As the base class; of numbers of 8 bits, what they answered when they were made."""
        found = Reference.read(folder)
        if found is None or self._answers is None:
            return found
        return found.answered(np.array(self._answers, dtype=np.float64))

    def _run(self, images: np.ndarray) -> np.ndarray:
        rows: np.ndarray = self._session.run([OUTPUT], {INPUT: images})[0]
        return rows

    def _told(self) -> dict[str, Any]:
        try:
            told = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA])
        except (KeyError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}


def open_session(path: Path, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file. Raises UserError."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; install it with: pip install 'raytl[runtime]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next batch would burn the processor that decodes its images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        # From bytes, so that the file cannot name others for onnxruntime to read.
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except FileNotFoundError:
        option = "--onnx --int8" if path.name == INT8_FILE else "--onnx"
        command = f"raytl export {shlex.quote(str(path.parent))} DIR {option}"
        raise UserError(f"{path.parent}: has no {path.name}; export it with: {command}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # onnxruntime's own classes have no common base
        why = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be loaded by onnxruntime ({why}); export the run again") from error
