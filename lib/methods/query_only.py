"""Notebook 06: denoisers for photographs in front of a classifier that one can only query, and what queries cost."""

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lib.bounds import AtRadii, Certificate
from lib.config import QueryOnly, kit_root
from lib.datasets import Data, fixed_subset, stack, training_images
from lib.machine.progress import progress
from lib.methods.common import for_training, in_numbers, smoothed
from lib.models import Blended, Denoised, build_denoiser, load_classifier
from lib.models.compute import Computed
from lib.sampling import Gaussian
from lib.training import Recipe, train
from lib.training.objectives import MSE, Objective, Stability

PIECE = 64  # pixels: larger pictures are cut into pieces of this size


def queried_classifier(cfg: QueryOnly, data: Data) -> nn.Module:
    """What answers behind the service: `cfg.classifier`, on `cfg.device`."""
    library = cfg.classifier == "lite0" or ":" in cfg.classifier
    return load_classifier(cfg.classifier if library else kit_root() / cfg.classifier, data).to(cfg.device)


def other_pictures(cfg: QueryOnly, data: Data) -> Tensor:
    """Pictures (M, C, H, W) on which to train and choose, none of which is certified: no label is used.

    For the photographs the open ones of lib.datasets.photographs, which may be printed; else at most `cfg.patches`
    training images, spread over all of them.
    """
    if data.name == "photographs":
        from lib.datasets.photographs import open_photographs

        return open_photographs().tensors[0]
    images = training_images(data)
    every = max(1, len(images) // cfg.patches)
    return stack(images, fixed_subset(len(images), every, cfg.patches))[0]


def picture_denoisers(cfg: QueryOnly, data: Data, f: nn.Module) -> dict[str, nn.Module]:
    """{"MSE", "Stab+MSE"}: `cfg.denoiser` trained to restore pieces of the other pictures, and from there to keep f's
    answers on whole ones. f is only asked what the picture is; Stab takes its gradient, too, as white-box does."""
    pictures = other_pictures(cfg, data)
    restored = _trained(cfg, MSE(cfg.sigma), _pieces(cfg, pictures), cfg.mse, lambda: build_denoiser(cfg.denoiser))
    whole = torch.cat([pictures, pictures.flip(3)]) if pictures.shape[-1] > PIECE else pictures
    build = lambda: copy.deepcopy(restored).requires_grad_(True)  # noqa: E731
    return {"MSE": restored, "Stab+MSE": _trained(cfg, Stability(cfg.sigma, f), whole, cfg.stab, build)}


def _trained(
    cfg: QueryOnly, objective: Objective, pictures: Tensor, words: str, build: Callable[[], nn.Module]
) -> nn.Module:
    compute = "float32, channels-last" if cfg.compute.startswith("float32") else for_training(cfg)
    recipe = Recipe(
        objective,
        cfg.denoiser,
        schedule="cosine",
        weight_decay=0.0,
        compute=compute,
        seed=cfg.seed,
        **in_numbers(words),
    )
    dataset = TensorDataset(pictures, torch.zeros(len(pictures)).long())
    label = f"train {cfg.denoiser}, {type(objective).__name__}, sigma = {cfg.sigma}"
    return train(
        recipe, build, dataset, cfg.run_path / "weights", device=cfg.device, progress=progress(recipe.epochs, label)
    )


def _pieces(cfg: QueryOnly, pictures: Tensor) -> Tensor:
    """`cfg.patches` random squares of 64 pixels, turned and mirrored; smaller pictures as they are."""
    height, width = pictures.shape[-2:]
    if min(height, width) <= PIECE:
        return pictures
    draw = np.random.default_rng(cfg.seed)
    cut = []
    for _ in range(cfg.patches):
        picture = pictures[draw.integers(len(pictures))]
        top, left = draw.integers(height - PIECE + 1), draw.integers(width - PIECE + 1)
        piece = torch.rot90(picture[:, top : top + PIECE, left : left + PIECE], int(draw.integers(4)), (1, 2))
        cut.append(piece.flip(2) if draw.integers(2) else piece)
    return torch.stack(cut)


def kept_answers(cfg: QueryOnly, data: Data, f: nn.Module, denoiser: nn.Module, copies: int = 10) -> pd.Series:
    """How often f(D(x + noise)) = f(x) on the other pictures (at most 20), for each share of `cfg.blends`: a fraction.

    `copies` noisy ones of each picture, the same for every share.
    """
    pictures = other_pictures(cfg, data)[:20].to(cfg.device)
    answers = Computed(f, cfg.compute)(pictures).argmax(1).cpu().numpy()
    kept = {}
    for share in cfg.blends:
        g = smoothed(cfg, data, Denoised(Blended(denoiser, share), f), cfg.sigma)
        votes = g.sample(pictures, range(len(pictures)), copies)
        kept[share] = votes[np.arange(len(answers)), answers].mean() / copies
    return pd.Series(kept, name="f keeps its answer").rename_axis("share of the noisy picture")


def queries_taken(
    cfg: QueryOnly, log: pd.DataFrame, radius: float, *, n: int, every: int = 0, two_class: bool = False
) -> tuple[float, float]:
    """(queries a picture, share certified at `radius`) if pictures voted as in `log`, each simulated 200 times.

    n queries of each after `cfg.n0`; with `every` the votes are looked at after so many, by `lib.bounds.AtRadii`, and a
    picture is left as soon as it is settled.
    """
    draw = np.random.default_rng(cfg.seed)
    pairs = np.repeat(log[["n_a", "n_b"]].to_numpy() / log[["n"]].to_numpy(), 200, axis=0)
    shares = np.column_stack([pairs, np.maximum(0.0, 1 - pairs.sum(1))])
    rule = AtRadii(radii=(radius,)) if every else None
    how, noise = Certificate.of(cfg.n0, n, cfg.alpha, rule, two_class=two_class), Gaussian(cfg.sigma)
    looks = [*range(every, n, every), n] if every else [n]
    votes, taken, done = np.zeros((len(shares), 3), int), np.zeros(len(shares), int), 0
    active = np.arange(len(shares))
    for look in looks:
        votes[active] += draw.multinomial(look - done, shares[active])
        taken[active] = done = look
        if rule and look < n:
            active = active[~rule.settled(votes[active, 0], votes[active, 1], look, how, noise)]
    reached = how.radius(votes[:, 0], votes[:, 1], taken, noise) >= radius
    return float(cfg.n0 + taken.mean()), float(reached.mean())
