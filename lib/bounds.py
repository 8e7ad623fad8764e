"""Certificates as pure float64 maths: counts -> bounds on probabilities -> radii. SciPy, no torch.

Every function is vectorised by NumPy broadcasting and errs on the safe side: a lower bound is never above
its exact value, an upper bound never below, a radius never too large. The margins that buy this are written
where they are taken; tests/test_bounds.py holds them against 50-digit arithmetic.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincc, betainccinv, betaincinv, ndtri
from scipy.stats import binom

# Clopper-Pearson bounds are widened by this, relative to the smaller of p and 1 - p; 1e-12 was seen to be needed.
_BETA_MARGIN = 1e-10
_NDTRI_MARGIN = 1e-14  # SciPy's ndtri was seen within 1e-15 of the exact value


def lower_confidence_bound(n_a: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """One-sided Clopper-Pearson lower bound on p from n_a successes in n trials (Cohen et al. 2019, section 3.2.2).

    P(bound <= p) >= 1 - alpha over the draw of n_a ~ Binomial(n, p), whatever p is. 0 where n_a = 0.
    `n_a`, `n`: whole numbers, 0 <= n_a <= n, 1 <= n; `alpha` in (0, 1). ValueError otherwise.
    """
    return _lower_and_rest(*_checked_counts(n_a, n, alpha, "n_a"))[0]


def upper_confidence_bound(n_b: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """One-sided Clopper-Pearson upper bound on p from n_b successes in n trials; the mirror of the lower bound.

    P(bound >= p) >= 1 - alpha. 1 where n_b = n. Same arguments and errors as `lower_confidence_bound`.
    """
    n_b, n, alpha = _checked_counts(n_b, n, alpha, "n_b")
    return _lower_and_rest(n - n_b, n, alpha)[1]


def certified_radius(p_a: ArrayLike, sigma: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
    """The l2 radius sigma/2 (Phi^-1(p_a) - Phi^-1(p_b)) of Cohen et al. 2019, Theorem 1; 0 where nothing is certified.

    `p_a`: lower bound on the top class's probability. `p_b`: upper bound on the runner-up's; without it the rest
    of the mass is taken to sit on one class, p_b = 1 - p_a, and the radius is sigma Phi^-1(p_a). Both in [0, 1],
    `sigma` > 0 in pixel units of [0, 1]; the radius is in the same units. ValueError otherwise.
    """
    p_a, sigma = _checked_probability(p_a, "p_a"), _checked_positive(sigma, "sigma")
    if p_b is None:
        z = ndtri(p_a)
    else:
        # p_b can never exceed what p_a leaves; -ndtri(p_a) is Phi^-1(1 - p_a) without the cancellation.
        z = (ndtri(p_a) - np.minimum(ndtri(_checked_probability(p_b, "p_b")), -ndtri(p_a))) / 2
    return np.maximum(sigma * z * (1 - _NDTRI_MARGIN), 0.0)[()]


def predict_pvalue(n_a: ArrayLike, n_b: ArrayLike) -> np.ndarray:
    """Two-sided binomial p-value that the top two counts tie (Cohen et al. 2019, PREDICT; Hung & Fithian 2019).

    PREDICT answers iff this is at most alpha. `n_a`, `n_b`: the two largest counts, whole numbers >= 0.
    """
    n_a, n_b = _checked_whole(n_a, "n_a"), _checked_whole(n_b, "n_b")
    tail = binom.sf(np.maximum(n_a, n_b) - 1, n_a + n_b, 0.5)
    return np.minimum(2 * tail, 1.0)[()]


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


def accuracy_interval(hits: ArrayLike, m: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided Clopper-Pearson interval for the accuracy on the population from which the m images were drawn."""
    alpha = (1 - _checked_open_unit(confidence, "confidence")) / 2
    return lower_confidence_bound(hits, m, alpha), upper_confidence_bound(hits, m, alpha)


def true_certified_accuracy(hits: ArrayLike, m: ArrayLike, alpha: float, rho: float = 0.001) -> np.ndarray:
    """Lower bound on the certified accuracy of these m images that no failed confidence bound can spoil.

    Each certificate is wrong with probability at most alpha, so with probability 1 - rho at most
    q = BinomInv(1 - rho; m, alpha) are, and the bound is (hits - q) / m. Exact where Theorem 6 of Cohen et al. 2019
    is asymptotic, and tighter (m = 500, alpha = rho = 0.001: 0.008 is deducted, not 0.0109).
    """
    hits, m, alpha = _checked_counts(hits, m, alpha, "hits")
    q = binom.ppf(1 - _checked_open_unit(rho, "rho"), m, alpha)
    return (np.maximum(hits - q, 0) / m)[()]


def lp_radius(l2_radius: ArrayLike, p: float, dimension: int) -> np.ndarray:
    """The largest lp ball, p >= 1 or inf, that fits inside an l2 ball of `l2_radius` in `dimension` dimensions.

    r d^(1/p - 1/2) for p > 2 (so r / sqrt(d) for l_inf), r for p <= 2.
    """
    if not p >= 1:
        raise ValueError(f"p must be at least 1, or inf; got {p!r}")
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1; got {dimension!r}")
    return np.asarray(l2_radius, float) * float(dimension) ** min(1 / p - 0.5, 0.0)


def round_down(value: ArrayLike, digits: int) -> np.ndarray:
    """`value` with `digits` decimals, never above it, for printing radii (the papers' logs round to nearest)."""
    value = np.asarray(value, float)
    rounded = np.round(value, digits)
    return np.where(rounded > value, np.round(rounded - 10.0**-digits, digits), rounded)[()]


def _lower_and_rest(k: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower bound p and 1 - p, each with the digits the other has lost where it is close to 1."""
    inside = (k > 0) & (k < n)
    a, b = np.where(inside, k, 1.0), np.where(inside, n - k + 1, 1.0)
    p = _solve_beta(betaincinv, betainc, a, b, alpha) * (1 - _BETA_MARGIN)
    rest = _solve_beta(betainccinv, betaincc, b, a, alpha) * (1 + _BETA_MARGIN)
    p = np.where(k == n, alpha ** (1 / n) * (1 - _BETA_MARGIN), p)
    rest = np.where(k == n, -np.expm1(np.log(alpha) / n) * (1 + _BETA_MARGIN), rest)
    lower = np.where(rest < 0.5, np.nextafter(1 - rest, 0), p)
    rest = np.where(rest < 0.5, rest, np.nextafter(1 - p, 2))
    return np.where(k == 0, 0.0, lower)[()], np.where(k == 0, 1.0, rest)[()]


def _solve_beta(inverse: np.ufunc, tail: np.ufunc, a: np.ndarray, b: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """x with tail(a, b, x) = alpha, bracketed to half of _BETA_MARGIN by two evaluations of the tail.

    SciPy 1.17's inverse is wrong in places (n_a = 1000 of n = 1e9 at alpha = 0.001: twice the exact bound), its tail
    was not seen wrong by more than 1e-11. Where the bracket fails, bisection on the tail takes over.
    """
    x = inverse(a, b, alpha)
    below, above = tail(a, b, x * (1 - _BETA_MARGIN / 2)), tail(a, b, np.minimum(x * (1 + _BETA_MARGIN / 2), 1))
    wrong = (below - alpha) * (above - alpha) > 0
    if not wrong.any():
        return x
    rising = tail is betainc
    low, high = np.zeros_like(x), np.ones_like(x)
    for _ in range(120):  # halves [0, 1] past the last digit of the smallest x that needs it
        mid = (low + high) / 2
        right = (tail(a, b, mid) < alpha) == rising
        low, high = np.where(right, mid, low), np.where(right, high, mid)
    return np.where(wrong, mid, x)


def _checked_counts(k: ArrayLike, n: ArrayLike, alpha: ArrayLike, name: str) -> tuple[np.ndarray, ...]:
    k, n, alpha = _checked_whole(k, name), _checked_whole(n, "n"), _checked_open_unit(alpha, "alpha")
    if (n < 1).any():
        raise ValueError(f"n must be at least 1; got {_first(n, n < 1)}")
    k, n, alpha = np.broadcast_arrays(k, n, alpha)
    if (k > n).any():
        raise ValueError(f"{name} must not exceed n; got {name} = {_first(k, k > n)} of n = {_first(n, k > n)}")
    return k, n, alpha


def _checked_whole(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value >= 0) & (value == np.floor(value)) & np.isfinite(value))
    if bad.any():
        raise ValueError(f"{name} must be a whole number >= 0; got {_first(value, bad)}")
    return value


def _checked_open_unit(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value > 0) & (value < 1))
    if bad.any():
        raise ValueError(f"{name} must lie strictly between 0 and 1; got {_first(value, bad)}")
    return value


def _checked_probability(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value >= 0) & (value <= 1))
    if bad.any():
        raise ValueError(f"{name} must lie in [0, 1]; got {_first(value, bad)}")
    return value


def _checked_positive(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value > 0) & np.isfinite(value))
    if bad.any():
        raise ValueError(f"{name} must be positive and finite; got {_first(value, bad)}")
    return value


def _checked_pair(p_a: ArrayLike, p_b: ArrayLike, sigma: ArrayLike) -> tuple[np.ndarray, ...]:
    p_a, p_b = _checked_probability(p_a, "p_a"), _checked_probability(p_b, "p_b")
    if (p_a + p_b > 1 + 1e-12).any():
        raise ValueError(f"p_a + p_b must not exceed 1; got {_first(p_a + p_b, p_a + p_b > 1 + 1e-12)}")
    return tuple(np.broadcast_arrays(p_a, p_b, _checked_positive(sigma, "sigma")))


def _first(value: np.ndarray, where: np.ndarray) -> float:
    return float(np.broadcast_to(value, np.shape(where))[where].flat[0])
