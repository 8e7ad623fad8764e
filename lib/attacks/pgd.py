"""l2 attacks: how an undefended classifier breaks, and how close to its radius a certificate can be brought to fail."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pgd_l2(
    base: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: float | Tensor,
    *,
    sigma: float = 0.0,
    samples: int = 1,
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Projected gradient ascent on -log of the mean softmax over noise, in an l2 ball (Salman et al. 2019, 2.2).

    `images` (N, C, H, W) in [0, 1]; `labels` (N,), the class to leave; `budget`: the ball's radius, one or (N,), in
    pixel units. `sigma` = 0 attacks the base classifier itself, otherwise the smoothed one, by `samples` noisy copies
    a step.
    Returns images again, in [0, 1] and at most `budget` away.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    budget = torch.as_tensor(budget, dtype=images.dtype, device=images.device).expand(len(images))
    labels, copies = labels.repeat_interleave(samples), images.repeat_interleave(samples, dim=0)
    delta = torch.zeros_like(images, requires_grad=True)
    for _ in range(steps):
        noise = sigma * torch.randn(copies.shape, generator=generator, device=images.device)
        logits = base(copies + delta.repeat_interleave(samples, dim=0) + noise)
        log_p = -F.cross_entropy(logits, labels, reduction="none").view(len(images), samples)
        (gradient,) = torch.autograd.grad(-log_p.logsumexp(1).sum(), delta)
        stepped = images + delta.detach() + _scaled(gradient, 2 * budget / steps)
        # Into the box first: pulling a point of the box towards its centre keeps it inside.
        delta = _projected(stepped.clamp(0, 1) - images, budget).requires_grad_()
    return (images + delta.detach()).clamp(0, 1)


def _scaled(vectors: Tensor, length: Tensor) -> Tensor:
    """Each vector with the given l2 length."""
    return vectors * (length / vectors.flatten(1).norm(dim=1).clamp_min(1e-12)).view(-1, 1, 1, 1)


def _projected(vectors: Tensor, radius: Tensor) -> Tensor:
    """Each vector, shortened to the given l2 length where it is longer."""
    norms = vectors.flatten(1).norm(dim=1).clamp_min(1e-12)
    return vectors * (radius / norms).clamp_max(1).view(-1, 1, 1, 1)
