"""A trial as a plain PyTorch script: what a practitioner would have written, without raytl."""

from raytl.runs.recipe.script import Recipe, recipe

__all__ = ["Recipe", "recipe"]
