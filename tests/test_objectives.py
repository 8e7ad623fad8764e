"""The objectives of denoised smoothing: what each minimises, whose gradient goes where, and whose turn it is."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lib.training import Recipe, train
from lib.training.objectives import add_noise, classification, mse, stability, turns

IMAGES = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 3
SIGMA = 0.5


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def classifier(seed=0):
    """A random network of 3 classes with BatchNorm and dropout, frozen and in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
    return network.eval().requires_grad_(False)


def denoiser():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))


def one_hot(named):
    """A classifier that answers `named` for every image, and says which images it was shown."""

    class Answer(nn.Module):
        seen: list = []  # noqa: RUF012

        def forward(self, images):
            self.seen.append(images)
            return 10 * F.one_hot(torch.full((len(images),), named), 3).float()

    return Answer().eval()


# ---- values ----------------------------------------------------------------------------------------------------


def test_mse_of_a_denoiser_that_does_nothing_is_the_variance_of_the_noise():
    images = torch.zeros(4000, 1, 8, 8)
    assert mse(SIGMA)(nn.Identity(), images, None, generator()) == pytest.approx(SIGMA**2, rel=0.01)


def test_mse_of_a_denoiser_that_knows_the_image_is_zero():
    assert mse(SIGMA)(lambda noisy: IMAGES, IMAGES, LABELS, generator()) == 0


def test_stability_is_the_cross_entropy_to_the_answer_on_the_clean_image():
    f, d = classifier(), denoiser().eval()
    noisy = IMAGES + SIGMA * torch.randn(IMAGES.shape, generator=generator())
    probabilities = f(d(noisy)).softmax(1)
    expected = -probabilities[torch.arange(64), f(IMAGES).argmax(1)].log().mean()
    torch.testing.assert_close(stability(SIGMA, f)(d, IMAGES, LABELS, generator()), expected)


def test_stability_looks_at_no_label():
    loss, d = stability(SIGMA, classifier()), denoiser().eval()
    assert loss(d, IMAGES, LABELS, generator()) == loss(d, IMAGES, None, generator())


def test_classification_is_the_cross_entropy_to_the_label():
    f, d = classifier(), denoiser().eval()
    noisy = IMAGES + SIGMA * torch.randn(IMAGES.shape, generator=generator())
    expected = -f(d(noisy)).softmax(1)[torch.arange(64), LABELS].log().mean()
    torch.testing.assert_close(classification(SIGMA, f)(d, IMAGES, LABELS, generator()), expected)


def test_where_the_classifier_is_right_stability_and_classification_are_one():
    f, d = classifier(), denoiser().eval()
    answers = f(IMAGES).argmax(1)
    losses = [kind(SIGMA, f)(d, IMAGES, answers, generator()) for kind in (stability, classification)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("make", [mse, lambda s: stability(s, classifier()), lambda s: classification(s, classifier())])
def test_the_denoiser_sees_the_noise_of_the_generator_unclipped(make):
    seen = []
    make(SIGMA)(lambda noisy: seen.append(noisy) or noisy, IMAGES, LABELS, generator())
    assert torch.equal(seen[0], add_noise(IMAGES, SIGMA, generator())) and seen[0].min() < 0


# ---- the classifier stays as it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [stability, classification])
def test_the_gradient_reaches_the_denoiser_and_never_the_classifier(objective):
    f, d = classifier(), denoiser()
    before = copy.deepcopy(f.state_dict())
    objective(SIGMA, f)(d, IMAGES, LABELS, generator()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in d[-1].parameters())
    assert all(p.grad is None for p in f.parameters())
    assert all(torch.equal(value, before[name]) for name, value in f.state_dict().items())


@pytest.mark.parametrize("spoil", [lambda f: f.train(), lambda f: f[2].train(), lambda f: f.requires_grad_(True)])
@pytest.mark.parametrize("objective", [stability, classification])
def test_a_classifier_that_training_would_change_is_refused(objective, spoil):
    f = classifier()
    spoil(f)
    with pytest.raises(ValueError, match=r"classifiers\[1\] would be trained"):
        objective(SIGMA, [classifier(), f])


def test_no_classifier_is_refused():
    with pytest.raises(ValueError, match=r"at least one network; got \[\]"):
        stability(SIGMA, [])


# ---- surrogates take turns -------------------------------------------------------------------------------------


def test_surrogates_take_turns_one_a_mini_batch_from_the_first_in_every_epoch():
    family = [one_hot(0), one_hot(1), one_hot(2)]
    turn, first, second = turns(family), generator(1), generator(2)
    assert [family.index(turn(first)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [family.index(turn(second)) for _ in range(2)] == [0, 1]


def test_the_same_surrogate_labels_the_clean_image_and_judges_the_denoised_one():
    first, second = one_hot(0), one_hot(1)
    loss, epoch = stability(SIGMA, [first, second]), generator()
    assert loss(nn.Identity(), IMAGES, LABELS, epoch) < 1e-3  # answer 0 both times
    assert loss(nn.Identity(), IMAGES, LABELS, epoch) < 1e-3  # answer 1 both times


def test_one_classifier_alone_is_asked_every_time():
    f = one_hot(1)
    assert [turns(f)(g) is f for g in (generator(1), generator(2))] == [True, True]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("batches", [4, 7, 8])  # three batches an epoch, two surrogates: in the middle and at the end
def test_an_interrupted_run_meets_the_same_surrogates_again(batches, tmp_path):
    recipe = Recipe("stability", "random", "conv", SIGMA, epochs=4, batch_size=24, optimizer="adam", lr=0.01)
    family, dataset = [classifier(0), classifier(1)], TensorDataset(IMAGES, LABELS)
    objective, done = stability(SIGMA, family), []

    def interrupted(*arguments):
        done.append(1)
        if len(done) > batches:
            raise Interrupted
        return objective(*arguments)

    with pytest.raises(Interrupted):
        train(recipe, denoiser, interrupted, dataset, tmp_path)
    resumed = train(recipe, denoiser, objective, dataset, tmp_path)  # the very objective that was interrupted
    whole = train(recipe, denoiser, stability(SIGMA, family), dataset, tmp_path / "whole")
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
