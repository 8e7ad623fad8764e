"""SmoothAdv: adversarial training of the smoothed classifier (Salman et al. 2019)."""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.attacks.ddn import ddn
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
)


@dataclass(frozen=True)
class SmoothAdv(CheckedNumbers):
    """Cross-entropy, averaged over the noisy copies of an image that was attacked so that g answers wrongly.

    The attack makes -log of the mean probability of the label over the copies large, by PGD in an l2 ball of `epsilon`
    in pixel units; f is in eval mode meanwhile. The same noise serves the attack and the training pass, and no gradient
    goes through the attack. Salman et al. 2019, section 2.2; the best setting differs from radius to radius, these
    defaults are of the comparison of Jeong et al. 2023 (CIFAR-10, sigma = 0.25 and 0.5: epsilon = 1, 4 and 8 copies;
    sigma = 1: epsilon = 2, 2 copies). epsilon = 0 is `GaussianCopies`.
    """

    sigma: float
    epsilon: float
    steps: int = 10  # T, each 2 epsilon / T long
    copies: int = 1  # m
    warm_up: int = 10  # epochs in which the budget grows to epsilon

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        noise = noise_of_copies(images, self.copies, self.sigma, step)
        with evaluating(model):
            moved = self.attacked(model, images, labels, noise, step)
        return copies_cross_entropy(model(noisy_copies(moved, noise)), labels, step)

    def attacked(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Tensor, step: Step) -> Tensor:
        """Images in [0, 1] and in the ball, where g, with this noise, is less sure of the label."""

        def loss(x: Tensor) -> Tensor:
            return log_mean_loss(model(noisy_copies(x, noise)), labels, step)

        return pgd(loss, images, self.epsilon * warmed_up(step, self.warm_up), steps=self.steps)


@dataclass(frozen=True)
class SmoothAdvDDN(SmoothAdv):
    """`SmoothAdv` by DDN, which looks for the nearest image that g gets wrong (Rony et al. 2019, `lib.attacks.ddn`).

    g's answer is the most frequent one of the copies. An image that no step got wrong, or that noise alone gets wrong,
    stays as it is. `levels`: the attack moves on whole multiples of 1 / levels, 16 for the digits.
    """

    levels: int = 255

    def attacked(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Tensor, step: Step) -> Tensor:
        def judge(x: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(noisy_copies(x, noise))
            answers = logits.argmax(1).view(len(labels), -1).mode(1).values
            return log_mean_loss(logits, labels, step), answers != labels

        budget = self.epsilon * warmed_up(step, self.warm_up)
        return ddn(judge, images, budget, steps=self.steps, levels=self.levels)
