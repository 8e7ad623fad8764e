"""The methods as notebooks call them: from a notebook's parameters to trained weights and certified records.

Notebooks that name the same recipe share its weights, since they are kept under the recipe's hash.
"""

import copy
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from lib.certification import certify_dataset, stack, weights_hash
from lib.config import STOP, TRAINING, Common, DenoisedSmoothing, DiffusionDenoising, NoiseTraining, kit_root
from lib.datasets import Data, holdout
from lib.models import Denoised, build_classifier, build_denoiser, load_classifier
from lib.models.compute import Computed
from lib.models.pretrained import PREFIXES
from lib.progress import progress
from lib.sequential import AtRadii, StoppingRule, Tolerance
from lib.smoothing import SmoothedClassifier
from lib.training import Recipe, train
from lib.training.objectives import Objective, classification, gaussian, mse, stability

if TYPE_CHECKING:  # diffusers takes seconds to import, and the notebooks without a diffusion model do not need it
    from diffusers import SchedulerMixin

    from lib.models.diffusion import DiffusionDenoiser

Classifiers = nn.Module | Sequence[nn.Module]  # one, or surrogates that take turns


def noise_trained_classifier(cfg: NoiseTraining, data: Data, sigma: float) -> nn.Module:
    """The base classifier of Cohen et al. 2019: trained on noise of level `sigma`; 0 is ordinary training."""
    recipe = Recipe(
        "gaussian", data.identity, cfg.arch, sigma, epochs=cfg.epochs, batch_size=cfg.train_batch, lr=cfg.lr,
        schedule=cfg.schedule, augment=cfg.augment, compute=_for_training(cfg), seed=cfg.seed,
    )  # fmt: skip
    return train(
        recipe, lambda: build_classifier(cfg.arch, data), gaussian(sigma), data.train, cfg.run_path / "weights",
        device=cfg.device, progress=progress(cfg.epochs, f"train {cfg.arch}, sigma = {sigma}"),
    )  # fmt: skip


def clean_classifier(cfg: DenoisedSmoothing, data: Data, name: str = "") -> nn.Module:
    """A classifier that never saw noise: `name`, else what `cfg.classifier` names, else `cfg.arch` trained here.

    A name is that of an architecture to train, a weights file of `cfg.arch` (a relative path starts at the kit's root),
    or a library's network with its weights: torchvision:resnet50, or torchvision:resnet50@IMAGENET1K_V1 for a set.
    """
    name = name or cfg.classifier or cfg.arch
    if name.startswith(PREFIXES):
        network, _, weights = name.partition("@")
        return load_classifier(network, data, weights=weights or "published").to(cfg.device)
    if Path(name).suffix:
        return load_classifier(kit_root() / Path(name).expanduser(), data, arch=cfg.arch).to(cfg.device)
    return noise_trained_classifier(replace(cfg, arch=name), data, 0.0)


def mse_denoiser(cfg: DenoisedSmoothing, data: Data, sigma: float, arch: str = "") -> nn.Module:
    """A denoiser that restores the image (Salman et al. 2020, 3.1): `arch`, or the first of `cfg.denoisers`."""
    recipe = _mse_recipe(cfg, data, sigma, arch)
    return _train_denoiser(cfg, data, recipe, mse(sigma), lambda: build_denoiser(recipe.arch))


def stab_denoiser(cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers) -> nn.Module:
    """A denoiser trained from scratch to keep the answers of `classifiers`: the target, or surrogates (black-box)."""
    start = _mse_recipe(cfg, data, sigma)
    recipe = replace(start, objective="stability", frozen=_hashes(classifiers), **_in_numbers(cfg.stab))
    return _train_denoiser(cfg, data, recipe, stability(sigma, classifiers), lambda: build_denoiser(recipe.arch))


def stab_mse_denoisers(
    cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers, arch: str = "", labels: bool = False
) -> dict[str, nn.Module]:
    """Stab+MSE: `mse_denoiser` fine-tuned to keep the answers of `classifiers`, once in each way of `cfg.stab_mse`.

    With `labels` it is Clf+MSE: fine-tuned to the true labels.
    """
    start = _mse_recipe(cfg, data, sigma, arch)
    restored = mse_denoiser(cfg, data, sigma, arch)
    objective = (classification if labels else stability)(sigma, classifiers)
    denoisers = {}
    for way in cfg.stab_mse:
        recipe = replace(
            start, objective="classification" if labels else "stability", starts_from=start.hash,
            frozen=_hashes(classifiers), **_in_numbers(way),
        )  # fmt: skip
        build = lambda: copy.deepcopy(restored).requires_grad_(True)  # noqa: E731
        denoisers[way] = _train_denoiser(cfg, data, recipe, objective, build)
    return denoisers


def stab_mse_denoiser(
    cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers, arch: str = "", labels: bool = False
) -> nn.Module:
    """The one of `stab_mse_denoisers` with the highest `held_out_stability`: no test image has a say in the choice."""
    denoisers = stab_mse_denoisers(cfg, data, sigma, classifiers, arch, labels)
    return max(denoisers.values(), key=lambda denoiser: held_out_stability(cfg, data, sigma, denoiser, classifiers))


def held_out_stability(
    cfg: DenoisedSmoothing, data: Data, sigma: float, denoiser: nn.Module, classifiers: Classifiers
) -> float:
    """How often f(D(x + noise)) = f(x) over 20 noisy copies of each held-out image, as the mean over `classifiers`.

    The held-out images are training images that no denoiser was trained on; for a black-box denoiser f is a surrogate.
    """
    _, held_out = _split(cfg, data)
    ids = range(len(held_out))
    images = stack(held_out, ids)[0].to(cfg.device)
    shares = []
    for f in [classifiers] if isinstance(classifiers, nn.Module) else classifiers:
        counts = smoothed(cfg, data, Denoised(denoiser, f), sigma).sample(images, ids, 20)
        clean = Computed(f, cfg.compute)
        answers = torch.cat([clean(part).argmax(1) for part in images.split(cfg.batch_size)]).cpu().numpy()
        shares.append(np.take_along_axis(counts, answers[:, None], axis=1).sum() / counts.sum())
    return float(np.mean(shares))


def _mse_recipe(cfg: DenoisedSmoothing, data: Data, sigma: float, arch: str = "") -> Recipe:
    fit, _ = _split(cfg, data)
    return Recipe(
        "mse", f"{len(fit)} of {data.identity}", arch or cfg.denoisers[0], sigma, schedule=cfg.schedule,
        augment=cfg.augment, compute=_for_training(cfg), seed=cfg.seed, **_in_numbers(cfg.mse),
    )  # fmt: skip


def _for_training(cfg: Common) -> str:
    """`cfg.compute` as far as training takes it: gradients need batch statistics, and more range than float16 has."""
    return re.sub("^float16", "bfloat16", cfg.compute).replace(", folded", "")


def _in_numbers(training: str) -> dict[str, int | float | str]:
    """The fields of a recipe that words like "90 epochs of 256, adam 1e-3, sgd 1e-4 after 50" stand for."""
    said = {name: text for name, text in re.fullmatch(TRAINING["pattern"], training).groupdict().items() if text}
    kinds = {"epochs": int, "batch_size": int, "sgd_epoch": int, "lr": float, "sgd_lr": float, "optimizer": str}
    numbers = {name: kinds[name](text) for name, text in said.items()}
    return numbers | ({"optimizer": "adam_then_sgd"} if "sgd_epoch" in said else {})


def _split(cfg: DenoisedSmoothing, data: Data) -> tuple[Dataset, Dataset]:
    """Training images to train denoisers on, and 15 % of them, at most 1000, to compare settings on."""
    return holdout(data.train, min(1000, round(0.15 * len(data.train))), cfg.seed)


def _train_denoiser(
    cfg: DenoisedSmoothing, data: Data, recipe: Recipe, objective: Objective, build: Callable[[], nn.Module]
) -> nn.Module:
    fit, _ = _split(cfg, data)
    label = f"train {recipe.arch}, {recipe.objective}{' from MSE' * bool(recipe.starts_from)}, sigma = {recipe.sigma}"
    return train(
        recipe, build, objective, fit, cfg.run_path / "weights", device=cfg.device,
        progress=progress(recipe.epochs, label),
    )  # fmt: skip


def _hashes(classifiers: Classifiers) -> tuple[str, ...]:
    """What a recipe says of the networks that its objective looks through; weights, for they may come from a file."""
    family = [classifiers] if isinstance(classifiers, nn.Module) else classifiers
    return tuple(weights_hash(network)[:12] for network in family)


def diffusion_model(cfg: DiffusionDenoising, data: Data) -> tuple[nn.Module, "SchedulerMixin"]:
    """A UNet that predicts the noise, and its scheduler: a DDPM trained here (Ho et al. 2020), or a published one.

    One model serves every noise level, since it learns all timesteps. `cfg.diffusion` is "train", or what
    `load_diffusion` takes; its files are looked for in checkpoints/ of the kit's root. ValueError where the kit has no
    UNet for images of this size.
    """
    from diffusers import DDPMScheduler

    from lib.models.diffusion import ddpm_loss, load_diffusion
    from lib.models.small_unet import UNETS

    if cfg.diffusion != "train":
        unet, scheduler = load_diffusion(cfg.diffusion, kit_root() / "checkpoints")
        return unet.to(cfg.device).requires_grad_(False), scheduler
    if data.image_shape not in UNETS:
        raise ValueError(f"diffusion = 'train': no UNet for images {data.image_shape}, only for {list(UNETS)}")
    # Cosine betas (Nichol and Dhariwal 2021): 702 of the 1000 steps are below sigma = 1, of linear ones only 396.
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    recipe = Recipe(
        "ddpm, 1000 cosine steps", data.identity, UNETS[data.image_shape].__name__, 0.0, epochs=cfg.epochs,
        batch_size=cfg.train_batch, optimizer="adam", lr=cfg.lr, weight_decay=0.0, schedule="cosine",
        ema=cfg.ema, compute=_for_training(cfg), seed=cfg.seed,
    )  # fmt: skip
    unet = train(
        recipe, UNETS[data.image_shape], ddpm_loss(scheduler), data.train, cfg.run_path / "weights",
        device=cfg.device, progress=progress(cfg.epochs, f"train {recipe.arch}"),
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


def smoothed(cfg: Common, data: Data, base: nn.Module, sigma: float) -> SmoothedClassifier:
    """g, out of a network and a noise level: f is the network computed as `cfg.compute` says."""
    f = Computed(base, cfg.compute)
    return SmoothedClassifier(f, sigma, data.num_classes, seed=cfg.seed, batch_size=cfg.batch_size)


def certified(
    cfg: Common, data: Data, base: nn.Module, sigma: float, name: str, ids: Sequence[int], n: int | None = None
) -> pd.DataFrame:
    """The certification log of `base` smoothed at level `sigma`, kept as run_dir/records/<name>-<hash>.tsv."""
    return _certify(
        smoothed(cfg, data, base, sigma), data.test, ids, cfg.run_path / "records" / name, n0=cfg.n0, n=n or cfg.n,
        alpha=cfg.alpha, rule=_stopping_rule(cfg), device=cfg.device, progress=progress(len(ids), f"certify {name}"),
        facts={"dataset": data.identity},
    )  # fmt: skip


def _stopping_rule(cfg: Common) -> StoppingRule | None:
    """What `cfg.stop` says in words: none for "after n"."""
    said = re.fullmatch(STOP["pattern"], cfg.stop)
    if said["radii"]:
        return AtRadii(radii=tuple(float(radius) for radius in said["radii"].split()))
    return Tolerance(tolerance=float(said["tolerance"])) if said["tolerance"] else None


def _certify(*arguments: Any, **settings: Any) -> pd.DataFrame:
    """`certify_dataset`, on the Dask cluster whose scheduler $KIT_SCHEDULER names, if it names one."""
    address = os.environ.get("KIT_SCHEDULER")
    if not address:
        return certify_dataset(*arguments, **settings)
    from lib.cluster import Workers, cluster  # Dask is an optional dependency

    with cluster(address) as client:
        return certify_dataset(*arguments, **settings, where=Workers(client))
