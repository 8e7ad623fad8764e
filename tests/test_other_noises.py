"""Uniform and Laplace noise, and noise after a bounded first layer: laws, keys, and radii that attacks do not beat."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest, laplace, norm, uniform
from torch import nn
from torch.utils.data import TensorDataset
from toys import Linear

from lib.bounds import PixelDPBound, RenyiBound
from lib.bounds.certificate import BOUNDS
from lib.certification import certify_dataset
from lib.datasets import load_dataset
from lib.models import build_classifier
from lib.models.bounded import BoundedConv2d, Split, bounded_first_layer, convolution_norm
from lib.models.compute import Computed
from lib.records import recount
from lib.sampling import FeatureNoise, Gaussian, Laplace, Uniform, class_counts
from lib.sampling.scores import score_moments
from lib.smoothing import SmoothedClassifier
from lib.training.objectives import Gaussian as GaussianTraining
from lib.training.objectives import PixelDP, Step
from lib.training.objectives.pixeldp import noise_share

IMAGES = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(0))
SIGMA = 0.5
L1 = {"uniform": (Uniform(SIGMA), uniform(-(3**0.5) * SIGMA, 2 * 3**0.5 * SIGMA)),
      "laplace": (Laplace(SIGMA), laplace(0, SIGMA / 2**0.5))}  # fmt: skip


def drawn(noise, pieces, seed=0, shape=(1, 3, 4)):
    return noise.added(torch.zeros(sum(p[2] for p in pieces), *shape), pieces, seed)


# ---- laws and keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", L1)
def test_the_noise_has_its_law_and_sigma_is_its_deviation(name):
    noise, law = L1[name]
    numbers = drawn(noise, [(0, 0, 5000)]).flatten().double().numpy()
    assert kstest(numbers, law.cdf).pvalue > 1e-3
    assert law.std() == pytest.approx(SIGMA) and np.isfinite(numbers).all()


@pytest.mark.parametrize("name", L1)
def test_pixels_and_samples_are_independent(name):
    numbers = drawn(L1[name][0], [(0, 0, 4000)]).flatten(1).double().numpy()
    others = drawn(L1[name][0], [(1, 0, 4000)]).flatten(1).double().numpy()
    correlations = np.corrcoef(np.concatenate([numbers, others], 1).T) - np.eye(24)
    assert np.abs(correlations).max() < 5 / 4000**0.5


@pytest.mark.parametrize("name", L1)
def test_keys_and_not_calls_decide_the_noise(name):
    noise = L1[name][0]
    whole = drawn(noise, [(7, 0, 10)], seed=3)
    parts = [drawn(noise, [(7, 0, 4)], seed=3), drawn(noise, [(7, 4, 6)], seed=3)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[5:], drawn(noise, [(2, 0, 3), (7, 5, 5)], seed=3)[3:])
    assert not torch.equal(whole, drawn(noise, [(7, 0, 10)], seed=4))


# ---- l1 radii --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", L1)
@pytest.mark.parametrize("p", [0.5001, 0.6, 0.9, 0.999])
def test_a_threshold_on_one_pixel_falls_at_its_radius_and_not_before(name, p):
    """Class 1 where the noisy pixel is below t: the worst case, whose probability is exact."""
    noise, law = L1[name]
    threshold, radius = law.ppf(p), float(noise.radius(p))
    assert law.cdf(threshold - 0.999 * radius) > 0.5 > law.cdf(threshold - 1.001 * radius)


@pytest.mark.parametrize("name", L1)
def test_two_thresholds_fall_at_the_radius_of_two_classes_and_not_before(name):
    """Class A below t, B above u, C between: A and B tie where the pixel has moved by the radius."""
    noise, law = L1[name]
    for p_a, p_b in [(0.5, 0.2), (0.9, 0.05), (0.45, 0.3), (0.999, 1e-4), (0.3, 0.2)]:
        radius = float(noise.radius(p_a, p_b))
        before, after = (law.cdf(law.ppf(p_a) - r * radius) - law.sf(law.isf(p_b) - r * radius) for r in (0.999, 1.001))
        assert before > 0 > after
        assert radius >= float(noise.radius(p_a))


@pytest.mark.parametrize("name", L1)
def test_no_linear_classifier_of_two_pixels_falls_within_its_radius(name):
    """1,000 attacks in random directions of length R in l1; probabilities by integration over one pixel's noise."""
    noise, law = L1[name]
    random, grid = np.random.default_rng(0), law.ppf((np.arange(2000) + 0.5) / 2000)
    w, offset = random.normal(size=(1000, 2)), random.uniform(-0.5, 1.0, 1000)

    def chance(moved):  # P(w . noise + moved > 0)
        inner = law.sf(-(w[:, :1] * grid + moved[:, None]) / w[:, 1:])
        return np.where(w[:, 1] > 0, inner.mean(1), 1 - inner.mean(1))

    p = chance(offset)
    radius = np.where(p < 0.95, noise.radius(np.clip(p, 0, 0.95)), 0.0)  # beyond, the integral is not exact enough
    direction = random.normal(size=(1000, 2))
    direction[:500] = -np.sign(w[:500]) * (np.abs(w[:500]) == np.abs(w[:500]).max(1, keepdims=True))  # the strongest
    direction *= (radius / np.abs(direction).sum(1))[:, None]
    after = chance(offset + (w * direction).sum(1))
    assert (radius > 0).sum() > 300 and (after[radius > 0] > 0.5 - 1e-3).all()


@pytest.mark.parametrize(
    ("noise", "p", "radius"),
    [(Uniform(1.0), 0.9, 3**0.5 * 0.8), (Laplace(2**0.5), 0.9, -np.log(0.2)), (Laplace(2**0.5), 0.5, 0.0)],
)
def test_l1_radii_by_hand(noise, p, radius):
    assert noise.norm == "l1" and noise.radius(p) == pytest.approx(radius, abs=1e-12)
    assert noise.radius(p) <= radius and noise.radius(1 - p, p) == 0


def test_the_runner_up_form_of_teng_et_al_is_never_larger():
    for p_a, p_b in itertools.product(np.linspace(0.05, 0.99, 30), np.linspace(0.001, 0.5, 30)):
        if p_b < p_a <= 1 - p_b:  # beyond, there is no such pair
            theirs = max(0.5 * np.log(p_a / p_b), -np.log(1 - p_a + p_b))
            assert Laplace(2**0.5).radius(p_a, p_b) >= theirs - 1e-12


@pytest.mark.parametrize("name", L1)
def test_votes_under_l1_noise_are_certified_no_further_than_the_pixel_may_move(name):
    """A threshold on one pixel of 1,000 images: its exact l1 radius is how far that pixel is from it."""
    images = torch.rand(1000, 1, 3, 4, generator=torch.Generator().manual_seed(1))

    class Pixel(nn.Module):
        def forward(self, x):
            score = x.flatten(1)[:, 5] - 0.5
            return torch.stack([-score, score], 1)

    found = SmoothedClassifier(Pixel().eval(), L1[name][0], 2).certify(images, n0=20, n=2000, alpha=0.001)
    distance = (images.flatten(1)[:, 5] - 0.5).double().numpy()
    wrong = (found.predict >= 0) & ((found.predict != (distance > 0)) | (found.radius > np.abs(distance)))
    assert wrong.sum() <= 6 and found.radius.max() > 0.2


# ---- the first layer of PixelDP --------------------------------------------------------------------------------

LAYERS = [(1, 4, 3, 1, 1), (3, 5, 3, 2, 1), (2, 3, 5, 2, 0), (3, 2, 4, 3, 2), (1, 8, 1, 1, 0), (4, 2, 7, 2, 3)]


def convolution(inputs, outputs, kernel, stride, padding, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


def matrix(layer, inputs, size):
    flat = lambda x: layer(x.view(1, inputs, *size)).flatten()  # noqa: E731
    return torch.autograd.functional.jacobian(flat, torch.zeros(inputs * size[0] * size[1]))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=str)
def test_the_norm_of_a_convolution_is_bounded_and_closely(layer, size):
    conv = convolution(*layer)
    exact = torch.linalg.matrix_norm(matrix(conv, layer[0], size).double(), 2).item()
    bound = convolution_norm(conv, size).item()
    repeated = -(-layer[2] // layer[3])
    papers = repeated * torch.linalg.matrix_norm(conv.weight.double().flatten(1), 2).item()
    assert exact <= bound * (1 + 1e-6) and bound <= 1.35 * exact and bound <= papers * (1 + 1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_no_distance_grows_through_the_bounded_layer_whatever_its_weights(scale, training):
    conv = convolution(3, 5, 3, 2, 1)
    conv.weight.data *= scale
    layer = BoundedConv2d(conv).train(training)
    norm_now = torch.linalg.matrix_norm(matrix(layer, 3, (8, 8)).double(), 2).item()
    assert 0.7 < norm_now <= 1 and layer.sensitivity == 1


def test_the_gradient_goes_through_the_norm():
    layer = BoundedConv2d(convolution(1, 4, 3, 1, 1)).train()
    layer(IMAGES).square().sum().backward()
    gradient, weight = layer.convolution.weight.grad, layer.convolution.weight
    assert gradient.abs().sum() > 0 and abs((gradient * weight).sum().item()) < 1e-4  # a longer kernel changes nothing


@pytest.mark.parametrize("spoiled", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "circular"}])
def test_a_convolution_whose_norm_is_not_known_is_refused(spoiled):
    with pytest.raises(ValueError, match="one group, zero padding and no dilation"):
        BoundedConv2d(nn.Conv2d(2, 4, 3, padding=1, **spoiled))


def test_a_classifier_is_split_behind_its_first_convolution():
    data = load_dataset("digits")
    network = build_classifier("digits_cnn", data, normalization="none").eval()
    images = torch.rand(4, 1, 8, 8)
    before = network(images)
    conv = network[1].features[0]
    split = bounded_first_layer(network)
    scaled = convolution_norm(conv, (8, 8)).item() * (1 + 1e-6)
    assert torch.allclose(split.after(split.before(images) * scaled), before, atol=1e-4)
    assert not split.training and split.before.convolution is conv
    with pytest.raises(ValueError, match='use normalization="none"'):
        bounded_first_layer(build_classifier("digits_cnn", data))
    with pytest.raises(ValueError, match="begin with a convolution"):
        bounded_first_layer(nn.Sequential(nn.Linear(2, 2)))


class Unbounded(nn.Module):
    sensitivity = 1.5


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), r"needs a base in two parts"),
        (Computed(Split(nn.Conv2d(1, 1, 3), nn.Flatten())), r"Split\(before, Computed\(after.*got Computed"),
        (Split(nn.Conv2d(1, 1, 3), nn.Flatten()), r"Conv2d says None"),
        (Split(Unbounded(), nn.Flatten()), r"Unbounded says 1.5"),
    ],
)
def test_noise_on_features_is_refused_where_their_sensitivity_is_not_known(base, message):
    with pytest.raises(ValueError, match=message):
        class_counts(base.eval(), IMAGES, None, 10, sigma=FeatureNoise(0.25), num_classes=2)


def feature_plane():
    """The worst case: the layer's own strongest direction decides, so a pixel's move counts in full (nearly)."""
    layer = BoundedConv2d(convolution(1, 4, 3, 1, 1)).eval()
    jacobian = matrix(layer, 1, (8, 8))
    left, values, right = torch.linalg.svd(jacobian)
    shift = -(left[:, 0] @ layer(torch.full((1, 1, 8, 8), 0.5)).flatten())
    return (
        Split(layer, Linear(left[:, 0].contiguous(), shift.item())).eval().requires_grad_(False),
        right[0].view(1, 1, 8, 8),
        float(values[0]),
    )


def test_no_certificate_of_pixeldp_is_beaten_in_pixels_by_any_of_three_bounds():
    """1,000 images attacked along the layer's strongest direction, with the certified radius as their length."""
    base, direction, gain = feature_plane()
    images = torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found = SmoothedClassifier(base, FeatureNoise(0.25), 2).certify(images, n0=20, n=2000, alpha=0.001)
    score = base(images)[:, 1].double().numpy()
    noise, moved = FeatureNoise(0.25), []
    for bound in (None, RenyiBound(), PixelDPBound()):
        radius = found.radius if bound is None else bound.radius(found.n_a, found.n_b, found.n, 0.001, noise)
        attacked = images - torch.from_numpy(np.sign(score) * radius).float().view(-1, 1, 1, 1) * direction
        moved.append(base(attacked)[:, 1].double().numpy())
        answered = radius > 0
        assert (answered & (np.sign(moved[-1]) != np.sign(score))).sum() <= 6
        assert (answered & (found.predict != (score > 0))).sum() <= 6
    assert gain > 0.8 and found.radius.max() > 0.3  # and the attack moves features by nearly the whole radius


def test_the_noise_on_features_is_as_wide_as_it_says():
    base, _, _ = feature_plane()
    images, n = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)), 20_000
    votes = class_counts(base, images, None, n, sigma=FeatureNoise(0.25), num_classes=2)[:, 1].numpy()
    p = norm.cdf(base(images)[:, 1].numpy() / 0.25)
    assert (np.abs(votes / n - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()


def test_one_record_of_votes_is_read_by_every_bound(tmp_path):
    base, _, _ = feature_plane()
    data = TensorDataset(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(4)), torch.zeros(20).long())
    g = SmoothedClassifier(base, FeatureNoise(0.25), 2)
    log = certify_dataset(g, data, range(20), tmp_path / "pixeldp", n0=20, n=1000, alpha=0.001)
    radii = {name: recount(log, bound=bound)["radius"] for name, bound in BOUNDS.items()}
    cohen, renyi, pixeldp = (radii[name] for name in ("clopper-pearson", "renyi, clopper-pearson",
                                                      "pixeldp, clopper-pearson"))  # fmt: skip
    assert (log["noise"] == "features").all() and (cohen > 0).any()
    assert (pixeldp <= renyi).all() and (renyi <= cohen).all() and (pixeldp[cohen > 0.1] > 0).all()


def test_scores_of_a_split_network_have_the_noise_between_its_parts():
    base, _, _ = feature_plane()
    sums, _ = score_moments(base, torch.rand(3, 1, 8, 8), None, 100, num_classes=2, sigma=FeatureNoise(0.25))
    assert sums.sum(1) == pytest.approx([100] * 3)


# ---- its training ----------------------------------------------------------------------------------------------


def step(seed=1, **where):
    return Step(torch.Generator().manual_seed(seed), **where)


def test_the_noise_of_pixeldp_grows_from_a_tenth_to_all_of_it():
    assert noise_share(0.99975, 0) == pytest.approx(0.1) and noise_share(0.0, 0) == 1
    assert 0.899 < noise_share(0.99975, 9209) < 0.9 and noise_share(0.99975, 9210) == 1
    shares = [noise_share(0.99975, t) for t in range(0, 10_000, 100)]
    assert shares == sorted(shares)


def test_pixeldp_trains_what_follows_the_noise_and_without_a_split_it_is_gaussian_training():
    base, labels = feature_plane()[0], torch.tensor([0, 1, 0, 1, 1])
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    loss = PixelDP(SIGMA, ramp=0.0)(base, images, labels, step())
    features = base.before(images)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    expected = nn.functional.cross_entropy(base.after(features + SIGMA * noise), labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    pair = PixelDP(SIGMA, ramp=0.0), GaussianTraining(SIGMA)
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    assert len({objective(whole, images, labels, step()).item() for objective in pair}) == 1


def test_the_ramp_counts_steps_over_epochs():
    images, labels = torch.zeros(5, 1, 8, 8), torch.zeros(5).long()
    seen = []
    for where in ({"epoch": 3, "batch": 4, "batches": 10}, {"epoch": 0, "batch": 34, "batches": 100}):
        PixelDP(SIGMA, ramp=0.99)(lambda x: seen.append(x) or x.flatten(1), images, labels, step(**where))
    assert torch.equal(*seen) and seen[0].std().item() == pytest.approx(SIGMA * (1 - 0.99**34), rel=0.2)


@pytest.mark.parametrize("ramp", [1.5, -0.1])
def test_a_ramp_out_of_range_is_refused(ramp):
    with pytest.raises(ValueError, match="ramp must be"):
        PixelDP(SIGMA, ramp=ramp)


def test_an_older_bound_refuses_noise_it_does_not_know():
    for bound, noise in ((RenyiBound(), Laplace(0.5)), (RenyiBound(), Uniform(0.5)), (PixelDPBound(), Uniform(0.5))):
        with pytest.raises(ValueError, match=f"the {bound.name} bound is for gaussian noise"):
            bound.radius(900, 50, 1000, 0.001, noise)
    assert PixelDPBound().radius(900, 50, 1000, 0.001, Gaussian(0.5)) > 0
