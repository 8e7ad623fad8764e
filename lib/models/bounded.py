"""A first layer of bounded sensitivity, and a network split behind it: where the noise of PixelDP enters."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.classifiers import Normalize

_MARGIN = 1e-6  # the norm, of weights in float32, is taken to be this much larger


class BoundedConv2d(nn.Module):
    """A convolution divided by a bound on its l2 norm: ||layer(x) - layer(z)||_2 <= ||x - z||_2 for all images.

    Like PixelDP's first layer (Lecuyer et al. 2019), but there the kernel is only kept near a norm of 1
    during training, and the sensitivity is measured afterwards; here it is divided out in every pass, so that it is 1
    whatever the weights are, and the gradient knows of it. The bound is `convolution_norm`, for the size of the images.
    In eval mode it computes in float64: products of few bits, a GPU's habit, would be no convolution.
    `convolution`: one group, zero padding, no dilation (ValueError); its weights are trained on.
    """

    sensitivity = 1.0

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        _check(convolution)
        self.convolution = convolution
        self.training = convolution.training

    def forward(self, images: Tensor) -> Tensor:
        layer = self.convolution
        norm = convolution_norm(layer, tuple(images.shape[2:])) * (1 + _MARGIN)
        scale = 1 / norm.clamp_min(1e-12)
        if self.training:
            weight = layer.weight * scale.to(layer.weight.dtype)
            return F.conv2d(images, weight, layer.bias, layer.stride, layer.padding)
        bias = None if layer.bias is None else layer.bias.double()
        features = F.conv2d(images.double(), layer.weight.double() * scale, bias, layer.stride, layer.padding)
        return features.to(images.dtype)


class Split(nn.Module):
    """after(before(images)): a classifier in two parts, (N, C, H, W) -> (N, K), as `FeatureNoise` takes it."""

    def __init__(self, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.training = before.training or after.training

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.before(images))


def bounded_first_layer(network: nn.Module) -> Split:
    """`network` with its first convolution bounded and split off; what followed it follows the noise, as in PixelDP.

    `network`: a classifier of this kit or torchvision's ResNet, whose first layer is a convolution; it is changed in
    place. Images go in as they are, in [0, 1]: ValueError for a normalisation that changes them (build it with
    normalization="none"), or where there is no convolution.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, Normalize) and not ((module.mean == 0).all() and (module.std == 1).all()):
            raise ValueError(f'{name} normalises images, which would change the sensitivity: use normalization="none"')
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if not found or not found[0][0]:
        raise ValueError(f"network must begin with a convolution and go on behind it; got {type(network).__name__}")
    name, convolution = found[0]
    for place, module in list(network.named_modules()):
        if isinstance(module, Normalize):
            network.set_submodule(place, nn.Identity())
    network.set_submodule(name, nn.Identity())
    return Split(BoundedConv2d(convolution), network)


def convolution_norm(layer: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """An upper bound on the l2 norm of a convolution, as a map of images of `size` (H, W): a scalar, differentiable.

    A zero-padded convolution is a part of a periodic one on a torus that is one kernel larger, whose norm is the
    largest singular value over its frequencies (Sedghi et al. 2019). A stride s is none after pixels are put s x s into
    channels. So the bound is the norm itself but for the border; PixelDP's, ceil(k / s) times the norm of the kernel as
    a matrix, is never smaller. float64, from a Gram matrix of the smaller side.
    """
    _check(layer)
    weight, strides = layer.weight.double(), layer.stride
    outputs, inputs, *kernel = weight.shape
    cells = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]  # of the kernel, in steps of the stride
    room = [c * s - k for c, s, k in zip(cells, strides, kernel, strict=True)]
    weight = F.pad(weight, (0, room[1], 0, room[0]))
    weight = weight.reshape(outputs, inputs, cells[0], strides[0], cells[1], strides[1])
    weight = weight.permute(0, 1, 3, 5, 2, 4).reshape(outputs, -1, *cells)
    padding = layer.padding if not isinstance(layer.padding, str) else kernel
    torus = [-(-(n + 2 * p) // s) + c for n, p, s, c in zip(size, padding, strides, cells, strict=True)]
    matrices = torch.fft.rfft2(weight, s=torus).flatten(2).permute(2, 0, 1)  # the other half is conjugate
    if matrices.shape[1] < matrices.shape[2]:
        matrices = matrices.mH
    return torch.linalg.eigvalsh(matrices.mH @ matrices).amax().clamp_min(0).sqrt()


def _check(layer: nn.Conv2d) -> None:
    if layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
        raise ValueError(f"the norm is known for one group, zero padding and no dilation; got {layer}")
