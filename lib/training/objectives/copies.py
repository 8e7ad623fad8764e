"""Training on several noisy copies of each image, and what the methods that do so share."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from lib.attacks.losses import mean_softmax_loss
from lib.training.objectives.base import Objective, Step, cross_entropy


class CheckedNumbers(Objective):
    """A method whose numbers are held to their ranges: whole ones at least 1, or 0 where that is the default; others
    finite and at least 0 (ValueError).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every method is a dataclass
            value = getattr(self, field.name)
            least = 0 if field.default == 0 else 1
            if field.type is int and not (isinstance(value, Integral) and int(value) >= least):
                raise ValueError(f"{field.name} must be a whole number, at least {least}; got {value!r}")
            if field.type is float and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise ValueError(f"{field.name} must be a finite number, at least 0; got {value!r}")


@dataclass(frozen=True)
class GaussianCopies(CheckedNumbers):
    """Cross-entropy, averaged over `copies` noisy copies of each image: the fair control of all methods with copies.

    With one copy it is `Gaussian` (Cohen et al. 2019, section 3.3).
    """

    sigma: float
    copies: int

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        noise = noise_of_copies(images, self.copies, self.sigma, step)
        return copies_cross_entropy(model(noisy_copies(images, noise)), labels, step)


def noise_of_copies(images: Tensor, copies: int, sigma: float, step: Step) -> Tensor:
    """N(0, sigma^2 I) for every copy: (N * copies, C, H, W), in the layout of `noisy_copies`."""
    shape = (len(images) * copies, *images.shape[1:])
    return sigma * torch.randn(shape, generator=step.generator, device=images.device)


def noisy_copies(images: Tensor, noise: Tensor) -> Tensor:
    """x_n + noise_ni, (N * copies, C, H, W): the copies of an image side by side, not clipped."""
    return images.repeat_interleave(len(noise) // len(images), 0) + noise


def copies_cross_entropy(logits: Tensor, labels: Tensor, step: Step) -> Tensor:
    """Mean cross-entropy of all copies, logits (N * copies, K) to labels (N,); ValueError as `cross_entropy` has it."""
    return cross_entropy(logits, labels.repeat_interleave(len(logits) // len(labels), 0), step)


def log_mean_loss(logits: Tensor, labels: Tensor, step: Step) -> Tensor:
    """-log of the mean probability of the label over the copies, (N,): it breaks g (Salman et al. 2019, section 2.2).

    ValueError as `cross_entropy` has it: an attack may see the labels first.
    """
    if step.epoch == 0:
        cross_entropy(logits[: len(labels)].detach(), labels, step)
    return mean_softmax_loss(logits, labels.long())


def warmed_up(step: Step, epochs: int) -> float:
    """From 1 / epochs in the first epoch in a straight line to 1, where it stays."""
    return min(1.0, (step.epoch + 1) / epochs)


def within(offsets: Tensor, radius: float) -> Tensor:
    """`offsets` (N, ...), those longer than `radius` in l2 shortened to it."""
    lengths = offsets.flatten(1).norm(dim=1).clamp_min(1e-12)
    return offsets * (radius / lengths).clamp_max(1).view(-1, *[1] * (offsets.ndim - 1))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode for an attack; afterwards every part of it is in the mode that it had, frozen ones too."""
    modes = [(part, part.training) for part in model.modules()] if isinstance(model, nn.Module) else []
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
