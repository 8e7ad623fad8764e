"""DDN: the nearest image that is answered wrongly, by an l2 attack that keeps direction and norm apart."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]  # images (N, ...) -> loss (N,) to be made large, wrong (N,) bool


def ddn(
    judge: Judge,
    images: Tensor,
    budget: float,
    *,
    steps: int,
    gamma: float = 0.05,
    levels: int = 255,
) -> Tensor:
    """Images in [0, 1], at most `budget` away in l2, pixel units: the nearest met that `judge` calls answered wrongly.

    Each step goes along the normalised gradient, its length falling from 1 to 0.01 along a cosine, then sets the norm,
    which grows by the factor 1 + `gamma` where the answer is still right and shrinks by 1 - `gamma` where it is wrong,
    and rounds the pixels to multiples of 1 / `levels` (Rony et al. 2019, algorithm 1). It starts at the image with the
    budget as its norm, as in Salman et al. 2019. An image whose answer is wrong from the start, or was never seen to
    become wrong, comes back as it is. The result is brought into the ball and, unlike in the public code, not rounded
    again after that, which could leave the ball.
    ValueError for arguments out of range.
    """
    if steps < 1 or levels < 1 or not 0 <= budget < math.inf or not 0 <= gamma < 1:
        raise ValueError("steps and levels must be at least 1, budget finite and at least 0, gamma in [0, 1); got "
                         f"{steps=}, {levels=}, {budget=}, {gamma=}")  # fmt: skip
    if not ((images >= 0) & (images <= 1)).all():  # False for NaN, too
        raise ValueError("images must lie in the box [0, 1]; their pixels do not")
    shape = (-1, *[1] * (images.ndim - 1))
    farthest = _norms(torch.maximum(images, 1 - images))  # the corner of the box
    norm = torch.full_like(farthest, budget)
    delta = best = torch.zeros_like(images)
    nearest = torch.full_like(farthest, math.inf)
    for rate in step_lengths(steps):
        gradient, wrong = _gradient(judge, images + delta)
        length = _norms(delta)
        nearer = wrong & (length < nearest)
        nearest, best = length.where(nearer, nearest), delta.where(nearer.view(shape), best)
        delta = delta + rate * gradient / _norms(gradient).clamp_min(1e-12).view(shape)
        norm = torch.minimum(norm * (1 + gamma - 2 * gamma * wrong), farthest)
        moved = images + delta * (norm / _norms(delta).clamp_min(1e-12)).view(shape)
        delta = ((levels * moved).round() / levels).clamp(0, 1) - images
    return (images + best * (budget / nearest.clamp_min(1e-12)).clamp_max(1).view(shape)).clamp(0, 1)


def step_lengths(steps: int) -> list[float]:
    """From 1 to 0.01 along a cosine; the 1 itself is left out, as in the public code."""
    return [0.01 + 0.99 * (1 + math.cos(math.pi * (i + 1) / steps)) / 2 for i in range(steps)]


def _gradient(judge: Judge, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss, wrong = judge(x)
        return torch.autograd.grad(loss.sum(), x)[0], wrong


def _norms(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).norm(dim=1)
