"""Noise objects: what they add, what they are called in a record, and noise that enters inside the network."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from toys import hyperplane

from lib.sampling import FeatureNoise, Gaussian, Grid, Laplace, Noise, Uniform, class_counts
from lib.sampling.noise import NOISES
from lib.smoothing import SmoothedClassifier

LEVELS = [Gaussian(0.25), Gaussian(3.0), Grid(0.25, 255), Grid(0.5, 16)]
LEVELS += [Uniform(0.25), Laplace(0.25), FeatureNoise(0.25)]
IMAGES = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(0)).mul(240).round().div(240)


@pytest.mark.parametrize("noise", LEVELS, ids=str)
def test_a_noise_comes_back_from_its_name_and_level(noise):
    assert Noise.named(noise.name, noise.sigma) == noise


def test_every_noise_has_a_name_of_its_own():
    assert len({noise.name for noise in LEVELS}) == len(LEVELS) - 1 and NOISES.keys() == {
        noise.kind for noise in LEVELS
    }


@pytest.mark.parametrize("name", ["", "cauchy", "gaussian2"])
def test_an_unknown_noise_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"expected one of gaussian, grid"):
        Noise.named(name, 0.25)


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf"), "0.25x", None, [0.25, 0.5]])
@pytest.mark.parametrize("kind", [Gaussian, lambda sigma: Grid(sigma, 16)], ids=["gaussian", "grid"])
def test_a_level_that_is_none_is_refused(kind, sigma):
    with pytest.raises(ValueError, match="sigma must be"):
        kind(sigma)


@pytest.mark.parametrize("sigma", [np.float32(0.25), np.float64(0.25), torch.tensor(0.25), 1, "0.25"])
def test_a_level_may_be_any_kind_of_number(sigma):
    assert SmoothedClassifier(hyperplane(), sigma, 2).sigma == float(sigma)


def test_a_number_stands_for_gaussian_noise():
    counts = [class_counts(hyperplane(), IMAGES, None, 100, sigma=s, num_classes=2) for s in (0.25, Gaussian(0.25))]
    assert torch.equal(*counts)


@dataclass(frozen=True)
class Inner(Gaussian):
    """Gaussian noise after the first layer, as PixelDP has it where that layer's sensitivity is bounded."""

    kind = "inner"

    def parts(self, base):
        return base[0], base[1]


class Score(nn.Module):
    def forward(self, x):
        return torch.stack([-x[:, 0], x[:, 0]], dim=1)


def test_noise_may_enter_inside_the_network_and_the_part_before_it_runs_once_an_image():
    first = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    torch.manual_seed(0)
    first[1].bias.data -= first(torch.full((1, 1, 3, 4), 0.5)).item()
    calls = []
    first.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    base, n = nn.Sequential(first, Score()).eval(), 20_000
    votes = class_counts(base, IMAGES, None, n, sigma=Inner(0.25), num_classes=2, batch_size=500)[:, 1].numpy()
    p = norm.cdf(first(IMAGES).detach().numpy()[:, 0] / 0.25)
    assert calls[0] == 5 and len(calls) == 2
    assert (np.abs(votes / n - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()


# ---- scores ----------------------------------------------------------------------------------------------------


def scores(n=200, **changed):
    base = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    torch.manual_seed(1)
    nn.init.normal_(base[1].weight)
    return class_counts(base, IMAGES, None, n, sigma=0.25, num_classes=3, counting="scores", **changed)


def test_scores_are_sums_of_probabilities_in_float64():
    assert scores().dtype == torch.float64
    assert torch.allclose(scores().sum(1), torch.full((5,), 200.0, dtype=torch.float64))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_scores_do_not_depend_on_the_batch_size_but_for_rounding(batch_size):
    assert torch.allclose(scores(batch_size=batch_size), scores(), atol=1e-4, rtol=0)


def test_scores_of_two_parts_add_up():
    assert torch.allclose(scores(80) + scores(120, start=80), scores(200), atol=1e-4, rtol=0)
