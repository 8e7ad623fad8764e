"""l1 radii of smoothing with independent noise in every pixel: uniform and Laplace."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from lib.bounds.arguments import checked_positive, checked_probability

_MARGIN = 1e-14  # a few roundings of float64 and of its logarithm

# One argument serves all such noises whose density is log-concave, with distribution function F. Of all [0, 1]-valued
# functions with a given mean, a half-line loses most when the mean is moved along one pixel (Neyman and Pearson; the
# likelihood ratio of a log-concave density is monotone). So F^-1(E f) changes by at most as much as that pixel does,
# whatever is averaged over the others, and, pixel by pixel, by at most the l1 distance.


def uniform_radius(p_a: ArrayLike, half_width: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
    """The l1 radius half_width (p_a - p_b) under noise that is uniform in [-half_width, half_width]^d; 0 for none.

    `p_a`: lower bound on the top class's probability; `p_b`: upper bound on the runner-up's, 1 - p_a where None: then
    it is half_width (2 p_a - 1) (Yang et al. 2020). `half_width` > 0 and the radius in pixel units of [0, 1].
    No larger radius holds for all classifiers. ValueError for arguments out of range.
    """
    return _radius(lambda p: 2 * p - 1, p_a, half_width, p_b)


def laplace_radius(p_a: ArrayLike, scale: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
    """The l1 radius under Laplace noise, density exp(-|t| / scale) / (2 scale) in every pixel; 0 for none.

    It is scale (q(p_a) - q(p_b)) / 2, with q(p) = -ln(2 (1 - p)) from p = 1/2 on and ln(2 p) below. Without p_b this is
    -scale ln(2 (1 - p_a)) (Teng et al. 2020); with it, at least their runner-up form, and no larger one holds for all
    classifiers. Arguments and errors as in `uniform_radius`.
    """
    return _radius(_laplace_quantile, p_a, scale, p_b)


def _radius(
    quantile: Callable[[np.ndarray], np.ndarray], p_a: ArrayLike, scale: ArrayLike, p_b: ArrayLike | None
) -> np.ndarray:
    p_a, scale = checked_probability(p_a, "p_a"), checked_positive(scale, "scale")
    upper = quantile(p_a)
    # p_b can never exceed what p_a leaves, and q(1 - p) = -q(p) without the cancellation
    lower = -upper if p_b is None else np.minimum(quantile(checked_probability(p_b, "p_b")), -upper)
    with np.errstate(invalid="ignore"):
        return np.where(upper > lower, scale * (upper - lower) / 2 * (1 - _MARGIN), 0.0)[()]


def _laplace_quantile(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.where(p < 0.5, np.log(2 * p), -np.log(2 * (1 - p)))
