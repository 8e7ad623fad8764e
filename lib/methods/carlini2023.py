"""Carlini et al. 2023: a diffusion model as the denoiser."""

import copy
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.config import DenoisedSmoothing, DiffusionDenoising, kit_root
from lib.datasets import Data, training_images
from lib.machine.progress import progress
from lib.methods.cohen2019 import noise_trained_classifier, trained_classifier
from lib.methods.common import for_training
from lib.models import Denoised
from lib.training import Recipe, train
from lib.training.objectives import DDPM, BehindDenoiser

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers import SchedulerMixin

    from lib.models.diffusion import DiffusionDenoiser

LOCAL_SIGMA = 0.25  # of DiffSmooth's inner noise, in the authors' code


def diffusion_model(cfg: DiffusionDenoising, data: Data) -> tuple[nn.Module, "SchedulerMixin"]:
    """A UNet that predicts the noise, and its scheduler: a DDPM trained here (Ho et al. 2020), or a published one.

    One model serves every noise level, since it learns all timesteps. `cfg.diffusion` is a key of UNETS, or what
    `load_diffusion` takes; its files are looked for in checkpoints/ of the kit's root. ValueError where the kit has no
    UNet for images of this size.
    """
    from diffusers import DDPMScheduler

    from lib.models.diffusion import load_diffusion
    from lib.models.small_unet import UNETS

    if cfg.diffusion not in UNETS:
        unet, scheduler = load_diffusion(cfg.diffusion, kit_root() / "checkpoints")
        return unet.to(cfg.device).requires_grad_(False), scheduler
    build = UNETS[cfg.diffusion].get(data.image_shape)
    if build is None:
        known = "; ".join(f"{text!r} for {', '.join(map(str, shapes))}" for text, shapes in UNETS.items())
        raise ValueError(f"diffusion = {cfg.diffusion!r}: no UNet for images {data.image_shape}; there is {known}")
    # Cosine betas (Nichol and Dhariwal 2021): 702 of the 1000 steps are below sigma = 1, of linear ones only 396.
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    images = training_images(data)
    recipe = Recipe(
        DDPM(scheduler), build.__name__, epochs=cfg.epochs, batch_size=cfg.train_batch,
        optimizer="adam", lr=cfg.lr, weight_decay=0.0, schedule="cosine", ema=cfg.ema, compute=for_training(cfg),
        seed=cfg.seed,
    )  # fmt: skip
    unet = train(
        recipe, build, images, cfg.run_path / "weights", device=cfg.device,
        progress=progress(cfg.epochs, f"train {recipe.arch}"),
    )  # fmt: skip
    return unet, scheduler


def diffusion_denoiser(
    cfg: DiffusionDenoising,
    model: tuple[nn.Module, "SchedulerMixin"],
    sigma: float,
    steps: int | Sequence[int] | None = 1,
    sampler: str = "ddpm",
) -> "DiffusionDenoiser":
    """The denoiser of Carlini et al. 2023 for noise of level `sigma`, out of the pair that `diffusion_model` gives.

    `steps=1` is their one shot; None is every step from t* down. More as in DiffusionDenoiser, such as the geometric
    list of Lee 2021 (`lib.models.diffusion.geometric_timesteps`).
    """
    from lib.models.diffusion import DiffusionDenoiser

    return DiffusionDenoiser(*model, sigma, steps, sampler, timestep=cfg.timestep, seed=cfg.seed).eval()


def denoisers_by_steps(
    cfg: DiffusionDenoising, model: tuple[nn.Module, "SchedulerMixin"], sigma: float
) -> dict[str, "DiffusionDenoiser"]:
    """Denoisers of other steps, by name: "one step", "all steps", "ancestral, 5", "DDIM, 5", "Lee, 5".

    2, 5 and 20 steps by either sampler, as far as there are so many from t* down; and DDIM's down five levels in a
    geometric row, as Lee 2021 goes down with a score network, where the schedule has as many.
    """
    from lib.models.diffusion import cumulative_alphas, geometric_timesteps

    every = diffusion_denoiser(cfg, model, sigma, None)
    found = {"one step": diffusion_denoiser(cfg, model, sigma), "all steps": every}
    few = [steps for steps in (2, 5, 20) if steps <= len(every.timesteps)]
    for name, sampler in {"ancestral": "ddpm", "DDIM": "ddim"}.items():
        found |= {f"{name}, {steps}": diffusion_denoiser(cfg, model, sigma, steps, sampler) for steps in few}
    levels = geometric_timesteps(sigma, cumulative_alphas(model[1]), 5)
    return found | ({"Lee, 5": diffusion_denoiser(cfg, model, sigma, levels, "ddim")} if len(levels) == 5 else {})


def trained_behind(
    cfg: DiffusionDenoising, earlier: DenoisedSmoothing, data: Data, base: Denoised
) -> dict[str, nn.Module]:
    """What a little training adds to f = `base`, a classifier behind a diffusion model, by name.

    "fine-tuned": the classifier after `cfg.fine_tuned` more passes, over denoised images, at a tenth of the first rate
    (as Carlini et al. 2023 on CIFAR-10). "DiffSmooth": one trained on noise of level 0.25, which sees five copies of
    the denoised image with that noise (Zhang et al. 2023). `earlier` says how these train. Neither is made where
    `cfg.baselines` names no profile, or for 0 passes.
    """
    from lib.models.diffusion import DiffSmooth

    if not (cfg.baselines and cfg.fine_tuned):
        return {}
    gentle = replace(earlier, lr=earlier.lr / 10)
    objective = BehindDenoiser(base.denoiser.expected_sigma, base.denoiser)
    build = lambda: copy.deepcopy(base.classifier).requires_grad_(True)  # noqa: E731
    tuned = trained_classifier(gentle, data, objective, "fine-tuned", cfg.fine_tuned, build=build)
    noisy_again = noise_trained_classifier(earlier, data, LOCAL_SIGMA)
    return {
        "fine-tuned": Denoised(base.denoiser, tuned),
        "DiffSmooth": DiffSmooth(base.denoiser, noisy_again, LOCAL_SIGMA, copies=5, seed=cfg.seed),
    }


@torch.no_grad()
def denoised(cfg: DiffusionDenoising, denoisers: Mapping[str, nn.Module], noisy: Tensor) -> dict[str, Tensor]:
    """The same noisy images (N, C, H, W) after each of the denoisers, by its name; `cfg.at_once` images at a time."""
    return {name: torch.cat([f(batch) for batch in noisy.split(cfg.at_once)]) for name, f in denoisers.items()}


@torch.no_grad()
def cost(cfg: DiffusionDenoising, classifiers: Mapping[str, nn.Module], batch: Tensor) -> pd.DataFrame:
    """What a certificate takes, a row a classifier: its UNet evaluations, and the time in units of the first row's.

    The time is that of `batch` (N, C, H, W), the shortest of five.
    """
    rows = {}
    for name, f in classifiers.items():
        steps = sum(len(getattr(part, "timesteps", ())) for part in f.modules())
        shortest = min(timeit.repeat(lambda f=f: f(batch).cpu(), number=1, repeat=5))
        rows[name] = (cfg.n0 + cfg.n) * steps, shortest
    evaluations, seconds = zip(*rows.values())
    first = {"time / first row": np.divide(seconds, seconds[0])}
    return pd.DataFrame({"UNet evaluations a certificate": evaluations} | first, index=list(rows))
