"""Training on uniform and on Laplace noise, for certificates in l1 (Yang et al. 2020)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.training.objectives.base import Objective, Step, cross_entropy


@dataclass(frozen=True)
class UniformNoise(Objective):
    """Cross-entropy on one copy of each image with noise that is uniform in every pixel; `sigma` is its deviation."""

    sigma: float

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        noise = 2 * _uniform(images, step) - 1
        return cross_entropy(model(images + math.sqrt(3) * self.sigma * noise), labels, step)


@dataclass(frozen=True)
class LaplaceNoise(Objective):
    """The same with Laplace noise, of scale sigma / sqrt(2)."""

    sigma: float

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        u = _uniform(images, step) - 0.5
        noise = -u.sign() * torch.log1p(-2 * u.abs().clamp_max(0.5 - 1e-7))
        return cross_entropy(model(images + self.sigma / math.sqrt(2) * noise), labels, step)


def _uniform(images: Tensor, step: Step) -> Tensor:
    return torch.rand(images.shape, generator=step.generator, device=images.device)
