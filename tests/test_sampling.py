import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest, norm
from toys import Constant, Recorder, hyperplane

from lib.sampling import class_counts, standard_normal

CPU = torch.device("cpu")
IMAGES = torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(1))
IDS = [7, 3, 40, 41, 5, 100_000]


def count(base=None, images=IMAGES, ids=IDS, n=250, **changed):
    arguments = {"sigma": 0.5, "num_classes": 2, "seed": 3, "batch_size": 128} | changed
    return class_counts(base or hyperplane(), images, ids, n, **arguments)


def test_every_sample_is_counted_once():
    counts = count(n=333)
    assert counts.dtype == torch.int64 and counts.sum(1).tolist() == [333] * 6


def test_a_constant_classifier_gets_all_votes():
    assert count(Constant(4).eval(), num_classes=10)[:, 4].tolist() == [250] * 6


def test_counts_follow_the_binomial_law_of_a_linear_classifier():
    n, base = 20_000, hyperplane()
    p = norm.cdf(base.distance(IMAGES).numpy() / 0.5)
    votes = count(base, n=n)[:, 1].numpy()
    assert (np.minimum(binom.cdf(votes, n, p), binom.sf(votes - 1, n, p)) > 1e-4).all()


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_counts_do_not_depend_on_the_batch_size(batch_size):
    assert torch.equal(count(batch_size=batch_size), count())


def test_an_image_has_the_same_counts_alone_and_in_a_sweep():
    together = count()
    for i, image_id in enumerate(IDS):
        assert torch.equal(count(images=IMAGES[i : i + 1], ids=[image_id])[0], together[i])


def test_counts_do_not_depend_on_the_order_of_the_images():
    order = [4, 0, 5, 2, 1, 3]
    assert torch.equal(count(images=IMAGES[order], ids=[IDS[i] for i in order]), count()[order])


def test_samples_taken_in_two_parts_are_those_taken_at_once():
    assert torch.equal(count(n=130) + count(n=270, start=130), count(n=400))


def noise_seen(ids, n, **changed):
    base = Recorder().eval()
    count(base, torch.zeros(len(ids), 1, 3, 4), ids, n, sigma=1.0, num_classes=3, **changed)
    return base.seen.view(len(ids), n, -1)


def test_no_two_samples_images_or_seeds_share_noise():
    seen = torch.cat([noise_seen(IDS, 205, seed=seed) for seed in (0, 1)]).flatten(0, 1)
    assert len(seen.unique(dim=0)) == len(seen)


def test_every_key_has_noise_of_its_own():
    # torch's CPU generator keeps 32 bits of its seed: 2^32 apart it repeats itself.
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 0, 0), (0, 2**32 - 1, 0), (0, 0, 2**32)]
    rows = [standard_normal((6,), seed, [(image, sample, 1)], CPU) for seed, image, sample in keys]
    assert len(torch.cat(rows).unique(dim=0)) == len(keys)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 3, 4), (3, 5, 7)])
def test_a_sample_is_the_same_whatever_it_is_drawn_with(shape):
    together = standard_normal(shape, 5, [(9, 0, 50), (4, 0, 3)], CPU)
    for first in (0, 1, 7, 49):
        assert torch.equal(standard_normal(shape, 5, [(9, first, 1)], CPU)[0], together[first])
    assert torch.equal(standard_normal(shape, 5, [(4, 0, 3)], CPU), together[50:])


def test_the_pixels_of_a_sample_are_independent():
    noise = standard_normal((4,), 1, [(0, 0, 200_000)], CPU).double().numpy()
    for values in (noise, noise**2, np.abs(noise)):
        assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.01


def test_noise_is_standard_normal_and_scaled_by_sigma():
    seen = noise_seen([11, 12], 3000).numpy().ravel()
    assert kstest(seen, norm.cdf).pvalue > 1e-3
    base = Recorder().eval()
    count(base, torch.full((1, 1, 3, 4), 0.5), [11], 3000, sigma=0.1, num_classes=3)
    assert base.seen.std() == pytest.approx(0.1, rel=0.02) and base.seen.mean() == pytest.approx(0.5, abs=0.003)


def test_noisy_images_are_not_clipped():
    base = Recorder().eval()
    count(base, torch.ones(1, 1, 3, 4), [0], 500, sigma=1.0, num_classes=3)
    assert base.seen.max() > 2 and base.seen.min() < 0


def test_no_batch_is_larger_than_asked_and_all_but_the_last_are_full():
    base = Recorder().eval()
    count(base, num_classes=3, batch_size=64, n=101)
    sizes = [len(batch) for batch in base.batches]
    assert set(sizes[:-1]) == {64} and sum(sizes) == 606


def test_progress_is_told_every_sample_once():
    told = []
    count(progress=told.append, n=100, batch_size=128)
    assert told == [128, 256, 384, 512, 600]


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5), np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5), np.random.seed(5)
    count()
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive and finite; got 0.0"),
        ({"sigma": float("nan")}, "sigma must be positive and finite; got nan"),
        ({"n": 0}, "n must be a whole number >= 1; got 0"),
        ({"start": -1}, "start must be a whole number >= 0; got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        ({"seed": 2**32}, "seed must be a whole number >= 0 and below 4294967296; got 4294967296"),
        ({"ids": [1, 2]}, "ids must be one for each of the 6 images; got 2"),
        ({"ids": [-1, 1, 2, 3, 4, 5]}, "ids must be a whole number >= 0 and below 4294967296; got -1"),
        ({"images": IMAGES * 255}, r"images must lie in \[0, 1\]; got values from"),
        ({"images": IMAGES * float("nan")}, r"images must lie in \[0, 1\]"),
        (
            {"num_classes": 3},
            r"base must return logits \(128, 3\), a row an image, for num_classes = 3; got \(128, 2\)",
        ),
        ({"base": hyperplane().train()}, "training mode"),
    ],
)
def test_bad_input_is_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        count(**changed)
