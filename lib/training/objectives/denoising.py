"""Training denoisers in front of a classifier (Salman et al. 2020): MSE, Stab, Clf."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.training.objectives.base import Objective
from lib.training.objectives.noise import add_noise


def mse(sigma: float) -> Objective:
    """The mean squared error of the denoised image, (D(x + noise) - x)^2 a pixel (Salman et al. 2020, section 3.1)."""

    def loss(denoiser: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return F.mse_loss(denoiser(add_noise(images, sigma, generator)), images)

    return loss


def stability(sigma: float, classifiers: nn.Module | Sequence[nn.Module]) -> Objective:
    """Stab: cross-entropy of f(D(x + noise)) to f's own answer on the clean x (Salman et al. 2020, section 3.1).

    No label is looked at. `classifiers` is f, or surrogates that take turns, see `turns`.
    """
    turn = turns(classifiers)

    def loss(denoiser: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        classifier = turn(generator)
        with torch.no_grad():
            answers = classifier(images).argmax(1)
        return F.cross_entropy(classifier(denoiser(add_noise(images, sigma, generator))), answers)

    return loss


def classification(sigma: float, classifiers: nn.Module | Sequence[nn.Module]) -> Objective:
    """Clf: as `stability`, but the cross-entropy is to the true label (Salman et al. 2020, section 3.1)."""
    turn = turns(classifiers)

    def loss(denoiser: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(turn(generator)(denoiser(add_noise(images, sigma, generator))), labels)

    return loss


def turns(classifiers: nn.Module | Sequence[nn.Module]) -> Callable[[torch.Generator], nn.Module]:
    """Whose turn it is: the classifiers one after the other, one a mini-batch, from the first at each new generator.

    The training loop makes a generator an epoch, so the i-th mini-batch of any epoch meets classifier i mod K, as in
    the authors' code; a run that was killed and resumes at an epoch meets the same ones again. ValueError for no
    classifier, and for one that training would change: it must be frozen and in eval mode.
    """
    family = [classifiers] if isinstance(classifiers, nn.Module) else list(classifiers)
    if not family:
        raise ValueError(f"classifiers must hold at least one network; got {classifiers!r}")
    for i, network in enumerate(family):
        if any(part.training for part in network.modules()) or any(p.requires_grad for p in network.parameters()):
            raise ValueError(f"classifiers[{i}] would be trained, too: call .eval().requires_grad_(False) on it first")
    served: WeakKeyDictionary[torch.Generator, int] = WeakKeyDictionary()

    def turn(generator: torch.Generator) -> nn.Module:
        batch = served.get(generator, 0)
        served[generator] = batch + 1
        return family[batch % len(family)]

    return turn
