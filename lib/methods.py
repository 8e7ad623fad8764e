"""The methods as notebooks call them: from a notebook's parameters to trained weights and certified records.

Notebooks that name the same recipe share its weights, since they are kept under the recipe's hash.
"""

from collections.abc import Sequence

import pandas as pd
from torch import nn

from lib.certification import certify_dataset
from lib.config import Common, RandomizedSmoothing
from lib.datasets import Data
from lib.models import build_classifier
from lib.progress import progress
from lib.smoothing import SmoothedClassifier
from lib.training import Recipe, train
from lib.training.objectives import gaussian


def noise_trained_classifier(cfg: RandomizedSmoothing, data: Data, sigma: float) -> nn.Module:
    """The base classifier of Cohen et al. 2019: trained on noise of level `sigma`; 0 is ordinary training."""
    recipe = Recipe(
        "gaussian", cfg.dataset, cfg.arch, sigma, epochs=cfg.epochs, batch_size=cfg.train_batch, lr=cfg.lr,
        schedule=cfg.schedule, weight_decay=cfg.weight_decay, augment=cfg.augment, seed=cfg.seed,
    )  # fmt: skip
    return train(
        recipe, lambda: build_classifier(cfg.arch, data), gaussian(sigma), data.train, cfg.run_path / "weights",
        device=cfg.device, progress=progress(cfg.epochs, f"train {cfg.arch}, sigma = {sigma}"),
    )  # fmt: skip


def certified(
    cfg: Common, data: Data, base: nn.Module, sigma: float, name: str, ids: Sequence[int], n: int | None = None
) -> pd.DataFrame:
    """The certification log of `base` smoothed at level `sigma`, kept as run_dir/records/<name>-<hash>.tsv."""
    smoothed = SmoothedClassifier(base, sigma, data.num_classes, seed=cfg.seed, batch_size=cfg.batch_size)
    return certify_dataset(
        smoothed, data.test, ids, cfg.run_path / "records" / name, n0=cfg.n0, n=n or cfg.n, alpha=cfg.alpha,
        device=cfg.device, progress=progress(len(ids), f"certify {name}"), facts={"dataset": cfg.dataset},
    )  # fmt: skip
