"""Diffusion denoisers against closed forms: the schedules' timesteps, and data that is Gaussian."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler
from torch import Tensor, nn

from lib.models.diffusion import (
    DiffSmooth,
    DiffusionDenoiser,
    cumulative_alphas,
    fractional_timestep,
    geometric_timesteps,
    sigma_at,
    timestep_for,
)
from lib.models.identity import identity
from lib.models.openai_unet import PUBLISHED
from lib.models.small_unet import cifar_unet, digits_unet

LINEAR = DDPMScheduler(num_train_timesteps=1000)
CIFAR = PUBLISHED["cifar10_uncond_50M_500K.pt"].config.scheduler()
IMAGENET = PUBLISHED["256x256_diffusion_uncond.pt"].config.scheduler()

MEAN, STD = 0.55, 0.08  # of the pixels: clipping x_0 to [0, 1] is five standard deviations away


class GaussianUNet(nn.Module):
    """The optimal network for Gaussian pixels, predicting any of three things; it records what it is asked.

    In [-1, 1], x_0 ~ N(m, s^2) and x_t = a x_0 + b eps are jointly Gaussian, a^2 = abar_t and b^2 = 1 - a^2:
    E[x_0 | x_t] = m + a s^2 (x_t - a m) / (a^2 s^2 + b^2). The other two answers follow from it by
    eps = (x_t - a x_0) / b and v = a eps - b x_0 (Salimans & Ho 2022).
    """

    def __init__(self, scheduler, prediction="epsilon"):
        super().__init__()
        self.abar, self.prediction, self.seen = cumulative_alphas(scheduler), prediction, []

    def forward(self, x_t: Tensor, t: Tensor):
        self.seen.append(t[0].item())
        self.x_t = x_t
        m, s = 2 * MEAN - 1, 2 * STD
        abar = self.abar[t[0].long()]
        a, b = abar.sqrt(), (1 - abar).sqrt()
        x_0 = m + a * s**2 * (x_t - a * m) / (a**2 * s**2 + b**2)
        eps = (x_t - a * x_0) / b
        return SimpleNamespace(
            sample={"epsilon": eps, "sample": x_0, "v_prediction": a * eps - b * x_0}[self.prediction]
        )


def cosine(t: float) -> float:
    """abar of the cosine schedule with 4000 steps, in closed form and at any real t."""
    f = [math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 for u in ((t + 1) / 4000, 0)]
    return f[0] / f[1]


def on_grid(t: int, scheduler=LINEAR, **options) -> DiffusionDenoiser:
    """A denoiser at a sigma that is exactly that of timestep t, where the Gaussian UNet is exact."""
    sigma = sigma_at(t, cumulative_alphas(scheduler))
    return DiffusionDenoiser(GaussianUNet(scheduler), scheduler, sigma, **options)


def noisy_images(sigma: float, count: int = 4, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    clean = MEAN + STD * torch.randn(count, 1, size, size, generator=generator)
    return clean + sigma * torch.randn(clean.shape, generator=generator)


@pytest.mark.parametrize(
    ("scheduler", "sigma", "t", "real"),
    [  # recomputed from the published schedules with the loop of the paper's public code
        (CIFAR, 0.12, 573, 0.12012),
        (CIFAR, 0.25, 1158, 0.25012),
        (CIFAR, 0.5, 1984, 0.50031),
        (CIFAR, 0.75, 2490, 0.75012),
        (CIFAR, 1.0, 2809, 1.00001),
        (IMAGENET, 0.12, 70, 0.12069),
        (IMAGENET, 0.25, 145, 0.25158),
        (IMAGENET, 0.5, 259, 0.50239),
        (IMAGENET, 0.75, 339, 0.75328),
        (IMAGENET, 1.0, 396, 1.00024),
    ],
)
def test_the_timesteps_of_the_published_schedules_come_out_exactly(scheduler, sigma, t, real):
    abar = cumulative_alphas(scheduler)
    assert timestep_for(sigma, abar) == t
    assert round(sigma_at(t, abar), 5) == real


def test_the_cosine_schedule_is_the_closed_form_of_nichol_and_dhariwal():
    expected = torch.tensor([cosine(t) for t in range(3900)], dtype=torch.float64)  # before betas are clipped
    torch.testing.assert_close(cumulative_alphas(CIFAR)[:3900], expected, rtol=2e-6, atol=0)


def test_the_timestep_of_a_steps_own_noise_is_that_step():
    abar = cumulative_alphas(IMAGENET)
    assert [timestep_for(sigma_at(t, abar), abar) for t in range(1000)] == list(range(1000))


def test_the_fractional_timestep_has_the_noise_asked_for():
    for sigma in (0.12, 0.25, 0.5, 0.75, 1.0):
        t = fractional_timestep(sigma, cumulative_alphas(CIFAR))
        assert math.sqrt(1 / cosine(t) - 1) / 2 == pytest.approx(sigma, rel=2e-6)


@pytest.mark.parametrize("sigma", [0.004, 80.0, 0.0, -0.25, float("nan"), float("inf")])
def test_a_sigma_outside_the_schedule_is_refused_by_name(sigma):
    with pytest.raises(ValueError, match=f"sigma.*{sigma}"):  # the linear schedule runs from 0.005 to 78.7
        timestep_for(sigma, cumulative_alphas(LINEAR))


def test_the_one_shot_image_is_the_posterior_mean_of_gaussian_data():
    denoiser = on_grid(145)
    noisy = noisy_images(denoiser.sigma)
    weight = STD**2 / (STD**2 + denoiser.sigma**2)  # Wiener filter, in [0, 1] and without any diffusion
    torch.testing.assert_close(denoiser(noisy), weight * noisy + (1 - weight) * MEAN, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.12, 0.5, 1.0])
def test_one_shot_is_the_noisy_image_plus_sigma_squared_times_the_score(sigma):
    """Tweedie's formula, Lee 2021: in pixels of [0, 1], where the score of a network of ε is -ε / σ."""
    unet, images = digits_unet().eval(), noisy_images(sigma)
    with torch.no_grad():
        denoiser = DiffusionDenoiser(unet, LINEAR, sigma)
        noise = unet((2 * images - 1) * (1 + 4 * sigma**2) ** -0.5, torch.full((4,), denoiser.timesteps[0])).sample
        score = -noise / sigma
        torch.testing.assert_close(denoiser(images), (images + sigma**2 * score).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scheduler", [LINEAR, CIFAR, IMAGENET], ids=["linear", "CIFAR", "ImageNet"])
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_levels_of_a_geometric_chain_fall_by_one_factor_from_sigma_to_a_hundredth(scheduler, sigma):
    abar = cumulative_alphas(scheduler)
    levels = [sigma_at(t, abar) for t in geometric_timesteps(sigma, abar, 5)]
    assert levels == pytest.approx([0.01 * (sigma / 0.01) ** (i / 4) for i in range(5)], rel=0.35)
    assert all(level >= 0.01 * (sigma / 0.01) ** (i / 4) * (1 - 1e-9) for i, level in enumerate(levels))


def test_a_geometric_chain_stays_within_the_schedule_and_ends_at_t_star():
    coarse = cumulative_alphas(DDPMScheduler(num_train_timesteps=50, beta_start=0.02))  # begins at a level of 0.07
    assert geometric_timesteps(0.5, coarse, 1) == [timestep_for(0.5, coarse)]
    many = geometric_timesteps(0.5, coarse, 1000)
    assert many == list(range(timestep_for(0.5, coarse) + 1))
    with pytest.raises(ValueError, match=r"count.*got 0"):
        geometric_timesteps(0.5, coarse, 0)
    with pytest.raises(ValueError, match=r"sigma must lie.*got 0\.01"):
        geometric_timesteps(0.01, coarse, 5)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_given_timesteps_are_the_steps_of_a_chain(sampler):
    sigma, images = 0.12, noisy_images(0.12)
    even = DiffusionDenoiser(GaussianUNet(IMAGENET), IMAGENET, sigma, 5, sampler)
    given = DiffusionDenoiser(unet := GaussianUNet(IMAGENET), IMAGENET, sigma, (13, 27, 41, 55, 70), sampler)
    assert torch.equal(given(images), even(images)) and unet.seen == [70, 55, 41, 27, 13]


def test_many_geometric_steps_follow_the_probability_flow_of_gaussian_data():
    sigma = sigma_at(1158, cumulative_alphas(CIFAR))
    levels = geometric_timesteps(sigma, cumulative_alphas(CIFAR), 60, lowest=0.002)
    noisy = noisy_images(sigma)
    found = DiffusionDenoiser(GaussianUNet(CIFAR), CIFAR, sigma, levels, "ddim")(noisy)
    expected = MEAN + (noisy - MEAN) * STD / math.hypot(STD, sigma)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("options", [{}, {"sampler": "ddim", "steps": 7}, {"sampler": "ddpm", "steps": 7}])
def test_every_prediction_type_gives_the_same_image(prediction, options):
    other = DDPMScheduler(num_train_timesteps=1000, prediction_type=prediction)
    sigma = sigma_at(145, cumulative_alphas(LINEAR))
    images = noisy_images(sigma)
    expected = DiffusionDenoiser(GaussianUNet(LINEAR), LINEAR, sigma, **options)(images)
    found = DiffusionDenoiser(GaussianUNet(other, prediction), other, sigma, **options)(images)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_one_shot_is_one_step_of_ddim():
    unet, images = digits_unet().eval(), noisy_images(0.5)
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    abar = 1 / (1 + 4 * 0.5**2)  # by hand, DDIM's eq. 12 with alpha_{t-1} = 1
    with torch.no_grad():
        x_t = math.sqrt(abar) * (2 * images - 1)
        eps = unet(x_t, torch.full((4,), 259)).sample
        by_hand = ((x_t - math.sqrt(1 - abar) * eps) / math.sqrt(abar)).clamp(-1, 1) / 2 + 0.5
        for sampler in ("ddim", "ddpm"):
            found = DiffusionDenoiser(unet, scheduler, 0.5, sampler=sampler)(images)
            torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=0)


def test_images_come_out_in_the_unit_interval():
    images = on_grid(900)(noisy_images(1000.0))
    assert images.min() >= 0 and images.max() <= 1


def test_a_learned_variance_is_ignored():
    class WithVariance(GaussianUNet):
        def forward(self, x_t, t):
            epsilon = super().forward(x_t, t).sample
            return SimpleNamespace(sample=torch.cat([epsilon, torch.full_like(epsilon, 9.0)], dim=1))

    scheduler = DDPMScheduler(num_train_timesteps=1000, variance_type="learned_range")
    images, sigma = noisy_images(0.25), sigma_at(145, cumulative_alphas(LINEAR))
    found = DiffusionDenoiser(WithVariance(scheduler), scheduler, sigma, steps=5)(images)
    assert torch.equal(found, DiffusionDenoiser(GaussianUNet(LINEAR), LINEAR, sigma, steps=5)(images))


def test_the_unet_sees_the_image_scaled_to_unit_variance_at_exactly_sigma():
    unet, images = GaussianUNet(LINEAR), noisy_images(0.5)
    DiffusionDenoiser(unet, LINEAR, 0.5)(images)
    torch.testing.assert_close(unet.x_t, (2 * images - 1) / math.sqrt(2), atol=1e-6, rtol=0)  # 1 + 4 / 4 = 2


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, [70]), (2, [70, 34]), (5, [70, 55, 41, 27, 13]), (None, list(range(70, -1, -1)))],
)
def test_a_chain_starts_at_t_star_and_takes_the_steps_asked_for(sampler, steps, expected):
    unet = GaussianUNet(IMAGENET)
    DiffusionDenoiser(unet, IMAGENET, 0.12, steps=steps, sampler=sampler)(noisy_images(0.12))
    assert unet.seen == expected


def test_a_fractional_timestep_reaches_the_unet_as_a_fraction():
    unet = GaussianUNet(CIFAR)
    DiffusionDenoiser(unet, CIFAR, 0.25, steps=2, timestep="fractional")(noisy_images(0.25))
    assert unet.seen == [
        pytest.approx(1157.51, abs=0.01),
        578,
    ]  # from sigma_1157 = .249875, sigma_1158 = .250119


def test_diffusers_unet_answers_differently_at_a_fractional_timestep():
    unet, images = digits_unet().eval(), noisy_images(0.5)
    with torch.no_grad():
        a, b, c = (unet(images, torch.full((4,), t)).sample for t in (258, 258.5, 259))
    assert not torch.equal(a, b) and not torch.equal(b, c)


def test_the_full_ancestral_chain_draws_from_the_posterior_of_gaussian_data():
    denoiser = on_grid(1158, scheduler=CIFAR, steps=None)  # 1159 steps: close to infinitely many
    noisy = torch.linspace(0.7, 0.701, 100)[:, None, None, None]  # distinct images, so that their noise is
    images = denoiser(noisy.expand(-1, 1, 16, 16))  # 25,600 pixels: the tolerances are four standard errors
    weight = STD**2 / (STD**2 + denoiser.sigma**2)
    spread = math.sqrt(weight) * denoiser.sigma
    assert images.mean().item() == pytest.approx(weight * 0.7005 + (1 - weight) * MEAN, abs=spread / 40)
    assert images.std().item() == pytest.approx(spread, rel=0.02)


def test_the_full_ddim_chain_follows_the_probability_flow_of_gaussian_data():
    denoiser = on_grid(145, steps=None, sampler="ddim")
    noisy = noisy_images(denoiser.sigma)
    # The flow of a Gaussian shrinks deviations by the ratio of the standard deviations (Song et al. 2021).
    expected = MEAN + (noisy - MEAN) * STD / math.hypot(STD, denoiser.sigma)
    torch.testing.assert_close(denoiser(noisy), expected, atol=0.005, rtol=0)  # 146 steps of first order


def test_the_early_steps_of_the_cosine_schedule_keep_their_variance():
    chain = DiffusionDenoiser(GaussianUNet(CIFAR), CIFAR, 0.25, steps=None).chain
    abar = cumulative_alphas(CIFAR)
    for t in (1, 2, 100):  # posterior variance, Ho et al. 2020 eq. 7
        expected = (1 - abar[t - 1]) / (1 - abar[t]) * CIFAR.betas[t].double()
        assert chain._get_variance(t).item() == pytest.approx(expected.item(), rel=1e-6)


def test_ancestral_noise_depends_on_the_image_and_not_on_its_batch_or_on_earlier_calls():
    denoiser, images = on_grid(145, steps=10), noisy_images(0.25, count=5)
    together = denoiser(images)
    alone = torch.cat([denoiser(image[None]) for image in images.flip(0)]).flip(0)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)


def test_two_images_that_differ_in_one_bit_get_unrelated_ancestral_noise():
    image = torch.full((1, 1, 32, 32), 0.5)
    other = image.clone()
    other[0, 0, 0, 0] = torch.nextafter(image[0, 0, 0, 0], torch.tensor(1.0))
    pair = on_grid(145, steps=10)(torch.cat([image, other])).flatten(1)
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.15  # 1024 pixels: five standard errors


def test_another_seed_is_another_denoiser_and_the_same_seed_the_same():
    images = noisy_images(0.25)
    first, again, other = (on_grid(145, steps=10, seed=seed)(images) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    on_grid(145, steps=10)(noisy_images(0.25))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_denoiser_says_at_which_sigma_it_may_be_certified():
    denoiser = DiffusionDenoiser(GaussianUNet(LINEAR), LINEAR, 0.25)
    assert denoiser.sigma == denoiser.expected_sigma == 0.25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": "euler"}, "sampler.*euler"),
        ({"timestep": "round"}, "timestep.*round"),
        ({"steps": 0}, "steps.*71.*got 0"),
        ({"steps": 72}, "steps.*71.*got 72"),
        ({"steps": []}, r"steps.*t\* = 70.*got \[\]"),
        ({"steps": [5, 5, 70]}, r"steps must rise.*70.*got \[5, 5, 70\]"),
        ({"steps": [5, 69]}, r"steps.*t\* = 70; got \[5, 69\]"),
        ({"steps": [-1, 70]}, r"steps.*got \[-1, 70\]"),
        ({"sigma": 100.0}, "sigma.*100"),
        ({"scheduler": EDMEulerScheduler()}, "betas.*EDMEulerScheduler"),
        ({"scheduler": DDPMScheduler(prediction_type="score")}, "score"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_value(wrong, message):
    good = {"unet": GaussianUNet(LINEAR), "scheduler": LINEAR, "sigma": 0.12}
    with pytest.raises(ValueError, match=message):
        DiffusionDenoiser(**{**good, **wrong})


@pytest.mark.parametrize(
    ("build", "shape", "least", "most"),
    [(digits_unet, (2, 1, 8, 8), 3e5, 1e6), (cifar_unet, (2, 3, 32, 32), 25e6, 36e6)],
)
def test_the_trainable_unets_have_the_promised_size(build, shape, least, most):
    with torch.device("meta"):
        unet = build()
        assert unet(torch.empty(shape), torch.empty(2)).sample.shape == shape
    assert least < sum(parameter.numel() for parameter in unet.parameters()) < most


def test_denoisers_that_compute_something_else_print_and_hash_differently():
    unet = nn.Conv2d(1, 1, 1)
    options = [{}, {"steps": 2}, {"steps": 2, "sampler": "ddim"}, {"timestep": "fractional"}, {"seed": 1}]
    options += [{"steps": [t, 145]} for t in (10, 11)]
    chains = [DiffusionDenoiser(unet, LINEAR, 0.25, **each) for each in options]
    chains.append(DiffusionDenoiser(unet, LINEAR, 0.5))
    assert len({identity(chain) for chain in chains}) == len(chains)


# ---- DiffSmooth ------------------------------------------------------------------------------------------------


def local(copies=5, local_sigma=0.25, seed=0, classifier=None):
    torch.manual_seed(0)
    classifier = classifier or nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return DiffSmooth(on_grid(145), classifier, local_sigma, copies, seed).eval().requires_grad_(False)


def test_local_smoothing_averages_the_softmax_of_noisy_copies_of_the_denoised_image():
    seen = []

    class Watched(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images.flatten(1)[:, :3]

    f, noisy = local(copies=400, classifier=Watched()), noisy_images(0.25)
    answers = f(noisy)
    copies = seen[0].unflatten(0, (400, len(noisy)))
    expected = copies.flatten(2)[:, :, :3].softmax(2).mean(0)
    torch.testing.assert_close(answers.exp(), expected)
    noise = copies - f.denoiser.denoiser(noisy)
    assert noise.std().item() == pytest.approx(0.25, rel=0.01)  # 4 * 400 * 64 draws: six standard errors
    across = torch.corrcoef(noise.transpose(0, 1).flatten(1))  # of one image with another
    assert (across - torch.eye(len(noisy))).abs().max() < 0.05


def test_local_smoothing_has_finite_answers_however_sure_its_classifier_is():
    class Sure(nn.Module):
        def forward(self, images):
            return torch.tensor([[0.0, 1000.0, -1000.0]]).expand(len(images), 3)

    answers = local(classifier=Sure())(noisy_images(0.25))
    assert answers.isfinite().all() and (answers.argmax(1) == 1).all()


def test_local_smoothing_depends_on_the_image_and_not_on_its_batch_or_on_earlier_calls():
    f, images = local(), noisy_images(0.25, count=5)
    together = f(images)
    alone = torch.cat([f(image[None]) for image in images.flip(0)]).flip(0)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)


def test_local_smoothing_says_at_which_sigma_it_may_be_certified():
    f = local()
    said = [part.expected_sigma for part in f.modules() if hasattr(part, "expected_sigma")]
    assert set(said) == {f.denoiser.denoiser.sigma}  # the outer noise, not the inner


def test_what_changes_local_smoothing_changes_its_hash():
    kinds = [local(), local(copies=4), local(local_sigma=0.3), local(seed=1)]
    assert len({identity(kind) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("wrong", [{"local_sigma": 0.0}, {"local_sigma": math.nan}, {"copies": 0}, {"copies": 2.5}])
def test_wrong_numbers_of_local_smoothing_are_refused_by_name(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name.removeprefix('local_')} must be .*; got {value!r}"):
        local(**wrong)
