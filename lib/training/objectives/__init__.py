"""What a method minimises: one class a method."""

from lib.training.objectives.base import Objective
from lib.training.objectives.denoising import classification, mse, stability, turns
from lib.training.objectives.noise import add_noise, gaussian

__all__ = ["Objective", "add_noise", "classification", "gaussian", "mse", "stability", "turns"]
