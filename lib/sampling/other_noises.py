"""Noises beside the Gaussian on pixels: uniform and Laplace for l1, and Gaussian after a first layer (PixelDP)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lib.bounds.l1 import laplace_radius, uniform_radius
from lib.sampling.grid import BITS
from lib.sampling.noise import NOISES, Gaussian, Network, Noise, Pieces, uniform_bits


@dataclass(frozen=True)
class Uniform(Noise):
    """Uniform in [-half_width, half_width] in every pixel, for l1 (Yang et al. 2020). `sigma` is its deviation."""

    kind, norm, law, scheme = "uniform", "l1", "uniform", "philox, 60 bits"

    @property
    def half_width(self) -> float:
        """sqrt(3) sigma, called lambda in the paper."""
        return math.sqrt(3) * self.sigma

    def added(self, images: Tensor, pieces: Pieces, seed: int) -> Tensor:
        bits = _bits(images, pieces, seed)
        noise = (2 * bits + 1 - 2**BITS).double() * (self.half_width / 2**BITS)
        return images + noise.to(images.dtype).to(images.device)

    def radius(self, p_a: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
        return uniform_radius(p_a, self.half_width, p_b)


@dataclass(frozen=True)
class Laplace(Noise):
    """Density exp(-|t| / scale) / (2 scale) in every pixel, for l1 (Lecuyer et al. 2019; Teng et al. 2020).

    `sigma` is its standard deviation, so that levels of all noises compare.
    """

    kind, norm, law, scheme = "laplace", "l1", "laplace", "philox, 60 bits, logarithm"

    @property
    def scale(self) -> float:
        """sigma / sqrt(2), called b or lambda in the papers."""
        return self.sigma / math.sqrt(2)

    def added(self, images: Tensor, pieces: Pieces, seed: int) -> Tensor:
        bits = _bits(images, pieces, seed)
        half = 2 ** (BITS - 1)  # the highest bit is the sign, the others a uniform number in (0, 1)
        size = -torch.log(((bits % half).double() + 0.5) / half) * self.scale
        return images + torch.where(bits < half, size, -size).to(images.dtype).to(images.device)

    def radius(self, p_a: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
        return laplace_radius(p_a, self.scale, p_b)


@dataclass(frozen=True)
class FeatureNoise(Gaussian):
    """N(0, sigma^2 I) on what a first layer makes of the image (PixelDP, Lecuyer et al. 2019).

    The layer must let no l2 distance between images grow (its attribute `sensitivity` says 1 or less, as that of
    `lib.models.bounded.BoundedConv2d` does): then what follows it is smoothed in the space of features, and a radius
    there is one in pixels, by every bound for Gaussian noise. ValueError for a base that is not split in `before` and
    `after`, as `lib.models.bounded.Split` is.
    """

    kind = "features"

    def parts(self, base: nn.Module) -> tuple[Network | None, Network]:
        before, after = getattr(base, "before", None), getattr(base, "after", None)
        if not isinstance(before, nn.Module) or not isinstance(after, nn.Module):
            raise ValueError(f"noise on features needs a base in two parts, such as Split(before, after) of "
                             f"lib.models.bounded, or Split(before, Computed(after, compute)); got "
                             f"{type(base).__name__}")  # fmt: skip
        sensitivity = getattr(before, "sensitivity", None)
        if not isinstance(sensitivity, (int, float)) or not sensitivity <= 1:
            raise ValueError(f"before must have a sensitivity of at most 1, as BoundedConv2d has, or radii would be "
                             f"too large; {type(before).__name__} says {sensitivity}")  # fmt: skip
        return before, after


NOISES |= {noise.kind: noise for noise in (Uniform, Laplace, FeatureNoise)}


def _bits(images: Tensor, pieces: Pieces, seed: int) -> Tensor:
    """On a GPU of NVIDIA's where the images are there, else on the CPU: other devices have no float64."""
    device = images.device if images.is_cuda else torch.device("cpu")
    return uniform_bits(images.shape[1:], seed, pieces, device)
