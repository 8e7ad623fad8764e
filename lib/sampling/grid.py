"""Noise on the grid of 8-bit images, so that floating point cannot void a certificate (Voracek & Hein 2022).

Theorem 1 is about real numbers; the sum of a float image and float noise gives away, in its last bits, which image it
was, and a classifier can use that. The remedy: certify f(clip(round(x + noise))), where round goes to the multiples of
1 / levels. That is a function of x + noise, so the theorem holds for it, for every real perturbation. And for an x on
the grid, round(x + noise) = x + round(noise), which is drawn here in whole numbers: i / levels with probability
Phi((2i + 1) / (2 levels sigma)) - Phi((2i - 1) / (2 levels sigma)).

What is left is that probabilities are multiples of 2^-60. A vote on an image of d pixels then has a probability within
d (k + 1) levels 2^-60 of the exact one, k as in `noisy_on_grid`: 2e-12 for CIFAR-10, 7e-11 for ImageNet at sigma 0.25.
"""

from fractions import Fraction
from functools import lru_cache
from math import floor, isqrt

import numpy as np
import torch
from torch import Tensor

from lib.bounds.arguments import whole_number

BITS = 60  # of the uniform numbers
_PI = 314159265358979323846264338327950288419716939937510  # times 10^50


def noisy_on_grid(images: Tensor, bits: Tensor, sigma: float, levels: int) -> Tensor:
    """clip(images + noise), in steps of 1 / levels; float, of the shape and device of `images`.

    `images`: float in [0, 1], multiples of 1 / levels (`check_on_grid`). `bits`: int64 of the same shape, uniform in
    [0, 2^60). The clip is to [-k, k + 1] with k = max(1, floor(6 sigma)), as in the paper's code.
    """
    low, high = clip_range(sigma)
    thresholds = _thresholds_on(bits.device, sigma, levels)
    pixels = torch.searchsorted(thresholds, bits, right=True) - high * levels
    pixels += (images * levels).round().long()
    return pixels.clamp_(low * levels, high * levels).to(images.dtype) / levels


def check_on_grid(images: Tensor, levels: int) -> None:
    """ValueError unless every value is a multiple of 1 / levels, up to the rounding of float32."""
    check_levels(levels)
    steps = images * levels
    off = (steps - steps.round()).abs() > levels * 2**-22  # the image and the product are each rounded to 24 bits
    if off.any():
        raise ValueError(
            f"images must hold multiples of 1/{levels} for levels = {levels}; got {images[off][0]:g}. 8-bit images "
            "that were not resized as floats have levels = 255, the digits 16; others need Gaussian noise"
        )


def check_levels(levels: int) -> None:
    """ValueError unless `levels` is a whole number from 1 to 65535."""
    whole_number(levels, "levels", 1, 65_536)


def clip_range(sigma: float) -> tuple[int, int]:
    """The values between which noisy pixels are kept."""
    k = max(1, floor(6 * sigma))
    return -k, k + 1


@lru_cache(maxsize=16)
def grid_thresholds(sigma: float, levels: int) -> np.ndarray:
    """2^60 Phi((2i + 1) / (2 levels sigma)), to the nearest whole number, for i = -r ... r - 1; int64.

    The number of thresholds at or below a uniform 60-bit number, minus r, is the noise in steps of 1 / levels. Beyond
    r = (k + 1) levels every pixel is clipped, whatever its value. 0.2 s for levels = 255, sigma = 1.
    """
    reach = clip_range(sigma)[1] * levels
    upper = [_scaled_cdf(Fraction(2 * i + 1, 2 * levels) / Fraction(sigma)) for i in range(reach)]
    return np.array([2**BITS - threshold for threshold in reversed(upper)] + upper)


@lru_cache(maxsize=16)
def _thresholds_on(device: torch.device, sigma: float, levels: int) -> Tensor:
    """Kept there: a copy for each batch would make a GPU wait."""
    return torch.from_numpy(grid_thresholds(sigma, levels)).to(device)


def _scaled_cdf(x: Fraction) -> int:
    """2^60 Phi(x), x >= 0, to the nearest whole number: the Taylor series of Phi(x) - 1/2, in 240-bit whole numbers.

    float64 would be wrong by up to 2^6 of these units. The terms grow to at most e^(x^2 / 2) < 2^63 before they fall.
    """
    if x > 9.3:
        return 2**BITS  # 1 - Phi(9.3) < 2^-66
    term, square = (x.numerator << 240) // x.denominator, x * x / 2
    total = k = 0
    while term:
        total += (-1) ** k * (term // (2 * k + 1))
        k += 1
        term = term * square.numerator // (square.denominator * k)
    centred = total * 10**50 // isqrt(2 * _PI * 10**50)
    return ((1 << 239) + centred + (1 << 179)) >> 180
