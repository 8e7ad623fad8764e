"""MACER: the certified radius itself is made large (Zhai et al. 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.training.objectives.base import Step
from lib.training.objectives.copies import CheckedNumbers, log_mean_loss, noise_of_copies, noisy_copies


@dataclass(frozen=True)
class MACER(CheckedNumbers):
    """-log of the mean probability of the label + lam sigma / 2 max(gamma - xi, 0) where g is right, mean over images.

    sigma xi / 2 is the radius of the soft g, whose answer q is the mean of softmax(beta f) over the copies: xi is
    Phi^-1(q_1) - Phi^-1(q_2) of its two largest entries. beta sharpens q alone, not the first term.
    The defaults are those for CIFAR-10 at sigma = 0.25; lam is 4 at 0.5, and 12 from the first drop of the learning
    rate on, `lam_from` = epoch 200, at 1 (Zhai et al. 2020, the authors' code: 440 epochs of batches of 64, lr 0.01).
    """

    sigma: float
    copies: int = 16  # k in the paper
    lam: float = 12.0
    beta: float = 16.0
    gamma: float = 8.0
    lam_from: int = 0  # the first epoch, from 0, with the radius in the loss

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        logits = model(noisy_copies(images, noise_of_copies(images, self.copies, self.sigma, step)))
        loss = log_mean_loss(logits, labels, step)
        if step.epoch >= self.lam_from:
            loss = loss + self.lam * radius_loss(logits, labels, self.sigma, self.beta, self.gamma)
        return loss.mean()


def radius_loss(logits: Tensor, labels: Tensor, sigma: float, beta: float, gamma: float) -> Tensor:
    """sigma / 2 max(gamma - xi, 0) of each image, (N,), from the logits of its copies (N * k, K); 0 where g is wrong.

    Also 0 where q_1 rounds to 1: xi is above 10 there.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # of half precision nothing would be left
    q = (beta * logits).softmax(1).unflatten(0, (len(labels), -1)).mean(1)
    (first, second), answers = q.topk(2).values.unbind(1), q.argmax(1)
    counts = (answers == labels) & (first < 1) & (second > 0)
    # Phi^-1 sees only what counts: an infinite value would make the gradient NaN even where its weight is 0.
    upper, lower = (torch.special.ndtri(p.where(counts, p.new_tensor(0.5))) for p in (first, second))
    return sigma / 2 * (gamma - (upper - lower)).clamp_min(0) * counts
