"""The older theorems as bounds, and bounds on soft scores: golden values, coverage, and that no attack beats them."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from toys import Linear, hyperplane

from lib.bounds import (
    ABSTAIN,
    Bound,
    Certificate,
    PixelDPBound,
    RenyiBound,
    Tolerance,
    bernstein_width,
    certified_radius,
    hoeffding_width,
    lower_confidence_bound,
    pixeldp_radius,
    pixeldp_sigma,
    renyi_radius,
    score_probabilities,
)
from lib.sampling import Gaussian, Laplace, certify_scores, class_counts, score_moments

UNIT = Gaussian(1.0)
OLDER = [kind(anytime=a, two_class=t) for kind in (RenyiBound, PixelDPBound) for a in (0, 1) for t in (0, 1)]


# ---- Renyi and PixelDP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", OLDER, ids=lambda bound: bound.name)
def test_an_older_bound_has_the_probabilities_of_its_votes_and_the_radius_of_its_theorem(bound):
    p_a, p_b = Bound(anytime=bound.anytime, two_class=bound.two_class).probabilities(900, 40, 1000, 0.001)
    theorem = renyi_radius if isinstance(bound, RenyiBound) else pixeldp_radius
    expected = theorem(p_a, 1 - p_a if p_b is None else min(p_b, 1 - p_a), 1.0)
    assert bound.radius(900, 40, 1000, 0.001, UNIT) == pytest.approx(float(expected), rel=1e-12)
    assert Bound.named(bound.name) == bound


def test_on_the_same_votes_both_lie_below_cohen_and_pixeldp_below_renyi_where_there_is_one_other_class():
    """Cohen's radius is the largest that holds, so no attack beats one that is smaller."""
    random, n = np.random.default_rng(0), 10_000
    n_a = random.integers(0, n + 1, 1500)
    n_b = random.integers(0, n - n_a + 1)
    n_a[:3], n_b[:3] = (n, 0, n // 2), (0, 0, n // 2)
    for two in (False, True):
        radii = [b(two_class=two).radius(n_a, n_b, n, 0.001, UNIT) for b in (PixelDPBound, RenyiBound, Bound)]
        assert (radii[0] <= radii[2]).all() and (radii[1] <= radii[2]).all() and np.isfinite(radii).all()
        assert two or (radii[0] <= radii[1]).all()
        assert ((radii[0] > 0) == (radii[2] > 0)).all() and 0.2 < (radii[2] > 0).mean() < 0.9


@pytest.mark.parametrize(
    ("p", "cohen", "renyi", "pixeldp"),
    [(0.8, 0.84162, 0.67422, 0.23516), (0.9, 1.28155, 1.03193, 0.39027), (0.99, 2.32635, 1.90801, 0.55486)],
)
def test_published_values_of_the_three_theorems(p, cohen, renyi, pixeldp):
    found = certified_radius(p, 1.0), renyi_radius(p, 1 - p, 1.0), pixeldp_radius(p, 1 - p, 1.0)
    assert found == pytest.approx((cohen, renyi, pixeldp), abs=2e-5)


def test_the_radius_of_pixeldp_under_laplace_noise_is_the_budget_that_its_condition_leaves():
    noise = Laplace(0.5)
    p_a = lower_confidence_bound(900, 1000, 0.001)
    radius = PixelDPBound().radius(900, 50, 1000, 0.001, noise)
    budget = radius / noise.scale
    assert p_a == pytest.approx(np.exp(2 * budget) * (1 - p_a), rel=1e-9)
    assert radius <= noise.radius(p_a) and PixelDPBound().radius(500, 400, 1000, 0.001, noise) == 0


def test_the_noise_level_of_an_attack_bound():
    assert pixeldp_sigma(0.1) == pytest.approx(0.2537, abs=5e-5)
    assert pixeldp_sigma(1.0) == pytest.approx(2.537, abs=5e-4)
    for wrong in ({"attack": 0.0}, {"attack": 1.0, "delta": 1.0}, {"attack": 1.0, "epsilon": -1.0}):
        with pytest.raises(ValueError, match="must"):
            pixeldp_sigma(**wrong)


def test_a_rule_may_stop_under_an_older_bound_that_is_anytime():
    how = Certificate(n0=10, n=2000, alpha=0.001, rule=Tolerance(tolerance=0.05), bound=RenyiBound(anytime=True))
    radius = how.radius(np.array([1900, 1000]), np.array([100, 900]), 2000, UNIT)
    assert how.parameters()["bound"] == "renyi, anytime" and radius[0] > 0 == radius[1]
    assert how.rule.settled(np.array([1900]), np.array([100]), 2000, how, UNIT).all()


# ---- scores ----------------------------------------------------------------------------------------------------


def test_widths_by_hand():
    """PixelDP's: K = 10 classes share eta = 0.05, n = 2000 draws."""
    assert hoeffding_width(2000, 0.05 / 10) == pytest.approx(0.03640, abs=1e-5)
    assert bernstein_width(2000.0, 2000.0, 2000, 0.05 / 10) == pytest.approx(0.00699, abs=1e-4)
    variance = 100 / 99 * 0.25  # half of the scores 1, half 0
    expected = np.sqrt(2 * variance * np.log(2000) / 100) + 7 * np.log(2000) / (3 * 99)
    assert bernstein_width(50.0, 50.0, 100, 0.001) == pytest.approx(expected, rel=1e-6)


LAWS = {
    "votes": lambda random, shape: (random.random(shape) < 0.9).astype(float),
    "rare": lambda random, shape: (random.random(shape) < 0.01).astype(float),
    "beta": lambda random, shape: random.beta(8, 2, shape),
    "nearly certain": lambda random, shape: 1 - 1e-3 * random.random(shape),
}
MEANS = {"votes": 0.9, "rare": 0.01, "beta": 0.8, "nearly certain": 1 - 5e-4}


@pytest.mark.parametrize("bernstein", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_bounds_on_a_mean_fail_no_more_often_than_alpha(law, bernstein):
    scores = LAWS[law](np.random.default_rng(0), (4000, 100))
    sums, squares = scores.sum(1), (scores**2).sum(1)
    width = bernstein_width(sums, squares, 100, 0.05) if bernstein else hoeffding_width(100, 0.05)
    for error in (sums / 100 - MEANS[law], MEANS[law] - sums / 100):
        assert (error > width).mean() <= 0.05


def test_bernstein_is_narrower_where_scores_hardly_vary_and_wider_where_they_are_votes():
    steady, votes = LAWS["nearly certain"](np.random.default_rng(0), 10_000), np.repeat([0.0, 1.0], 5000)
    widths = [bernstein_width(s.sum(), (s**2).sum(), 10_000, 0.001) / hoeffding_width(10_000, 0.001)
              for s in (steady, votes)]  # fmt: skip
    assert widths[0] < 0.2 and widths[1] > 1


def test_the_selected_class_gets_a_lower_bound_and_the_most_likely_other_an_upper_one():
    sums = np.array([[600.0, 300.0, 100.0], [100.0, 300.0, 600.0]])
    p_a, p_b = score_probabilities(sums, [0, 1], 1000, 0.001)
    width = hoeffding_width(1000, 0.0005)
    assert p_a == pytest.approx([0.6 - width, 0.3 - width]) and p_b == pytest.approx([0.3 + width, 0.6 + width])
    squares = np.array([[600.0, 90.0, 10.0]])  # votes for the first, steady scores for the others
    assert score_probabilities(sums[:1], [0], 1000, 0.001, squares=squares)[1] < p_b[0]


@pytest.mark.parametrize("sums", [[[-1.0, 2.0]], [[11.0, 0.0]], [[np.nan, 1.0]]])
def test_sums_that_no_scores_have_are_refused(sums):
    with pytest.raises(ValueError, match="sums must be of n = 10 scores"):
        score_probabilities(sums, [0], 10, 0.1)


@pytest.mark.parametrize(("n", "alpha"), [(0, 0.1), (1.5, 0.1), (10, 0.0), (10, 1.0)])
def test_sizes_and_levels_out_of_range_are_refused(n, alpha):
    with pytest.raises(ValueError, match="must"):
        hoeffding_width(n, alpha)
    with pytest.raises(ValueError, match="must"):
        bernstein_width(0.0, 0.0, n, alpha)


IMAGES = torch.rand(1000, 1, 3, 4, generator=torch.Generator().manual_seed(0))


def soft(sharpness):
    plane = hyperplane()
    return Linear(sharpness * plane.w, sharpness * plane.b).eval()


def test_moments_are_the_sums_of_the_softmax_and_of_its_squares():
    base = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    seen = []
    base.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().double().softmax(1)))
    sums, squares = score_moments(base, IMAGES[:1], None, 50, num_classes=3, sigma=0.25, batch_size=50)
    p = seen[0].numpy()
    assert sums[0] == pytest.approx(p.sum(0), rel=1e-9) and squares[0] == pytest.approx((p**2).sum(0), rel=1e-9)
    plain = class_counts(base, IMAGES[:1], None, 50, num_classes=3, sigma=0.25, counting="scores", batch_size=50)
    assert plain[0].tolist() == pytest.approx(sums[0], rel=1e-9)


@pytest.mark.parametrize("bernstein", [True, False])
@pytest.mark.parametrize("sharpness", [200.0, 2.0])
def test_no_soft_certificate_reaches_beyond_the_plane(sharpness, bernstein):
    """A linear f, sharp (the worst case of the theorem) and flat: g's own boundary is the plane, by symmetry."""
    predict, radius = certify_scores(
        soft(sharpness), IMAGES, n0=20, n=1000, alpha=0.001, sigma=0.25, num_classes=2, bernstein=bernstein
    )
    distance = soft(1.0).distance(IMAGES).double().numpy()
    wrong = (predict != ABSTAIN) & ((predict != (distance > 0)) | (radius > np.abs(distance)))
    assert wrong.sum() <= 6 and (radius > 0).mean() > 0.3


def test_the_radius_of_expected_scores_is_reached_by_the_sharpest_function():
    """E f along the normal is Phi(distance / sigma): at 1.001 R it has fallen below a half, at 0.999 R it has not."""
    p = np.array([0.6, 0.9, 0.999])
    radius = certified_radius(p, 0.25)
    at = norm.ppf(p) * 0.25
    assert (norm.cdf((at - 0.999 * radius) / 0.25) > 0.5).all() and (norm.cdf((at - 1.001 * radius) / 0.25) < 0.5).all()


def test_votes_are_scores_and_clopper_pearson_beats_the_mean_bounds_on_them():
    p_a, _ = score_probabilities(np.array([[990.0, 10.0]]), [0], 1000, 0.001)
    p_bernstein, _ = score_probabilities(np.array([[990.0, 10.0]]), [0], 1000, 0.001, squares=np.array([[990.0, 10.0]]))
    assert max(p_a[0], p_bernstein[0]) < Bound(two_class=True).probabilities(990, 10, 1000, 0.001)[0]
