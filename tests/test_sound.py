"""Noise on the grid against mpmath, the exact discrete distribution, and Gaussian noise rounded."""

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from toys import Linear, Recorder, hyperplane

from lib.sampling import Grid, class_counts, standard_normal, uniform_bits
from lib.sampling.grid import BITS, check_on_grid, clip_range, grid_thresholds, noisy_on_grid
from lib.smoothing import ABSTAIN, SmoothedClassifier

mp.mp.dps = 40
CPU = torch.device("cpu")
PHOTO = torch.randint(0, 256, (6, 1, 3, 4), generator=torch.Generator().manual_seed(1)) / 255
IDS = [7, 3, 40, 41, 5, 100_000]


def count(images=PHOTO, ids=IDS, n=250, base=None, **changed):
    noise = Grid(changed.pop("sigma", 0.5), changed.pop("levels", 255))
    arguments = {"sigma": noise, "num_classes": 2, "seed": 3, "batch_size": 128} | changed
    return class_counts(base or hyperplane(), images, ids, n, **arguments)


@pytest.mark.parametrize(("sigma", "levels"), [(0.12, 255), (0.25, 255), (1.0, 255), (0.5, 16), (3.0, 4)])
def test_every_threshold_is_the_nearest_whole_number_to_the_exact_one(sigma, levels):
    thresholds = grid_thresholds(sigma, levels)
    reach = len(thresholds) // 2
    assert reach == clip_range(sigma)[1] * levels and thresholds.dtype == np.int64
    for j in {0, 1, reach - 1, reach, 2 * reach - 1, *range(0, 2 * reach, 7)}:
        x = mp.mpf(2 * (j - reach) + 1) / (2 * levels * mp.mpf(sigma))
        assert abs(int(thresholds[j]) - mp.mpf(2) ** BITS * mp.ncdf(x)) <= mp.mpf("0.5000001")


def test_a_threshold_belongs_to_the_step_above_it():
    bits = torch.from_numpy(grid_thresholds(0.25, 16)[[20, 20]]) - torch.tensor([1, 0])
    lower, upper = noisy_on_grid(torch.full((2,), 0.5), bits, 0.25, 16) * 16
    assert (lower, upper) == (8 + 20 - 32, 8 + 21 - 32)


def test_float64_would_not_be_exact_enough():
    i = np.arange(-510, 510)
    in_floats = 2.0**BITS * norm.cdf((2 * i + 1) / (2 * 255 * 0.25))
    assert np.abs(in_floats - grid_thresholds(0.25, 255)).max() > 10


def probabilities(sigma, levels, pixel):
    """Of the values low ... high of a noisy pixel in steps of 1 / levels, from the normal distribution alone."""
    low, high = (end * levels for end in clip_range(sigma))
    edges = norm.cdf((2 * np.arange(low, high) + 1 - 2 * pixel) / (2 * levels * sigma))
    return np.arange(low, high + 1), np.diff(edges, prepend=0, append=1)


@pytest.mark.parametrize(("sigma", "levels", "pixel"), [(0.25, 16, 0), (0.25, 16, 11), (1.0, 4, 4), (0.12, 255, 200)])
def test_noisy_pixels_follow_the_exact_discrete_distribution(sigma, levels, pixel):
    values, p = probabilities(sigma, levels, pixel)
    bits = uniform_bits((200,), 11, [(5, 0, 2000)], CPU)
    drawn = noisy_on_grid(torch.full((2000, 200), pixel / levels), bits, sigma, levels)
    counts = (drawn * levels).round().long().add(-values[0]).flatten().bincount(minlength=len(values)).numpy()
    common = p * 400_000 > 10
    observed, expected = ([*x[common], x[~common].sum()] for x in (counts, p * 400_000))
    assert chisquare(observed, expected).pvalue > 1e-3
    assert counts[p * 400_000 < 1e-9].sum() == 0


def test_noise_on_the_grid_has_the_distribution_of_gaussian_noise_rounded_and_clipped():
    x, sigma, levels = 0.25, 0.5, 16
    gaussian = x + sigma * standard_normal((100,), 2, [(0, 0, 3000)], CPU)
    rounded = (gaussian * levels).round().clamp(-3 * levels, 4 * levels).long().add(3 * levels).flatten()
    _, p = probabilities(sigma, levels, 4)
    observed = rounded.bincount(minlength=len(p)).numpy()
    common = p * 300_000 > 10
    assert (
        chisquare([*observed[common], observed[~common].sum()], [*(p[common] * 3e5), p[~common].sum() * 3e5]).pvalue
        > 1e-3
    )


def test_the_classifier_sees_nothing_but_the_grid_within_the_clip():
    base = Recorder().eval()
    count(base=base, num_classes=3, sigma=1.0, n=500)
    steps = base.seen * 255
    assert (steps - steps.round()).abs().max() < 1e-3
    assert base.seen.min() >= -6 and base.seen.max() <= 7 and base.seen.max() > 2
    assert base.seen.unique().numel() > 1000


def test_clipping_is_to_the_range_of_the_paper():
    assert [clip_range(sigma) for sigma in (0.1, 0.25, 0.5, 1.0)] == [(-1, 2), (-1, 2), (-3, 4), (-6, 7)]


def test_bits_are_uniform_in_their_lowest_and_highest_digits():
    bits = uniform_bits((50,), 0, [(1, 0, 2000), (2, 0, 2000)], CPU)
    assert bits.min() >= 0 and bits.max() < 2**BITS
    for digit in (bits & 15, bits >> (BITS - 4)):
        assert chisquare(digit.flatten().bincount(minlength=16).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_counts_do_not_depend_on_the_batch_size(batch_size):
    assert torch.equal(count(batch_size=batch_size), count())


def test_an_image_has_the_same_counts_alone_and_in_a_sweep_and_in_two_parts():
    together = count()
    for i, image_id in enumerate(IDS):
        assert torch.equal(count(PHOTO[i : i + 1], [image_id])[0], together[i])
    assert torch.equal(count(n=130) + count(n=120, start=130), together)


def test_counts_follow_the_binomial_law_of_a_linear_classifier():
    n, base = 20_000, Linear(torch.eye(12)[0], -0.4999).eval()  # between two steps: 127 / 255 and 128 / 255
    votes = count(base=base, n=n)[:, 1].numpy() / n
    p = norm.sf((127.5 / 255 - PHOTO[:, 0, 0, 0].numpy()) / 0.5)
    assert (np.abs(votes - p) < 4.5 * np.sqrt(p * (1 - p) / n)).all()


def test_certificates_on_the_grid_stay_below_the_distance_to_the_hyperplane():
    images = torch.randint(0, 256, (100, 1, 3, 4), generator=torch.Generator().manual_seed(2)) / 255
    base = hyperplane()
    result = SmoothedClassifier(base, Grid(0.25, levels=255), 2).certify(images, range(100), 100, 2000, 0.001)
    distance = base.distance(images).abs().numpy()
    assert (result.radius <= distance + 0.002).all() and (result.predict != ABSTAIN).mean() > 0.75
    free = SmoothedClassifier(base, 0.25, 2).certify(images, range(100), 100, 2000, 0.001)
    near = distance < 0.5  # where neither saturates
    assert np.abs(result.radius - free.radius)[near].max() < 0.06


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": PHOTO * 255 / 256}, "images must hold multiples of 1/255 for levels = 255; got 0.*digits 16"),
        (
            {"images": torch.full((6, 1, 3, 4), 3 / 16)},
            "images must hold multiples of 1/255 for levels = 255; got 0.1875",
        ),
        ({"levels": 0}, "levels must be a whole number >= 1 and below 65536; got 0"),
        ({"levels": 25.5}, "levels must be a whole number >= 1 and below 65536; got 25.5"),
        ({"images": PHOTO + 1}, r"images must lie in \[0, 1\]"),
    ],
)
def test_images_off_the_grid_are_refused_with_advice(changed, message):
    with pytest.raises(ValueError, match=message):
        count(**changed)


def test_any_grid_will_do_if_the_images_lie_on_it():
    digits = torch.randint(0, 17, (6, 1, 3, 4)) / 16
    assert count(digits, levels=16).sum() == 1500
    check_on_grid(torch.arange(65_536) / 65_535, 65_535)
