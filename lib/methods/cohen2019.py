"""Cohen et al. 2019: classifiers trained on noise, and the clean ones that others defend."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from lib.config import DenoisedSmoothing, NoiseTraining, kit_root
from lib.datasets import Data
from lib.machine.progress import progress
from lib.methods.common import for_training
from lib.models import build_classifier, load_classifier
from lib.models.pretrained import PREFIXES
from lib.training import Recipe, train
from lib.training.objectives import gaussian


def noise_trained_classifier(cfg: NoiseTraining, data: Data, sigma: float) -> nn.Module:
    """The base classifier of Cohen et al. 2019: trained on noise of level `sigma`; 0 is ordinary training."""
    recipe = Recipe(
        "gaussian", data.identity, cfg.arch, sigma, epochs=cfg.epochs, batch_size=cfg.train_batch, lr=cfg.lr,
        schedule=cfg.schedule, augment=cfg.augment, compute=for_training(cfg), seed=cfg.seed,
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
