"""Classifiers whose behaviour under noise is known exactly: the independent truths of these tests."""

import torch
from torch import Tensor, nn


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
        return torch.zeros(len(images), 3)

    @property
    def seen(self) -> Tensor:
        return torch.cat(self.batches)


def hyperplane(seed: int = 0, pixels: int = 12) -> Linear:
    """A linear classifier of 1 x 3 x 4 images whose plane passes near the middle of [0, 1]^12."""
    w = torch.randn(pixels, generator=torch.Generator().manual_seed(seed))
    return Linear(w, float(-w.sum() / 2)).eval()
