"""What a method minimises: one class a method, a file a paper."""

from lib.training.objectives.adversarial import AdversarialTraining
from lib.training.objectives.base import Objective, Step, add_noise, cross_entropy
from lib.training.objectives.catrs import CATRS
from lib.training.objectives.consistency import Consistency
from lib.training.objectives.copies import GaussianCopies
from lib.training.objectives.denoising import MSE, BehindDenoiser, Classification, Classifiers, Stability
from lib.training.objectives.diffusion import DDPM
from lib.training.objectives.distillation import Distillation
from lib.training.objectives.drt import DRT
from lib.training.objectives.macer import MACER
from lib.training.objectives.noise import Gaussian
from lib.training.objectives.other_noise import LaplaceNoise, UniformNoise
from lib.training.objectives.pixeldp import PixelDP
from lib.training.objectives.smoothadv import SmoothAdv, SmoothAdvDDN
from lib.training.objectives.smoothmix import SmoothMix
from lib.training.objectives.squeezing import SqueezedViews
from lib.training.objectives.stability import StabilityTraining

__all__ = [
    "CATRS",
    "DDPM",
    "DRT",
    "MACER",
    "MSE",
    "AdversarialTraining",
    "BehindDenoiser",
    "Classification",
    "Classifiers",
    "Consistency",
    "Distillation",
    "Gaussian",
    "GaussianCopies",
    "LaplaceNoise",
    "Objective",
    "PixelDP",
    "SmoothAdv",
    "SmoothAdvDDN",
    "SmoothMix",
    "SqueezedViews",
    "Stability",
    "StabilityTraining",
    "Step",
    "UniformNoise",
    "add_noise",
    "cross_entropy",
]  # fmt: skip
