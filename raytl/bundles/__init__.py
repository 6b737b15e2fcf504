"""Bundles: export, import and use of a finished model."""

from raytl.bundles.bundle import Bundle, ImageLike, Prediction, export_bundle
from raytl.bundles.files import FolderAnswer, answer_files, predict_files, write_predictions
from raytl.sources.manifest import Manifest, Threshold

__all__ = [
    "Bundle",
    "FolderAnswer",
    "ImageLike",
    "Manifest",
    "Prediction",
    "Threshold",
    "answer_files",
    "export_bundle",
    "predict_files",
    "write_predictions",
]
