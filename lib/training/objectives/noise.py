"""Training on noise (Cohen et al. 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.training.objectives.base import Objective


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + N(0, sigma^2 I), not clipped."""
    return images + sigma * torch.randn(images.shape, generator=generator, device=images.device)


def gaussian(sigma: float) -> Objective:
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019, section 3.3); sigma = 0: ordinary training."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(add_noise(images, sigma, generator)), labels)

    return loss
