"""SmoothMix: less sure answers on the way to an adversarial example (Jeong et al. 2021)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.attacks.pgd import pgd
from lib.training.objectives.base import Step
from lib.training.objectives.copies import (
    CheckedNumbers,
    copies_cross_entropy,
    evaluating,
    log_mean_loss,
    noise_of_copies,
    noisy_copies,
    warmed_up,
    within,
)


@dataclass(frozen=True)
class SmoothMix(CheckedNumbers):
    """Cross-entropy of the copies + eta KL(t || p) at a point between x and an adversarial example of g, averaged.

    The example is `steps` steps of `alpha` (l2, pixel units) uphill on -log of the mean probability of the label, in no
    ball, only in [0, 1]. Of the mixture (1 - l) x + l adv, l uniform in [0, 1/2] for each image, the target t is
    (1 - l) pbar(x) + l / K, pbar the mean answer to the copies; it counts where pbar is right, and its gradient goes
    into pbar, too. Both passes have the same noise. With `one_step` x itself is moved by the first step, at most
    alpha times the warm-up. Jeong et al. 2021, the authors' code; CIFAR-10: alpha = 0.5, 1, 2 at sigma = 0.25, 0.5, 1.
    eta = 0 is `GaussianCopies`.
    """

    sigma: float
    alpha: float
    steps: int = 4  # T
    copies: int = 2  # m
    eta: float = 5.0
    one_step: bool = False  # the "one-step adversary"
    warm_up: int = 10  # epochs in which the second term grows to eta

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        noise = noise_of_copies(images, self.copies, self.sigma, step)
        share = torch.rand(len(images), generator=step.generator, device=images.device) / 2
        start, adversarial = self.attacked(model, images, labels, noise, step)
        logits = model(noisy_copies(start, noise))
        mixed = start + share.view(-1, 1, 1, 1) * (adversarial - start)
        divergence = mixing_loss(logits, model(noisy_copies(mixed, noise)), labels, share)
        weight = self.eta * warmed_up(step, self.warm_up)
        return copies_cross_entropy(logits, labels, step) + weight * divergence.mean()

    def attacked(
        self, model: nn.Module, images: Tensor, labels: Tensor, noise: Tensor, step: Step
    ) -> tuple[Tensor, Tensor]:
        """(where the way begins, where it ends)."""

        def loss(x: Tensor) -> Tensor:
            return log_mean_loss(model(noisy_copies(x, noise)), labels, step)

        with evaluating(model):
            first = end = pgd(loss, images, math.inf, steps=1, step_size=self.alpha)
            if self.steps > 1:
                end = pgd(loss, first, math.inf, steps=self.steps - 1, step_size=self.alpha)
        if not self.one_step:
            return images, end
        return images + within(first - images, self.alpha * warmed_up(step, self.warm_up)), end


def mixing_loss(logits: Tensor, mixed: Tensor, labels: Tensor, share: Tensor) -> Tensor:
    """KL(t || p_i) of each mixed copy, (N, m), 0 where the mean answer to the copies is wrong.

    `logits` and `mixed` (N * m, K): of the copies of the images and of the mixtures; `share` (N,): l.
    """
    shape = (len(labels), -1)
    mean = logits.softmax(1).unflatten(0, shape).mean(1)  # (N, K)
    target = mean + share.view(-1, 1) * (1 / mean.shape[1] - mean)
    own = (target * target.clamp_min(1e-20).log()).sum(1, keepdim=True)
    divergence = own - (target.unsqueeze(1) * mixed.log_softmax(1).unflatten(0, shape)).sum(2)
    return divergence * (mean.argmax(1) == labels).unsqueeze(1)
