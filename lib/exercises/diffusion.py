"""The exercises of notebook 03: GETTIMESTEP, one-shot denoising, and what a rounded timestep is worth."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from lib.exercises.exercise import Cases, Exercise


def timestep(sigma: float, abar: Tensor) -> int:
    """The library's t*. (diffusers takes seconds to import: only who checks an answer waits for it.)"""
    from lib.models.diffusion import timestep_for

    return timestep_for(sigma, abar)


def schedules() -> Cases:
    """The papers' noise levels and one that lies between, on the linear and on the cosine schedule of 1000 steps."""
    linear = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    share = torch.arange(1001, dtype=torch.float64) / 1000
    path = torch.cos((share + 0.008) / 1.008 * torch.pi / 2) ** 2
    cosine = path[1:-1] / path[0]
    return [(sigma, abar.clone()) for sigma in (0.12, 0.25, 0.5, 0.75, 1.0) for abar in (linear, cosine)]


def _first(below: Tensor) -> int:
    return int(below.nonzero()[0])


class ToyUNet(nn.Module):
    """A network whose answer depends on every pixel and on t; at times it sends x_0 out of [-1, 1]."""

    def forward(self, x: Tensor, t: Tensor | int) -> SimpleNamespace:
        t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return SimpleNamespace(sample=torch.tanh(x + x.mean() / 4) * (0.3 + t / 2000))


def noisy_images() -> Cases:
    """Two noisy images at three noise levels, with the t* of the cosine schedule: that of the digits."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 4, 4, generator=draw)
    noise = torch.randn(2, 1, 4, 4, generator=draw)
    steps = {0.12: 143, 0.25: 289, 0.5: 496}
    return [(images + sigma * noise, sigma, t, ToyUNet()) for sigma, t in steps.items()]


def one_shot(noisy: Tensor, sigma: float, t: int, unet: nn.Module) -> Tensor:
    """The library's answer: its denoiser, on the cosine schedule whose t* is `t`."""
    from diffusers import DDPMScheduler

    from lib.models.diffusion import DiffusionDenoiser

    with torch.no_grad():
        return DiffusionDenoiser(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2"), sigma)(noisy)


def _variant(
    noisy: Tensor, sigma: float, t: int, unet: nn.Module, *, doubled: float = 2.0, centred: bool = True,
    scaled: bool = True, told_scaled: bool = True, noise_factor: bool = True, divided: bool = True,
    clipped: bool = True, back: bool = True, image: bool = False, told_raw: bool = False, rooted: bool = True,
) -> Tensor:  # fmt: skip
    """One-shot denoising with the parts that can go wrong switched on and off."""
    abar = 1 / (1 + (doubled * sigma) ** 2)
    x = 2 * noisy - 1 if centred else noisy
    x_t = abar**0.5 * x if scaled else x
    answer = unet(noisy if told_raw else x_t if told_scaled else x, t).sample
    x_0 = x_t - ((1 - abar) ** (0.5 if rooted else 1) if noise_factor else 1) * answer
    x_0 = x_0 / abar**0.5 if divided else x_0
    x_0 = answer if image else x_0
    x_0 = x_0.clamp(-1, 1) if clipped else x_0
    return (x_0 + 1) / 2 if back else x_0


def margin(t: int = 70) -> float:
    """The noise level of step t of the ImageNet model's schedule."""
    return float(((1 - schedules()[0][1][t]) / schedules()[0][1][t]) ** 0.5 / 2)


EXERCISES: list[Exercise] = [
    Exercise(
        name="03.timestep",
        minutes=8,
        difficulty="easy",
        truth=timestep,
        cases=schedules,
        mistakes={
            "This is where the noise is σ on the scale [-1, 1]; there it is 2σ, so take (2σ)².": (
                lambda sigma, abar: _first(abar <= 1 / (1 + sigma**2))
            ),
            "2σ is not squared here: ᾱ is about variances, so take 4σ².": (
                lambda sigma, abar: _first(abar <= 1 / (1 + 2 * sigma))
            ),
            "4σ should be 4σ²: (2σ)² squares both.": lambda sigma, abar: _first(abar <= 1 / (1 + 4 * sigma)),
            "This is the first step of all: ᾱ falls with t, so ask where it is at or below 1 / (1 + 4σ²).": (
                lambda sigma, abar: _first(abar >= 1 / (1 + 4 * sigma**2))
            ),
            "This is the last step: many are noisy enough, t* is the first of them.": (
                lambda sigma, abar: int((abar <= 1 / (1 + 4 * sigma**2)).nonzero()[-1])
            ),
            "This is one step too early: it has less noise than σ, and t* must have at least as much.": (
                lambda sigma, abar: _first(abar <= 1 / (1 + 4 * sigma**2)) - 1
            ),
            "This is one too many: steps are counted from 0, as the places of ᾱ are.": (
                lambda sigma, abar: _first(abar <= 1 / (1 + 4 * sigma**2)) + 1
            ),
            "This is the step whose noise is nearest, which may have less than σ; take the first with at least σ.": (
                lambda sigma, abar: int((abar - 1 / (1 + 4 * sigma**2)).abs().argmin())
            ),
            "This is the ᾱ of the step; the step itself is asked for, the place where it stands.": (
                lambda sigma, abar: abar[_first(abar <= 1 / (1 + 4 * sigma**2))]
            ),
        },
    ),
    Exercise(
        name="03.one_shot",
        minutes=12,
        difficulty="medium",
        truth=one_shot,
        cases=noisy_images,
        mistakes={
            "x_t is not scaled: the UNet knows images with the factor √ᾱ before them.": (
                lambda *case: _variant(*case, scaled=False)
            ),
            "The UNet is shown the image before it is scaled: show it x_t.": (
                lambda *case: _variant(*case, told_scaled=False)
            ),
            "The image is still in [0, 1] when it is scaled: 2 · noisy - 1 comes first.": (
                lambda *case: _variant(*case, centred=False)
            ),
            "ᾱ = 1 / (1 + σ²) belongs to noise σ on the scale [-1, 1]; there it is 2σ.": (
                lambda *case: _variant(*case, doubled=1.0)
            ),
            "The UNet's answer is the noise, not the image: put it into equation (2).": (
                lambda *case: _variant(*case, image=True)
            ),
            "The noise is taken away whole: in x_t it has the factor √(1 - ᾱ).": (
                lambda *case: _variant(*case, noise_factor=False)
            ),
            "The UNet is shown the noisy image as it came, in [0, 1]; show it x_t.": (
                lambda *case: _variant(*case, told_raw=True)
            ),
            "The noise in x_t has the factor √(1 - ᾱ); here the root is missing.": (
                lambda *case: _variant(*case, rooted=False)
            ),
            "What is left is √ᾱ times the image: divide by √ᾱ.": lambda *case: _variant(*case, divided=False),
            "It leaves [-1, 1] in places: clip the estimate before it goes back.": (
                lambda *case: _variant(*case, clipped=False)
            ),
            "This is the image on the scale [-1, 1]; f wants it in [0, 1].": lambda *case: _variant(*case, back=False),
        },
    ),
    Exercise(
        name="03.margin",
        minutes=5,
        difficulty="easy",
        truth=lambda: 100 * (margin() / 0.12 - 1),
        mistakes={
            "This is a fraction; in per cent it is a hundred times as much.": lambda: margin() / 0.12 - 1,
            "This is the ratio of the noise levels; how much above 1 is it, in per cent?": lambda: margin() / 0.12,
            "This is the new level in per cent of the old one; how much more than 100 is it?": (
                lambda: 100 * margin() / 0.12
            ),
            "This compares variances; R is proportional to σ itself.": lambda: 100 * ((margin() / 0.12) ** 2 - 1),
            "This is the step before t*, whose noise is below σ; t* is the first at or above it.": (
                lambda: 100 * (margin(69) / 0.12 - 1)
            ),
            "This is a difference in pixels; take the ratio of the two noise levels.": lambda: margin() - 0.12,
        },
        rtol=2e-2,
    ),
]
