"""How to notice obfuscated gradients: five questions to an evaluation (Athalye et al. 2018, section 3)."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.attacks.adaptive import fgsm
from lib.attacks.pgd import Loss, pgd
from lib.attacks.random_search import random_search

SLACK = 0.02  # shares closer than this count as equal: four of 200 images


@dataclass(frozen=True)
class Checklist:
    """What an evaluation found: shares of the images that were not broken, and of those without a gradient.

    `many_steps` is the evaluation's own attack, PGD up its `loss`; the others try the same budget otherwise.
    """

    no_attack: float
    one_step: float
    many_steps: float
    transferred: float
    random_search: float
    zero_gradients: float  # share of the images at which every number of the gradient is exactly 0
    half_budget: float
    double_budget: float
    huge_budget: float

    def signs(self) -> dict[str, bool]:
        """The five questions; each yes is a sign that the attack failed, not that the defense holds."""
        return {
            "one step beats many": self.one_step < self.many_steps - SLACK,
            "an attack without gradients beats it": min(self.transferred, self.random_search) < self.many_steps - SLACK,
            "gradients are zero": self.zero_gradients > SLACK,
            "a huge budget is not enough": self.huge_budget > SLACK,
            "success does not grow with the budget": self.half_budget > SLACK
            and self.double_budget > self.half_budget - SLACK,
        }

    def shares(self) -> dict[str, float]:
        """Every share by its name, with blanks for underscores."""
        return {name.replace("_", " "): value for name, value in dataclasses.asdict(self).items()}


def checklist(
    loss: Loss,
    broken: Callable[[Tensor], Tensor],
    score: Loss,
    images: Tensor,
    budget: float,
    *,
    transferred: Tensor,
    norm: str = "linf",
    steps: int = 40,
    queries: int = 500,
) -> Checklist:
    """Ask the five questions about PGD up `loss`, whose success is what `broken` (images -> (N,) bool) says.

    `score`, one value an image and no gradient needed, is what the random search makes large; `transferred` are the
    images as an attack on another model, within the same budget, has left them. `images` (N, C, H, W) in [0, 1].
    ValueError as `pgd` and `random_search` have it, and for no images.
    """
    if not len(images):
        raise ValueError("a checklist needs at least one image")
    whole = 1.0 if norm == "linf" else math.sqrt(images[0].numel())  # from any image to any other

    def left(moved: Tensor) -> float:
        with torch.no_grad():
            return 1 - broken(moved).float().mean().item()

    def climbed(reach: float) -> float:
        return left(pgd(loss, images, reach, norm=norm, steps=steps))

    return Checklist(
        no_attack=left(images),
        one_step=left(fgsm(loss, images, budget, norm=norm)),
        many_steps=climbed(budget),
        transferred=left(transferred),
        random_search=left(random_search(score, images, budget, norm=norm, queries=queries)),
        zero_gradients=zero_gradients(loss, images),
        half_budget=climbed(budget / 2),
        double_budget=climbed(2 * budget),
        huge_budget=climbed(whole),
    )


def zero_gradients(loss: Loss, images: Tensor) -> float:
    """The share of `images` (N, ...) at which the gradient of `loss` is exactly zero in every pixel."""
    return (input_gradient(loss, images) == 0).flatten(1).all(1).float().mean().item()


def input_gradient(loss: Loss, images: Tensor) -> Tensor:
    """The gradient of `loss` (images -> (N,)) at each of `images`, in their shape."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        return torch.autograd.grad(loss(x).sum(), x)[0]
