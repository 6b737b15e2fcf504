"""Bundles: export, import and use of a finished model."""

from raytl.bundles.bundle import Bundle, ImageLike, export_bundle
from raytl.bundles.files import predict_files, write_predictions
from raytl.bundles.reference import Reference, reference_images
from raytl.core.prediction import Prediction
from raytl.sources.manifest import Manifest, Threshold

__all__ = [
    "Bundle",
    "ImageLike",
    "Manifest",
    "Prediction",
    "Reference",
    "Threshold",
    "export_bundle",
    "predict_files",
    "reference_images",
    "write_predictions",
]
