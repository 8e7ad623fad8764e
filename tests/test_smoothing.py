import numpy as np
import pytest
import torch
from scipy.stats import norm
from toys import Constant, Linear, anytime_radius, fixed_radius, hyperplane

from lib.bounds import AtRadii, Tolerance
from lib.smoothing import ABSTAIN, SmoothedClassifier

IMAGES = torch.rand(200, 1, 3, 4, generator=torch.Generator().manual_seed(2))
IDS = range(200)
SIGMA = 0.5


def smoothed(base=None, num_classes=2, **changed):
    return SmoothedClassifier(base or hyperplane(), SIGMA, num_classes, **changed)


def test_certified_radii_stay_below_the_distance_to_the_hyperplane():
    base = hyperplane()
    result = smoothed(base).certify(IMAGES, IDS, 100, 2000, 0.001)
    distance = base.distance(IMAGES).abs().numpy()
    assert (result.radius <= distance).all()  # alpha = 0.001 of 200: one failure has a chance of 18 % at worst
    certified = result.predict != ABSTAIN
    assert certified.mean() > 0.75  # the others are too close to the plane
    assert (result.predict == (base.distance(IMAGES) > 0).long().numpy())[certified].all()


def test_more_samples_bring_the_radius_close_to_the_exact_one():
    base = hyperplane()
    near = base.distance(IMAGES).abs().numpy() < SIGMA  # far from saturation
    few, many = (smoothed(base).certify(IMAGES, IDS, 1000, n, 0.001).radius for n in (200, 20_000))
    exact = base.distance(IMAGES).abs().numpy()
    assert (exact - many)[near].max() < 0.05 < (exact - few)[near].max()


def test_a_constant_classifier_is_certified_up_to_the_ceiling():
    result = smoothed(Constant(4).eval(), 10).certify(IMAGES[:3], IDS[:3], 100, 1000, 0.001)
    assert result.predict.tolist() == [4, 4, 4]
    assert result.radius == pytest.approx(SIGMA * norm.ppf(0.001 ** (1 / 1000)), rel=1e-6)


def test_a_coin_is_not_certified():
    coin = Linear(torch.eye(12)[0], -0.5).eval()
    result = smoothed(coin).certify(torch.full((50, 1, 3, 4), 0.5), range(50), 100, 1000, 1e-9)
    assert (result.predict == ABSTAIN).all() and (result.radius == 0).all()
    assert set(result.selected) == {0, 1}


def test_certify_bounds_with_other_samples_than_it_selects_with():
    g = smoothed()
    result = g.certify(IMAGES[:5], IDS[:5], 100, 400, 0.001)
    fresh = g.sample(IMAGES[:5], IDS[:5], 400, start=100)
    assert (result.n_a == fresh[np.arange(5), result.selected]).all()
    assert (result.selected == g.sample(IMAGES[:5], IDS[:5], 100).argmax(1)).all()


def test_predict_is_wrong_at_most_alpha_of_the_time():
    p, alpha, images = 0.55, 0.05, 4000
    base = Linear(torch.eye(12)[0], float(SIGMA * norm.ppf(p) - 0.5)).eval()  # class 1 with probability p
    answers = smoothed(base).predict(torch.full((images, 1, 3, 4), 0.5), range(images), 100, alpha)
    wrong = (answers == 0).mean()
    assert (answers == 1).mean() > 0 and wrong <= alpha
    assert (answers == ABSTAIN).any()


def test_predict_never_answers_with_ten_samples_at_one_in_a_thousand():
    constant = smoothed(Constant(1).eval(), 10)
    assert constant.predict(IMAGES[:2], IDS[:2], 10, 0.001).tolist() == [ABSTAIN, ABSTAIN]
    assert constant.predict(IMAGES[:2], IDS[:2], 11, 0.001).tolist() == [1, 1]


def test_certificates_fail_at_most_alpha_of_the_time():
    # The true radius of class A with probability p is sigma Phi^-1(p); simulate the counts that CERTIFY would see.
    p, n, alpha, draws = 0.8, 100, 0.05, 200_000
    n_a = np.random.default_rng(0).binomial(n, p, draws)
    failures = (fixed_radius(n_a, n, 1.0, alpha) > norm.ppf(p)).mean()
    assert 0 < failures <= alpha + 4 * np.sqrt(alpha / draws)


@pytest.mark.parametrize("p", [(0.5, 0.3, 0.2), (0.45, 0.45, 0.1), (0.4, 0.2, 0.2, 0.2), (0.34, 0.33, 0.33)])
def test_two_class_certificates_fail_at_most_alpha_of_the_time(p):
    n, alpha, draws = 200, 0.05, 200_000
    counts = np.random.default_rng(0).multinomial(n, p, draws)
    radius = fixed_radius(counts[:, 0], n, 1.0, alpha, n_b=counts[:, 1:].max(axis=1))
    truth = (norm.ppf(p[0]) - norm.ppf(max(p[1:]))) / 2
    assert (radius > truth + 1e-12).mean() <= alpha


def test_the_two_class_bound_certifies_what_the_one_sided_bound_cannot():
    assert fixed_radius(np.array(4500), 10_000, 1.0, 0.001) == 0
    assert fixed_radius(np.array(4500), 10_000, 1.0, 0.001, n_b=np.array(1000)) > 0.5


def test_a_denoiser_made_for_another_noise_level_is_refused():
    base = Constant(0).eval()
    base.expected_sigma = 0.25
    with pytest.raises(ValueError, match=r"sigma = 0.5, but base was made for noise of exactly 0.25"):
        smoothed(base, 10)


@pytest.mark.parametrize("alpha", [0.0, 1.0, float("nan")])
def test_alpha_outside_the_open_unit_interval_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must lie strictly between 0 and 1"):
        smoothed().certify(IMAGES[:1], IDS[:1], 10, 10, alpha)
    with pytest.raises(ValueError, match="alpha must lie strictly between 0 and 1"):
        smoothed().predict(IMAGES[:1], IDS[:1], 10, alpha)


RULES = [AtRadii(radii=(0.5,)), AtRadii(radii=(0, 0.25, 0.5, 1)), Tolerance(tolerance=0.05)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_sequential_certificates_stay_below_the_distance_and_take_fewer_samples(rule):
    base = hyperplane()
    result = smoothed(base).certify(IMAGES, IDS, 100, 10_000, 0.001, rule=rule)
    distance = base.distance(IMAGES).numpy()
    assert (result.radius <= np.abs(distance)).all()
    certified = result.predict != ABSTAIN
    assert (result.predict == (distance > 0))[certified].all()
    assert result.n.max() <= 10_000 and result.n.mean() < 6000


def test_an_image_that_is_clearly_certified_or_clearly_hopeless_stops_at_once():
    base = Linear(torch.eye(12)[0], -0.5).eval()
    images = torch.full((2, 1, 3, 4), 0.5)
    images[:, 0, 0, 0] += torch.tensor([0.4, 0.1])  # the distances to the plane: 4 and 1 times sigma
    g, rule = SmoothedClassifier(base, 0.1, 2), AtRadii(radii=(0.2,))
    result = g.certify(images, range(2), 100, 10_000, 0.001, rule=rule)
    assert (result.radius >= 0.2).tolist() == [True, False]
    assert (result.n <= 400).all()  # 2 sigma takes 300 to 400 unanimous votes


def test_a_sequential_certificate_rests_on_the_first_n_samples_of_each_image():
    g = smoothed()
    result = g.certify(IMAGES[:20], IDS[:20], 100, 5000, 0.001, rule=AtRadii(radii=(0.5,)))
    assert len(set(result.n)) > 3
    for i, n in enumerate(result.n):
        alone = g.sample(IMAGES[i : i + 1], [IDS[i]], int(n), start=100)[0]
        assert result.n_a[i] == alone[result.selected[i]] and result.n_b[i] == n - result.n_a[i]
    assert result.radius == pytest.approx(anytime_radius(result.n_a, result.n, SIGMA, 0.001))


def test_an_image_has_the_same_sequential_certificate_alone_and_in_a_sweep():
    rule = AtRadii(radii=(0, 0.25, 0.5))
    together = smoothed().certify(IMAGES[:12], IDS[:12], 100, 3000, 0.001, rule=rule)
    for i in (0, 5, 11):
        alone = smoothed().certify(IMAGES[i : i + 1], IDS[i : i + 1], 100, 3000, 0.001, rule=rule)
        assert (alone.n[0], alone.n_a[0], alone.radius[0]) == (together.n[i], together.n_a[i], together.radius[i])


def test_sequential_certificates_fail_at_most_alpha_of_the_time():
    # every image has the true radius 0.5 sigma, so whatever is certified beyond it is a failure
    p, alpha, images = norm.cdf(0.5), 0.1, 2000
    base = Linear(torch.eye(12)[0], float(SIGMA * 0.5 - 0.5)).eval()
    rule = AtRadii(radii=(0.5 * SIGMA * (1 + 1e-6),))
    same = torch.full((images, 1, 3, 4), 0.5)
    result = smoothed(base).certify(same, range(images), 100, 1000, alpha, rule=rule)
    assert 0 < (result.radius > SIGMA * norm.ppf(p)).mean() <= alpha
