"""Denoisers in front of a classifier (Salman et al. 2020): MSE, Stab, Clf; and a classifier behind a denoiser."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.training.objectives.base import Objective, Step, add_noise, cross_entropy

Classifiers = nn.Module | Sequence[nn.Module]  # one, or surrogates that take turns


@dataclass(frozen=True)
class MSE(Objective):
    """The mean squared error of the denoised image, (D(x + noise) - x)^2 a pixel (Salman et al. 2020, section 3.1)."""

    sigma: float

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        return F.mse_loss(model(add_noise(images, self.sigma, step.generator)), images)


@dataclass(frozen=True)
class ThroughClassifiers(Objective):
    """A denoiser's objective that looks at it through `classifiers`: f, or surrogates that take turns.

    ValueError for no classifier, and for one that training would change: it must be frozen and in eval mode.
    """

    sigma: float
    classifiers: Classifiers

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classifiers", _family(self.classifiers))

    def whose_turn(self, step: Step) -> nn.Module:
        """The i-th mini-batch of every epoch meets classifier i mod K, as in the authors' code."""
        return self.classifiers[step.batch % len(self.classifiers)]


@dataclass(frozen=True)
class Stability(ThroughClassifiers):
    """Stab: cross-entropy of f(D(x + noise)) to f's own answer on the clean x (Salman et al. 2020, section 3.1)."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        f = self.whose_turn(step)
        with torch.no_grad():
            answers = f(images).argmax(1)  # no label is looked at
        return F.cross_entropy(f(model(add_noise(images, self.sigma, step.generator))), answers)


@dataclass(frozen=True)
class Classification(ThroughClassifiers):
    """Clf: as `Stability`, but the cross-entropy is to the true label (Salman et al. 2020, section 3.1)."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        f = self.whose_turn(step)
        return cross_entropy(f(model(add_noise(images, self.sigma, step.generator))), labels, step)


@dataclass(frozen=True)
class BehindDenoiser(Objective):
    """A classifier's cross-entropy on what a frozen `denoiser` makes of x + noise (Carlini et al. 2023, fine-tuned).

    ValueError for a denoiser that training would change.
    """

    sigma: float
    denoiser: nn.Module

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_trainable(self.denoiser, "denoiser")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        with torch.no_grad():
            denoised = self.denoiser(add_noise(images, self.sigma, step.generator))
        return cross_entropy(model(denoised), labels, step)


def _family(classifiers: Classifiers) -> tuple[nn.Module, ...]:
    family = (classifiers,) if isinstance(classifiers, nn.Module) else tuple(classifiers)
    if not family:
        raise ValueError(f"classifiers must hold at least one network; got {classifiers!r}")
    for i, network in enumerate(family):
        _refuse_trainable(network, f"classifiers[{i}]")
    return family


def _refuse_trainable(network: nn.Module, name: str) -> None:
    if any(part.training for part in network.modules()) or any(p.requires_grad for p in network.parameters()):
        raise ValueError(f"{name} would be trained, too: call .eval().requires_grad_(False) on it first")
