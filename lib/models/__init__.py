"""Every model of the kit by its name: one registry, and the functions that build or load from it.

    build_classifier("digits_cnn", data)                          random weights
    load_classifier("cohen/checkpoint.pth.tar", data)             a file: ours or a paper's
    load_classifier("timm:resnet50.a1_in1k", data)                a library's weights
    load_classifier("lite0", data)                                ImageNet's, from a package of the extra photos
    Denoised(load_denoiser("salman/best.pth.tar"), classifier)    denoised smoothing

A name or a file that does not fit the data raises ValueError, here and not at the first batch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lib.datasets import Data
from lib.models.architectures import ALIASES, CLASSIFIERS, agreed_arch, build_network, classifier_arch
from lib.models.checkpoints import Checkpoint, read_checkpoint
from lib.models.classifiers import Normalize
from lib.models.denoisers import DENOISERS, Blended, Denoised, TotalVariation
from lib.models.first_layer import Labelled, find_first_layer, first_layer
from lib.models.fitting import load_weights, misfits, renamed
from lib.models.lite0 import load_lite0
from lib.models.pretrained import PREFIXES, build_pretrained, load_pretrained

__all__ = [
    "CLASSIFIERS", "DENOISERS", "Blended", "Denoised", "Normalize", "TotalVariation",
    "build_classifier", "build_denoiser", "load_classifier", "load_denoiser",
]  # fmt: skip


def build_classifier(arch: str, data: Data, normalization: str = "standard") -> nn.Module:
    """A base classifier with random weights: images (N, C, H, W) in [0, 1] -> logits (N, K).

    `arch` is a name of CLASSIFIERS, "timm:NAME" or "torchvision:NAME". `normalization` is the first layer, a name of
    lib.models.first_layer: "standard" ((x - mean) / std of the data), "center", "imagenet", "cifar10", "none"; a
    library's network always has its own.
    """
    if not arch.startswith(PREFIXES):
        return nn.Sequential(first_layer(normalization, data), build_network(arch, data))
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
    *,
    labelled: Labelled | None = None,
    entry: str | None = None,
) -> nn.Module:
    """A trained base classifier, frozen and in eval mode (`.requires_grad_(True)` to train it further).

    A checkpoint file takes `arch` (unless it names its own), `entry` (which of several weights in it, for example
    "state_dict_ema") and `normalization`, the first layer, which no published file records: without it the layer is
    found from folder and format and by accuracy on `labelled` (images in [0, 1], labels; by default training images
    of the data), and a warning says what was taken, see `find_first_layer`. "timm:NAME" and "torchvision:NAME" take
    `weights` and `label_map`, see `load_pretrained`. "lite0" takes nothing, see lib.models.lite0.
    """
    if name_or_path == "lite0":
        return load_lite0(data)
    if not str(name_or_path).startswith(PREFIXES):
        if str(weights) != "published" or label_map is not None:
            raise ValueError(f"{weights=!r} and {label_map=!r} are for 'timm:' and 'torchvision:' names")
        classifier = _load_file(read_checkpoint(name_or_path, entry), data, arch, normalization, labelled)
    elif arch or normalization or labelled is not None or entry:
        raise ValueError(f"{name_or_path} takes neither {arch=!r} nor {normalization=!r}, labelled or {entry=!r}")
    else:
        classifier = load_pretrained(str(name_or_path), data, weights, label_map)
    return classifier.eval().requires_grad_(False)


def _load_file(
    checkpoint: Checkpoint, data: Data, arch: str | None, normalization: str | None, labelled: Labelled | None
) -> nn.Module:
    arch = classifier_arch(arch, checkpoint)
    if arch.startswith(PREFIXES):
        classifier = build_classifier(arch, data, normalization or "standard")
        load_weights(classifier.network, checkpoint, arch)
        return classifier
    layer = first_layer(normalization, data) if normalization else None  # a wrong name is told before all else
    network = build_network(arch, data, checkpoint.state)
    load_weights(network, checkpoint, arch)
    layer = layer or first_layer(find_first_layer(network, checkpoint, arch, data, labelled), data)
    return nn.Sequential(layer, network)


def build_denoiser(arch: str) -> nn.Module:
    """A denoiser of DENOISERS with random weights: images (N, C, H, W) -> images of the same shape."""
    if arch not in DENOISERS:
        raise ValueError(f"arch must be one of {sorted(DENOISERS)}, got arch={arch!r}")
    return DENOISERS[arch]()


def load_denoiser(path: str | Path, arch: str | None = None, *, entry: str | None = None) -> nn.Module:
    """A trained denoiser from a file, in eval mode but not frozen: "+MSE" trains it further.

    Where neither file nor caller name the architecture, the one of DENOISERS whose names and shapes the file has.
    """
    checkpoint = read_checkpoint(path, entry)
    names = {name for group in CLASSIFIERS.values() for name in group} | set(ALIASES)
    if checkpoint.arch in names:
        raise ValueError(f"{checkpoint.path} holds a classifier, {checkpoint.arch!r}: use load_classifier")
    arch = agreed_arch(arch or checkpoint.arch or _denoiser_that_fits(checkpoint), checkpoint, "cifar_dncnn")
    denoiser = build_denoiser(arch)
    load_weights(denoiser, checkpoint, arch)
    return denoiser.eval()


def _denoiser_that_fits(checkpoint: Checkpoint) -> str | None:
    for name, build in DENOISERS.items():
        with torch.device("meta"):  # names and shapes, no numbers
            expected = build().state_dict()
        if not misfits(renamed(checkpoint.state, expected), expected):
            return name
    return None
