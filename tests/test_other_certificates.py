"""What notebook 05 shows: other noises in training, the worst classifier, and noise that floating point gives away."""

import pytest
import torch
from scipy.stats import kstest, laplace, norm, uniform

from lib import bounds, methods
from lib.config import OtherCertificates
from lib.datasets import load_dataset
from lib.sampling import Grid, Laplace, Uniform
from lib.smoothing import SmoothedClassifier
from lib.training.objectives import LaplaceNoise, Step, UniformNoise

DIGITS = load_dataset("digits")
BLACK = torch.zeros(1, 1, 8, 8)


def seen_by(objective, value=0.5):
    """The noise that a network sees on 200 grey images."""
    seen = []

    def network(noisy):
        seen.append(noisy)
        return noisy.flatten(1)[:, :2]

    images = torch.full((200, 1, 8, 8), value)
    objective(network, images, torch.zeros(200).long(), Step(torch.Generator().manual_seed(0)))
    return (seen[0] - value).flatten().double().numpy()


@pytest.mark.parametrize(
    ("objective", "law"),
    [(UniformNoise(0.5), uniform(-(3**0.5) / 2, 3**0.5)), (LaplaceNoise(0.5), laplace(scale=0.5 / 2**0.5))],
    ids=["uniform", "laplace"],
)
def test_training_noise_has_its_law_and_sigma_is_its_deviation(objective, law):
    noise = seen_by(objective)
    assert kstest(noise, law.cdf).pvalue > 0.001 and noise.std() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(("law", "noise"), [("uniform", Uniform(0.5)), ("laplace", Laplace(0.5)), ("gaussian", 0.5)])
def test_a_classifier_is_certified_with_the_noise_it_was_trained_on(law, noise, tmp_path):
    cfg = OtherCertificates(run_dir=str(tmp_path), epochs=1, train_batch=256)
    f, found = methods.for_noise(cfg, DIGITS, law, 0.5)
    assert found == noise and not f.training


def test_an_unknown_law_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="law must be one of gaussian, uniform, laplace; got 'cauchy'"):
        methods.for_noise(OtherCertificates(), DIGITS, "cauchy", 0.5)


@pytest.mark.parametrize("count", [1, 3])
def test_two_levels_are_two(count):
    with pytest.raises(ValueError, match=r"sigmas = .*two levels are expected"):
        OtherCertificates(sigmas=[0.1 * (i + 1) for i in range(count)])


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_the_half_space_turns_around_at_the_radius_of_cohen_et_al_and_not_before(sigma):
    direction = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    f = methods.HalfSpace(torch.full((1, 1, 8, 8), 0.5), direction, distance=0.3)
    radius = float(bounds.certified_radius(norm.cdf(0.3 / sigma), sigma))
    assert radius == pytest.approx(0.3)
    for share, answer in ((0.999, 1), (1.001, 0)):
        assert f(f.point - share * radius * f.direction).argmax(1).item() == answer
    votes = SmoothedClassifier(f, sigma, 2).sample(f.point, [0], 20_000)[0, 1] / 20_000
    assert votes == pytest.approx(norm.cdf(0.3 / sigma), abs=0.015)


def test_float32_noise_certifies_what_half_a_unit_turns_around_and_noise_on_a_grid_does_not():
    images = torch.cat([BLACK, BLACK + 1 / 16])  # in l2 0.5 apart
    sizes = {"n0": 100, "n": 10_000, "alpha": 0.001}
    spied = SmoothedClassifier(methods.LowBits(), 0.25, 2).certify(images, [0, 1], **sizes)
    assert spied.radius[0] > 0.5 and spied.predict.tolist() == [1, 0]
    exact = SmoothedClassifier(methods.LowBits(), Grid(0.25, levels=16), 2).certify(images, [0, 1], **sizes)
    assert exact.predict.tolist() == [0, 0]
