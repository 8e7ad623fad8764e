"""What attacks on heuristic defenses are made of: one step, the margin of the logits, the best of several attacks."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.attacks.pgd import Loss, pgd


def fgsm(loss: Loss, images: Tensor, budget: float | Tensor, *, norm: str = "linf") -> Tensor:
    """`pgd` of one step that is as long as the budget, from the image (Goodfellow et al. 2015)."""
    return pgd(loss, images, budget, norm=norm, steps=1, step_size=budget)


def margin_loss(
    f: Callable[[Tensor], Tensor], labels: Tensor, *, targets: Tensor | None = None, kappa: float = math.inf
) -> Loss:
    """The loss x -> min(max_{i != y} z_i - z_y, kappa), (N,): above 0 where f(x) = z answers wrongly. No softmax in it.

    It is -f_6 of Carlini and Wagner 2017, whose gradient a saturated softmax cannot hide. `f`: images -> logits (N, K).
    `labels` (N,): the classes y to leave; with `targets` (N,) it is min(z_t - max_{i != t} z_i, kappa), above 0 where f
    answers t. `kappa` is how sure the wrong answer is to be.
    ValueError, when it is called, for labels or targets that are no classes of f.
    """
    wanted, sign = (labels, -1) if targets is None else (targets, 1)

    def loss(x: Tensor) -> Tensor:
        logits = f(x)
        if wanted.min() < 0 or wanted.max() >= logits.shape[1]:
            raise ValueError(f"labels and targets must be from 0 to {logits.shape[1] - 1}; got "
                             f"{wanted.unique().tolist()[:8]}")  # fmt: skip
        own = logits.gather(1, wanted[:, None])[:, 0]
        others = logits.scatter(1, wanted[:, None], -math.inf).amax(1)
        return (sign * (own - others)).clamp_max(kappa)

    return loss


def all_views_loss(views: Sequence[Callable[[Tensor], Tensor]], targets: Tensor) -> Loss:
    """The loss x -> minus the sum of the cross-entropies of the views to `targets`, (N,): large where all answer them.

    It attacks a detector that compares a classifier's answers on several `views` of an image, images -> logits (N, K).
    """

    def loss(x: Tensor) -> Tensor:
        return -torch.stack([F.cross_entropy(view(x), targets, reduction="none") for view in views]).sum(0)

    return loss


def answers_wrongly(f: Callable[[Tensor], Tensor], labels: Tensor) -> Callable[[Tensor], Tensor]:
    """images -> whether f (images -> logits) answers another class than `labels` (N,), bool (N,)."""

    def broken(x: Tensor) -> Tensor:
        with torch.no_grad():
            return f(x).argmax(1) != labels

    return broken


def first_that_breaks(broken: Callable[[Tensor], Tensor], images: Tensor, *attacked: Tensor) -> Tensor:
    """For each image the first of its `attacked` versions that `broken` (images -> (N,) bool) holds for, else itself.

    So several attacks are as good as the best of them, image by image; `images` and `attacked`: (N, C, H, W).
    """
    found, done = images, torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for moved in attacked:
        with torch.no_grad():
            new = broken(moved) & ~done
        found, done = torch.where(new.view(-1, *[1] * (images.ndim - 1)), moved, found), done | new
    return found
