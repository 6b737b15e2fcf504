"""Bundles: export, import and use of a finished model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytl.core.lazy import lazily

if TYPE_CHECKING:
    from raytl.bundles.bundle import Bundle, export_bundle
    from raytl.bundles.files import (
        FolderAnswer,
        answer_files,
        check_predictions,
        predict_files,
        write_predictions,
    )
    from raytl.bundles.predictor import ImageLike, Predictor
    from raytl.bundles.reference import Reference, reference_images
    from raytl.core.prediction import Prediction
    from raytl.sources.manifest import Manifest, Threshold

__all__ = [
    "Bundle",
    "FolderAnswer",
    "ImageLike",
    "Manifest",
    "Prediction",
    "Predictor",
    "Reference",
    "Threshold",
    "answer_files",
    "check_predictions",
    "export_bundle",
    "predict_files",
    "reference_images",
    "write_predictions",
]

__getattr__ = lazily(
    __name__,
    {
        "raytl.bundles.bundle": "Bundle export_bundle",
        "raytl.bundles.files": "FolderAnswer answer_files check_predictions predict_files write_predictions",
        "raytl.bundles.predictor": "ImageLike Predictor",
        "raytl.bundles.reference": "Reference reference_images",
        "raytl.core.prediction": "Prediction",
        "raytl.sources.manifest": "Manifest Threshold",
    },
)
