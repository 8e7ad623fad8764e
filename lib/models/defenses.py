"""Heuristic defenses in front of, behind and around a classifier: feature squeezing, its detector, a temperature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


class BitDepth(nn.Module):
    """Pixels in [0, 1] to the nearest of 2^bits evenly spaced values, a half to the even one (Xu et al. 2018).

    Its gradient is zero; an attack goes through it with `lib.attacks.straight_through`. ValueError for bits below 1.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        if bits != int(bits) or bits < 1:
            raise ValueError(f"bits must be a whole number, at least 1; got {bits!r}")
        self.steps = 2 ** int(bits) - 1

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.steps).round() / self.steps


class Median(nn.Module):
    """The median of a window of size x size pixels round each pixel of (N, C, H, W), at the border of mirrored ones.

    As `scipy.ndimage.median_filter`, which Xu et al. 2018 use: of an even number of pixels it is the upper median, and
    the window of an even size reaches further up and left. The gradient goes to the pixel that is the median.
    ValueError for a size below 1.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size != int(size) or size < 1:
            raise ValueError(f"size must be a whole number, at least 1; got {size!r}")
        self.size = int(size)

    def forward(self, images: Tensor) -> Tensor:
        before, after = self.size // 2, self.size - self.size // 2 - 1
        rows, columns = (
            torch.from_numpy(np.pad(np.arange(pixels), (before, after), "symmetric")).to(images.device)
            for pixels in images.shape[2:]
        )
        padded = images[:, :, rows[:, None], columns]
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)  # (N, C, H, W, size * size)
        return windows.kthvalue(self.size**2 // 2 + 1, dim=4).values


class Temperature(nn.Module):
    """Logits (N, K) divided by T: below 1 it sharpens softmax, above 1 it flattens it; no answer changes.

    ValueError for T <= 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite; got {temperature!r}")
        self.temperature = float(temperature)

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature


@dataclass(frozen=True)
class Detector:
    """Joint feature squeezing (Xu et al. 2018): an image is flagged where f answers otherwise once it is squeezed.

    `f`: images -> logits. An image is flagged where its distance (`distances`) is above the threshold.
    """

    f: nn.Module
    squeezers: Sequence[nn.Module]
    threshold: float

    @classmethod
    def calibrated(
        cls, f: nn.Module, squeezers: Sequence[nn.Module], images: Tensor, false_alarms: float = 0.05
    ) -> "Detector":
        """A detector that flags the share `false_alarms` of `images`: training images, never those of the test."""
        free = cls(f, squeezers, math.inf)
        return cls(f, squeezers, threshold(free.distances(images), false_alarms))

    def views(self, images: Tensor) -> list[Tensor]:
        """The images and each squeezed version of them, (N, C, H, W) each."""
        return [images, *(squeeze(images) for squeeze in self.squeezers)]

    def distances(self, images: Tensor) -> Tensor:
        """The largest l1 distance between softmax f(x) and softmax f(squeezed x), from 0 to 2, (N,)."""
        plain, *squeezed = (self.f(view).softmax(1) for view in self.views(images))
        return torch.stack([(plain - other).abs().sum(1) for other in squeezed]).amax(0)

    @torch.no_grad()
    def flagged(self, images: Tensor) -> Tensor:
        """Whether each image is refused, (N,) bool."""
        return self.distances(images) > self.threshold


def threshold(distances: Tensor, false_alarms: float) -> float:
    """The smallest of `distances` (N,) that at most a share of them is above: of rank ceil(N (1 - false_alarms)).

    ValueError for no distances, and a share outside [0, 1).
    """
    if not len(distances) or not 0 <= false_alarms < 1:
        raise ValueError(f"a threshold needs distances, and false_alarms in [0, 1); got {len(distances)} distances, "
                         f"{false_alarms=}")  # fmt: skip
    rank = math.ceil(len(distances) * (1 - false_alarms) - 1e-9)  # 1e-9: 100 * (1 - 0.05) is a little above 95
    return distances.sort().values[max(rank, 1) - 1].item()
