"""Radii from probabilities: Cohen et al., Li et al. (Renyi), PixelDP, and lp balls inside l2 balls."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtri

from lib.bounds.arguments import (
    checked_open_unit,
    checked_positive,
    checked_probability,
    first_of,
    numbers,
    real_number,
    whole_number,
)

_NDTRI_MARGIN = 1e-14  # SciPy's ndtri was seen within 1e-15 of the exact value


def certified_radius(p_a: ArrayLike, sigma: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
    """The l2 radius sigma/2 (Phi^-1(p_a) - Phi^-1(p_b)) of Cohen et al. 2019, Theorem 1; 0 where nothing is certified.

    `p_a`: lower bound on the top class's probability. `p_b`: upper bound on the runner-up's; without it the rest
    of the mass is taken to sit on one class, p_b = 1 - p_a, and the radius is sigma Phi^-1(p_a). Both in [0, 1],
    `sigma` > 0 in pixel units of [0, 1]; the radius is in the same units. ValueError otherwise.
    """
    p_a, sigma = checked_probability(p_a, "p_a"), checked_positive(sigma, "sigma")
    if p_b is None:
        z = ndtri(p_a)
    else:
        # p_b can never exceed what p_a leaves; -ndtri(p_a) is Phi^-1(1 - p_a) without the cancellation.
        z = (ndtri(p_a) - np.minimum(ndtri(checked_probability(p_b, "p_b")), -ndtri(p_a))) / 2
    return np.maximum(sigma * z * (1 - _NDTRI_MARGIN), 0.0)[()]


def least_votes(radius: ArrayLike, sigma: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """The fewest votes that certify an l2 radius > 0, all for one class: ceil(ln alpha / ln Phi(radius / sigma)).

    For n such votes the bound of Clopper and Pearson is alpha^(1/n). int64; ValueError for a value out of its range.
    """
    radius, sigma = checked_positive(radius, "radius"), checked_positive(sigma, "sigma")
    votes = np.log(checked_open_unit(alpha, "alpha")) / log_ndtr(radius / sigma)
    return np.ceil(votes * (1 - 1e-12)).astype(np.int64)[()]  # a quotient that is whole is not rounded up


def renyi_radius(p_a: ArrayLike, p_b: ArrayLike, sigma: ArrayLike) -> np.ndarray:
    """The l2 radius of Li et al. 2019, from the Renyi divergence of two Gaussians; 0 where p_a <= p_b.

    The supremum over the order a is taken on a grid, so the value errs low (by less than 1e-6 sigma).
    """
    p_a, p_b, sigma = _checked_pair(p_a, p_b, sigma)
    a = np.geomspace(1e-3, 1e3, 20_001)  # even in number of steps about 1, which the formula excludes
    a = a[np.abs(a - 1) > 1e-9]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_a, log_b = np.log(p_a)[..., None], np.log(p_b)[..., None]
        log_mean = (np.logaddexp((1 - a) * log_a, (1 - a) * log_b) - np.log(2)) / (1 - a)
        inner = 1 - p_a[..., None] - p_b[..., None] + 2 * np.exp(log_mean)
        square = np.nanmax(-2 / a * np.log(np.minimum(inner, 1.0)), axis=-1)
    return np.where(p_a > p_b, sigma * np.sqrt(square) * (1 - _NDTRI_MARGIN), 0.0)[()]


def pixeldp_radius(p_a: ArrayLike, p_b: ArrayLike, sigma: ArrayLike) -> np.ndarray:
    """The l2 radius of PixelDP (Lecuyer et al. 2019), from differential privacy; 0 where p_a <= p_b.

    The privacy budget is at most 1 (the Gaussian mechanism's condition), which is why the radius levels off as
    p_a -> 1. The supremum over the budget is taken on a grid, so the value errs low (by less than 1e-6 sigma).
    """
    p_a, p_b, sigma = _checked_pair(p_a, p_b, sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = np.minimum(1.0, 0.5 * (np.log(p_a) - np.log(p_b)))[..., None]
        budget = largest * np.linspace(1e-4, 1, 10_000)
        gap = p_a[..., None] - np.exp(2 * budget) * p_b[..., None]
        radii = budget / np.sqrt(2 * np.log(1.25 * (1 + np.exp(budget)) / gap))
        best = np.nanmax(np.where(gap > 0, radii, 0.0), axis=-1)
    return np.where(p_a > p_b, sigma * best * (1 - _NDTRI_MARGIN), 0.0)[()]


def lp_radius(l2_radius: ArrayLike, p: float, dimension: int) -> np.ndarray:
    """The largest lp ball, p >= 1 or inf, that fits inside an l2 ball of `l2_radius` in `dimension` dimensions.

    r d^(1/p - 1/2) for p > 2 (so r / sqrt(d) for l_inf), r for p <= 2.
    """
    if not real_number(p, "p", 2) >= 1:
        raise ValueError(f"p must be at least 1, or inf; got {p!r}")
    dimension = whole_number(dimension, "dimension")
    return numbers(l2_radius, "l2_radius") * float(dimension) ** min(1 / float(p) - 0.5, 0.0)


def _checked_pair(p_a: ArrayLike, p_b: ArrayLike, sigma: ArrayLike) -> tuple[np.ndarray, ...]:
    p_a, p_b = checked_probability(p_a, "p_a"), checked_probability(p_b, "p_b")
    if (p_a + p_b > 1 + 1e-12).any():
        raise ValueError(f"p_a + p_b must not exceed 1; got {first_of(p_a + p_b, p_a + p_b > 1 + 1e-12)}")
    return tuple(np.broadcast_arrays(p_a, p_b, checked_positive(sigma, "sigma")))
