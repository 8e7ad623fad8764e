"""Soft scores instead of votes: their sums and squares from one pass of the sampler, and the radii they give."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.bounds import ABSTAIN, score_probabilities
from lib.sampling.base import as_module
from lib.sampling.counts import class_counts
from lib.sampling.noise import Noise, as_noise

LEAST = 1e-30  # in the place of a probability of 0, whose logarithm would be no finite logit


class Moments(nn.Module):
    """2 K + 1 logits whose softmax is (p / 2, p^2 / 2, the rest), p the softmax of `base`, K logits.

    So the sums of scores that `class_counts` takes are those of p and of p^2, halved, in one pass.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.training = base.training
        before, after = (getattr(base, name, None) for name in ("before", "after"))
        if isinstance(before, nn.Module) and isinstance(after, nn.Module):  # FeatureNoise enters between the two
            self.before, self.after = before, Moments(after)

    def forward(self, images: Tensor) -> Tensor:
        p = self.base(images).softmax(1, dtype=torch.float64)
        squares = p.square()
        return torch.cat([p, squares, 1 - squares.sum(1, keepdim=True)], 1).clamp_min(LEAST).log()


def score_moments(
    base: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    ids: Iterable[int] | None,
    n: int,
    *,
    num_classes: int,
    **how: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """(sums, sums of squares) of the softmax of `base` over n noisy copies of each image: float64 (N, num_classes).

    All other arguments as in `class_counts`.
    """
    moments = Moments(as_module(base))
    sums = 2 * class_counts(moments, images, ids, n, num_classes=2 * num_classes + 1, counting="scores", **how)
    return sums[:, :num_classes].cpu().numpy(), sums[:, num_classes : 2 * num_classes].cpu().numpy()


def certify_scores(
    base: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    ids: Iterable[int] | None = None,
    *,
    n0: int,
    n: int,
    alpha: float,
    sigma: float | Noise,
    num_classes: int,
    bernstein: bool = True,
    **how: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """(predict, radius) of the soft g, g(x) = argmax of the mean softmax of f on noisy copies; ABSTAIN and 0 for none.

    As `SmoothedClassifier.certify`, but for scores in the place of votes: n0 samples choose the class, n fresh ones
    bound its expected score and the others', by empirical Bernstein or, without `bernstein`, by Hoeffding. It is
    another classifier than the g of votes. Other arguments as in `class_counts`.
    """
    noise, ids = as_noise(sigma), None if ids is None else list(ids)
    how |= {"sigma": noise, "num_classes": num_classes}
    selected = class_counts(base, images, ids, n0, counting="scores", **how).argmax(1).cpu().numpy()
    sums, squares = score_moments(base, images, ids, n, start=n0, **how)
    p_a, p_b = score_probabilities(sums, selected, n, alpha, squares=squares if bernstein else None)
    radius = np.where(p_a > p_b, noise.radius(p_a, p_b), 0.0)
    return np.where(radius > 0, selected, ABSTAIN), radius
