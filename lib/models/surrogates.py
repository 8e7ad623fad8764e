"""Surrogate classifiers for black-box denoised smoothing (Salman et al. 2020, arXiv 2003.01908).

A denoiser that has only query access to its target learns with these instead. The fourteen CIFAR-10 networks have the
layer names of the authors' released files: twelve of kuangliu/pytorch-cifar as it was in early 2020, and the wide
ResNets of xternalz/WideResNet-pytorch. Builders take `num_classes` and return random weights.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from lib.models.classifiers import BasicBlock, DigitsCNN, conv3x3
from lib.models.surrogate_blocks import (
    ConvBlock,
    DenseLayer,
    EfficientBlock,
    Inception,
    PreActBlock,
    ShuffleBlock,
    ShuffleDown,
    biased,
    conv,
    inverted,
    named,
)


def _stack(block: Callable[..., nn.Module], inputs: int, outputs: int, count: int, stride: int) -> nn.Sequential:
    """`count` blocks, the first of which changes the width and halves the image if `stride` is 2."""
    rest = (block(outputs, outputs, 1) for _ in range(count - 1))
    return nn.Sequential(block(inputs, outputs, stride), *rest)


def _chain(head: str, width: int, num_classes: int, **layers: nn.Module) -> nn.Sequential:
    """`layers` one after another, the mean over pixels, and a linear layer called `head`."""
    end = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), head: nn.Linear(width, num_classes)}
    return named(**layers, **end)


def wide_resnet(depth: int, widen: int, num_classes: int = 10) -> nn.Module:
    """WRN-depth-widen (Zagoruyko & Komodakis 2016), depth = 6 n + 4."""
    if depth < 10 or (depth - 4) % 6 != 0:
        raise ValueError(f"depth must be 6 n + 4 with n >= 1 (28, 40), got depth={depth}")

    def block(inputs: int, outputs: int, stride: int) -> PreActBlock:
        return PreActBlock(inputs, outputs, stride, wide=True)

    layers, inputs = {"conv1": conv3x3(3, 16)}, 16
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), 1):
        layers[f"block{stage}"] = named(layer=_stack(block, inputs, width, (depth - 4) // 6, min(stage, 2)))
        inputs = width
    return _chain("fc", inputs, num_classes, **layers, bn1=nn.BatchNorm2d(inputs))


def _vgg(configuration: str, num_classes: int) -> nn.Module:
    from torchvision.models.vgg import cfgs, make_layers

    # Convolutions only: five poolings leave 1x1 of 32x32, no work for VGG's head of 120 million weights.
    return _chain("classifier", 512, num_classes, features=make_layers(cfgs[configuration], batch_norm=True))


def _basic(inputs: int, outputs: int, stride: int) -> ConvBlock:
    return ConvBlock((conv3x3(inputs, outputs, stride), conv3x3(outputs, outputs)), "always")


def _four_stages(block: Callable[..., nn.Module]) -> dict[str, nn.Module]:
    widths = (64, 64, 128, 256, 512)
    return {f"layer{i}": _stack(block, widths[i - 1], widths[i], 2, min(i, 2)) for i in range(1, 5)}


def _resnet18(num_classes: int) -> nn.Module:
    stem = {"conv1": conv3x3(3, 64), "bn1": nn.BatchNorm2d(64)}
    return _chain("linear", 512, num_classes, **stem, **_four_stages(_basic))


def _preact_resnet18(num_classes: int) -> nn.Module:
    return _chain("linear", 512, num_classes, conv1=conv3x3(3, 64), **_four_stages(PreActBlock))


def _senet18(num_classes: int) -> nn.Module:
    stem = {"conv1": conv3x3(3, 64), "bn1": nn.BatchNorm2d(64)}
    stages = _four_stages(lambda inputs, outputs, stride: PreActBlock(inputs, outputs, stride, squeeze=True))
    return _chain("linear", 512, num_classes, **stem, **stages)


def _resnext29(num_classes: int) -> nn.Module:
    """2 groups of 64 channels, doubled at each of three stages; a block leaves twice its inner width."""

    def block(inputs: int, outputs: int, stride: int) -> ConvBlock:
        width = outputs // 2
        grouped = conv(width, width, 3, stride, groups=2)
        return ConvBlock((conv(inputs, width, 1), grouped, conv(width, outputs, 1)), "always")

    widths = (64, 256, 512, 1024)
    stages = {f"layer{i}": _stack(block, widths[i - 1], widths[i], 3, min(i, 2)) for i in range(1, 4)}
    return _chain("linear", 1024, num_classes, conv1=conv(3, 64, 1), bn1=nn.BatchNorm2d(64), **stages)


def _mobilenet(num_classes: int) -> nn.Module:
    widths, blocks = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024), []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        depthwise = conv(inputs, inputs, 3, 2 if i in (1, 3, 5, 11) else 1, groups=inputs)
        norms = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        blocks.append(named(conv1=depthwise, bn1=norms[0], conv2=conv(inputs, outputs, 1), bn2=norms[1]))
    stem = {"conv1": conv3x3(3, 32), "bn1": nn.BatchNorm2d(32)}
    return _chain("linear", 1024, num_classes, **stem, layers=nn.Sequential(*blocks))


def _expanding(block: Callable[..., nn.Module], stages: Sequence[tuple[int, int, int, int]]) -> dict[str, nn.Module]:
    """The stem, and `layers`: (expansion, outputs, blocks, stride of the first) for each stage."""
    blocks, inputs = [], 32
    for expansion, outputs, count, stride in stages:
        for i in range(count):
            blocks.append(block(inputs, outputs, expansion, 1 if i else stride))
            inputs = outputs
    return {"conv1": conv3x3(3, 32), "bn1": nn.BatchNorm2d(32), "layers": nn.Sequential(*blocks)}


def _mobilenet_v2(num_classes: int) -> nn.Module:
    # Sandler et al. (2018, Table 2), the second stage with stride 1.
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    body = _expanding(lambda *shape: ConvBlock(inverted(*shape), "stride 1"), stages)
    return _chain("linear", 1280, num_classes, **body, conv2=conv(320, 1280, 1), bn2=nn.BatchNorm2d(1280))


def _efficientnet_b0(num_classes: int) -> nn.Module:
    # Tan & Le (2019, Table 1), with other strides and 3x3 kernels throughout.
    stages = (
        (1, 16, 1, 2),
        (6, 24, 2, 1),
        (6, 40, 2, 2),
        (6, 80, 3, 2),
        (6, 112, 3, 1),
        (6, 192, 4, 2),
        (6, 320, 1, 2),
    )
    return _chain("linear", 320, num_classes, **_expanding(EfficientBlock, stages))


def _shufflenet_v2(num_classes: int) -> nn.Module:
    widths, counts = (24, 116, 232, 464), (3, 7, 3)
    stages = {
        f"layer{i}": nn.Sequential(ShuffleDown(widths[i - 1], widths[i]), *(ShuffleBlock(widths[i]) for _ in range(n)))
        for i, n in enumerate(counts, 1)
    }
    layers = {"conv1": conv3x3(3, 24), "bn1": nn.BatchNorm2d(24), **stages}
    return _chain("linear", 1024, num_classes, **layers, conv2=conv(464, 1024, 1), bn2=nn.BatchNorm2d(1024))


def _googlenet(num_classes: int) -> nn.Module:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, padding=1)

    return _chain(
        "linear", 1024, num_classes,
        pre_layers=nn.Sequential(*biased(3, 192, 3)),
        a3=Inception(192, 64, (96, 128), (16, 32), 32),
        b3=Inception(256, 128, (128, 192), (32, 96), 64),
        pool3=pool(),
        a4=Inception(480, 192, (96, 208), (16, 48), 64),
        b4=Inception(512, 160, (112, 224), (24, 64), 64),
        c4=Inception(512, 128, (128, 256), (24, 64), 64),
        d4=Inception(512, 112, (144, 288), (32, 64), 64),
        e4=Inception(528, 256, (160, 320), (32, 128), 128),
        pool4=pool(),
        a5=Inception(832, 256, (160, 320), (32, 128), 128),
        b5=Inception(832, 384, (192, 384), (48, 128), 128),
    )  # fmt: skip


def _densenet121(num_classes: int) -> nn.Module:
    layers, width, growth = {"conv1": conv3x3(3, 64)}, 64, 32
    for stage, count in enumerate((6, 12, 24, 16), 1):
        layers[f"dense{stage}"] = nn.Sequential(*(DenseLayer(width + i * growth, growth) for i in range(count)))
        width += count * growth
        if stage < 4:  # half the channels and half the image between stages
            narrow = conv(width, width // 2, 1)
            layers[f"trans{stage}"] = named(bn=nn.BatchNorm2d(width), conv=narrow, pool=nn.AvgPool2d(2))
            width //= 2
    return _chain("linear", width, num_classes, **layers, bn=nn.BatchNorm2d(width))


def _digits_mlp(num_classes: int) -> nn.Module:
    hidden = (nn.Linear(64, 256), nn.ReLU(inplace=True), nn.Linear(256, 256), nn.ReLU(inplace=True))
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, num_classes))


def _digits_resnet(num_classes: int) -> nn.Module:
    blocks = (BasicBlock(32, 32, 1, "B"), BasicBlock(32, 64, 2, "B"))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    return nn.Sequential(conv3x3(1, 32), nn.BatchNorm2d(32), nn.ReLU(inplace=True), *blocks, *head)


CIFAR_SURROGATES: dict[str, Callable[[int], nn.Module]] = {
    "WRN-28-10": lambda k: wide_resnet(28, 10, k),
    "WRN-40-10": lambda k: wide_resnet(40, 10, k),
    "VGG16": lambda k: _vgg("D", k),
    "VGG19": lambda k: _vgg("E", k),
    "ResNet18": _resnet18,
    "PreActResNet18": _preact_resnet18,
    "ResNeXt29_2x64d": _resnext29,
    "MobileNet": _mobilenet,
    "MobileNetV2": _mobilenet_v2,
    "SENet18": _senet18,
    "ShuffleNetV2": _shufflenet_v2,
    "EfficientNetB0": _efficientnet_b0,
    "GoogLeNet": _googlenet,
    "DenseNet121": _densenet121,
}

# Networks of different designs, none of them the target `digits_cnn`.
DIGITS_SURROGATES: dict[str, Callable[[int], nn.Module]] = {
    "digits_mlp": _digits_mlp,
    "digits_cnn_wide": lambda k: DigitsCNN(64, k),
    "digits_resnet": _digits_resnet,
}
