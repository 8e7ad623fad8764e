"""Salman et al. 2020: denoisers in front of a classifier that never saw noise."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from lib.config import DenoisedSmoothing, file_at
from lib.datasets import Data, holdout, stack, training_images
from lib.machine.progress import progress
from lib.methods.common import for_training, in_numbers, smoothed
from lib.models import Denoised, build_denoiser, load_denoiser
from lib.models.compute import Computed
from lib.training import Recipe, train
from lib.training.objectives import MSE, Classification, Classifiers, Stability


def mse_denoiser(cfg: DenoisedSmoothing, data: Data, sigma: float, arch: str = "") -> nn.Module:
    """A denoiser that restores the image (Salman et al. 2020, 3.1): `arch`, or the first of `cfg.denoisers`.

    Where `cfg.denoiser` names published files, the one for `sigma` takes the place of the first.
    """
    fit, _ = _split(cfg, data)
    return _mse_denoiser(cfg, fit, sigma, arch)


def stab_denoiser(cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers) -> nn.Module:
    """A denoiser trained from scratch to keep the answers of `classifiers`: the target, or surrogates (black-box)."""
    fit, _ = _split(cfg, data)
    recipe = replace(_mse_recipe(cfg, sigma), objective=Stability(sigma, classifiers), **in_numbers(cfg.stab))
    return _train(cfg, fit, recipe, lambda: build_denoiser(recipe.arch))


def stab_mse_denoisers(
    cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers, arch: str = "", labels: bool = False
) -> dict[str, nn.Module]:
    """Stab+MSE: `mse_denoiser` fine-tuned to keep the answers of `classifiers`, once in each way of `cfg.stab_mse`.

    With `labels` it is Clf+MSE: fine-tuned to the true labels.
    """
    fit, _ = _split(cfg, data)
    return _stab_mse_denoisers(cfg, fit, sigma, classifiers, arch, labels)


def stab_mse_denoiser(
    cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers, arch: str = "", labels: bool = False
) -> nn.Module:
    """The one of `stab_mse_denoisers` with the highest `held_out_stability`: no test image has a say in the choice."""
    fit, held_out = _split(cfg, data)
    denoisers = _stab_mse_denoisers(cfg, fit, sigma, classifiers, arch, labels).values()
    return max(denoisers, key=lambda denoiser: _answers_kept(cfg, data, held_out, sigma, denoiser, classifiers))


def held_out_stability(
    cfg: DenoisedSmoothing, data: Data, sigma: float, denoiser: nn.Module, classifiers: Classifiers
) -> float:
    """How often f(D(x + noise)) = f(x) over 20 noisy copies of each held-out image, as the mean over `classifiers`.

    The held-out images are training images that no denoiser was trained on; for a black-box denoiser f is a surrogate.
    """
    _, held_out = _split(cfg, data)
    return _answers_kept(cfg, data, held_out, sigma, denoiser, classifiers)


def _split(cfg: DenoisedSmoothing, data: Data) -> tuple[Dataset, Dataset]:
    """Training images to train denoisers on, and 15 % of them, at most 1000, to compare settings on: copies of both."""
    images = training_images(data)
    return holdout(images, min(1000, round(0.15 * len(images))), cfg.seed)


def _mse_recipe(cfg: DenoisedSmoothing, sigma: float, arch: str = "") -> Recipe:
    return Recipe(
        MSE(sigma), arch or cfg.denoisers[0], schedule=cfg.schedule, augment=cfg.augment, compute=for_training(cfg),
        seed=cfg.seed, **in_numbers(cfg.mse),
    )  # fmt: skip


def _mse_denoiser(cfg: DenoisedSmoothing, fit: Dataset, sigma: float, arch: str) -> nn.Module:
    recipe = _mse_recipe(cfg, sigma, arch)
    if cfg.denoiser and recipe.arch == cfg.denoisers[0]:
        return load_denoiser(file_at(cfg.denoiser, sigma), recipe.arch).to(cfg.device).requires_grad_(False)
    return _train(cfg, fit, recipe, lambda: build_denoiser(recipe.arch))


def _stab_mse_denoisers(
    cfg: DenoisedSmoothing, fit: Dataset, sigma: float, classifiers: Classifiers, arch: str, labels: bool
) -> dict[str, nn.Module]:
    objective = (Classification if labels else Stability)(sigma, classifiers)
    start = replace(_mse_recipe(cfg, sigma, arch), objective=objective)
    recipes = {way: replace(start, **in_numbers(way)) for way in cfg.stab_mse}  # refused, if at all, before training
    restored = _mse_denoiser(cfg, fit, sigma, arch)
    build = lambda: copy.deepcopy(restored).requires_grad_(True)  # noqa: E731
    return {way: _train(cfg, fit, recipe, build, " from MSE") for way, recipe in recipes.items()}


def _train(
    cfg: DenoisedSmoothing, fit: Dataset, recipe: Recipe, build: Callable[[], nn.Module], start: str = ""
) -> nn.Module:
    label = f"train {recipe.arch}, {type(recipe.objective).__name__}{start}, sigma = {recipe.objective.sigma}"
    return train(
        recipe, build, fit, cfg.run_path / "weights", device=cfg.device, progress=progress(recipe.epochs, label)
    )


def _answers_kept(
    cfg: DenoisedSmoothing, data: Data, held_out: Dataset, sigma: float, denoiser: nn.Module, classifiers: Classifiers
) -> float:
    ids = range(len(held_out))
    images = stack(held_out, ids)[0].to(cfg.device)
    shares = []
    for f in [classifiers] if isinstance(classifiers, nn.Module) else classifiers:
        counts = smoothed(cfg, data, Denoised(denoiser, f), sigma).sample(images, ids, 20)
        clean = Computed(f, cfg.compute)
        answers = torch.cat([clean(part).argmax(1) for part in images.split(cfg.at_once)]).cpu().numpy()
        shares.append(np.take_along_axis(counts, answers[:, None], axis=1).sum() / counts.sum())
    return float(np.mean(shares))
