"""Base classifiers f: images in [0, 1] -> logits, with the layer names of the published checkpoints.

A classifier of this kit is `nn.Sequential(Normalize, network)`: the same nesting as in the public code of
Cohen et al. (2019), so that a weight is called `1.conv1.weight` here and in their files.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel, the first layer of every classifier: noise stays in [0, 1] pixel units.

    The two buffers follow `.to(device)` but are not in the state_dict: no published checkpoint has an entry
    for them, and the layer keeps its index 0, which is why the network's own keys begin with `1.`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std, default=0.0) <= 0:
            raise ValueError(f"mean and std need one value a channel and std > 0, got mean={mean}, std={std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias: the BatchNorm beside it has one."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class DigitsCNN(nn.Module):
    """Three convolutions for (N, 1, 8, 8) digits: a laptop draws 10,000 noisy copies of 500 images with it.

    The first stride takes the image to 4x4 at once, so the largest activation is 64 x 4 x 4 floats (4 KB an
    image) and a batch of 1000 stays in the processor's cache. Measured side by side on two cores: over 1.5
    times the images a second of the same layers with the stride further back, about as accurate under noise.
    """

    def __init__(self, width: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(conv3x3(1, width, stride=2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(conv3x3(width, 2 * width), nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True)),
            *(conv3x3(2 * width, 2 * width), nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True)),
        )
        self.fc = nn.Linear(2 * width * 4 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).flatten(1))


class PaddingShortcut(nn.Module):
    """Option A of He et al. (2016, Section 4.1): every second pixel, and zeros for the new channels."""

    def forward(self, x: Tensor) -> Tensor:
        new_channels = x.shape[1] // 2  # a stage doubles the channels: C/2 zeros before them and C/2 after
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new_channels, new_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, Figure 2), projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 and shortcut == "A":
            self.downsample = PaddingShortcut()
        elif stride != 1:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class CifarResNet(nn.Module):
    """The CIFAR ResNet of He et al. (2016, Section 4.2): stages of `width` times 1, 2 and 4 channels, depth = 6 n + 2.

    `shortcut="B"` projects with a 1x1 convolution: ResNet-110 as Cohen et al. and Salman et al. trained it,
    with the layer names of their files. `shortcut="A"` has no parameters in its shortcuts: the clean
    ResNet-20/32/44/56 of akamaster/pytorch_resnet_cifar10, whose last layer `linear` is renamed to `fc` on
    load. The papers' `width` is 16 and their `stride`, of the first convolution, 1. A stride of 2 sees 32 x 32 pixels
    at 16 x 16, which costs a quarter: under noise, wide and coarse beats deep and fine in the same time on a CPU.
    """

    def __init__(
        self, depth: int, shortcut: str = "B", num_classes: int = 10, *, width: int = 16, stride: int = 1
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6 != 0:
            raise ValueError(f"depth must be 6 n + 2 with n >= 1 (20, 32, 44, 56, 110), got depth={depth}")
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut must be 'A' (padding) or 'B' (1x1 convolution), got shortcut={shortcut!r}")
        blocks = (depth - 2) // 6
        self.conv1 = conv3x3(3, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, 1, shortcut)
        self.layer2 = self._stage(width, 2 * width, blocks, 2, shortcut)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2, shortcut)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.fc(out.mean(dim=(2, 3)))


class Constant(nn.Module):
    """The same class whatever the image: images (N, ...) -> logits (N, num_classes). It shows what a score rewards."""

    def __init__(self, num_classes: int, answer: int = 0) -> None:
        super().__init__()
        if not 0 <= answer < num_classes:
            raise ValueError(f"answer must be a class from 0 to {num_classes - 1}; got {answer}")
        self.num_classes, self.answer, self.training = num_classes, answer, False

    def forward(self, images: Tensor) -> Tensor:
        logits = images.new_zeros(len(images), self.num_classes)
        logits[:, self.answer] = 1
        return logits
