"""The anytime-valid bounds against 50-digit arithmetic, exact error probabilities and simulation."""

from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from scipy.special import betainc, betaln, ndtr, ndtri
from scipy.stats import binom, norm
from toys import anytime_radius, settled

from lib.bounds import (
    AtRadii,
    Tolerance,
    anytime_lower_bound,
    anytime_upper_bound,
    lower_confidence_bound,
    needed_shares,
)
from lib.bounds.anytime import log_wealth
from lib.sampling import Gaussian

mp.mp.dps = 30
BOUNDARIES = [0.55, 0.84, 0.977]  # p0 of r = 0.13, 1 and 2 sigma


def exact_log_wealth(k, n, p0, one_sided=True):
    """The closed form of the two-sided wealth; one-sided, the bets are added up by quadrature.

    In the angle asin(sqrt(q)) the Beta(1/2, 1/2) prior is uniform and nothing is singular.
    """
    p0 = mp.mpf(p0)
    if not one_sided:
        return mp.log(mp.beta(k + 0.5, n - k + 0.5) / mp.pi) - k * mp.log(p0) - (n - k) * mp.log(1 - p0)
    start, mode, width = mp.asin(mp.sqrt(p0)), mp.asin(mp.sqrt(mp.mpf(k) / n)), 1 / mp.sqrt(n)
    marks = {start, mp.pi / 2, *(min(max(mode + i * width, start), mp.pi / 2) for i in range(-15, 16, 5))}
    odds = lambda angle: (mp.sin(angle) ** 2 / p0) ** k * (mp.cos(angle) ** 2 / (1 - p0)) ** (n - k)  # noqa: E731
    return mp.log(mp.quad(odds, sorted(marks)) / (mp.pi / 2 - start))


POINTS = [
    (k, n, p0)
    for n, p0 in ((1, 0.5), (10, 0.55), (100, 0.84), (100, 0.3), (2000, 0.977), (100_000, 0.84), (100_000, 0.99903))
    for k in {n // 2, round(p0 * n), min(round(p0 * n + 3 * (p0 * (1 - p0) * n) ** 0.5), n), n}
]


@pytest.mark.parametrize("one_sided", [True, False])
def test_log_wealth_is_never_above_the_exact_one_and_close_to_it(one_sided):
    for k, n, p0 in POINTS:
        wealth = log_wealth(k, n, p0, one_sided)
        if np.isfinite(wealth):
            exact = exact_log_wealth(k, n, p0, one_sided)
            assert wealth <= exact, (k, n, p0)
            assert wealth == pytest.approx(float(exact), abs=1e-8, rel=1e-9), (k, n, p0)
        else:
            assert k / n < p0 - 0.3 * n**-0.5


def test_a_single_success_is_worth_what_the_bets_say_in_closed_form():
    # the mean of q / p0 under the arcsine prior cut at p0 = 1/2: (1/2 + 1/pi) / (1/2), by hand
    assert log_wealth(1, 1, 0.5) == pytest.approx(np.log(1 + 2 / np.pi), abs=1e-8)
    assert log_wealth(1, 1, 0.5, one_sided=False) == pytest.approx(0.0, abs=1e-8)


def test_the_naive_upper_tail_makes_hopeless_images_rich():
    k, n, p0 = 500, 1000, 0.977  # half of the votes: nobody should believe p > 0.977
    two_sided = betaln(k + 0.5, n - k + 0.5) - np.log(np.pi) - k * np.log(p0) - (n - k) * np.log(1 - p0)
    naive = two_sided + np.log(np.spacing(1.0)) - np.log1p(-betainc(0.5, 0.5, p0))  # 1 - (1 - tail) is 0 or an ulp
    assert 1 - betainc(k + 0.5, n - k + 0.5, p0) in (0.0, np.spacing(1.0) / 2, np.spacing(1.0))
    assert naive > 100 > np.log(1000) > 0 > log_wealth(k, n, p0)


@pytest.mark.parametrize("one_sided", [True, False])
def test_wealth_breaks_even_on_average_when_p_is_p0(one_sided):
    for p0 in BOUNDARIES:
        n, k = 300, np.arange(301)
        mean = np.exp(binom.logpmf(k, n, p0) + log_wealth(k, n, p0, one_sided)).sum()
        assert mean == pytest.approx(1, abs=1e-7)


def test_one_sided_wealth_loses_on_average_for_every_smaller_p_and_two_sided_may_win():
    n, k, p0 = 300, np.arange(301), 0.84
    for p in (0.8, 0.5, 0.1):
        assert np.exp(binom.logpmf(k, n, p) + log_wealth(k, n, p0)).sum() < 1
    assert np.exp(binom.logpmf(k, n, 0.5) + log_wealth(k, n, p0, one_sided=False)).sum() > 1


def crossing_probability(p0, alpha, horizon):
    """P(wealth >= 1/alpha at any n <= horizon) for p = p0, exactly: a walk over k with an absorbing boundary."""
    alive, absorbed = np.ones(1), 0.0
    for n in range(1, horizon + 1):
        alive = np.append(alive * (1 - p0), 0) + np.append(0, alive * p0)
        rich = log_wealth(np.arange(n + 1), n, p0) >= -np.log(alpha)
        absorbed += alive[rich].sum()
        alive[rich] = 0
    return absorbed


@pytest.mark.parametrize("p0", BOUNDARIES)
def test_looking_after_every_single_sample_errs_with_exactly_less_than_alpha(p0):
    assert 0.3 * 0.05 < crossing_probability(p0, 0.05, 1500) <= 0.05


@pytest.mark.parametrize("p0", BOUNDARIES)
def test_type_one_error_of_100_000_runs_stays_below_alpha(p0):
    runs, alpha, rng = 100_000, 0.05, np.random.default_rng(17)
    k, erred, before = np.zeros(runs, int), np.zeros(runs, bool), 0
    for n in [*range(1, 60, 3), *range(60, 2001, 40)]:
        k += rng.binomial(n - before, p0, runs)
        erred |= anytime_lower_bound(np.arange(n + 1), n, alpha)[k] > p0
        before = n
    assert 0.3 * alpha < erred.mean() <= alpha


def test_looking_again_and_again_with_the_fixed_n_bound_errs_more_often_than_alpha():
    # what the anytime bound is for: the same looks, the same runs, Clopper-Pearson
    runs, alpha, p0, rng = 20_000, 0.05, 0.84, np.random.default_rng(17)
    k, erred = np.zeros(runs, int), np.zeros(runs, bool)
    for n in range(40, 2001, 40):
        k += rng.binomial(40, p0, runs)
        erred |= lower_confidence_bound(np.arange(n + 1), n, alpha)[k] > p0
    assert erred.mean() > 3 * alpha


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (60, 100), (100, 100), (1990, 2000), (99_000, 10**5), (10**5, 10**5)])
def test_lower_bound_is_never_above_the_exact_crossing_and_close_to_it(k, n, alpha):
    bound, target = anytime_lower_bound(k, n, alpha), -mp.log(alpha)
    assert exact_log_wealth(k, n, bound) >= target
    slightly_more = mp.ncdf(mp.mpf(float(ndtri(bound))) + mp.mpf(10) ** -7)
    assert slightly_more > mp.mpf(1) - mp.mpf(10) ** -15 or exact_log_wealth(k, n, slightly_more) < target


@pytest.mark.parametrize("alpha", [0.9, 0.05, 0.001])
def test_the_bound_is_the_smallest_p_that_is_not_rejected(alpha):
    grid = ndtr(np.linspace(-6, 6, 4001))
    for n in (1, 5, 40, 1000):
        k = np.unique(np.linspace(1, n, 20).astype(int))
        rejected = log_wealth(k[:, None], n, grid) >= -np.log(alpha)
        smallest = grid[rejected.argmin(axis=1)]  # the first that is not rejected
        bound = anytime_lower_bound(k, n, alpha)
        assert (bound <= smallest).all()
        below = ndtri(smallest) - 12 / 4000
        assert (ndtri(np.maximum(bound, 1e-300)) >= below - 1e-9)[below > -6].all()


def test_bounds_grow_with_the_votes_and_with_alpha():
    k = np.arange(1001)
    assert (np.diff(anytime_lower_bound(k, 1000, 0.001)) >= 0).all()
    assert (np.diff(anytime_lower_bound(1000, 1000, [1e-6, 1e-3, 0.05, 0.5])) > 0).all()
    assert (np.diff(anytime_lower_bound(np.arange(1, 400), np.arange(1, 400), 0.001)) > 0).all()


def test_the_price_of_stopping_at_any_time_is_small():
    n = np.array([100, 1000, 10_000, 100_000])
    anytime, fixed = (ndtri(bound(n, n, 0.001)) for bound in (anytime_lower_bound, lower_confidence_bound))
    assert (anytime < fixed).all() and (fixed - anytime < 0.09).all()
    k = np.linspace(0.55, 1, 30) * 100_000 // 1
    assert (anytime_lower_bound(k, 100_000, 0.001) <= lower_confidence_bound(k, 100_000, 0.001)).all()


def test_upper_bound_is_the_mirror_image():
    k = np.array([0, 3, 50, 100])
    assert anytime_upper_bound(k, 100, 0.01) == pytest.approx(1 - anytime_lower_bound(100 - k, 100, 0.01), abs=1e-12)
    assert anytime_upper_bound(100, 100, 0.01) == 1 and anytime_lower_bound(0, 100, 0.01) == 0


def test_an_image_is_settled_where_it_is_certified_or_hopeless_and_not_between():
    rule = AtRadii(radii=(0.5,))
    votes = np.array([1000, 900, 850, 845, 780, 500])  # p0 = Phi(1) = 0.841
    decided = settled(rule, votes, 1000, sigma=0.5, alpha=0.001, cap=100_000)
    assert decided.tolist() == [True, True, False, False, True, True]
    assert (anytime_radius(votes, 1000, 0.5, 0.001) >= 0.5).tolist() == [True, True, False, False, False, False]


def test_a_grid_goes_on_until_its_last_undecided_radius():
    perfect = {"n_a": 1000, "n": 1000, "sigma": 0.5, "alpha": 0.001, "cap": 100_000}  # certified to 1.2
    assert settled(AtRadii(radii=(0.25, 1.0)), **perfect)
    assert not settled(AtRadii(radii=(0.25, 1.0, 1.5)), **perfect)
    assert settled(AtRadii(radii=(0.25, 1.0, 2.0)), **perfect)  # 4 sigma is beyond what 100,000 samples certify


def test_radius_zero_asks_whether_the_classifier_answers():
    rule, common = AtRadii(radii=(0.0,)), {"n": 1000, "sigma": 0.5, "alpha": 0.001, "cap": 100_000}
    assert settled(rule, [400, 500, 560, 600], **common).tolist() == [True, False, False, True]


def test_at_most_beta_of_the_certifiable_images_are_given_up():
    rule, runs, cap, rng = AtRadii(radii=(0.5,), beta=0.05), 20_000, 3000, np.random.default_rng(1)
    p = needed_shares((0.5,), cap, 0.001, Gaussian(0.5))[0]  # the boundary: the cap certifies about every second
    k, lost, before = np.zeros(runs, int), np.zeros(runs, bool), 0
    for n in rule.looks(cap):
        k += rng.binomial(n - before, p, runs)
        votes = np.arange(n + 1)
        certified = anytime_radius(votes, n, 0.5, 0.001) >= 0.5
        given_up = settled(rule, votes, n, sigma=0.5, alpha=0.001, cap=cap) & ~certified
        lost |= given_up[k] & (n < cap)
        before = n
    assert 0 < lost.mean() <= rule.beta


def test_within_a_tolerance_no_more_is_left_to_gain_than_that():
    rule, common = Tolerance(tolerance=0.05), {"sigma": 0.5, "alpha": 0.001, "cap": 100_000}
    few, many = (settled(rule, np.array([0.9 * n]).round(), n, **common)[0] for n in (1000, 20_000))
    assert not few and many
    left = anytime_radius(90_000, 100_000, 0.5, 0.001) - anytime_radius(18_000, 20_000, 0.5, 0.001)
    assert 0 < left < 0.05
    assert settled(rule, 300, 1000, **common) and not settled(rule, 510, 1000, **common)


def test_needed_share_is_the_least_that_certifies():
    for radius, share in zip((0.0, 0.5, 1.25), needed_shares((0.0, 0.5, 1.25), 5000, 0.001, Gaussian(0.5))):
        k = round(share * 5000)
        below, at = anytime_radius([k - 1, k], 5000, 0.5, 0.001)
        assert at >= radius and at > 0 and (below < radius or below == 0)
    assert needed_shares((5.0,), 5000, 0.001, Gaussian(0.5))[0] == np.inf


@pytest.mark.parametrize("growth", [1.01, 1.2, 2.0])
@pytest.mark.parametrize("cap", [50, 100, 1000, 12_345])
def test_looks_grow_in_hundreds_up_to_the_cap(cap, growth):
    looks = list(AtRadii(radii=(0.5,), growth=growth).looks(cap))
    assert looks == sorted(set(looks)) and looks[-1] == cap and looks[0] == min(100, cap)
    assert all(n % 100 == 0 for n in looks[:-1])
    assert all(b <= max(a + 100, a * growth + 50) for a, b in pairwise(looks))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_wealth(3, 2, 0.5), "k must not exceed n; got k = 3.0 of n = 2.0"),
        (lambda: log_wealth(1, 2, 1.0), "p0 must lie strictly between 0 and 1; got 1.0"),
        (lambda: anytime_lower_bound(1.5, 2, 0.1), "k must be a whole number >= 0; got 1.5"),
        (lambda: anytime_lower_bound(1, 2, 0.0), "alpha must lie strictly between 0 and 1; got 0.0"),
        (lambda: AtRadii(radii=()), r"radii must be finite, >= 0, ascending and at least one; got \(\)"),
        (lambda: AtRadii(radii=(0.5, 0.25)), "radii must be finite, >= 0, ascending"),
        (lambda: AtRadii(radii=(0.5,), growth=1.0), "growth must be above 1; got 1.0"),
        (lambda: AtRadii(radii=(0.5,), beta=0.0), "beta must lie strictly between 0 and 1; got 0.0"),
        (lambda: Tolerance(tolerance=0.0), "tolerance must be positive and finite; got 0.0"),
    ],
)
def test_bad_input_is_refused_by_name_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- the runner-up bounded too ---------------------------------------------------------------------------------


def test_the_two_class_radius_certifies_a_plurality_that_one_class_cannot():
    assert anytime_radius(4500, 10_000, 1.0, 0.001) == 0
    exact = (norm.ppf(0.45) - norm.ppf(0.1)) / 2
    assert 0.9 * exact < anytime_radius(45_000, 100_000, 1.0, 0.001, n_b=10_000) < exact


def test_with_one_other_class_the_two_class_radius_costs_half_of_alpha():
    votes = np.array([600, 900, 999])
    one, two = (anytime_radius(votes, 1000, 0.5, alpha, n_b) for alpha, n_b in ((0.0005, None), (0.001, 1000 - votes)))
    assert np.allclose(one, two, atol=1e-9)


def test_two_classes_that_tie_are_told_apart_in_at_most_alpha_of_100_000_sequential_runs():
    alpha, cap, runs = 0.05, 3000, 100_000
    rng, votes, wrong, done = np.random.default_rng(4), np.zeros((runs, 3), int), np.zeros(runs, bool), 0
    for n in AtRadii(radii=(0,)).looks(cap):
        votes += rng.multinomial(n - done, (0.4, 0.4, 0.2), size=runs)
        done = n
        distinct, which = np.unique(votes, axis=0, return_inverse=True)
        radius = anytime_radius(distinct[:, 0], n, 1.0, alpha, n_b=distinct[:, 1:].max(axis=1))
        wrong |= (radius > 0)[which.ravel()]
    assert 0 < wrong.mean() < alpha


def test_with_two_classes_an_image_is_settled_where_it_is_certified_or_hopeless():
    rule, common = AtRadii(radii=(0.5,)), {"n": 2000, "sigma": 0.5, "alpha": 0.001, "cap": 100_000}
    n_a, n_b = np.array([2000, 1800, 1550, 900, 300, 2000]), np.array([0, 50, 300, 500, 900, 0])
    assert settled(rule, n_a, n_b=n_b, **common).tolist() == [True, True, False, True, True, True]
    beyond = AtRadii(radii=(0.5, 9.0))  # what no number of votes certifies is not waited for
    assert settled(beyond, n_a, n_b=n_b, **common).tolist()[0]
    within = Tolerance(tolerance=0.01)
    assert settled(within, n_a, n_b=n_b, **common).tolist() == [False, False, False, False, True, False]
    assert settled(within, [0], 2900, sigma=0.5, alpha=0.001, cap=100_000, n_b=[2900])


@pytest.mark.parametrize(("p", "radius"), [(0.55, 0.16), (0.6, 0.3), (0.99, 2.6)])
def test_with_two_classes_hopeless_images_stop_nearly_as_soon_as_with_one(p, radius):
    # these probabilities are just short of what 10,000 samples would certify
    rule, rng, mean = AtRadii(radii=(radius,)), np.random.default_rng(0), {}
    for two_class in (False, True):
        votes, taken, active, done = np.zeros(300, int), np.zeros(300, int), np.arange(300), 0
        for n in rule.looks(10_000):
            votes[active] += rng.binomial(n - done, p, size=len(active))
            taken[active] = done = n
            n_b = n - votes[active] if two_class else None
            decided = settled(rule, votes[active], n, sigma=1.0, alpha=0.001, cap=10_000, n_b=n_b)
            active = active[~decided]
        mean[two_class] = taken.mean()
    assert mean[True] < 1.5 * mean[False] < 9000
