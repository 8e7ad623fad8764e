"""Consistency regularisation: the answers to the noisy copies of an image agree (Jeong and Shin 2020)."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from lib.training.objectives.base import Step
from lib.training.objectives.copies import CheckedNumbers, copies_cross_entropy, noise_of_copies, noisy_copies


@dataclass(frozen=True)
class Consistency(CheckedNumbers):
    """Cross-entropy + lam (1/m) sum_i KL(pbar || p_i) + eta H(pbar), pbar the mean of the m answers p_i to an image.

    The copies are to agree, and on something definite; the gradient goes into pbar, too. For CIFAR-10 lam is 20 at
    sigma = 0.25 and 10 at 0.5 and 1; for ImageNet 10, 5 and 5, with eta = 0.1 at sigma = 1; for MNIST 10, 5, 5
    (Jeong and Shin 2020, the authors' code). With lam = eta = 0 it is `GaussianCopies`.
    """

    sigma: float
    copies: int = 2
    lam: float = 10.0
    eta: float = 0.5

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        logits = model(noisy_copies(images, noise_of_copies(images, self.copies, self.sigma, step)))
        divergence, entropy = disagreement(logits, len(images))
        regulariser = self.lam * divergence + self.eta * entropy
        return copies_cross_entropy(logits, labels, step) + regulariser.mean()


def disagreement(logits: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """(1/m) sum_i KL(pbar || p_i) and H(pbar) of each image, (N,) each, from the logits of its copies (N * m, K)."""
    log_p = logits.log_softmax(1).unflatten(0, (images, -1))  # (N, m, K)
    log_mean = log_p.logsumexp(1) - math.log(log_p.shape[1])  # (N, K)
    mean = log_mean.exp()
    return (mean * (log_mean - log_p.mean(1))).sum(1), -(mean * log_mean).sum(1)
