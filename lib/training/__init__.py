"""Training: one loop, one objective a method."""

from lib.training.loop import train
from lib.training.recipe import Recipe

__all__ = ["Recipe", "train"]
