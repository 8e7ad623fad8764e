"""Blocks of the CIFAR-10 surrogates, with the layer names that kuangliu/pytorch-cifar gives them.

Only names, shapes and arithmetic follow that repository, as it was in early 2020.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.classifiers import conv3x3


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size of the image (at stride 1), without bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)


def biased(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """Convolution with bias, BatchNorm, ReLU: the unit of GoogLeNet here."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def inverted(inputs: int, outputs: int, expansion: int, stride: int) -> tuple[nn.Conv2d, ...]:
    """The convolutions of an inverted bottleneck: wider, over space channel by channel, narrow again."""
    width = expansion * inputs
    return conv(inputs, width, 1), conv(width, width, 3, stride, groups=width), conv(width, outputs, 1)


def named(**layers: nn.Module) -> nn.Sequential:
    """`layers` one after another under their names; a ReLU follows a BatchNorm."""
    chain = nn.Sequential()
    for name, layer in layers.items():
        chain.add_module(name, layer)
        if isinstance(layer, nn.BatchNorm2d):
            chain.add_module(f"{name}_relu", nn.ReLU(inplace=True))
    return chain


class ConvBlock(nn.Module):
    """conv1-bn1, conv2-bn2, … with ReLU between, and what a subclass adds.

    `shortcut` 'always' adds x to the result (through a 1x1 convolution where the shape changes) and ends with ReLU;
    'stride 1' adds it only where the image keeps its size, without that ReLU; 'never' adds nothing.
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d], shortcut: str) -> None:
        super().__init__()
        for i, convolution in enumerate(convolutions, 1):
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"bn{i}", nn.BatchNorm2d(convolution.out_channels))
        self.depth, self.rule = len(convolutions), shortcut
        self.stride = max(convolution.stride[0] for convolution in convolutions)
        inputs, outputs = convolutions[0].in_channels, convolutions[-1].out_channels
        self.shortcut = nn.Sequential()
        if shortcut == "stride 1" and self.stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        elif shortcut == "always" and (self.stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, self.stride), nn.BatchNorm2d(outputs))

    def unit(self, i: int, x: Tensor) -> Tensor:
        """Convolution i and its BatchNorm."""
        return getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth):
            out = F.relu(self.unit(i, out))
        out = self.unit(self.depth, out)
        if self.rule == "always":
            return F.relu(out + self.shortcut(x))
        return out + self.shortcut(x) if self.stride == 1 and self.rule == "stride 1" else out


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice and a shortcut (He et al. 2016b, Figure 4e); `squeeze` weighs the channels (Hu et al. 2018).

    The projection of a block that changes the shape is called `shortcut.0`, or `convShortcut` in the wide ResNets.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool = False, wide: bool = False) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3x3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3x3(outputs, outputs)
        self.squeeze = squeeze
        if squeeze:
            self.fc1, self.fc2 = _squeeze_excite(outputs)
        self.projection = ("convShortcut" if wide else "shortcut") if inputs != outputs or stride != 1 else ""
        if self.projection:
            convolution = conv(inputs, outputs, 1, stride)
            self.add_module(self.projection, convolution if wide else nn.Sequential(convolution))

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        out = _excited(self, out) if self.squeeze else out
        return out + (getattr(self, self.projection)(activated) if self.projection else x)


class EfficientBlock(ConvBlock):
    """The inverted bottleneck of pytorch-cifar's first EfficientNet (2019): 3x3, channels weighed at the end."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__(inverted(inputs, outputs, expansion, stride), "stride 1")
        self.fc1, self.fc2 = _squeeze_excite(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.unit(3, F.relu(self.unit(2, F.relu(self.unit(1, x)))))
        return _excited(self, out) + (self.shortcut(x) if self.stride == 1 else out)


class ShuffleBlock(ConvBlock):
    """One half of the channels through three convolutions, then shuffled with the other (Ma et al. 2018, Figure 3c)."""

    def __init__(self, channels: int) -> None:
        half = channels // 2
        depthwise = conv(half, half, 3, groups=half)
        super().__init__((conv(half, half, 1), depthwise, conv(half, half, 1)), "never")

    def forward(self, x: Tensor) -> Tensor:
        kept, out = x.chunk(2, dim=1)
        out = F.relu(self.unit(3, self.unit(2, F.relu(self.unit(1, out)))))
        return _shuffled(kept, out)


class ShuffleDown(ConvBlock):
    """Two branches that halve the image (Ma et al. 2018, Figure 3d): convolutions 1 and 2, and 3, 4 and 5."""

    def __init__(self, inputs: int, outputs: int) -> None:
        half = outputs // 2
        left = (conv(inputs, inputs, 3, 2, groups=inputs), conv(inputs, half, 1))
        right = (conv(inputs, half, 1), conv(half, half, 3, 2, groups=half), conv(half, half, 1))
        super().__init__((*left, *right), "never")

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.unit(2, self.unit(1, x)))
        return _shuffled(left, F.relu(self.unit(5, self.unit(4, F.relu(self.unit(3, x))))))


class DenseLayer(nn.Module):
    """BN-ReLU-conv twice, its `growth` new channels in front of those that came in (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, 4 * growth, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), conv3x3(4 * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x)))))), x], dim=1)


class Inception(nn.Module):
    """1x1, 3x3, twice 3x3, and pooling side by side (Szegedy et al. 2015, Figure 2b), a BatchNorm after each conv."""

    def __init__(self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*biased(inputs, one, 1))
        self.b2 = nn.Sequential(*biased(inputs, three[0], 1), *biased(three[0], three[1], 3))
        five_by_five = (*biased(five[0], five[1], 3), *biased(five[1], five[1], 3))
        self.b3 = nn.Sequential(*biased(inputs, five[0], 1), *five_by_five)
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *biased(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], dim=1)


def _squeeze_excite(channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    return nn.Conv2d(channels, channels // 16, 1), nn.Conv2d(channels // 16, channels, 1)


def _excited(block: nn.Module, x: Tensor) -> Tensor:
    """x with its channels weighed by what their means say (Hu et al. 2018)."""
    return x * block.fc2(F.relu(block.fc1(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()


def _shuffled(left: Tensor, right: Tensor) -> Tensor:
    """The channels of two halves, taken in turns."""
    return torch.stack([left, right], dim=2).flatten(1, 2)
