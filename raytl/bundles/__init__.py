"""Bundles: export, import and use of a finished model."""

from raytl.bundles.bundle import Bundle, ImageLike, export_bundle
from raytl.bundles.files import FolderAnswer, answer_files, predict_files, write_predictions
from raytl.bundles.reference import Reference, reference_images
from raytl.core.prediction import Prediction
from raytl.sources.manifest import Manifest, Threshold

__all__ = [
    "Bundle",
    "FolderAnswer",
    "ImageLike",
    "Manifest",
    "Prediction",
    "Reference",
    "Threshold",
    "answer_files",
    "export_bundle",
    "predict_files",
    "reference_images",
    "write_predictions",
]
