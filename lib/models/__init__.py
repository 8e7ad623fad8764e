"""Every model of the kit by its name: one registry, and the functions that build or load from it.

    build_classifier("digits_cnn", data)                          random weights
    load_classifier("cohen/checkpoint.pth.tar", data)             a file: ours or a paper's
    load_classifier("timm:resnet50.a1_in1k", data)                a library's weights
    Denoised(load_denoiser("salman/best.pth.tar"), classifier)    denoised smoothing

A name or a file that does not fit the data raises ValueError, here and not at the first batch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from lib.datasets import IMAGENET_MEAN, IMAGENET_STD, Data
from lib.models.checkpoints import is_akamaster, load_weights, read_checkpoint
from lib.models.classifiers import CifarResNet, DigitsCNN, Normalize
from lib.models.denoisers import DENOISERS, Denoised
from lib.models.pretrained import PREFIXES, PretrainedClassifier, build_pretrained, load_pretrained
from lib.models.surrogates import CIFAR_SURROGATES, DIGITS_SURROGATES

__all__ = [
    "CLASSIFIERS", "DENOISERS", "Denoised", "Normalize",
    "build_classifier", "build_denoiser", "load_classifier", "load_denoiser",
]  # fmt: skip


def _torchvision_resnet(name: str) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        from torchvision import models

        return models.get_model(name, num_classes=num_classes)

    return build


# image_shape -> name -> builder(num_classes). Published names are the ones stored in the papers' checkpoints.
CLASSIFIERS: dict[tuple[int, int, int], dict[str, Callable[[int], nn.Module]]] = {
    (1, 8, 8): {"digits_cnn": lambda k: DigitsCNN(num_classes=k), **DIGITS_SURROGATES},
    (3, 32, 32): {
        "cifar_resnet110": lambda k: CifarResNet(110, "B", k),
        **{f"cifar_resnet{n}": (lambda k, n=n: CifarResNet(n, "A", k)) for n in (20, 32, 44, 56)},
        **CIFAR_SURROGATES,
    },
    (3, 224, 224): {name: _torchvision_resnet(name) for name in ("resnet18", "resnet34", "resnet50")},
}


def build_classifier(arch: str, data: Data, normalization: str = "standard") -> nn.Module:
    """A base classifier with random weights: images (N, C, H, W) in [0, 1] -> logits (N, K).

    `arch` is a name of CLASSIFIERS, "timm:NAME" or "torchvision:NAME". `normalization` is the first layer:
    "standard" ((x - mean) / std of the data), "center" (x - mean) or "imagenet" (ImageNet's mean and std,
    whatever the data); a library's network always has its own.
    """
    if not arch.startswith(PREFIXES):
        return nn.Sequential(_normalize(normalization, data), _network(arch, data))
    if normalization != "standard":
        raise ValueError(f"{arch} brings its own normalisation, got normalization={normalization!r}")
    return build_pretrained(arch, data)


def load_classifier(
    name_or_path: str | Path,
    data: Data,
    arch: str | None = None,
    normalization: str | None = None,
    weights: str | Path = "published",
    label_map: Sequence[int] | str | None = None,
) -> nn.Module:
    """A trained base classifier, frozen and in eval mode (`.requires_grad_(True)` to train it further).

    A checkpoint file takes `arch` (unless it names its own) and `normalization`, which no published file
    records: by default "imagenet" for akamaster's ResNets, else "standard"; some folders of Salman et al.
    (2019, SmoothAdv) need "center", and only their README says which. "timm:NAME" and "torchvision:NAME" take
    `weights` and `label_map`, see `load_pretrained`.
    """
    library = str(name_or_path).startswith(PREFIXES)
    if library and (arch or normalization):
        raise ValueError(f"{name_or_path} takes neither arch={arch!r} nor normalization={normalization!r}")
    if not library and (weights != "published" or label_map is not None):
        raise ValueError(f"weights={weights!r} and label_map={label_map!r} are for 'timm:' and 'torchvision:' names")
    if library:
        classifier = load_pretrained(str(name_or_path), data, weights, label_map)
    else:
        classifier = _load_file(name_or_path, data, arch, normalization)
    return classifier.eval().requires_grad_(False)


def _load_file(path: str | Path, data: Data, arch: str | None, normalization: str | None) -> nn.Module:
    checkpoint = read_checkpoint(path)
    arch = _known_arch(arch or checkpoint.arch, path)
    default = "imagenet" if is_akamaster(checkpoint) else "standard"
    classifier = build_classifier(arch, data, normalization or default)
    network = classifier.network if isinstance(classifier, PretrainedClassifier) else classifier[1]
    load_weights(network, checkpoint, arch)
    return classifier


def build_denoiser(arch: str) -> nn.Module:
    """A denoiser of DENOISERS with random weights: images (N, C, H, W) -> images of the same shape."""
    if arch not in DENOISERS:
        raise ValueError(f"arch must be one of {sorted(DENOISERS)}, got arch={arch!r}")
    return DENOISERS[arch]()


def load_denoiser(path: str | Path, arch: str | None = None) -> nn.Module:
    """A trained denoiser from a file, in eval mode but not frozen: "+MSE" trains it further."""
    checkpoint = read_checkpoint(path)
    arch = _known_arch(arch or checkpoint.arch, path)
    denoiser = build_denoiser(arch)
    load_weights(denoiser, checkpoint, arch)
    return denoiser.eval()


def _known_arch(arch: str | None, path: str | Path) -> str:
    if arch is None:
        raise ValueError(f"{path} does not name its architecture: pass arch, for example arch='cifar_resnet20'")
    return arch


def _network(arch: str, data: Data) -> nn.Module:
    shapes = {name: shape for shape, names in CLASSIFIERS.items() for name in names}
    if arch not in shapes:
        raise ValueError(f"arch must be 'timm:NAME', 'torchvision:NAME' or one of {sorted(shapes)}, got arch={arch!r}")
    if shapes[arch] != data.image_shape:
        raise ValueError(
            f"arch={arch!r} takes images {shapes[arch]}, the images of {data.name!r} are {data.image_shape}"
        )
    return CLASSIFIERS[data.image_shape][arch](data.num_classes)


def _normalize(normalization: str, data: Data) -> Normalize:
    choices = {
        "standard": (data.mean, data.std),
        "center": (data.mean, (1.0,) * len(data.mean)),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    }
    if normalization not in choices:
        raise ValueError(f"normalization must be one of {sorted(choices)}, got normalization={normalization!r}")
    return Normalize(*choices[normalization])
