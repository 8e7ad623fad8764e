"""Adversarial training (Madry et al. 2018): the heuristic defense that stands, without a proof."""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.attacks.pgd import pgd
from lib.training.objectives.base import Step
from lib.training.objectives.copies import CheckedNumbers, copies_cross_entropy, evaluating, log_mean_loss


@dataclass(frozen=True)
class AdversarialTraining(CheckedNumbers):
    """Cross-entropy of images that PGD has moved, within `epsilon` in `norm`, to where it is large.

    Madry et al. 2018: min over f of the mean of the max over ||delta|| <= epsilon. f is in eval mode during the attack,
    through which no gradient goes. CIFAR-10: linf, epsilon = 8/255, 7 steps of 2/255, a random start. Without a random
    start, in l2, it is `SmoothAdv` with sigma = 0 and one copy. One step without a random start teaches f to defeat
    that step alone. ValueError for another norm.
    """

    epsilon: float
    norm: str = "linf"
    steps: int = 7
    step_size: float = 0.0  # 0: the default of `pgd`, 2.5 epsilon / steps in linf, 2 epsilon / steps in l2
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in ("l2", "linf"):
            raise ValueError(f"norm must be 'l2' or 'linf', got {self.norm!r}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return log_mean_loss(model(x), labels, step)  # of one copy: the cross-entropy

        with evaluating(model):
            moved = pgd(
                loss, images, self.epsilon, norm=self.norm, steps=self.steps, step_size=self.step_size or None,
                random_start=self.random_start, generator=step.generator,
            )  # fmt: skip
        return copies_cross_entropy(model(moved), labels, step)
