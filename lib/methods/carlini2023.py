"""Carlini et al. 2023: a diffusion model as the denoiser."""

from typing import TYPE_CHECKING

from torch import nn

from lib.config import DiffusionDenoising, kit_root
from lib.datasets import Data, training_images
from lib.machine.progress import progress
from lib.methods.common import for_training
from lib.training import Recipe, train
from lib.training.objectives import DDPM

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers import SchedulerMixin

    from lib.models.diffusion import DiffusionDenoiser


def diffusion_model(cfg: DiffusionDenoising, data: Data) -> tuple[nn.Module, "SchedulerMixin"]:
    """A UNet that predicts the noise, and its scheduler: a DDPM trained here (Ho et al. 2020), or a published one.

    One model serves every noise level, since it learns all timesteps. `cfg.diffusion` is "train", or what
    `load_diffusion` takes; its files are looked for in checkpoints/ of the kit's root. ValueError where the kit has no
    UNet for images of this size.
    """
    from diffusers import DDPMScheduler

    from lib.models.diffusion import load_diffusion
    from lib.models.small_unet import UNETS

    if cfg.diffusion != "train":
        unet, scheduler = load_diffusion(cfg.diffusion, kit_root() / "checkpoints")
        return unet.to(cfg.device).requires_grad_(False), scheduler
    if data.image_shape not in UNETS:
        raise ValueError(f"diffusion = 'train': no UNet for images {data.image_shape}, only for {list(UNETS)}")
    # Cosine betas (Nichol and Dhariwal 2021): 702 of the 1000 steps are below sigma = 1, of linear ones only 396.
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    images = training_images(data)
    recipe = Recipe(
        DDPM(scheduler), UNETS[data.image_shape].__name__, epochs=cfg.epochs, batch_size=cfg.train_batch,
        optimizer="adam", lr=cfg.lr, weight_decay=0.0, schedule="cosine", ema=cfg.ema, compute=for_training(cfg),
        seed=cfg.seed,
    )  # fmt: skip
    unet = train(
        recipe, UNETS[data.image_shape], images, cfg.run_path / "weights", device=cfg.device,
        progress=progress(cfg.epochs, f"train {recipe.arch}"),
    )  # fmt: skip
    return unet, scheduler


def diffusion_denoiser(
    cfg: DiffusionDenoising,
    model: tuple[nn.Module, "SchedulerMixin"],
    sigma: float,
    steps: int | None = 1,
    sampler: str = "ddpm",
) -> "DiffusionDenoiser":
    """The denoiser of Carlini et al. 2023 for noise of level `sigma`, out of the pair that `diffusion_model` gives.

    `steps=1` is their one shot; None is every step from t* down.
    """
    from lib.models.diffusion import DiffusionDenoiser

    return DiffusionDenoiser(*model, sigma, steps, sampler, timestep=cfg.timestep, seed=cfg.seed).eval()
