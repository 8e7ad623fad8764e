"""Training on noise (Cohen et al. 2019)."""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.training.objectives.base import Objective, Step, add_noise, cross_entropy


@dataclass(frozen=True)
class Gaussian(Objective):
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019, section 3.3); sigma = 0: ordinary training."""

    sigma: float

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        return cross_entropy(model(add_noise(images, self.sigma, step.generator)), labels, step)
