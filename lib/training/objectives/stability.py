"""Stability training: the same answer with noise as without (Li et al. 2019)."""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.training.objectives.base import Step, add_noise, cross_entropy
from lib.training.objectives.copies import CheckedNumbers


@dataclass(frozen=True)
class StabilityTraining(CheckedNumbers):
    """CE(f(x), y) - lam mean_n sum_c p_c(x) log p_c(x + noise): labels on clean images, and the answer is kept.

    The second term is H(p(x)) + KL(p(x) || p(x + noise)); its gradient goes into both passes (Li et al. 2019; after
    Zheng et al. 2016). With lam = 0 training is ordinary, without noise. lam is 2, and 1 at sigma = 1, for CIFAR-10 in
    the comparison of Jeong et al. 2023. (`Stability` is of Salman et al. 2020 and trains a denoiser.)
    """

    sigma: float
    lam: float = 2.0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        clean = model(images)
        noisy = model(add_noise(images, self.sigma, step.generator))  # a pass of its own, with statistics of its own
        stability = -(clean.softmax(1) * noisy.log_softmax(1)).sum(1)
        return cross_entropy(clean, labels, step) + self.lam * stability.mean()
