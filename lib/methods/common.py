"""From a notebook's parameters to g and to certified records, whatever the method."""

import os
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor, nn

from lib.bounds import AtRadii, StoppingRule, Tolerance
from lib.certification import certify_dataset
from lib.config import Common, Run
from lib.datasets import Data
from lib.machine.progress import progress
from lib.models.bounded import Split
from lib.models.compute import Computed
from lib.sampling import Grid, Noise
from lib.sampling.grid import clip_range
from lib.smoothing import SmoothedClassifier
from lib.words import STOP, TRAINING


def for_training(cfg: Run) -> str:
    """`cfg.compute` as far as training takes it: gradients need batch statistics, and more range than float16 has.

    Channels-last speeds up inference in float32, not training, so weights are those of plain float32.
    """
    words = re.sub("^float16", "bfloat16", cfg.compute).replace(", folded", "")
    return "float32" if words == "float32, channels-last" else words


def in_numbers(training: str) -> dict[str, int | float | str]:
    """The fields of a recipe that words like "90 epochs of 256, adam 1e-3, sgd 1e-4 after 50" stand for."""
    said = {name: text for name, text in re.fullmatch(TRAINING["pattern"], training).groupdict().items() if text}
    kinds = {"epochs": int, "batch_size": int, "sgd_epoch": int, "lr": float, "sgd_lr": float, "optimizer": str}
    numbers = {name: kinds[name](text) for name, text in said.items()}
    return numbers | ({"optimizer": "adam_then_sgd"} if "sgd_epoch" in said else {})


def smoothed(cfg: Common, data: Data, base: nn.Module, sigma: float) -> SmoothedClassifier:
    """g, out of a network and a noise level: f is the network computed as `cfg.compute` says.

    Where `cfg.levels` is not 0, f sees x + noise rounded to whole steps of 1 / levels. `certified` draws the same g in
    whole numbers, which is exact, but only for images on that grid; this one takes any image, such as an attacked one.
    """
    f: nn.Module = Computed(base, cfg.compute)
    return _smoothed(cfg, data, Rounded(f, sigma, cfg.levels).eval() if cfg.levels else f, sigma)


class Rounded(nn.Module):
    """f of images (N, C, H, W) that are rounded to multiples of 1 / levels and clipped as `lib.sampling.Grid` does."""

    def __init__(self, f: nn.Module, sigma: float, levels: int) -> None:
        super().__init__()
        self.f, self.levels, self.range = f, levels, clip_range(sigma)

    def forward(self, images: Tensor) -> Tensor:
        return self.f((images * self.levels).round().div(self.levels).clamp(*self.range))


def computed(base: nn.Module, compute: str) -> nn.Module:
    """f: `base` as `compute` says, of a network that is split only what follows the noise: its first layer is exact."""
    if isinstance(base, Split):
        return Split(base.before, Computed(base.after, compute))
    return Computed(base, compute)


def _smoothed(cfg: Common, data: Data, f: nn.Module, noise: float | Noise) -> SmoothedClassifier:
    return SmoothedClassifier(f, noise, data.num_classes, seed=cfg.seed, batch_size=cfg.batch_size)


def certified(
    cfg: Common,
    data: Data,
    base: nn.Module,
    sigma: float | Noise,
    name: str,
    ids: Sequence[int],
    n: int | None = None,
    two_class: bool | None = None,
) -> pd.DataFrame:
    """The certification log of `base` smoothed at level `sigma`, kept as run_dir/records/<name>-<hash>.tsv.

    `n` and `two_class` are those of `cfg` where they are None. The noise is Gaussian, or where `cfg.levels` is not 0
    that of `lib.sampling.Grid`: ValueError then for images that are not multiples of 1 / levels. Another noise is given
    in place of `sigma`.
    """
    if cfg.levels and not isinstance(sigma, Noise):
        sigma = Grid(sigma, levels=cfg.levels)
    g = _smoothed(cfg, data, computed(base, cfg.compute), sigma)
    return _certify(
        g, data.test, ids, cfg.run_path / "records" / name, n0=cfg.n0, n=n or cfg.n,
        alpha=cfg.alpha, rule=_stopping_rule(cfg), device=cfg.device, progress=progress(len(ids), f"certify {name}"),
        two_class=cfg.two_class if two_class is None else two_class, facts={"dataset": data.identity},
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
