"""How a source model is fine-tuned: freezing, learning-rate groups, regularisers, augmentation. Imports no Ray."""

from raytl.finetuning import augmentation, regularisers
from raytl.finetuning.domain_norm import running_statistics_kept
from raytl.finetuning.freezing import freeze, recalibrate_norm, training_mode
from raytl.finetuning.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    lr_factor,
    parameter_groups,
    set_progress,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "augmentation",
    "build_optimizer",
    "freeze",
    "lr_factor",
    "parameter_groups",
    "recalibrate_norm",
    "regularisers",
    "running_statistics_kept",
    "set_progress",
    "training_mode",
]
