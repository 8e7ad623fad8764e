"""Denoisers D of denoised smoothing (Salman et al. 2020, arXiv 2003.01908), alone and before a classifier.

D takes noisy images to images. Layer names are those of the published checkpoints. Input and output are raw
[0, 1] pixels plus noise; neither is clipped.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Denoised(nn.Module):
    """f(D(x)): the base classifier that denoised smoothing certifies (Salman et al. 2020).

    Noisy images (N, C, H, W) -> logits (N, K). The denoiser's output goes to the classifier as it is, without
    a clamp to [0, 1], as when the paper's public code certifies.
    """

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.classifier = classifier
        self.training = denoiser.training or classifier.training  # two parts in eval mode make a whole in eval mode

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.denoiser(images))


class DnCNN(nn.Module):
    """DnCNN (Zhang et al. 2017): `depth` convolutions estimate the noise, which is taken from the image.

    The BatchNorm constants are the published ones. In PyTorch `momentum=0.95` gives the newest batch 95 % of
    the running statistics, so at test time a network normalises with little more than the last training
    batch; pass another `momentum` (0.1 is PyTorch's default) to average over more of them. With the last
    convolution at zero an untrained DnCNN returns its input.
    """

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64, momentum: float = 0.95) -> None:
        super().__init__()
        if depth < 3:
            raise ValueError(f"depth counts the convolutions and must be at least 3, got depth={depth}")
        layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(width, eps=1e-4, momentum=momentum))
            layers.append(nn.ReLU(inplace=True))
        last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        self.dncnn = nn.Sequential(*layers, last)
        self._initialise(last)

    def _initialise(self, last: nn.Conv2d) -> None:
        for module in self.dncnn:
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(last.weight)

    def forward(self, images: Tensor) -> Tensor:
        return images - self.dncnn(images)


class BNReLUConv(nn.Sequential):
    """BN -> ReLU -> convolution without bias, the unit that MemNet is made of."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.add_module("bn", nn.BatchNorm2d(inputs))
        self.add_module("relu", nn.ReLU(inplace=True))  # in place on the BatchNorm's output, not on the input
        self.add_module("conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))


class ResidualBlock(nn.Module):
    """Two units and the identity: one step of the recursion (Tai et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.relu_conv1 = BNReLUConv(width, width)
        self.relu_conv2 = BNReLUConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_conv2(self.relu_conv1(x)) + x


class MemoryBlock(nn.Module):
    """Residual blocks (short-term memory); a 1x1 gate over them and earlier outputs (long-term memory)."""

    def __init__(self, width: int, residual_blocks: int, memories: int) -> None:
        super().__init__()
        self.recursive_unit = nn.ModuleList(ResidualBlock(width) for _ in range(residual_blocks))
        self.gate_unit = BNReLUConv((residual_blocks + memories) * width, width, kernel=1)

    def forward(self, x: Tensor, memories: list[Tensor]) -> Tensor:
        states = []
        for block in self.recursive_unit:
            x = block(x)
            states.append(x)
        return self.gate_unit(torch.cat(states + memories, dim=1))


class MemNet(nn.Module):
    """MemNet (Tai et al. 2017) with the sizes and layer names of Salman et al.: MemNet(3, 64, 3, 6)."""

    def __init__(self, channels: int = 3, width: int = 64, memory_blocks: int = 3, residual_blocks: int = 6) -> None:
        super().__init__()
        self.feature_extractor = BNReLUConv(channels, width)
        self.reconstructor = BNReLUConv(width, channels)
        self.dense_memory = nn.ModuleList(
            MemoryBlock(width, residual_blocks, memories=k + 1) for k in range(memory_blocks)
        )

    def forward(self, images: Tensor) -> Tensor:
        memories = [self.feature_extractor(images)]
        for block in self.dense_memory:
            memories.append(block(memories[-1], memories))
        return images + self.reconstructor(memories[-1])


class PhotoUNet(nn.Module):
    """A small U-Net for photographs on a CPU: (N, 3, H, W) -> the same; ValueError unless 8 divides H and W.

    It works on blocks of 2 x 2 pixels (as FFDNet does, Zhang et al. 2018) and on two coarser scales, and adds what it
    finds to means of 8 x 8 pixels, in which little noise is left: so it restores after some hundred steps.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 32, 32)) -> None:
        super().__init__()
        first, second, third = widths
        self.down1 = self._layers(12, first)
        self.down2 = self._layers(first, second, second)
        self.down3 = self._layers(second, third, third)
        self.up2 = self._layers(second + third, second)
        self.up1 = nn.Sequential(self._layers(first + second, first), nn.Conv2d(first, 12, 3, padding=1))

    @staticmethod
    def _layers(*widths: int) -> nn.Sequential:
        pairs = itertools.pairwise(widths)
        layers = [(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)) for inputs, outputs in pairs]
        return nn.Sequential(*(layer for pair in layers for layer in pair))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] % 8 or images.shape[-2] % 8:
            raise ValueError(f"photo_unet takes sides that 8 divides; got images of {tuple(images.shape[-2:])}")
        blocks = F.pixel_unshuffle(images, 2)
        fine = self.down1(blocks)
        middle = self.down2(F.avg_pool2d(fine, 2))
        coarse = self.down3(F.avg_pool2d(middle, 2))
        middle = self.up2(torch.cat([middle, F.interpolate(coarse, scale_factor=2)], 1))
        found = self.up1(torch.cat([fine, F.interpolate(middle, scale_factor=2)], 1))
        means = F.interpolate(F.avg_pool2d(blocks, 4), scale_factor=4, mode="bilinear")
        return F.pixel_shuffle(means + found, 2)


class TotalVariation(nn.Module):
    """Total-variation denoising (Rudin et al. 1992) by scikit-image, which the extra photos installs; no gradient.

    `weight`: more takes away more; about the noise level. At most `steps` iterations of Chambolle's method.
    """

    def __init__(self, weight: float, steps: int = 10) -> None:
        super().__init__()
        self.weight, self.steps, self.training = float(weight), int(steps), False

    def forward(self, images: Tensor) -> Tensor:
        from skimage.restoration import denoise_tv_chambolle

        pixels = images.detach().cpu().numpy()
        restored = [denoise_tv_chambolle(x, self.weight, max_num_iter=self.steps, channel_axis=0) for x in pixels]
        return torch.from_numpy(np.stack(restored)).to(images)


class Blended(nn.Module):
    """(1 - share) D(x) + share x: what a denoiser took away comes back in part, fine detail and noise alike.

    ValueError unless 0 <= share <= 1.
    """

    def __init__(self, denoiser: nn.Module, share: float) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], the part of the noisy picture; got {share!r}")
        self.denoiser, self.share, self.training = denoiser, float(share), denoiser.training

    def forward(self, images: Tensor) -> Tensor:
        return torch.lerp(self.denoiser(images), images, self.share)


# The first five names are those in the published checkpoints; ImageNet's networks have CIFAR-10's sizes.
DENOISERS: dict[str, Callable[[], nn.Module]] = {
    "cifar_dncnn": DnCNN,
    "cifar_dncnn_wide": lambda: DnCNN(width=128),
    "memnet": MemNet,
    "imagenet_dncnn": DnCNN,
    "imagenet_memnet": MemNet,
    "cifar_dncnn_small": lambda: DnCNN(depth=8, width=32),  # for a CPU: a tenth of the arithmetic of cifar_dncnn
    "photo_unet": PhotoUNet,
    "digits_dncnn": lambda: DnCNN(channels=1, depth=6, width=32),
    "digits_memnet": lambda: MemNet(channels=1, width=16, memory_blocks=2, residual_blocks=2),
}
