"""Anytime-valid bounds on a probability: they hold at whatever moment one stops sampling.

The fixed-n bound of `lib.bounds.binomial` is void if somebody looks at the votes and then decides to go on. These hold
however often one looks, so an image that is clear after 100 samples costs 100. They rest on a bet: who stakes money on
the selected class, at odds that would be fair if its probability were p0, gets rich only if it is above p0.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaln, ndtr

from lib.bounds.arguments import checked_counts, checked_open_unit

# betaln and k log p lose up to n log(n) ulps in their difference, betainc 1e-11 of its value. The log wealth is
# lowered by several times that, which costs n = 1e5 a part in 1e9 of the wealth.
_ULPS, _TAIL_MARGIN = 2e-15, 1e-9
_Z_MAX = 9.0  # bounds are sought between Phi(-9) and Phi(9) = 1 - 1e-19, the last float64 before 1 and beyond
_PHI_MARGIN = 1e-14  # SciPy's ndtr was seen within 1e-15 of the exact value


def log_wealth(k: ArrayLike, n: ArrayLike, p0: ArrayLike, one_sided: bool = True) -> np.ndarray:
    """Log of what a Krichevsky-Trofimov gambler has made of 1 after k successes in n trials, at the fair odds of p0.

    The gambler spreads the stake over all q by the Beta(1/2, 1/2) prior and bets on each as if it were the truth:
    W = int q^k (1-q)^(n-k) dprior(q) / (p0^k (1-p0)^(n-k)). One-sided, only the q > p0 take part (the prior is cut
    there and made whole again). Such a bet loses on average, or breaks even, whatever the true p <= p0 is, so
    W is a nonnegative supermartingale that starts at 1, and by Ville's inequality P(W >= 1/alpha at any n) <= alpha:
    to reject p <= p0 the moment W >= 1/alpha is a test of level alpha. Two-sided, the same holds for p = p0 only; it
    holds for all p <= p0 if one rejects just where k / n > p0 too.
    `k`, `n`: whole numbers, 0 <= k <= n, 1 <= n; `p0` in (0, 1). ValueError otherwise. The value is never above the
    exact one (-inf where p0 is so far above k / n that the tail underflows).
    """
    p0 = checked_open_unit(p0, "p0")
    k, n, _ = checked_counts(k, n, 0.5, "k")
    return (_log_wealth if one_sided else _log_wealth_two_sided)(k, n, p0, 1 - p0)[()]


def anytime_lower_bound(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Lower bound on p from k successes in n trials that holds at every n at once: the smallest p with W(p) < 1/alpha.

    P(bound_n <= p for n = 1, 2, ...) >= 1 - alpha: were bound_n above p, the one-sided wealth of `log_wealth` at p0 = p
    would be at least 1/alpha at that n, and Ville's inequality gives this alpha in all. So n may depend on the votes in
    any way, and one bound serves all radii. It is never above its exact value, and 0 where k = 0. Same arguments and
    errors as `lower_confidence_bound`, which it replaces at a price: Phi^-1 of the bound is 3.77 at k = n = 100,000 and
    alpha = 0.001, where the fixed-n bound gives 3.81.
    """
    return _lower_and_rest(*checked_counts(k, n, alpha, "k"))[0][()]


def anytime_upper_bound(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Upper bound on p that holds at every n at once; the mirror image of the lower bound."""
    k, n, alpha = checked_counts(k, n, alpha, "k")
    return _lower_and_rest(n - k, n, alpha)[1][()]


def _log_wealth_two_sided(k: np.ndarray, n: np.ndarray, p: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """`rest` is 1 - p, with the digits that 1 - p loses where p is close to 1."""
    margin = _ULPS * (n + 1) * np.log(n + 2) + _TAIL_MARGIN
    return betaln(k + 0.5, n - k + 0.5) - np.log(np.pi) - k * np.log(p) - (n - k) * np.log(rest) - margin


def _log_wealth(k: np.ndarray, n: np.ndarray, p: np.ndarray, rest: np.ndarray) -> np.ndarray:
    # The upper tails of Beta at p are computed as lower tails at 1 - p. As 1 - betainc(..., p) they would not fall
    # below 1e-16, and hopeless images would look rich.
    with np.errstate(divide="ignore"):  # a tail that underflows is a wealth of 0
        tail = np.log(betainc(n - k + 0.5, k + 0.5, rest)) - np.log(betainc(0.5, 0.5, rest))
    return _log_wealth_two_sided(k, n, p, rest) + tail


def _lower_and_rest(k: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bound p and 1 - p, each with the digits that the other has lost: bisection for Phi^-1(p) to 18 / 2^40.

    W(p) falls as p rises wherever W(p) >= 1/alpha, so it crosses 1/alpha once. (d log W / dp = h (1 - 1/W) - s with
    s = (k - np) / (p (1-p)) and h the hazard rate of the prior at p. From p = 1/2 on h rises, and partial integration
    gives W - 1 <= s W / h; below 1/2, h >= s > 0 would make W at most exp(s^2 p (1-p) / n) <= 1.5.)
    """
    low, high = np.full(k.shape, -_Z_MAX), np.full(k.shape, _Z_MAX)
    for _ in range(40):
        middle = (low + high) / 2
        rejected = _log_wealth(k, n, ndtr(middle), ndtr(-middle)) >= -np.log(alpha)
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    p, rest = ndtr(low) * (1 - _PHI_MARGIN), ndtr(-low) * (1 + _PHI_MARGIN)
    lower = np.where(rest < 0.5, np.nextafter(1 - rest, 0), p)
    rest = np.where(rest < 0.5, rest, np.nextafter(1 - p, 2))
    return np.where(low > -_Z_MAX, lower, 0.0), np.where(low > -_Z_MAX, rest, 1.0)
