"""Training a diffusion model to tell the noise (Ho et al. 2020)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.training.objectives.base import Objective, Step

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers import SchedulerMixin


@dataclass(frozen=True)
class DDPM(Objective):
    """L_simple of Ho et al. 2020, eq. 14: E |eps - eps_theta(x_t, t)|^2 over uniform t and Gaussian eps.

    The model is a diffusers UNet, model(x_t, t).sample. Labels are not used. ValueError for a scheduler that does not
    predict epsilon.
    """

    scheduler: "SchedulerMixin"

    def __post_init__(self) -> None:
        prediction = self.scheduler.config.get("prediction_type", "epsilon")
        if prediction != "epsilon":
            raise ValueError(f"scheduler must predict epsilon to be trained with this loss, got {prediction!r}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        last = self.scheduler.config.num_train_timesteps
        t = torch.randint(last, (len(images),), generator=step.generator, device=images.device)
        noise = torch.randn(images.shape, generator=step.generator, device=images.device)
        return F.mse_loss(model(self.scheduler.add_noise(2 * images - 1, noise, t), t).sample, noise)
