"""What a method minimises: functions (model, images, labels, generator) -> scalar loss.

`images` (N, C, H, W) in [0, 1] without noise, `labels` int64 (N,), `generator` on the same device: an objective draws
its noise from it and from nowhere else, so that a run can be repeated.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Objective = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + N(0, sigma^2 I), not clipped."""
    return images + sigma * torch.randn(images.shape, generator=generator, device=images.device)


def gaussian(sigma: float) -> Objective:
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019, section 3.3); sigma = 0: ordinary training."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(add_noise(images, sigma, generator)), labels)

    return loss
