"""Notebook 05: classifiers for other noises, and a classifier that floating point betrays."""

import torch
from torch import Tensor, nn

from lib.config import OtherCertificates
from lib.datasets import Data
from lib.methods.cohen2019 import trained_classifier
from lib.sampling import Laplace, Noise, Uniform
from lib.training.objectives import Gaussian, LaplaceNoise, UniformNoise


def for_noise(cfg: OtherCertificates, data: Data, law: str, sigma: float) -> tuple[nn.Module, Noise | float]:
    """(f, the noise to certify it with): trained on noise of that law, "gaussian", "uniform" or "laplace".

    `sigma` is the noise's standard deviation, so that levels compare. ValueError for another law.
    """
    laws = {"gaussian": (Gaussian, float), "uniform": (UniformNoise, Uniform), "laplace": (LaplaceNoise, Laplace)}
    if law not in laws:
        raise ValueError(f"law must be one of {', '.join(laws)}; got {law!r}")
    objective, noise = laws[law]
    return trained_classifier(cfg, data, objective(sigma), f"{law} noise, sigma = {sigma}"), noise(sigma)


class LowBits(nn.Module):
    """Images (N, ...) -> logits (N, num_classes): class 1 where a pixel is no multiple of 2^-bits, else class 0.

    No network would look at a pixel's last bits, but a certificate must hold for every f, and noise that is rounded to
    float32 has last bits that tell what it was added to (Jin et al. 2022; Voracek and Hein 2023).
    """

    def __init__(self, bits: int = 28, num_classes: int = 2) -> None:
        super().__init__()
        self.bits, self.num_classes, self.training = bits, num_classes, False

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.double() * 2**self.bits
        answer = (scaled != scaled.round()).flatten(1).any(1).long()
        return nn.functional.one_hot(answer, self.num_classes).to(images.dtype)


class HalfSpace(nn.Module):
    """Images (N, ...) -> logits (N, 2): class 1 where `direction` . (x - `point`) + `distance` > 0; direction: norm 1.

    The worst classifier with its probability: smoothed with level sigma it has p_A = Phi(distance / sigma) at `point`.
    """

    def __init__(self, point: Tensor, direction: Tensor, distance: float) -> None:
        super().__init__()
        self.register_buffer("point", point)
        self.register_buffer("direction", direction / direction.norm())
        self.distance, self.training = float(distance), False

    def forward(self, images: Tensor) -> Tensor:
        score = ((images - self.point) * self.direction).flatten(1).sum(1) + self.distance
        return torch.stack([-score, score], 1)
