"""Bounds on the mean of scores in [0, 1], from their sums: what soft answers get in the place of Clopper-Pearson."""

import numpy as np
from numpy.typing import ArrayLike

from lib.bounds.arguments import checked_open_unit, checked_whole, first_of, numbers

_MARGIN = 1e-9  # of a mean: sums of float64 scores, and the square root


def hoeffding_width(n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """How far the mean of n independent scores in [0, 1] may lie above its expectation: sqrt(ln(1 / alpha) / (2 n)).

    It does so with probability at most alpha (Hoeffding 1963, theorem 2), whatever the scores' law; the same below.
    ValueError for n that is no whole number >= 1, or alpha outside (0, 1).
    """
    n, alpha = _sizes(n, alpha, 1)
    return np.sqrt(-np.log(alpha) / (2 * n)) + _MARGIN


def bernstein_width(sums: ArrayLike, squares: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """The same from what the scores show of their variance V: sqrt(2 V ln(2/alpha) / n) + 7 ln(2/alpha) / (3 (n - 1)).

    `sums`, `squares`: of the n scores and of their squares; V is the unbiased sample variance (Maurer and Pontil 2009,
    theorem 4). Narrower than Hoeffding's where scores hardly vary. ValueError for n below 2, or alpha outside (0, 1).
    """
    n, alpha = _sizes(n, alpha, 2)
    mean, log = np.asarray(sums, float) / n, np.log(2 / alpha)
    variance = np.maximum(np.asarray(squares, float) / n - mean**2, 0) * n / (n - 1) + _MARGIN
    return np.sqrt(2 * variance * log / n) + 7 * log / (3 * (n - 1)) + _MARGIN


def score_probabilities(
    sums: ArrayLike, selected: ArrayLike, n: int, alpha: float, *, squares: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(p_a, p_b): with probability at least 1 - alpha p_a is not above the expected score of class `selected`, and p_b
    not below that of any other; alpha / 2 each.

    `sums`, `squares` (N, K): of n scores in [0, 1] of each class; `selected` (N,), from other samples. With `squares`
    by empirical Bernstein, else by Hoeffding: choose before looking, the better of the two is no bound at alpha. No
    union over classes is needed: the true runner-up is one fixed class, and p_b is at least its upper bound.
    The expected scores may take the place of probabilities in the theorem of Cohen et al. 2019 and in the l1 ones,
    which hold for [0, 1]-valued functions.
    ValueError for sums that no n scores can have.
    """
    sums = numbers(sums, "sums")
    if not ((sums >= -1e-6 * n) & (sums <= n * (1 + 1e-6))).all():
        raise ValueError(
            f"sums must be of n = {n} scores in [0, 1]; got {first_of(sums, ~((sums >= 0) & (sums <= n)))}"
        )
    half = alpha / 2
    width = hoeffding_width(n, half) if squares is None else bernstein_width(sums, squares, n, half)
    column = np.asarray(selected)[:, None]
    lower, upper = (np.clip(sums / n + side * width, 0, 1) for side in (-1, 1))
    np.put_along_axis(upper, column, -1.0, axis=1)
    return np.take_along_axis(lower, column, axis=1)[:, 0], upper.max(axis=1)


def _sizes(n: ArrayLike, alpha: ArrayLike, least: int) -> tuple[np.ndarray, np.ndarray]:
    n, alpha = checked_whole(n, "n"), checked_open_unit(alpha, "alpha")
    if (n < least).any():
        raise ValueError(f"n must be at least {least}; got {first_of(n, n < least)}")
    return n, alpha
