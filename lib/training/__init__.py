"""Training: one loop, one objective a method."""

from lib.training.loop import train
from lib.training.recipe import Recipe
from lib.training.state import Diverged
from lib.training.weights import facts_of, weights_path

__all__ = ["Diverged", "Recipe", "facts_of", "train", "weights_path"]
