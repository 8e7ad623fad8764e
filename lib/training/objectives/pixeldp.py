"""PixelDP: noise after the first layer, which grows to its level as training goes on (Lecuyer et al. 2019)."""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.training.objectives.base import Step, add_noise, cross_entropy
from lib.training.objectives.copies import CheckedNumbers


@dataclass(frozen=True)
class PixelDP(CheckedNumbers):
    """Cross-entropy of after(before(x) + noise), one draw an image; the network is split as `FeatureNoise` takes it.

    A network that is not split gets the noise on its images, as in Cohen et al. 2019. The noise starts at a tenth of
    `sigma` and is 1 - ramp^t of it at optimizer step t, all of it once that is above 0.9 (the authors' code; with the
    default from step 9,210 on); `ramp` = 0: all of it from the start. ValueError for a ramp above 1.
    """

    sigma: float
    ramp: float = 0.99975

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp > 1:
            raise ValueError(f"ramp must be at most 1; got {self.ramp!r}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        before, after = getattr(model, "before", None), getattr(model, "after", None)
        if before is None or after is None:
            before, after = nn.Identity(), model
        level = self.sigma * noise_share(self.ramp, step.epoch * step.batches + step.batch)
        return cross_entropy(after(add_noise(before(images), level, step.generator)), labels, step)


def noise_share(ramp: float, steps: int) -> float:
    """The share of the noise level after so many optimizer steps."""
    share = 1 - min(ramp**steps if ramp else 0.0, 0.9)
    return 1.0 if share > 0.9 else share
