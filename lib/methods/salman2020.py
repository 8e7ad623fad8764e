"""Salman et al. 2020: denoisers in front of a classifier that never saw noise."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from lib.config import DenoisedSmoothing
from lib.datasets import Data, holdout, stack
from lib.machine.progress import progress
from lib.methods.common import for_training, in_numbers, smoothed
from lib.models import Denoised, build_denoiser
from lib.models.compute import Computed
from lib.models.identity import weights_hash
from lib.training import Recipe, train
from lib.training.objectives import Objective, classification, mse, stability

Classifiers = nn.Module | Sequence[nn.Module]  # one, or surrogates that take turns


def mse_denoiser(cfg: DenoisedSmoothing, data: Data, sigma: float, arch: str = "") -> nn.Module:
    """A denoiser that restores the image (Salman et al. 2020, 3.1): `arch`, or the first of `cfg.denoisers`."""
    recipe = _mse_recipe(cfg, data, sigma, arch)
    return _train_denoiser(cfg, data, recipe, mse(sigma), lambda: build_denoiser(recipe.arch))


def stab_denoiser(cfg: DenoisedSmoothing, data: Data, sigma: float, classifiers: Classifiers) -> nn.Module:
    """A denoiser trained from scratch to keep the answers of `classifiers`: the target, or surrogates (black-box)."""
    start = _mse_recipe(cfg, data, sigma)
    recipe = replace(start, objective="stability", frozen=_hashes(classifiers), **in_numbers(cfg.stab))
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
            frozen=_hashes(classifiers), **in_numbers(way),
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
        augment=cfg.augment, compute=for_training(cfg), seed=cfg.seed, **in_numbers(cfg.mse),
    )  # fmt: skip


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
