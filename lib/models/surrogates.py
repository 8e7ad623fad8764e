"""Surrogate classifiers for black-box denoised smoothing (Salman et al. 2020, arXiv 2003.01908).

A denoiser that has only query access to its target learns with these instead.

The fourteen CIFAR-10 names are the paper's. Networks come from torchvision or timm where one of that design
exists; their stem, made for 224 pixels, is exchanged so that 32 pixels are not halved two or three times
before the first block. They follow the paper's choice of designs, not the parameter names of its checkpoints.
Builders take `num_classes` and return random weights.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.classifiers import BasicBlock, DigitsCNN, conv3x3


class WideBlock(nn.Module):
    """BN-ReLU-conv twice, and a shortcut (Zagoruyko & Komodakis 2016, Figure 1c, without dropout)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.shortcut = None if inputs == outputs else projection

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """WRN-depth-widen for 32x32 images (Zagoruyko & Komodakis 2016), depth = 6 n + 4; in neither library."""

    def __init__(self, depth: int, widen: int, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 != 0:
            raise ValueError(f"depth must be 6 n + 4 with n >= 1 (28, 40), got depth={depth}")
        blocks = (depth - 4) // 6
        layers, inputs = [conv3x3(3, 16)], 16
        for outputs, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            layers.append(WideBlock(inputs, outputs, stride))
            layers.extend(WideBlock(outputs, outputs, 1) for _ in range(blocks - 1))
            inputs = outputs
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean(dim=(2, 3)))


def _torchvision(name: str, num_classes: int, **options) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=num_classes, **options)


def _timm(name: str, num_classes: int) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=num_classes)


def _vgg(configuration: str, num_classes: int) -> nn.Module:
    from torchvision.models.vgg import cfgs, make_layers

    # Convolutions only: five poolings leave 1x1 of 32x32, no work for VGG's head of 120 million weights.
    features = make_layers(cfgs[configuration], batch_norm=True)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, num_classes))


def _resnet18(num_classes: int) -> nn.Module:
    network = _torchvision("resnet18", num_classes)
    network.conv1, network.maxpool = conv3x3(3, 64), nn.Identity()
    return network


def _preact_resnet18(num_classes: int) -> nn.Module:
    network = _timm("resnetv2_18", num_classes)
    network.stem = conv3x3(3, 64)
    return network


def _senet18(num_classes: int) -> nn.Module:
    network = _timm("seresnet18", num_classes)
    network.conv1, network.maxpool = conv3x3(3, 64), nn.Identity()
    return network


def _resnext29(num_classes: int) -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    shape = {"layers": (3, 3, 3), "channels": (64, 128, 256), "cardinality": 2, "base_width": 64}
    network = ResNet(Bottleneck, num_classes=num_classes, **shape)
    network.conv1, network.maxpool = conv3x3(3, 64), nn.Identity()
    network.layer4 = nn.Identity()  # three stages on 32 pixels; timm's forward asks for a fourth
    return network


def _mobilenet(num_classes: int) -> nn.Module:
    network = _timm("mobilenetv1_100", num_classes)
    network.conv_stem.stride = (1, 1)
    return network


def _mobilenet_v2(num_classes: int) -> nn.Module:
    # Expansion, channels, blocks, stride of Sandler et al. (2018, Table 2), the second stage with stride 1.
    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2]]
    stages += [[6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    network = _torchvision("mobilenet_v2", num_classes, inverted_residual_setting=stages)
    network.features[0][0].stride = (1, 1)
    return network


def _shufflenet_v2(num_classes: int) -> nn.Module:
    network = _torchvision("shufflenet_v2_x1_0", num_classes)
    network.conv1[0].stride, network.maxpool = (1, 1), nn.Identity()
    return network


def _efficientnet_b0(num_classes: int) -> nn.Module:
    network = _torchvision("efficientnet_b0", num_classes)
    network.features[0][0].stride = (1, 1)
    return network


def _googlenet(num_classes: int) -> nn.Module:
    network = _torchvision("googlenet", num_classes, aux_logits=False, init_weights=True)
    network.conv1.conv, network.maxpool1, network.maxpool2 = conv3x3(3, 64), nn.Identity(), nn.Identity()
    return network


def _densenet121(num_classes: int) -> nn.Module:
    network = _torchvision("densenet121", num_classes)
    network.features.conv0, network.features.pool0 = conv3x3(3, 64), nn.Identity()
    return network


def _digits_mlp(num_classes: int) -> nn.Module:
    hidden = (nn.Linear(64, 256), nn.ReLU(inplace=True), nn.Linear(256, 256), nn.ReLU(inplace=True))
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, num_classes))


def _digits_resnet(num_classes: int) -> nn.Module:
    blocks = (BasicBlock(32, 32, 1, "B"), BasicBlock(32, 64, 2, "B"))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    return nn.Sequential(conv3x3(1, 32), nn.BatchNorm2d(32), nn.ReLU(inplace=True), *blocks, *head)


CIFAR_SURROGATES: dict[str, Callable[[int], nn.Module]] = {
    "WRN-28-10": lambda k: WideResNet(28, 10, k),
    "WRN-40-10": lambda k: WideResNet(40, 10, k),
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
