"""The classifiers of the kit by name, and which of them a file was made for."""

from collections.abc import Callable, Iterable

from torch import nn

from lib.datasets import Data
from lib.models.checkpoints import Checkpoint
from lib.models.classifiers import CifarResNet, DigitsCNN
from lib.models.denoisers import DENOISERS
from lib.models.surrogates import CIFAR_SURROGATES, DIGITS_SURROGATES

DEPTHS = {"cifar_resnet110": 110, **{f"cifar_resnet{depth}": depth for depth in (20, 32, 44, 56)}}

# Names in released files -> ours: SmoothAdv's networks for ImageNet at 32 pixels, and Salman et al.'s surrogates.
ALIASES = {
    "imagenet32_resnet110": "cifar_resnet110",
    "imagenet32_wrn": "WRN-28-10",
    "cifar_wrn": "WRN-28-10",
    "cifar_wrn40": "WRN-40-10",
}


def _torchvision_resnet(name: str) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        from torchvision import models

        return models.get_model(name, num_classes=num_classes)

    return build


def _cifar_resnet(name: str, shortcut: str) -> Callable[[int], nn.Module]:
    return lambda num_classes: CifarResNet(DEPTHS[name], shortcut, num_classes)


# image_shape -> name -> builder(num_classes). Published names are the ones stored in the papers' checkpoints.
CLASSIFIERS: dict[tuple[int, int, int], dict[str, Callable[[int], nn.Module]]] = {
    (1, 8, 8): {"digits_cnn": lambda k: DigitsCNN(num_classes=k), **DIGITS_SURROGATES},
    (3, 32, 32): {
        **{name: _cifar_resnet(name, "B" if name == "cifar_resnet110" else "A") for name in DEPTHS},
        "cifar_resnet14_wide": lambda k: CifarResNet(14, "B", k, width=64, stride=2),
        **CIFAR_SURROGATES,
    },
    (3, 224, 224): {name: _torchvision_resnet(name) for name in ("resnet18", "resnet34", "resnet50")},
}


def build_network(arch: str, data: Data, names: Iterable[str] = ()) -> nn.Module:
    """The network without its first layer, random weights. ValueError for an unknown name or other images.

    `names` are the weights that it shall take: a CIFAR ResNet gets 1x1 convolutions in its shortcuts (option B, Cohen
    et al.'s) where they have them, and padding (option A, akamaster's) where they do not.
    """
    arch = ALIASES.get(arch, arch)
    shapes = {name: shape for shape, group in CLASSIFIERS.items() for name in group}
    if arch not in shapes:
        raise ValueError(f"arch must be 'timm:NAME', 'torchvision:NAME' or one of {sorted(shapes)}, got arch={arch!r}")
    if shapes[arch] != data.image_shape:
        raise ValueError(
            f"arch={arch!r} takes images {shapes[arch]}, the images of {data.name!r} are {data.image_shape}"
        )
    names = list(names)
    if arch in DEPTHS and names:
        shortcut = "B" if any("downsample.0." in name for name in names) else "A"
        return _cifar_resnet(arch, shortcut)(data.num_classes)
    return CLASSIFIERS[data.image_shape][arch](data.num_classes)


def classifier_arch(asked: str | None, checkpoint: Checkpoint) -> str:
    """The name of the classifier in a file. ValueError where file and caller differ, or neither names it."""
    if checkpoint.arch in DENOISERS:
        raise ValueError(f"{checkpoint.path} holds a denoiser, {checkpoint.arch!r}: use load_denoiser")
    return agreed_arch(asked, checkpoint, "cifar_resnet20")


def agreed_arch(asked: str | None, checkpoint: Checkpoint, example: str) -> str:
    """What the file or the caller calls the network. ValueError where the two differ, or none of them does."""
    stored, asked = (ALIASES.get(name, name) for name in (checkpoint.arch, asked))
    if stored is None and asked is None:
        raise ValueError(f"{checkpoint.path} does not name its architecture: pass arch, for example arch={example!r}")
    if stored is not None and asked not in (None, stored):
        raise ValueError(f"{checkpoint.path} holds arch {checkpoint.arch!r}, asked for arch={asked!r}")
    return asked or stored
