"""CAT-RS: images on which f is sure under noise get the worst noise, the others their easiest (Jeong et al. 2023)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attacks.pgd import pgd
from lib.training.objectives.base import Step
from lib.training.objectives.copies import CheckedNumbers, evaluating, noise_of_copies, noisy_copies, within


@dataclass(frozen=True, eq=False)
class CATRS(CheckedNumbers):
    """Mean of the K smallest of m cross-entropies (over m) + lam max_i KL(pb || p(x + worst noise_i)) where K = m.

    K is binomial, of m draws at the share of copies that f gets right, at least 1. The worst noise is found by PGD
    around each noise vector, at most `epsilon` away in l2, each step brought back to the mean and the root mean square
    of the vector. pb are soft labels: the votes of a classifier that was trained on Gaussian noise of level 0.25,
    whatever sigma is, `class_counts(f, images, None, 10_000, sigma=0.25, num_classes=K) / 10_000`.

    The labels of the data set are the numbers of the images, as in `TensorDataset(images, torch.arange(len(images)))`:
    `classes` (images,) and `soft` (images, K) are looked up by them; ValueError for labels that are no such numbers.
    Jeong et al. 2023, the authors' code; CIFAR-10: lam = 0.5, 1, 2 at sigma = 0.25, 0.5, 1.
    """

    sigma: float
    classes: Tensor
    soft: Tensor
    epsilon: float = 1.0
    steps: int = 4  # T, each 2 epsilon / T long
    copies: int = 4  # m
    lam: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.soft.ndim != 2 or self.classes.shape != self.soft.shape[:1]:
            raise ValueError(f"classes must be (images,) and soft (images, K); got {tuple(self.classes.shape)} and "
                             f"{tuple(self.soft.shape)}")  # fmt: skip
        if self.classes.is_floating_point() or not ((self.classes >= 0) & (self.classes < self.soft.shape[1])).all():
            raise ValueError(f"classes must be whole numbers from 0 to {self.soft.shape[1] - 1}, one of soft's columns")
        if not ((self.soft >= 0).all() and ((self.soft.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError("soft must hold probabilities, rows that sum to 1: divide the votes by their number")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        classes, soft = self.looked_up(labels, step)
        noise = noise_of_copies(images, self.copies, self.sigma, step)
        draws = torch.rand(len(images), self.copies, generator=step.generator, device=images.device)
        logits = model(noisy_copies(images, noise))
        losses, right = copy_losses(logits, classes)
        kept = (draws < right.mean(1, keepdim=True)).sum(1).clamp_min(1)
        worst = self.worst(model, images, soft, noise)
        divergence = divergences(model(noisy_copies(images, worst)), soft).view(len(images), -1)
        high = divergence.amax(1) * (kept == self.copies)
        return (smallest(losses, kept) + self.lam * high).mean()

    def looked_up(self, labels: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Classes (N,) and soft labels (N, K) of the images with these numbers, on their device."""
        rows = len(self.soft)
        if step.epoch == 0 and (labels.is_floating_point() or labels.ndim != 1
                                or ((labels < 0) | (labels >= rows)).any()):  # fmt: skip
            raise ValueError(f"labels must be whole numbers (N,) from 0 to {rows - 1}, those of the {rows} images that "
                             f"classes and soft are about; got {labels.unique().tolist()[:8]}")  # fmt: skip
        chosen = labels.long().to(self.soft.device)
        classes, soft = self.classes.to(chosen.device)[chosen], self.soft[chosen].float()
        return classes.to(labels.device), soft.to(labels.device)

    def worst(self, model: nn.Module, images: Tensor, soft: Tensor, noise: Tensor) -> Tensor:
        """For each noise vector one nearby on which f is furthest from the soft label: like `noise`."""

        def loss(moved: Tensor) -> Tensor:
            return divergences(model(noisy_copies(images, moved)), soft)

        moved, anywhere = noise, (-math.inf, math.inf)
        with evaluating(model):
            for _ in range(self.steps):
                length = 2 * self.epsilon / self.steps
                moved = pgd(loss, moved, math.inf, steps=1, step_size=length, box=anywhere)
                moved = restored(noise + within(moved - noise, self.epsilon), noise)
        return moved


def copy_losses(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of every copy, and 1 where it is answered rightly, (N, m) both, from logits (N * m, K)."""
    labels = classes.long().repeat_interleave(len(logits) // len(classes))
    losses, right = F.cross_entropy(logits, labels, reduction="none"), (logits.argmax(1) == labels).float()
    return losses.view(len(classes), -1), right.view(len(classes), -1)


def smallest(losses: Tensor, kept: Tensor) -> Tensor:
    """The sum of the `kept` (N,) smallest of the m `losses` (N, m) of each image, over m: (N,)."""
    ranks = torch.arange(losses.shape[1], device=losses.device)
    return (losses.sort(1).values * (ranks < kept.unsqueeze(1))).mean(1)


def divergences(logits: Tensor, soft: Tensor) -> Tensor:
    """KL(pb || p_i) of every copy, (N * m,), from logits (N * m, K) and soft labels (N, K)."""
    targets = soft.repeat_interleave(len(logits) // len(soft), 0)
    return F.kl_div(logits.log_softmax(1), targets, reduction="none").sum(1)


def restored(noise: Tensor, like: Tensor) -> Tensor:
    """`noise` less its mean, over its root mean square, times that of `like`, plus its mean; vector by vector."""
    over = tuple(range(1, noise.ndim))
    (mean, size), (old_mean, old_size) = (
        (x.mean(over, keepdim=True), x.square().mean(over, keepdim=True).sqrt()) for x in (noise, like)
    )
    return old_mean + (noise - mean) * (old_size / size.clamp_min(1e-12))
