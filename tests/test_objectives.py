"""The objectives: what each minimises, whose gradient goes where, whose turn it is, and how one is told from others."""

import copy
import dataclasses
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import nn
from torch.utils.data import TensorDataset

from lib.models.defenses import Median
from lib.training import Recipe, objectives, train
from lib.training.objectives import (
    CATRS,
    DDPM,
    DRT,
    MACER,
    MSE,
    AdversarialTraining,
    BehindDenoiser,
    Classification,
    Consistency,
    Distillation,
    Gaussian,
    GaussianCopies,
    LaplaceNoise,
    Objective,
    PixelDP,
    SmoothAdv,
    SmoothAdvDDN,
    SmoothMix,
    SqueezedViews,
    Stability,
    StabilityTraining,
    Step,
    UniformNoise,
    add_noise,
)

IMAGES = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 3
SIGMA = 0.5
LINEAR = DDPMScheduler(num_train_timesteps=1000)


def step(seed=1, **where):
    return Step(torch.Generator().manual_seed(seed), **where)


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
    """A classifier that answers `named` for every image."""

    class Answer(nn.Module):
        def forward(self, images):
            return 10 * F.one_hot(torch.full((len(images),), named), 3).float()

    return Answer().eval()


# ---- values ----------------------------------------------------------------------------------------------------


def test_gaussian_is_the_cross_entropy_of_the_noisy_copy():
    f = classifier()
    noisy = IMAGES + SIGMA * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1))
    expected = -f(noisy).softmax(1)[torch.arange(64), LABELS].log().mean()
    torch.testing.assert_close(Gaussian(SIGMA)(f, IMAGES, LABELS, step()), expected)


def test_gaussian_without_noise_is_ordinary_training():
    assert Gaussian(0.0)(classifier(), IMAGES, LABELS, step()) == F.cross_entropy(classifier()(IMAGES), LABELS)


def test_the_loss_of_a_network_that_knows_nothing_is_the_logarithm_of_the_classes():
    assert Gaussian(SIGMA)(lambda x: torch.zeros(len(x), 3), IMAGES, LABELS, step()) == pytest.approx(math.log(3))


def test_mse_of_a_denoiser_that_does_nothing_is_the_variance_of_the_noise():
    images = torch.zeros(4000, 1, 8, 8)
    assert MSE(SIGMA)(nn.Identity(), images, None, step()) == pytest.approx(SIGMA**2, rel=0.01)


def test_mse_of_a_denoiser_that_knows_the_image_is_zero():
    assert MSE(SIGMA)(lambda noisy: IMAGES, IMAGES, LABELS, step()) == 0


def test_stability_is_the_cross_entropy_to_the_answer_on_the_clean_image():
    f, d = classifier(), denoiser().eval()
    noisy = IMAGES + SIGMA * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1))
    probabilities = f(d(noisy)).softmax(1)
    expected = -probabilities[torch.arange(64), f(IMAGES).argmax(1)].log().mean()
    torch.testing.assert_close(Stability(SIGMA, f)(d, IMAGES, LABELS, step()), expected)


def test_stability_looks_at_no_label():
    loss, d = Stability(SIGMA, classifier()), denoiser().eval()
    assert loss(d, IMAGES, LABELS, step()) == loss(d, IMAGES, None, step())


def test_classification_is_the_cross_entropy_to_the_label():
    f, d = classifier(), denoiser().eval()
    noisy = IMAGES + SIGMA * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1))
    expected = -f(d(noisy)).softmax(1)[torch.arange(64), LABELS].log().mean()
    torch.testing.assert_close(Classification(SIGMA, f)(d, IMAGES, LABELS, step()), expected)


def test_behind_a_denoiser_a_classifier_learns_from_what_it_leaves_and_the_denoiser_does_not():
    model, halved = classifier().requires_grad_(True), denoiser().eval().requires_grad_(False)
    noisy = IMAGES + SIGMA * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1))
    loss = BehindDenoiser(SIGMA, halved)(model, IMAGES, LABELS, step())
    torch.testing.assert_close(loss, F.cross_entropy(model(halved(noisy)), LABELS))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in halved.parameters())
    nothing = BehindDenoiser(0.0, nn.Identity().eval())(model, IMAGES, LABELS, step())
    assert nothing == Gaussian(0.0)(model, IMAGES, LABELS, step())  # no noise, no denoiser: ordinary training


def test_where_the_classifier_is_right_stability_and_classification_are_one():
    f, d = classifier(), denoiser().eval()
    answers = f(IMAGES).argmax(1)
    losses = [kind(SIGMA, f)(d, IMAGES, answers, step()) for kind in (Stability, Classification)]
    assert losses[0] == losses[1]


EXAMPLES = {  # one of every class of the package: a method that is added belongs here
    "Gaussian": Gaussian(SIGMA),
    "MSE": MSE(SIGMA),
    "Stability": Stability(SIGMA, classifier()),
    "Classification": Classification(SIGMA, classifier()),
    "BehindDenoiser": BehindDenoiser(SIGMA, nn.Identity().eval()),
    "DDPM": DDPM(LINEAR),
    "GaussianCopies": GaussianCopies(SIGMA, 2),
    "SmoothAdv": SmoothAdv(SIGMA, 0.5, steps=2, copies=2, warm_up=1),
    "SmoothAdvDDN": SmoothAdvDDN(SIGMA, 0.5, steps=2, copies=2, warm_up=1),
    "Consistency": Consistency(SIGMA),
    "MACER": MACER(SIGMA, copies=4),
    "SmoothMix": SmoothMix(SIGMA, 0.5, warm_up=1),
    "StabilityTraining": StabilityTraining(SIGMA),
    "CATRS": CATRS(SIGMA, torch.arange(3), torch.full((3, 3), 1 / 3), copies=2),  # labels 0, 1, 2 are its images
    "DRT": DRT(SIGMA, 1.0, 1.0, copies=2),
    "PixelDP": PixelDP(SIGMA, ramp=0.0),
    "UniformNoise": UniformNoise(SIGMA),
    "LaplaceNoise": LaplaceNoise(SIGMA),
    "AdversarialTraining": AdversarialTraining(0.1, steps=2),
    "Distillation": Distillation(4.0),
    "SqueezedViews": SqueezedViews((Median(2),)),
}
DENOISING = ("MSE", "Stability", "Classification")
NOISY = [name for name, example in EXAMPLES.items() if hasattr(example, "sigma")]


def test_every_objective_of_the_kit_is_among_the_examples():
    kinds = [value for value in vars(objectives).values() if isinstance(value, type) and issubclass(value, Objective)]
    assert {kind.__name__ for kind in kinds} == {*EXAMPLES, "Objective"}


@pytest.mark.parametrize("name", [name for name in NOISY if name not in ("UniformNoise", "LaplaceNoise")])
def test_the_network_sees_the_noise_of_the_generator_unclipped(name):
    seen, copies = [], getattr(EXAMPLES[name], "copies", 1)
    model = nn.Identity() if name in DENOISING else classifier()
    EXAMPLES[name](lambda noisy: seen.append(noisy) or model(noisy), IMAGES, LABELS, step())
    noisy = add_noise(IMAGES.repeat_interleave(copies, 0), SIGMA, step().generator)
    assert any(torch.equal(batch, noisy) for batch in seen) and noisy.min() < 0


def test_noise_has_the_level_it_says():
    noisy = add_noise(torch.ones(2000, 1, 4, 4), 0.5, torch.Generator().manual_seed(0))
    assert noisy.std() == pytest.approx(0.5, rel=0.02) and noisy.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf, "0.5", None])
@pytest.mark.parametrize("name", NOISY)
def test_a_noise_level_that_is_none_is_refused(name, sigma):
    with pytest.raises(ValueError, match=f"sigma must be a finite number, at least 0; got {sigma!r}"):
        dataclasses.replace(EXAMPLES[name], sigma=sigma)


# ---- labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ("MSE", "Stability", "DDPM")])
@pytest.mark.parametrize("labels", [LABELS - 1, LABELS + 1, LABELS - 100, LABELS.float(), F.one_hot(LABELS)])
def test_labels_that_are_no_classes_are_refused_in_the_first_epoch(name, labels):
    model = nn.Identity() if name in DENOISING else classifier()
    with pytest.raises(ValueError, match=r"labels must be whole numbers \(N,\) from 0 to 2"):
        EXAMPLES[name](model, IMAGES, labels, step())


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_labels_may_be_integers_of_any_kind(kind):
    expected = Gaussian(SIGMA)(classifier(), IMAGES, LABELS, step())
    assert Gaussian(SIGMA)(classifier(), IMAGES, LABELS.to(kind), step()) == expected


# ---- diffusion -------------------------------------------------------------------------------------------------


def test_the_loss_of_ddpm_is_zero_for_a_network_that_knows_the_noise():
    def oracle(x_t, t):  # of grey images, 0 in [-1, 1], x_t is scaled noise and nothing else
        return SimpleNamespace(sample=x_t / (1 - LINEAR.alphas_cumprod[t]).sqrt()[:, None, None, None])

    assert DDPM(LINEAR)(oracle, torch.full((64, 1, 8, 8), 0.5), None, step()).item() < 1e-10


def test_the_loss_of_ddpm_is_one_for_a_network_that_answers_zero():
    loss = DDPM(LINEAR)(lambda x, t: SimpleNamespace(sample=0 * x), torch.rand(512, 1, 8, 8), None, step())
    assert loss.item() == pytest.approx(1, abs=5 * math.sqrt(2 / (512 * 64)))


def test_ddpm_uses_every_timestep_and_only_the_generator_it_is_given():
    seen = []

    def spy(x_t, t):
        seen.append((x_t, t))
        return SimpleNamespace(sample=x_t)

    for _ in range(2):
        DDPM(DDPMScheduler(num_train_timesteps=4))(spy, IMAGES, None, step(7))
    assert set(seen[0][1].tolist()) == {0, 1, 2, 3}
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])


def test_a_scheduler_that_does_not_predict_epsilon_is_not_trained():
    with pytest.raises(ValueError, match="v_prediction"):
        DDPM(DDPMScheduler(prediction_type="v_prediction"))


# ---- the classifier stays as it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Stability, Classification])
def test_the_gradient_reaches_the_denoiser_and_never_the_classifier(kind):
    f, d = classifier(), denoiser()
    before = copy.deepcopy(f.state_dict())
    kind(SIGMA, f)(d, IMAGES, LABELS, step()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in d[-1].parameters())
    assert all(p.grad is None for p in f.parameters())
    assert all(torch.equal(value, before[name]) for name, value in f.state_dict().items())


@pytest.mark.parametrize("spoil", [lambda f: f.train(), lambda f: f[2].train(), lambda f: f.requires_grad_(True)])
@pytest.mark.parametrize("kind", [Stability, Classification])
def test_a_classifier_that_training_would_change_is_refused(kind, spoil):
    f = classifier()
    spoil(f)
    with pytest.raises(ValueError, match=r"classifiers\[1\] would be trained"):
        kind(SIGMA, [classifier(), f])


@pytest.mark.parametrize("spoil", [lambda d: d.train(), lambda d: d.requires_grad_(True)])
def test_a_denoiser_that_would_be_trained_is_refused(spoil):
    with pytest.raises(ValueError, match=r"^denoiser would be trained"):
        BehindDenoiser(SIGMA, spoil(denoiser().eval().requires_grad_(False)))


@pytest.mark.parametrize("kind", [Stability, Classification])
def test_no_classifier_is_refused(kind):
    with pytest.raises(ValueError, match=r"at least one network; got \[\]"):
        kind(SIGMA, [])


# ---- surrogates take turns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_batch_number_says_whose_turn_it_is_in_every_epoch(count):
    family = [one_hot(i) for i in range(count)]
    objective = Stability(SIGMA, family)
    met = [objective.whose_turn(step(epoch=epoch, batch=i)) for epoch in (0, 1) for i in range(7)]
    assert [family.index(f) for f in met] == 2 * [i % count for i in range(7)]


@pytest.mark.parametrize("batch", [0, 1])
def test_the_same_surrogate_labels_the_clean_image_and_judges_the_denoised_one(batch):
    assert Stability(SIGMA, [one_hot(0), one_hot(1)])(nn.Identity(), IMAGES, LABELS, step(batch=batch)) < 1e-3


def test_the_surrogate_whose_turn_it_is_judges_by_the_label():
    loss = Classification(SIGMA, [one_hot(0), one_hot(1)])
    assert [loss(nn.Identity(), IMAGES, 0 * LABELS, step(batch=i)) < 1 for i in (0, 1, 2)] == [True, False, True]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("batches", [4, 7, 8])  # three batches an epoch, two surrogates: in the middle and at the end
def test_an_interrupted_run_meets_the_same_surrogates_again(batches, tmp_path, monkeypatch):
    objective, dataset = Stability(SIGMA, [classifier(0), classifier(1)]), TensorDataset(IMAGES, LABELS)
    recipe = Recipe(objective, "conv", epochs=4, batch_size=24, optimizer="adam", lr=0.01)
    compute, done = Stability.__call__, []

    def interrupted(*arguments):
        done.append(1)
        if len(done) > batches:
            raise Interrupted
        return compute(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Stability, "__call__", interrupted)
        train(recipe, denoiser, dataset, tmp_path)
    resumed = train(recipe, denoiser, dataset, tmp_path)
    whole = train(recipe, denoiser, dataset, tmp_path / "whole")
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


# ---- one is told from others -----------------------------------------------------------------------------------

OTHER = {
    "denoiser": nn.ReLU().eval(),
    "sigma": 0.25,
    "classifiers": classifier(1),
    "scheduler": DDPMScheduler(num_train_timesteps=999),
}
OTHER |= {"classes": torch.tensor([0, 1, 1]), "soft": torch.eye(3), "one_step": True}
OTHER |= {"norm": "l2", "teacher": classifier(1), "squeezers": (Median(3),)}
FIELDS = [(name, field.name) for name, example in EXAMPLES.items() for field in dataclasses.fields(example)]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_another_value_of_any_field_is_another_objective(name, field):
    value = OTHER[field] if field in OTHER else getattr(EXAMPLES[name], field) + 1
    changed = dataclasses.replace(EXAMPLES[name], **{field: value})
    assert changed.identity() != EXAMPLES[name].identity()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_objective_made_again_is_the_same(name):
    again = copy.deepcopy(EXAMPLES[name])
    assert again.identity() == EXAMPLES[name].identity()


def test_the_class_alone_tells_objectives_of_equal_fields_apart():
    identities = [kind(SIGMA, classifier()).identity() for kind in (Stability, Classification)]
    assert identities[0]["fields"] == identities[1]["fields"] and identities[0] != identities[1]


def test_one_classifier_and_a_family_of_one_are_the_same_objective():
    f = classifier()
    assert Stability(SIGMA, f).identity() == Stability(SIGMA, [f]).identity()


def test_the_order_of_surrogates_counts():
    first, second = classifier(0), classifier(1)
    assert Stability(SIGMA, [first, second]).identity() != Stability(SIGMA, [second, first]).identity()


@dataclass(frozen=True)
class Anything(Objective):
    """An objective with a field of any kind."""

    value: object


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (1.0, 2.0),
        (torch.zeros(3), torch.zeros(4)),
        (torch.zeros(3), torch.tensor([0, 0, 1e-9])),
        ((1, 2), (2, 1)),
        ({"a": 1}, {"a": 2}),
        (None, "None"),
        (Gaussian(0.1), Gaussian(0.2)),
        (LINEAR, DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
        (1, True),
    ],
)
def test_fields_of_every_kind_are_told_apart(one, two):
    identities = [str(Anything(value).identity()) for value in (one, two)]
    assert identities[0] != identities[1]


@pytest.mark.parametrize("value", [lambda x: x, object(), print, {1, 2}])
def test_a_field_that_cannot_be_told_apart_is_refused(value):
    with pytest.raises(ValueError, match=r"Anything.value = .* cannot be told apart.*numbers, texts, tensors"):
        Anything(value).identity()


def test_state_outside_the_fields_is_refused():
    class Counting(Objective):
        def __init__(self):
            self.seen = 0

    with pytest.raises(ValueError, match=r"Counting keeps \['seen'\] outside its fields"):
        Counting().identity()
