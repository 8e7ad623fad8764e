"""What a method minimises: one class a method, a file a paper."""

from lib.training.objectives.base import Objective, Step, add_noise, cross_entropy
from lib.training.objectives.denoising import MSE, Classification, Classifiers, Stability
from lib.training.objectives.diffusion import DDPM
from lib.training.objectives.noise import Gaussian

__all__ = [
    "DDPM", "MSE", "Classification", "Classifiers", "Gaussian", "Objective", "Stability", "Step",
    "add_noise", "cross_entropy",
]  # fmt: skip
