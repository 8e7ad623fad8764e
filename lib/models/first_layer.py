"""The layer before a published network: no file records it, so it is found by folder, format or accuracy, and said.

Noise is added in [0, 1]; what the network itself was trained on is "standard" ((x - mean) / std of the data), "center"
(x - mean), "imagenet" (ImageNet's mean and std), "cifar10" (CIFAR-10's) or "none" (raw pixels). With the wrong one a
network still answers, only worse.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.datasets import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Data, holdout, stack
from lib.models.architectures import DEPTHS
from lib.models.checkpoints import Checkpoint
from lib.models.classifiers import Normalize

IMAGES = 200  # training images that tell the layers apart; 10 already do for a network of 80 %
AUTHORS = "SmoothAdv's release"
# Folders of that release. Its README: these two, and imagenet32, are normalised, everything else is centered.
NORMALISED = ("finetune_cifar_from_imagenetPGD2steps", "self_training")
ATTACKS = re.compile(r"((PGD|DDN)_\d+steps?.*|eps_\d+)")

Labelled = tuple[Tensor, Tensor]


def first_layer(normalization: str, data: Data) -> Normalize:
    """The layer of that name. ValueError for an unknown one, or one for colours before grey images."""
    channels = len(data.mean)
    choices = {
        "standard": (data.mean, data.std),
        "center": (data.mean, (1.0,) * channels),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "none": ((0.0,) * channels, (1.0,) * channels),
        "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
    }
    if normalization not in choices:
        raise ValueError(f"normalization must be one of {sorted(choices)}, got normalization={normalization!r}")
    layer = Normalize(*choices[normalization])
    if len(layer.mean) != channels:
        raise ValueError(f"normalization={normalization!r} is for 3 channels, {data.name!r} has {channels}")
    return layer


def find_first_layer(
    network: nn.Module, checkpoint: Checkpoint, arch: str, data: Data, labelled: Labelled | None = None
) -> str:
    """The name of the layer before `network`, which has the weights of `checkpoint`.

    Where more than one is possible, the likeliest is taken unless another one is clearly more accurate on `labelled`
    (images (N, C, H, W) in [0, 1], labels), by default 200 training images of the data; never on test images. A
    warning then names the choice, the reason and the accuracies.
    """
    names, reason = possible(checkpoint, arch)
    layers = _different({name: first_layer(name, data) for name in names if _suits(name, data)})
    if len(layers) == 1:
        return next(iter(layers))
    if labelled is None and data.train is not None:
        labelled = images_of_training(data)
    if labelled is None:
        chosen, measured = next(iter(layers)), "no labelled images to check it with"
    else:
        correct = _correct(network, layers, *_checked(labelled, data))
        chosen, measured = _best(correct), _words(correct)
    warnings.warn(
        f"{checkpoint.path}: its first layer is taken to be normalization={chosen!r} ({reason}; {measured}). "
        f"Pass normalization=… for another one of {list(layers)}",
        stacklevel=4,
    )
    return chosen


def possible(checkpoint: Checkpoint, arch: str) -> tuple[tuple[str, ...], str]:
    """Which layers the file may need, the likeliest first, and why; one where the format leaves no doubt."""
    keys = checkpoint.state
    if checkpoint.ours:
        return ("standard",), "trained by this kit"
    if arch in DEPTHS and any(key.endswith("linear.weight") for key in keys):
        return ("imagenet",), "akamaster's format"
    if (checkpoint.arch or "").startswith("imagenet32_"):
        return ("cifar10",), f"{AUTHORS}: ImageNet at 32 pixels"
    folder = _folder(checkpoint.path)
    if folder in NORMALISED:
        return ("standard", "center"), f"the folder {folder} of {AUTHORS}"
    if folder:
        return ("center", "standard"), f"the folder {folder} of {AUTHORS}"
    if all(key.startswith("1.") for key in keys):
        return ("standard", "center"), "as Cohen et al. save it; SmoothAdv's files look alike, and most are centered"
    if checkpoint.entry == "net" and arch in DEPTHS:
        return ("none", "standard", "center", "imagenet"), "MACER's format, which is trained on raw pixels"
    return ("standard", "center", "imagenet", "none"), "nothing in the file tells"


def images_of_training(data: Data) -> Labelled:
    """Up to 200 training images from all over the set, without augmentation and without drawing random numbers."""
    train = data.train
    if not hasattr(train, "tensors"):  # images on the disk, seen with the test transform
        train = holdout(train, IMAGES, seed=0)[1] if len(train) > IMAGES else train
    ids = torch.linspace(0, len(train) - 1, min(IMAGES, len(train))).long().tolist()
    return stack(train, ids)


def _folder(path: Path) -> str | None:
    """The folder that shows a file to be of SmoothAdv's release."""
    parts = path.absolute().parent.parts
    named = next((part for part in parts if part in NORMALISED), None)
    return named or next((part for part in parts if ATTACKS.fullmatch(part)), None)


def _suits(name: str, data: Data) -> bool:
    return len(data.mean) == 3 or name not in ("imagenet", "cifar10")


def _different(layers: Mapping[str, Normalize]) -> dict[str, Normalize]:
    """Of layers that compute the same, the first."""
    kept: dict[str, Normalize] = {}
    for name, layer in layers.items():
        if not any(torch.equal(layer.mean, k.mean) and torch.equal(layer.std, k.std) for k in kept.values()):
            kept[name] = layer
    return kept


def _checked(labelled: Labelled, data: Data) -> Labelled:
    images, labels = labelled
    labels = torch.as_tensor(labels)
    if len(images) != len(labels) or not len(images) or tuple(images.shape[1:]) != data.image_shape:
        found = f"images {tuple(images.shape)} and {len(labels)} labels"
        raise ValueError(f"labelled must be N >= 1 images of shape {data.image_shape} and N labels, got {found}")
    if labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < data.num_classes:
        raise ValueError(f"labelled must have whole labels 0..{data.num_classes - 1}, got {labels.tolist()[:8]}")
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError(f"labelled images must lie in [0, 1], got [{images.min():.3g}, {images.max():.3g}]")
    return images, labels


@torch.no_grad()
def _correct(network: nn.Module, layers: Mapping[str, Normalize], images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Which images each layer gets right: (N,) bool."""
    network.eval()
    return {
        name: torch.cat([network(layer(batch)).argmax(1) for batch in images.split(50)]) == labels
        for name, layer in layers.items()
    }


def _best(correct: Mapping[str, Tensor]) -> str:
    """The first, unless another is better by more than two standard errors of the difference (McNemar's test)."""
    best = next(iter(correct))
    for name, right in correct.items():
        won, lost = int((right & ~correct[best]).sum()), int((correct[best] & ~right).sum())
        if won - lost > 2 * (won + lost) ** 0.5:
            best = name
    return best


def _words(correct: Mapping[str, Tensor]) -> str:
    count = len(next(iter(correct.values())))
    accuracies = ", ".join(f"{name} {right.float().mean():.3f}" for name, right in correct.items())
    return f"accuracy on {count} labelled images: {accuracies}"
