"""Cohen et al. 2019: classifiers trained on noise, and the clean ones that others defend."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from lib.attacks import pgd, smoothed_loss
from lib.bounds import ABSTAIN
from lib.config import DenoisedSmoothing, RandomizedSmoothing, Training, file_at, kit_root
from lib.datasets import Data, stack, training_images
from lib.machine.progress import progress
from lib.methods.common import for_training, smoothed
from lib.models import build_classifier, load_classifier, read_checkpoint
from lib.models.pretrained import PREFIXES
from lib.training import Recipe, train
from lib.training.objectives import Gaussian, Objective


def noise_trained_classifier(cfg: Training, data: Data, sigma: float) -> nn.Module:
    """The base classifier of Cohen et al. 2019: trained on noise of level `sigma`; 0 is ordinary training.

    In notebook 01 it comes from the file that `cfg.classifier` names, if it names one; for sigma = 0 only where there
    is such a file. ValueError where it must be trained and there are no training images.
    """
    file = file_at(cfg.classifier, sigma) if isinstance(cfg, RandomizedSmoothing) and cfg.classifier else None
    if file and (sigma > 0 or ("{sigma" in cfg.classifier and file.is_file())):
        return load_classifier(file, data, arch=cfg.arch, normalization=cfg.normalization or None).to(cfg.device)
    return trained_classifier(cfg, data, Gaussian(sigma), f"sigma = {sigma}")


def trained_classifier(
    cfg: Training,
    data: Data,
    objective: Objective,
    name: str,
    epochs: int | None = None,
    *,
    dataset: Dataset | None = None,
    build: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """`cfg.arch` trained by an objective as `cfg` says, or for `epochs`; `name` is what the progress report calls it.

    `dataset` in place of the training images, `build` in place of the architecture by itself. ValueError where there
    are no training images.
    """
    images, epochs = dataset or training_images(data), epochs or cfg.epochs
    build = build or (lambda: build_classifier(cfg.arch, data))
    recipe = Recipe(
        objective, cfg.arch, epochs=epochs, batch_size=cfg.train_batch, lr=cfg.lr, schedule=cfg.schedule,
        nesterov=cfg.schedule == "one-cycle", weight_decay=cfg.weight_decay, augment=cfg.augment,
        compute=for_training(cfg), seed=cfg.seed,
    )  # fmt: skip
    return train(
        recipe, build, images, cfg.run_path / "weights", device=cfg.device,
        progress=progress(epochs, f"train {cfg.arch}, {name}"),
    )  # fmt: skip


def clean_classifier(cfg: DenoisedSmoothing, data: Data, name: str = "") -> nn.Module:
    """A classifier that never saw noise: `name`, else what `cfg.classifier` names, else `cfg.arch` trained here.

    A name is that of an architecture to train, a weights file (a relative path starts at the kit's root) of `cfg.arch`
    (one of `cfg.surrogates`, or given as `name`: of the architecture that it names itself), or a library's network with
    its weights: torchvision:resnet50, torchvision:resnet50@IMAGENET1K_V1 for a set, ...@FILE for a file.
    `cfg.normalization` says the first layer of a weights file; empty, it is found (lib.models.first_layer).
    """
    given, name = bool(name), name or cfg.classifier or cfg.arch
    normalization, surrogate = getattr(cfg, "normalization", ""), name in getattr(cfg, "surrogates", ())
    path = kit_root() / Path(name).expanduser()
    is_file = not name.startswith(PREFIXES) and (bool(Path(name).suffix) or path.is_file())
    if normalization and not is_file and not surrogate:
        raise ValueError(f"normalization={normalization!r} is for a weights file, {name!r} has its own: leave it empty")
    if name.startswith(PREFIXES):
        network, _, weights = name.partition("@")
        weights = str(kit_root() / Path(weights).expanduser()) if Path(weights).suffix else weights
        return load_classifier(network, data, weights=weights or "published").to(cfg.device)
    if is_file:
        arch = None if surrogate or (given and read_checkpoint(path).arch) else cfg.arch
        return load_classifier(path, data, arch=arch, normalization=normalization or None).to(cfg.device)
    return noise_trained_classifier(replace(cfg, arch=name), data, 0.0)


def changed_by_attack(
    cfg: RandomizedSmoothing, data: Data, base: nn.Module, sigma: float, log: pd.DataFrame, factor: float
) -> int:
    """How many certified images of `log` an attack on g within `factor` times their radius turns to a wrong class.

    The attack climbs the loss of Salman et al. 2019 over 64 noisy copies (`lib.attacks`). PREDICT, with noise that the
    certificate has not seen, then says what g answers; an abstention counts as unchanged.
    """
    ids = log["idx"].tolist()
    if not ids:
        return 0
    images, labels = (tensor.to(cfg.device) for tensor in stack(data.test, ids))
    budget = torch.tensor(factor * log["radius"].to_numpy(), dtype=torch.float32, device=cfg.device)
    draws = torch.Generator(cfg.device).manual_seed(cfg.seed)
    moved = pgd(smoothed_loss(base, labels, sigma=sigma, samples=64, generator=draws), images, budget)
    answer = smoothed(replace(cfg, seed=cfg.seed ^ 1), data, base, sigma).predict(moved, ids, 1000, cfg.alpha)
    return int(((answer != labels.cpu().numpy()) & (answer != ABSTAIN)).sum())
