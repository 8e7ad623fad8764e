"""The bounds against 50-digit arithmetic, closed forms, published values and simulation."""

import mpmath as mp
import numpy as np
import pytest
from scipy.stats import binomtest

from lib.bounds import (
    accuracy_interval,
    certified_radius,
    least_votes,
    lower_confidence_bound,
    lp_radius,
    pixeldp_radius,
    predict_pvalue,
    renyi_radius,
    round_down,
    true_certified_accuracy,
    upper_confidence_bound,
)

mp.mp.dps = 50


def exact_tail(k: int, n: int, p: mp.mpf) -> mp.mpf:
    """P(Binomial(n, p) >= k) for p below k / n: the pmf at k, then the falling ratio of neighbours."""
    if k == n:
        return p**n
    q = 1 - p
    term = mp.exp(
        mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1) + k * mp.log(p) + (n - k) * mp.log(q)
    )
    total, odds = term, p / q
    for i in range(k, n):
        term *= (n - i) * odds / (i + 1)
        total += term
        if term < total * mp.mpf(10) ** -40:
            break
    return total


# n_a = 1000 of 1e9 is where SciPy's own inverse returns twice the bound.
COUNTS = [
    *((k, n) for n in (1, 2, 10, 1000, 10**5) for k in {1, n // 3 + 1, n // 2 + 1, n - 1, n} if 0 < k <= n),
    *((k, 10**7) for k in (1, 1000, 5_000_001, 9_999_000)),
    *((k, 10**9) for k in (1, 1000, 999_999_000, 10**9)),
]


@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-12])
@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_lower_bound_is_never_above_the_exact_one_and_within_1e9_of_it(k, n, alpha):
    bound = mp.mpf(float(lower_confidence_bound(k, n, alpha)))
    assert exact_tail(k, n, bound) <= alpha
    slightly_more = bound * (1 + mp.mpf(10) ** -9)
    assert slightly_more >= 1 or exact_tail(k, n, slightly_more) >= alpha


@pytest.mark.parametrize("alpha", [0.05, 1e-12])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 10**9), (3, 10), (999, 1000), (10**6, 10**7), (10**9 - 1000, 10**9)])
def test_upper_bound_is_never_below_the_exact_one_and_within_1e9_of_it(k, n, alpha):
    bound = mp.mpf(float(upper_confidence_bound(k, n, alpha)))
    assert exact_tail(n - k, n, 1 - bound) <= alpha  # P(Bin(n, bound) <= k), counted in failures
    assert exact_tail(n - k, n, 1 - bound * (1 - mp.mpf(10) ** -9)) >= alpha


def test_no_successes_give_zero_and_no_failures_give_one():
    assert lower_confidence_bound(0, 10, 0.001) == 0
    assert upper_confidence_bound(10, 10, 0.001) == 1


def test_bounds_agree_with_scipys_exact_interval():
    for k, n in ((99, 100), (51_000, 100_000), (80_000, 100_000), (7, 50)):
        low = binomtest(k, n, alternative="greater").proportion_ci(0.999, "exact").low
        high = binomtest(k, n, alternative="less").proportion_ci(0.999, "exact").high
        assert lower_confidence_bound(k, n, 0.001) == pytest.approx(low, rel=1e-9)
        assert upper_confidence_bound(k, n, 0.001) == pytest.approx(high, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "alpha", "z"),
    [
        (100, 0.001, 1.50048),
        (1000, 0.001, 2.46326),
        (10_000, 0.001, 3.19858),
        (10**5, 0.001, 3.81146),
        (10**5, 0.01, 3.91051),
    ],
)
def test_unanimous_votes_saturate_at_the_published_radius(n, alpha, z):
    assert certified_radius(lower_confidence_bound(n, n, alpha), 1) == pytest.approx(z, abs=5e-6)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.4])
def test_lower_bound_fails_at_most_alpha_of_the_time(p):
    n, alpha, draws = 200, 0.05, 200_000
    counts = np.random.default_rng(7).binomial(n, p, draws)
    failures = (lower_confidence_bound(counts, n, alpha) > p).mean()
    assert failures <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / draws)
    assert failures > 0  # a bound that never fails is not this bound


@pytest.mark.parametrize("p", ["0.5", "0.500000001", "0.6", "0.99", "0.9999999999"])
def test_radius_is_never_above_the_exact_one(p):
    exact = mp.sqrt(2) * mp.erfinv(2 * mp.mpf(float(p)) - 1)
    assert certified_radius(float(p), 1.0) <= exact
    assert certified_radius(float(p), 1.0) == pytest.approx(float(exact), rel=1e-12)


def test_radius_with_two_probabilities_is_half_the_difference_of_quantiles():
    # Phi(1) and Phi(-2): R = sigma / 2 * 3
    assert certified_radius(0.8413447460685429, 0.5, 0.022750131948179195) == pytest.approx(0.75, abs=1e-12)


def test_radius_is_zero_where_the_runner_up_may_win():
    assert certified_radius(0.5, 1.0) == certified_radius(0.3, 1.0) == certified_radius(0.4, 1.0, 0.45) == 0


def test_two_class_bound_reaches_the_values_of_the_literature():
    votes, runner_up = np.array([45e3, 70e3, 70e3, 90e3, 49e3]), np.array([10e3, 10e3, 28e3, 2e3, 3e3])
    radii = certified_radius(
        lower_confidence_bound(votes, 1e5, 0.0005), 1.0, upper_confidence_bound(runner_up, 1e5, 0.0005)
    )
    assert radii == pytest.approx([0.563, 0.887, 0.540, 1.644, 0.908], abs=6e-4)


def test_predict_p_value_is_the_two_sided_binomial_test():
    for n_a, n_b in ((552, 448), (553, 447), (5, 5), (11, 0), (10, 0), (0, 0)):
        truth = binomtest(n_a, n_a + n_b, 0.5).pvalue if n_a + n_b else 1.0
        assert predict_pvalue(n_a, n_b) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(
    ("p", "ours", "renyi", "pixeldp"),
    [
        (0.6, 0.25335, 0.20222, 0.05922),
        (0.8, 0.84162, 0.67422, 0.23516),
        (0.9, 1.28155, 1.03193, 0.39027),
        (0.99, 2.32635, 1.90801, 0.55486),
        (0.999, 3.09023, 2.57574, 0.56891),
        (0.9999, 3.71902, 3.14094, 0.57031),
    ],
)
def test_the_three_radii_have_their_published_values(p, ours, renyi, pixeldp):
    # 1.1e-5: the published figures are printed with five decimals
    assert certified_radius(p, 1) == pytest.approx(ours, abs=1.1e-5)
    assert renyi_radius(p, 1 - p, 1) == pytest.approx(renyi, abs=1.1e-5)
    assert pixeldp_radius(p, 1 - p, 1) == pytest.approx(pixeldp, abs=1.1e-5)


@pytest.mark.parametrize("p", [0.55, 0.9, 0.9999])
def test_older_radii_are_below_the_supremum_that_mpmath_finds(p):
    def renyi(a):
        mean = ((mp.mpf(p) ** (1 - a) + mp.mpf(1 - p) ** (1 - a)) / 2) ** (1 / (1 - a))
        return mp.sqrt(-2 / a * mp.log(2 * mean))

    best = max(renyi(mp.mpf(i) / 200) for i in range(1, 600) if i != 200)
    assert best <= renyi_radius(p, 1 - p, 1) + 1e-6
    assert renyi_radius(p, 1 - p, 1) < certified_radius(p, 1)  # the Gaussian radius is the tight one


def test_test_set_bound_deducts_the_binomial_quantile_of_failed_certificates():
    assert true_certified_accuracy(400, 500, 0.001, 0.001) == pytest.approx((400 - 4) / 500)
    assert true_certified_accuracy(4000, 10_000, 0.001, 0.001) == pytest.approx((4000 - 21) / 10_000)


def test_population_interval_is_scipys():
    low, high = accuracy_interval(300, 500, 0.95)
    truth = binomtest(300, 500).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((truth.low, truth.high), rel=1e-9)


def test_norm_conversions_fit_the_ball_inside():
    assert lp_radius(0.5, np.inf, 3072) * 255 == pytest.approx(2.30, abs=0.005)
    assert lp_radius(1.0, 2, 3072) == lp_radius(1.0, 1, 3072) == 1
    rng = np.random.default_rng(0)
    deltas = rng.uniform(-1, 1, (1000, 27)) * lp_radius(1.0, np.inf, 27)
    assert np.linalg.norm(deltas, axis=1).max() <= 1


def test_rounding_goes_down_and_by_less_than_one_unit():
    values = np.random.default_rng(0).uniform(0, 4, 10_000)
    rounded = round_down(values, 3)
    assert (rounded <= values).all() and (values - rounded < 0.001 + 1e-12).all()
    assert round_down(0.457, 3) == 0.457 and round_down(0.45678, 3) == 0.456


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lower_confidence_bound(11, 10, 0.001), "n_a must not exceed n; got n_a = 11.0 of n = 10.0"),
        (lambda: lower_confidence_bound(2.5, 10, 0.001), "n_a must be a whole number >= 0; got 2.5"),
        (lambda: lower_confidence_bound(np.nan, 10, 0.001), "n_a must be a whole number >= 0; got nan"),
        (lambda: lower_confidence_bound(-1, 10, 0.001), "n_a must be a whole number >= 0; got -1.0"),
        (lambda: upper_confidence_bound(11, 10, 0.001), "n_b must not exceed n"),
        (lambda: lower_confidence_bound(0, 0, 0.001), "n must be at least 1; got 0.0"),
        (lambda: lower_confidence_bound(1, 10, 0.0), "alpha must lie strictly between 0 and 1; got 0.0"),
        (lambda: lower_confidence_bound([1, 2], 10, [0.1, 1.0]), "alpha must lie strictly between 0 and 1; got 1.0"),
        (lambda: certified_radius(0.9, 0.0), "sigma must be positive and finite; got 0.0"),
        (lambda: certified_radius(1.1, 1.0), r"p_a must lie in \[0, 1\]; got 1.1"),
        (lambda: certified_radius(float("nan"), 1.0), r"p_a must lie in \[0, 1\]; got nan"),
        (lambda: renyi_radius(0.9, 0.2, 1.0), "p_a \\+ p_b must not exceed 1; got 1.1"),
        (lambda: lp_radius(1.0, 0.5, 10), "p must be at least 1, or inf; got 0.5"),
    ],
)
def test_bad_input_is_refused_by_name_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-9])
@pytest.mark.parametrize("ratio", [1e-6, 0.4, 1.0, 1.5, 3.0])
def test_the_fewest_agreeing_votes_certify_the_radius_and_one_fewer_does_not(ratio, alpha):
    n = least_votes(0.25 * ratio, 0.25, alpha)
    assert n == mp.ceil(mp.log(alpha) / mp.log(mp.ncdf(ratio)))
    reach = certified_radius(lower_confidence_bound(n, n, alpha), 0.25)
    assert reach >= 0.25 * ratio * (1 - 1e-9)
    assert n == 1 or certified_radius(lower_confidence_bound(n - 1, n - 1, alpha), 0.25) < 0.25 * ratio


@pytest.mark.parametrize(
    ("radius", "sigma", "alpha", "name"),
    [(0, 1, 0.1, "radius"), (np.inf, 1, 0.1, "radius"), (1, 0, 0.1, "sigma"), (1, 1, 1, "alpha"), (1, 1, 0, "alpha")],
)
def test_the_fewest_votes_of_no_radius_are_refused(radius, sigma, alpha, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        least_votes(radius, sigma, alpha)
