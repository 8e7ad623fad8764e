"""Bounds on a probability from counts: Clopper-Pearson, the test of PREDICT, intervals over images.

The margins that keep every bound on the safe side are written where they are taken; tests/test_bounds.py holds them
against 50-digit arithmetic.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincc, betainccinv, betaincinv
from scipy.stats import binom

from lib.bounds.arguments import checked_counts, checked_open_unit, checked_whole, numbers, whole_number

# Clopper-Pearson bounds are widened by this, relative to the smaller of p and 1 - p; 1e-12 was seen to be needed.
_BETA_MARGIN = 1e-10


def lower_confidence_bound(n_a: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """One-sided Clopper-Pearson lower bound on p from n_a successes in n trials (Cohen et al. 2019, section 3.2.2).

    P(bound <= p) >= 1 - alpha over the draw of n_a ~ Binomial(n, p), whatever p is. 0 where n_a = 0.
    `n_a`, `n`: whole numbers, 0 <= n_a <= n, 1 <= n; `alpha` in (0, 1). ValueError otherwise.
    """
    return _lower_and_rest(*checked_counts(n_a, n, alpha, "n_a"))[0]


def upper_confidence_bound(n_b: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """One-sided Clopper-Pearson upper bound on p from n_b successes in n trials; the mirror of the lower bound.

    P(bound >= p) >= 1 - alpha. 1 where n_b = n. Same arguments and errors as `lower_confidence_bound`.
    """
    n_b, n, alpha = checked_counts(n_b, n, alpha, "n_b")
    return _lower_and_rest(n - n_b, n, alpha)[1]


def predict_pvalue(n_a: ArrayLike, n_b: ArrayLike) -> np.ndarray:
    """Two-sided binomial p-value that the top two counts tie (Cohen et al. 2019, PREDICT; Hung & Fithian 2019).

    PREDICT answers iff this is at most alpha. `n_a`, `n_b`: the two largest counts, whole numbers >= 0.
    """
    n_a, n_b = checked_whole(n_a, "n_a"), checked_whole(n_b, "n_b")
    tail = binom.sf(np.maximum(n_a, n_b) - 1, n_a + n_b, 0.5)
    return np.minimum(2 * tail, 1.0)[()]


def accuracy_interval(hits: ArrayLike, m: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided Clopper-Pearson interval for the accuracy on the population from which the m images were drawn."""
    alpha = (1 - checked_open_unit(confidence, "confidence")) / 2
    return lower_confidence_bound(hits, m, alpha), upper_confidence_bound(hits, m, alpha)


def true_certified_accuracy(hits: ArrayLike, m: ArrayLike, alpha: float, rho: float = 0.001) -> np.ndarray:
    """Lower bound on the certified accuracy of these m images that no failed confidence bound can spoil.

    Each certificate is wrong with probability at most alpha, so with probability 1 - rho at most
    q = BinomInv(1 - rho; m, alpha) are, and the bound is (hits - q) / m. Exact where Theorem 6 of Cohen et al. 2019
    is asymptotic, and tighter (m = 500, alpha = rho = 0.001: 0.008 is deducted, not 0.0109).
    """
    hits, m, level = checked_counts(hits, m, alpha, "hits")
    q = binom.ppf(1 - checked_open_unit(rho, "rho"), m, level)
    return (np.maximum(hits - q, 0) / m)[()]


def round_down(value: ArrayLike, digits: int) -> np.ndarray:
    """`value` with `digits` decimals, never above it, for printing radii (the papers' logs round to nearest)."""
    value, digits = numbers(value, "value"), whole_number(digits, "digits", 0)
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
