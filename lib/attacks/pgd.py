"""Projected gradient ascent: the one loop behind every attack of the kit. What differs is the loss it is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.bounds.arguments import real_number, whole_number

Loss = Callable[[Tensor], Tensor]  # images (N, ...) -> (N,), to be made large


def pgd(
    loss: Loss,
    images: Tensor,
    budget: float | Tensor,
    *,
    norm: str = "l2",
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = False,
    averages: int = 1,
    generator: torch.Generator | None = None,
    box: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Images at most `budget` away from `images` (N, ...), inside the box, where `loss` is large (Madry et al. 2018).

    `loss(x)` gives one value an image, (N,). `budget` and `step_size` are a number or (N,), in pixel units and in
    `norm`, "l2" or "linf"; a step is 2 budget / steps in l2 and 2.5 budget / steps in linf where none is given. An
    infinite budget leaves only the box, a box of (-inf, inf) only the ball.
    The last iterate counts; of several `restarts`, for each image the one with the highest loss. The first starts at
    the image, or with `random_start` at a random point of the ball, the others always there; `generator` (seed 0 where
    none is given) draws it. For a loss that is random itself, each gradient is the mean of `averages` calls
    (expectation over transformation, Athalye et al. 2018).
    ValueError for arguments out of range, a loss without a gradient, and a gradient that is not finite.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a tensor (N, ...); got a {type(images).__name__}: torch.as_tensor makes one")
    steps, restarts = whole_number(steps, "steps"), whole_number(restarts, "restarts")
    averages = whole_number(averages, "averages")
    ball = _Ball(images, _one_each("budget", budget, images), norm, box)
    if (step_size is None or random_start or restarts > 1) and ball.budget.isinf().any():
        raise ValueError("an infinite budget needs a step_size, and one start, at the image; random ones have no range")
    length = (2 if norm == "l2" else 2.5) * ball.budget / steps if step_size is None else step_size
    length = _one_each("step_size", length, images)
    generator = generator or torch.Generator(images.device).manual_seed(0)
    ends = []
    for restart in range(restarts):
        x = ball.random(generator) if random_start or restart else images
        for _ in range(steps):
            x = ball.nearest(x + ball.scaled(_gradient(loss, x, averages), length))
        ends.append(x.clamp(*box))
    moved = ends[0] if restarts == 1 else _highest(loss, ends, averages)
    if moved.isnan().any():
        raise ValueError("the gradient of loss is not finite: look for inf or NaN in the weights, or for a log of 0")
    return moved


@dataclass(frozen=True)
class _Ball:
    """The points at most `budget` (N,) away from `centre` (N, ...) in `norm`, inside the box."""

    centre: Tensor
    budget: Tensor
    norm: str
    box: tuple[float, float]

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "linf"):
            raise ValueError(f"norm must be 'l2' or 'linf', got {self.norm!r}")
        low, high = self.box
        if not ((self.centre >= low) & (self.centre <= high)).all():  # False for NaN, too
            raise ValueError(f"images must lie in the box [{low}, {high}]; their pixels do not (box=... changes it)")

    def nearest(self, x: Tensor) -> Tensor:
        """A point of the ball for each of `x`: into the box, then towards the centre, which cannot leave the box."""
        delta = x.clamp(*self.box) - self.centre
        if self.norm == "linf":
            return self.centre + delta.clamp(-self._wide(self.budget), self._wide(self.budget))
        return self.centre + delta * self._wide(self.budget / _norms(delta)).clamp_max(1)

    def scaled(self, gradient: Tensor, length: Tensor) -> Tensor:
        """The step of `length` (N,) in `norm` that a gradient asks for; none where it is zero."""
        if self.norm == "linf":
            return gradient.sign() * self._wide(length)
        return gradient * self._wide(length / _norms(gradient))

    def random(self, generator: torch.Generator) -> Tensor:
        """Uniform in the ball, then into the box."""
        shape, options = self.centre.shape, {"device": self.centre.device, "dtype": self.centre.dtype}
        if self.norm == "linf":
            offset = self._wide(self.budget) * (2 * torch.rand(shape, generator=generator, **options) - 1)
        else:
            share = torch.rand(len(self.centre), generator=generator, **options) ** (1 / math.prod(shape[1:]))
            offset = self.scaled(torch.randn(shape, generator=generator, **options), self.budget * share)
        return self.nearest(self.centre + offset)

    def _wide(self, values: Tensor) -> Tensor:
        """(N,) beside (N, ...)."""
        return values.view(-1, *[1] * (self.centre.ndim - 1))


def _norms(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).norm(dim=1).clamp_min(1e-12)


def _gradient(loss: Loss, x: Tensor, averages: int) -> Tensor:
    """That of the mean of `averages` calls; also where the caller has switched gradients off."""
    total, x = torch.zeros_like(x), x.detach().requires_grad_()
    for _ in range(averages):
        with torch.enable_grad():
            values = loss(x)
            if values.shape != (len(x),):
                raise ValueError(f"loss must give one value an image, ({len(x)},); got {tuple(values.shape)}")
            if not values.requires_grad:
                raise ValueError("loss has no gradient: a step inside it has none; wrap that in straight_through")
            total = total + torch.autograd.grad(values.sum(), x)[0]
    return total / averages


def _highest(loss: Loss, ends: list[Tensor], averages: int) -> Tensor:
    """For each image the one of `ends` with the highest loss, as the mean of `averages` calls."""
    with torch.no_grad():
        values = torch.stack([torch.stack([loss(x) for _ in range(averages)]).mean(0) for x in ends])  # (restarts, N)
    chosen = values.argmax(0)
    return torch.stack(ends)[chosen, torch.arange(len(chosen), device=chosen.device)]


def _one_each(name: str, value: float | Tensor, images: Tensor) -> Tensor:
    """`value`, one number or (N,), as (N,). ValueError where it is neither, negative or NaN."""
    value = value if isinstance(value, (Tensor, list, tuple, np.ndarray)) else real_number(value, name)
    values = torch.as_tensor(value)
    if values.dtype is torch.bool:
        raise ValueError(f"{name} must be one number or {len(images)} of them; got {value}")
    values = values.to(images.device, images.dtype)
    if values.shape not in ((), (len(images),)) or not (values >= 0).all():
        raise ValueError(f"{name} must be one number or {len(images)} of them, at least 0; got {value}")
    return values.expand(len(images))
