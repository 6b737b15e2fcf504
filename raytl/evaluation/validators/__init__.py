"""Validators: scores for choosing among trials, each declaring which labels it touches. Higher is better in all."""

from raytl.evaluation.validators.base import Outputs, Touch, ValidatorEntry, get, names, score_all, validator

__all__ = ["Outputs", "Touch", "ValidatorEntry", "get", "names", "score_all", "validator"]
