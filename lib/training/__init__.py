"""Training: one loop, one objective a method."""

from lib.training.loop import Recipe, train

__all__ = ["Recipe", "train"]
