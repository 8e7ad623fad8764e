"""Classifiers whose behaviour under noise is known exactly: the independent truths of these tests."""

import numpy as np
import torch
from torch import Tensor, nn

from lib.bounds import Bound, Certificate, StoppingRule
from lib.sampling import Gaussian


class Linear(nn.Module):
    """Class 1 where <w, x> + b > 0, else class 0. The exact radius is the distance to the hyperplane."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.register_buffer("w", w)
        self.b = b

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.w + self.b
        return torch.stack([-score, score], dim=1)

    def distance(self, images: Tensor) -> Tensor:
        """Signed distance of each image to the hyperplane, positive on the side of class 1."""
        return (images.flatten(1) @ self.w + self.b) / self.w.norm()


class Constant(nn.Module):
    """The same class for every image."""

    def __init__(self, label: int, num_classes: int = 10) -> None:
        super().__init__()
        self.logits = nn.functional.one_hot(torch.tensor(label), num_classes).float()

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


class Recorder(nn.Module):
    """Class 0 for everything; keeps the batches that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images.clone())
        return images.new_zeros(len(images), 3)

    @property
    def seen(self) -> Tensor:
        return torch.cat(self.batches)


def hyperplane(seed: int = 0, pixels: int = 12) -> Linear:
    """A linear classifier of 1 x 3 x 4 images whose plane passes near the middle of [0, 1]^12."""
    w = torch.randn(pixels, generator=torch.Generator().manual_seed(seed))
    return Linear(w, float(-w.sum() / 2)).eval()


def fixed_radius(n_a, n, sigma, alpha, n_b=None) -> np.ndarray:
    """The radius of n_a votes of a fixed n under Gaussian noise; by the two-class bound where n_b is given."""
    return Bound(two_class=n_b is not None).radius(n_a, n_b, n, alpha, Gaussian(sigma))


def anytime_radius(n_a, n, sigma, alpha, n_b=None) -> np.ndarray:
    """The same by the bound that holds wherever one stopped."""
    return Bound(anytime=True, two_class=n_b is not None).radius(n_a, n_b, n, alpha, Gaussian(sigma))


def settled(rule: StoppingRule, n_a, n, *, sigma, alpha, cap, n_b=None) -> np.ndarray:
    """What `rule` says of images with n_a votes of n, when at most `cap` are to be had."""
    how = Certificate.of(1, cap, alpha, rule, two_class=n_b is not None)
    n_a, n_b = np.asarray(n_a), np.asarray(0 if n_b is None else n_b)
    return rule.settled(n_a, n_b, n, how, Gaussian(sigma))
